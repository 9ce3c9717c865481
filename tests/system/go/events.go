// The Go SDK's model services of event logs: two event sourced entities, and the action that their events call.
// Its own command, tck_eventsourced, has them among services of all kinds.
package main

import (
	"log"

	"github.com/cloudstateio/go-support/cloudstate"
	"github.com/cloudstateio/go-support/cloudstate/action"
	"github.com/cloudstateio/go-support/cloudstate/eventsourced"
	"github.com/cloudstateio/go-support/cloudstate/protocol"
	model "github.com/cloudstateio/go-support/tck/eventlogeventing"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	const services = "cloudstate.tck.model.eventlogeventing."
	config := protocol.DescriptorConfig{Service: "eventlogeventing.proto"}
	server, err := cloudstate.New(protocol.Config{ServiceName: "event-logs", ServiceVersion: "1"})
	must(err)
	must(server.RegisterAction(&action.Entity{ServiceName: services + "EventLogSubscriberModel",
		EntityFunc: func() action.EntityHandler { return &model.EventLogSubscriberModel{} }}, config))
	must(server.RegisterEventSourced(&eventsourced.Entity{ServiceName: services + "EventSourcedEntityOne",
		PersistenceID: "eventlogeventing-one",
		EntityFunc: func(eventsourced.EntityID) eventsourced.EntityHandler {
			return &model.EventSourcedEntityOne{}
		}}, config))
	must(server.RegisterEventSourced(&eventsourced.Entity{ServiceName: services + "EventSourcedEntityTwo",
		PersistenceID: "eventlogeventing-two",
		EntityFunc: func(eventsourced.EntityID) eventsourced.EntityHandler {
			return &model.EventSourcedEntityTwo{}
		}}, config))
	log.Fatal(server.Run())
}
