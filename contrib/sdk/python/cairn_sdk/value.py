"""Declaring a value entity: its whole state is one message, which a command handler replaces or deletes.

The proxy keeps the newest value in the journal, before the client gets its answer, and hands it back when the
entity becomes active again.
"""

from __future__ import annotations

from typing import Any, Generic, Optional, Type, TypeVar, Union

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import DecodeError, Message

from . import protos
from .declared import Calls, Kept, pack
from .errors import CommandFailed
from .instance import Handling

V = TypeVar("V", bound=Message)


class ValueContext(Calls, Generic[V]):
    """What a command handler can do: `value` is a copy of the state, to read or to change and give to update()."""

    def __init__(self, entity_id: str, value: V) -> None:
        super().__init__()
        self.entity_id = entity_id
        self.value = value
        self.updated: Optional[V] = None
        self.deleted = False

    def update(self, value: V) -> None:
        """This is the state from now on; it is kept before the client gets its answer."""
        self.updated, self.deleted = value, False

    def delete(self) -> None:
        """Nothing is stored any more: the state is again what a new entity begins with."""
        self.updated, self.deleted = None, True


class ValueEntity(Kept, Generic[V]):
    """The declaration of a value entity. A command handler is ``handler(value, command, context)``, its context a
    ValueContext, and returns the reply.

    `service`: the gRPC service that it implements, a descriptor or its full name.
    `persistence_id`: under which its value is kept; it must never change.
    `value`: the type of the state; an entity that nothing is stored of begins with an empty one.
    `passivate_after_ms`: let an idle entity go after this time; 0: as the proxy is configured.
    """

    entity_type = "cloudstate.valueentity.ValueEntity"
    kind = "a value"

    def __init__(self, service: Union[ServiceDescriptor, str], persistence_id: str, value: Type[V], *,
                 passivate_after_ms: int = 0) -> None:
        super().__init__(service, persistence_id, passivate_after_ms)
        self.value = value
        self.types[value.DESCRIPTOR.full_name] = value
        if passivate_after_ms < 0:
            raise self.wrong("passivate_after_ms must not be negative")


class ValueInstance(Handling, Generic[V]):
    """One active value entity, without any I/O. Any method may raise EntityError."""

    def __init__(self, entity: ValueEntity[V], init: Any) -> None:
        super().__init__(entity, init.entity_id)
        self.value: V = entity.value()
        if init.state.HasField("value"):
            self.value = self._restore(init.state.value)

    def _restore(self, packed: Any) -> V:
        wanted = self.entity.value.DESCRIPTOR.full_name
        if packed.type_url.rpartition("/")[2] != wanted:
            raise self._wrong("its stored value has the type %r, it is declared with %s" % (packed.type_url, wanted))
        try:
            return self.entity.value.FromString(packed.value)
        except DecodeError as wrong:
            raise self._wrong("its stored value of type %s cannot be read: %s" % (wanted, wrong)) from wrong

    def command(self, command: Any) -> Any:
        """Handle a command; the ValueEntityReply."""
        method = self.method(command.name, command.id)
        reply = protos.value_entity.ValueEntityReply(command_id=command.id)
        context: ValueContext[V] = ValueContext(self.entity_id, _copy(self.value))
        try:
            message = self.request(method, command.payload, command.id)
            answer = self._guarded("the handler of command %s" % command.name, self.entity.commands[command.name],
                                   context.value, message, context, command_id=command.id)
        except CommandFailed as failed:
            reply.client_action.failure.CopyFrom(protos.entity.Failure(
                command_id=command.id, description=failed.description))
            return reply
        if context.forwarded is not None:
            reply.client_action.forward.CopyFrom(context.forwarded)
        else:
            reply.client_action.reply.payload.CopyFrom(pack(self.answer(method, answer, command.id)))
        reply.side_effects.extend(context.effects)
        self._change(context, reply, command.id)
        return reply

    def _change(self, context: ValueContext[V], reply: Any, command_id: int) -> None:
        if context.deleted:
            reply.state_action.delete.SetInParent()
            self.value = self.entity.value()
        elif context.updated is not None:
            if not isinstance(context.updated, self.entity.value):
                raise self._wrong("update() was given %r, which is no %s"
                                  % (context.updated, self.entity.value.DESCRIPTOR.full_name), command_id)
            self.value = _copy(context.updated)
            reply.state_action.update.value.CopyFrom(pack(self.value))


def _copy(message: V) -> V:
    result = type(message)()
    result.CopyFrom(message)
    return result
