// Actions on the Go SDK whose services are described here: methods with topics, in and out. The first is the SDK's own
// model action, called by a client; the second is called by what the first publishes, and publishes in its turn.
package main

import (
	"bytes"
	"compress/gzip"
	"log"

	"github.com/cloudstateio/go-support/cloudstate"
	"github.com/cloudstateio/go-support/cloudstate/action"
	"github.com/cloudstateio/go-support/cloudstate/encoding"
	"github.com/cloudstateio/go-support/cloudstate/protocol"
	model "github.com/cloudstateio/go-support/tck/action"
	"github.com/golang/protobuf/proto"
	"github.com/golang/protobuf/protoc-gen-go/descriptor"
)

const (
	file     = "cairn_topics.proto"
	services = "cairn.topics.go."
	request  = ".cloudstate.tck.model.action.Request"
	response = ".cloudstate.tck.model.action.Response"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// A service with one method.
func service(name, method, input string, topics *cloudstate.Eventing) *descriptor.ServiceDescriptorProto {
	options := &descriptor.MethodOptions{}
	must(proto.SetExtension(options, cloudstate.E_Eventing, topics))
	return &descriptor.ServiceDescriptorProto{Name: proto.String(name),
		Method: []*descriptor.MethodDescriptorProto{{Name: proto.String(method),
			InputType: proto.String(input), OutputType: proto.String(response), Options: options}}}
}

// As protoc-gen-go's code would register it.
func register() {
	to := func(topic string) *cloudstate.EventDestination {
		return &cloudstate.EventDestination{Destination: &cloudstate.EventDestination_Topic{Topic: topic}}
	}
	from := &cloudstate.EventSource{Source: &cloudstate.EventSource_Topic{Topic: "first"}}
	described, err := proto.Marshal(&descriptor.FileDescriptorProto{
		Name: proto.String(file), Package: proto.String("cairn.topics.go"), Syntax: proto.String("proto3"),
		Dependency: []string{"tck_action.proto", "cloudstate/eventing.proto"},
		Service: []*descriptor.ServiceDescriptorProto{
			service("First", "Do", request, &cloudstate.Eventing{Out: to("first")}),
			service("Second", "Heard", response, &cloudstate.Eventing{In: from, Out: to("second")})}})
	must(err)
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err = w.Write(described)
	must(err)
	must(w.Close())
	proto.RegisterFile(file, packed.Bytes())
}

type second struct{}

func (*second) HandleCommand(ctx *action.Context, name string, message proto.Message) error {
	heard := message.(*model.Response)
	answer, err := encoding.MarshalAny(&model.Response{Message: "heard " + heard.GetMessage()})
	if err != nil {
		return err
	}
	ctx.RespondWith(answer)
	return nil
}

func main() {
	register()
	config := protocol.DescriptorConfig{Service: file}
	server, err := cloudstate.New(protocol.Config{ServiceName: "topics", ServiceVersion: "1"})
	must(err)
	must(server.RegisterAction(&action.Entity{ServiceName: services + "First",
		EntityFunc: model.NewTestModel}, config))
	must(server.RegisterAction(&action.Entity{ServiceName: services + "Second",
		EntityFunc: func() action.EntityHandler { return &second{} }}, config))
	log.Fatal(server.Run())
}
