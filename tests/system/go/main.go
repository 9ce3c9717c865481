// The Go SDK's event sourced functions and nothing else: its own model services, which emit, forward, cause
// side effects and fail as the request tells them, and its shopping cart. Its own command with these,
// tck_eventsourced, serves all kinds in one process.
package main

import (
	"log"
	"time"

	"github.com/cloudstateio/go-support/cloudstate"
	"github.com/cloudstateio/go-support/cloudstate/eventsourced"
	"github.com/cloudstateio/go-support/cloudstate/protocol"
	"github.com/cloudstateio/go-support/example/shoppingcart"
	model "github.com/cloudstateio/go-support/tck/eventsourced"
)

func main() {
	server, err := cloudstate.New(protocol.Config{ServiceName: "event-sourced", ServiceVersion: "1"})
	if err != nil {
		log.Fatal(err)
	}
	register := func(entity *eventsourced.Entity, config protocol.DescriptorConfig,
		options ...eventsourced.Option) {
		if err := server.RegisterEventSourced(entity, config, options...); err != nil {
			log.Fatal(err)
		}
	}
	models := protocol.DescriptorConfig{Service: "eventsourced.proto"}
	register(&eventsourced.Entity{ServiceName: "cloudstate.tck.model.EventSourcedTckModel",
		PersistenceID: "model", SnapshotEvery: 5, EntityFunc: model.NewTestModel}, models)
	register(&eventsourced.Entity{ServiceName: "cloudstate.tck.model.EventSourcedTwo",
		PersistenceID: "two", SnapshotEvery: 5, EntityFunc: model.NewTestModelTwo}, models)
	register(&eventsourced.Entity{ServiceName: "cloudstate.tck.model.EventSourcedConfigured",
		PersistenceID: "configured", SnapshotEvery: 5,
		EntityFunc: model.NewEventSourcedConfiguredEntity},
		models, eventsourced.WithPassivationStrategyTimeout(100*time.Millisecond))
	register(&eventsourced.Entity{ServiceName: "com.example.shoppingcart.ShoppingCart",
		PersistenceID: "ShoppingCart", SnapshotEvery: 5, EntityFunc: shoppingcart.NewShoppingCart},
		protocol.DescriptorConfig{Service: "shoppingcart.proto"}.AddDomainDescriptor("domain.proto"))
	log.Fatal(server.Run())
}
