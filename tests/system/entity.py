"""The messages of one event sourced entity, as both sides of its stream send them."""

from google.protobuf import any_pb2

import protos
from records import FromFunction, ToFunction

_es = protos.event_sourced
_cs = protos.cloudstate


def pack(message):
    """An Any as the protocol has it: type.googleapis.com/ and the message's own bytes."""
    if isinstance(message, any_pb2.Any):
        return message
    return any_pb2.Any(type_url="type.googleapis.com/" + message.DESCRIPTOR.full_name,
                       value=message.SerializeToString(deterministic=True))


class Entity:
    """Builds the records that an entity's stream consists of. Every method's result can be expected from a
    StreamView; `.message` of it can be sent."""

    def __init__(self, service, entity_id):
        self.service, self.entity_id = service, entity_id

    def init(self, snapshot=None, sequence=0):
        message = _es.EventSourcedInit(service_name=self.service, entity_id=self.entity_id)
        if snapshot is not None:
            message.snapshot.snapshot_sequence = sequence
            message.snapshot.snapshot.CopyFrom(pack(snapshot))
        return ToFunction(_es.EventSourcedStreamIn(init=message))

    def event(self, sequence, payload):
        return ToFunction(_es.EventSourcedStreamIn(
            event=_es.EventSourcedEvent(sequence=sequence, payload=pack(payload))))

    def command(self, command_id, name, payload):
        return ToFunction(_es.EventSourcedStreamIn(command=_cs.Command(
            entity_id=self.entity_id, id=command_id, name=name, payload=pack(payload))))

    def reply(self, command_id, payload=None, events=(), snapshot=None, effects=()):
        """A reply with its payload; None: without any client action."""
        message = _es.EventSourcedReply(command_id=command_id, events=[pack(e) for e in events],
                                        side_effects=effects)
        if payload is not None:
            message.client_action.reply.payload.CopyFrom(pack(payload))
        if snapshot is not None:
            message.snapshot.CopyFrom(pack(snapshot))
        return FromFunction(_es.EventSourcedStreamOut(reply=message))

    def refusal(self, command_id, description, restart=False, events=(), snapshot=None):
        """A reply whose action is a failure."""
        out = self.reply(command_id, None, events, snapshot)
        out.message.reply.client_action.failure.CopyFrom(
            _cs.Failure(command_id=command_id, description=description, restart=restart))
        return out

    def forward(self, command_id, service, command, payload, events=()):
        out = self.reply(command_id, None, events)
        out.message.reply.client_action.forward.CopyFrom(
            _cs.Forward(service_name=service, command_name=command, payload=pack(payload)))
        return out

    def failure(self, command_id, description):
        """A failure of the stream itself."""
        return FromFunction(_es.EventSourcedStreamOut(
            failure=_cs.Failure(command_id=command_id, description=description)))


def effect(service, command, payload, synchronous=False):
    """A side effect."""
    return _cs.SideEffect(service_name=service, command_name=command, payload=pack(payload),
                          synchronous=synchronous)
