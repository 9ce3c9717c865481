"""The messages of one entity, or of an action's calls, as both sides of the stream send them."""

from google.protobuf import any_pb2

import protos
from records import FromFunction, ToFunction

_es = protos.event_sourced
_va = protos.value_entity
_ac = protos.action
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


class Value:
    """As Entity, for a value entity."""

    def __init__(self, service, entity_id):
        self.service, self.entity_id = service, entity_id

    def init(self, value=None):
        message = _va.ValueEntityInit(service_name=self.service, entity_id=self.entity_id)
        message.state.SetInParent()
        if value is not None:
            message.state.value.CopyFrom(pack(value))
        return ToFunction(_va.ValueEntityStreamIn(init=message))

    def command(self, command_id, name, payload):
        return ToFunction(_va.ValueEntityStreamIn(command=_cs.Command(
            entity_id=self.entity_id, id=command_id, name=name, payload=pack(payload))))

    def reply(self, command_id, payload=None, update=None, delete=False, effects=()):
        """A reply with its payload (None: without any client action) and what it does to the state."""
        message = _va.ValueEntityReply(command_id=command_id, side_effects=effects)
        if payload is not None:
            message.client_action.reply.payload.CopyFrom(pack(payload))
        if update is not None:
            message.state_action.update.value.CopyFrom(pack(update))
        if delete:
            message.state_action.delete.SetInParent()
        return FromFunction(_va.ValueEntityStreamOut(reply=message))

    def refusal(self, command_id, description, **state):
        out = self.reply(command_id, None, **state)
        out.message.reply.client_action.failure.CopyFrom(
            _cs.Failure(command_id=command_id, description=description))
        return out

    def forward(self, command_id, service, command, payload, **state):
        out = self.reply(command_id, None, **state)
        out.message.reply.client_action.forward.CopyFrom(
            _cs.Forward(service_name=service, command_name=command, payload=pack(payload)))
        return out

    def failure(self, command_id, description):
        """A failure of the stream itself."""
        return FromFunction(_va.ValueEntityStreamOut(
            failure=_cs.Failure(command_id=command_id, description=description)))


def metadata(**entries):
    """Metadata with strings, and bytes; in the order given."""
    result = _cs.Metadata()
    for key, value in entries.items():
        entry = result.entries.add(key=key.replace("_", "-"))
        if isinstance(value, bytes):
            entry.bytes_value = value
        else:
            entry.string_value = value
    return result


class Action:
    """The messages of an action's calls."""

    def __init__(self, service):
        self.service = service

    def first(self, name, payload=None, meta=None):
        """What a call begins with; without a payload where its input streams."""
        return ToFunction(_ac.ActionCommand(service_name=self.service, name=name,
                                            payload=None if payload is None else pack(payload),
                                            metadata=meta))

    def element(self, payload):
        """A later message of an input that streams."""
        return ToFunction(_ac.ActionCommand(payload=pack(payload)))

    def reply(self, payload=None, effects=(), meta=None):
        message = _ac.ActionResponse(side_effects=effects)
        if payload is not None:
            message.reply.payload.CopyFrom(pack(payload))
            if meta is not None:
                message.reply.metadata.CopyFrom(meta)
        return FromFunction(message)

    def refusal(self, description, effects=()):
        return FromFunction(_ac.ActionResponse(failure=_cs.Failure(description=description),
                                               side_effects=effects))

    def forward(self, service, command, payload, meta=None, effects=()):
        return FromFunction(_ac.ActionResponse(side_effects=effects, forward=_cs.Forward(
            service_name=service, command_name=command, payload=pack(payload), metadata=meta)))


def effect(service, command, payload, synchronous=False):
    """A side effect."""
    return _cs.SideEffect(service_name=service, command_name=command, payload=pack(payload),
                          synchronous=synchronous)
