// The Go SDK's CRDT model services and nothing else. Its own command with these, tck_eventsourced, serves all
// kinds in one process.
package main

import (
	"log"
	"time"

	"github.com/cloudstateio/go-support/cloudstate"
	"github.com/cloudstateio/go-support/cloudstate/crdt"
	"github.com/cloudstateio/go-support/cloudstate/protocol"
	model "github.com/cloudstateio/go-support/tck/crdt2"
)

func main() {
	server, err := cloudstate.New(protocol.Config{ServiceName: "crdt", ServiceVersion: "1"})
	if err != nil {
		log.Fatal(err)
	}
	register := func(service crdt.ServiceName, entity func(id crdt.EntityID) crdt.EntityHandler,
		options ...crdt.Option) {
		err := server.RegisterCRDT(&crdt.Entity{ServiceName: "cloudstate.tck.model.crdt." + service,
			EntityFunc: entity},
			protocol.DescriptorConfig{Service: "tck_crdt2.proto"}, options...)
		if err != nil {
			log.Fatal(err)
		}
	}
	register("CrdtTckModel", model.NewCrdtTckModelEntity)
	register("CrdtTwo", model.NewCrdtTwoEntity)
	register("CrdtConfigured", model.NewCrdtConfiguredEntity,
		crdt.WithPassivationStrategyTimeout(100*time.Millisecond))
	log.Fatal(server.Run())
}
