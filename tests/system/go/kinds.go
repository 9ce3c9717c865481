// The Go SDK's functions of every kind that needs no merging: its model services of event sourced and
// value entities, and of actions. Its own command, tck_eventsourced, has its
// CRDTs besides.
package main

import (
	"log"
	"time"

	"github.com/cloudstateio/go-support/cloudstate"
	"github.com/cloudstateio/go-support/cloudstate/action"
	"github.com/cloudstateio/go-support/cloudstate/eventsourced"
	"github.com/cloudstateio/go-support/cloudstate/protocol"
	"github.com/cloudstateio/go-support/cloudstate/value"
	actionmodel "github.com/cloudstateio/go-support/tck/action"
	esmodel "github.com/cloudstateio/go-support/tck/eventsourced"
	valuemodel "github.com/cloudstateio/go-support/tck/value"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	server, err := cloudstate.New(protocol.Config{ServiceName: "kinds", ServiceVersion: "1"})
	must(err)
	events := protocol.DescriptorConfig{Service: "eventsourced.proto"}
	must(server.RegisterEventSourced(&eventsourced.Entity{
		ServiceName: "cloudstate.tck.model.EventSourcedTckModel", PersistenceID: "model",
		SnapshotEvery: 5, EntityFunc: esmodel.NewTestModel}, events))
	must(server.RegisterEventSourced(&eventsourced.Entity{
		ServiceName: "cloudstate.tck.model.EventSourcedTwo", PersistenceID: "two", SnapshotEvery: 5,
		EntityFunc: esmodel.NewTestModelTwo}, events))
	actions := protocol.DescriptorConfig{Service: "tck_action.proto"}
	must(server.RegisterAction(&action.Entity{
		ServiceName: "cloudstate.tck.model.action.ActionTckModel",
		EntityFunc:  actionmodel.NewTestModel}, actions))
	must(server.RegisterAction(&action.Entity{
		ServiceName: "cloudstate.tck.model.action.ActionTwo",
		EntityFunc:  actionmodel.NewTestModelTwo}, actions))
	values := protocol.DescriptorConfig{Service: "tck_valueentity.proto"}
	must(server.RegisterValueEntity(&value.Entity{
		ServiceName: "cloudstate.tck.model.valueentity.ValueEntityTckModel", PersistenceID: "value",
		EntityFunc: valuemodel.NewValueEntityTckModelEntity}, values))
	must(server.RegisterValueEntity(&value.Entity{
		ServiceName: "cloudstate.tck.model.valueentity.ValueEntityTwo", PersistenceID: "value-two",
		EntityFunc: valuemodel.NewValueEntityTckModelEntityTwo}, values))
	must(server.RegisterValueEntity(&value.Entity{
		ServiceName:   "cloudstate.tck.model.valueentity.ValueEntityConfigured",
		PersistenceID: "value-configured", EntityFunc: valuemodel.NewValueEntityConfiguredEntity}, values,
		value.WithPassivationStrategyTimeout(100*time.Millisecond)))
	log.Fatal(server.Run())
}
