"""Declaring a CRDT entity: its value is changed by every proxy that serves it, at once and without waiting for the
others, and all come to the same.

A method whose output streams may keep its stream open: what changes the value, here or elsewhere, then calls back::

    @presence.command("Watch")
    def watch(vote, command, context):
        context.stream(on_change=lambda vote, context: pb.Online(online=vote.at_least_one))
        return pb.Online(online=vote.at_least_one)
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Generic, List, Optional, Type, TypeVar, Union

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

from . import descriptors, protos
from .crdts import KINDS, Value, of_delta
from .declared import Calls, Kept, pack
from .errors import CommandFailed
from .instance import Handling

C = TypeVar("C", bound=Value)

LOCAL, MAJORITY, ALL = range(3)  # write consistency


class CrdtContext(Calls):
    """What a command handler of a CRDT entity can do."""

    def __init__(self, entity_id: str, streamed: bool) -> None:
        super().__init__()
        self.entity_id = entity_id
        self.streamed = streamed  # the method's output streams
        self.deleted = False
        self.consistency = LOCAL
        self.opened: Optional[_Stream] = None

    def write(self, consistency: int) -> None:
        """How many of the proxies must have the change before the client gets its answer: LOCAL (it is durable),
        MAJORITY or ALL."""
        if consistency not in (LOCAL, MAJORITY, ALL):
            raise ValueError("%r is no write consistency: LOCAL, MAJORITY and ALL are" % (consistency,))
        self.consistency = consistency

    def delete(self) -> None:
        """Nobody can use this entity any more, ever."""
        self.deleted = True

    def stream(self, on_change: Optional[Callable[..., Any]] = None,
               on_cancel: Optional[Callable[..., Any]] = None) -> None:
        """Keep the client's stream open. ``on_change(value, context)`` is called after each change of the value that
        is not this command's own, and gives the next reply, or None; its context is a StreamContext.
        ``on_cancel(value, context)`` is called when the client has left, and may change the value; its context
        can have effects, and delete."""
        if not self.streamed:
            raise TypeError("this method has one reply: its output does not stream")
        self.opened = _Stream(on_change, on_cancel)


class StreamContext(Calls):
    """What on_change can do."""

    def __init__(self, entity_id: str) -> None:
        super().__init__()
        self.entity_id = entity_id
        self.ended = False

    def end(self) -> None:
        """The stream ends after this."""
        self.ended = True


class _Stream:
    def __init__(self, on_change: Optional[Callable[..., Any]], on_cancel: Optional[Callable[..., Any]]) -> None:
        self.on_change, self.on_cancel = on_change, on_cancel
        self.method: Any = None


class Crdt(Kept, Generic[C]):
    """The declaration of a CRDT entity. A command handler is ``handler(value, command, context)``, its context a
    CrdtContext, and returns the reply; it changes the value in place. What a refused command has changed is undone.

    `service`: the gRPC service that it implements, a descriptor or its full name.
    `persistence_id`: under which its changes are kept; it must never change.
    `value`: which of the eight it is: GCounter, PNCounter, GSet, ORSet, LWWRegister, Flag, ORMap or Vote.
    `passivate_after_ms`: let an idle entity go after this time; 0: as the proxy is configured.
    """

    entity_type = "cloudstate.crdt.Crdt"
    kind = "a CRDT"

    def __init__(self, service: Union[ServiceDescriptor, str], persistence_id: str, value: Type[C], *,
                 passivate_after_ms: int = 0) -> None:
        super().__init__(service, persistence_id, passivate_after_ms)
        self.value = value
        if value not in KINDS.values():
            raise self.wrong("its value is %r, which is none of %s"
                             % (value, ", ".join(kind.__name__ for kind in KINDS.values())))
        if passivate_after_ms < 0:
            raise self.wrong("passivate_after_ms must not be negative")

    def _check_method(self, method: MethodDescriptor) -> None:
        if descriptors.streams(method)[0]:
            raise self.wrong("the input of its method %s is streamed, which a CRDT entity's cannot be" % method.name)
        self._check_key(method)


class CrdtInstance(Handling, Generic[C]):
    """One active CRDT entity, without any I/O: each method gives the messages that answer what the proxy sent. Any
    may raise EntityError."""

    def __init__(self, entity: Crdt[C], init: Any) -> None:
        super().__init__(entity, init.entity_id)
        self.value: C = entity.value()
        self.streams: Dict[int, _Stream] = {}
        self.deleted = False
        if init.HasField("delta"):
            made = of_delta(init.delta)
            if type(made) is not entity.value:
                raise self._wrong("it is stored as a %s, and declared as a %s"
                                  % (type(made).__name__, entity.value.__name__))
            self.value = made

    # --- what the proxy sends

    def delta(self, delta: Any) -> List[Any]:
        """What others have changed."""
        self.value._apply(delta)
        return self._tell()

    def delete(self) -> List[Any]:
        self.deleted = True
        self.streams.clear()
        return []

    def command(self, command: Any) -> List[Any]:
        method = self.method(command.name, command.id)
        reply = protos.crdt.CrdtReply(command_id=command.id)
        context = CrdtContext(self.entity_id, command.streamed)
        try:
            if self.deleted:
                raise CommandFailed("Entity deleted")
            message = self.request(method, command.payload, command.id)
            answer = self._guarded("the handler of command %s" % command.name, self.entity.commands[command.name],
                                   self.value, message, context, command_id=command.id)
        except CommandFailed as failed:
            self.value._roll_back()
            reply.client_action.failure.CopyFrom(protos.entity.Failure(
                command_id=command.id, description=failed.description))
            return [protos.crdt.CrdtStreamOut(reply=reply)]
        if context.forwarded is not None:
            reply.client_action.forward.CopyFrom(context.forwarded)
        elif answer is not None or context.opened is None:
            reply.client_action.reply.payload.CopyFrom(pack(self.answer(method, answer, command.id)))
        reply.side_effects.extend(context.effects)
        changed = self._change(context, reply)
        reply.streamed = context.opened is not None and not self.deleted
        told = self._tell() if changed else []
        if context.opened is not None and not self.deleted:
            context.opened.method = method
            self.streams[command.id] = context.opened
        return [protos.crdt.CrdtStreamOut(reply=reply), *told]

    def cancelled(self, cancelled: Any) -> List[Any]:
        """A client has left its stream."""
        stream = self.streams.pop(cancelled.id, None)
        response = protos.crdt.CrdtStreamCancelledResponse(command_id=cancelled.id)
        changed = False
        if stream is not None and stream.on_cancel is not None:
            context = CrdtContext(self.entity_id, False)
            try:
                self._guarded("on_cancel of command %s" % stream.method.name, stream.on_cancel, self.value, context,
                              command_id=cancelled.id)
                response.side_effects.extend(context.effects)
                changed = self._change(context, response)
            except CommandFailed:  # nobody is there to be told
                self.value._roll_back()
        return [protos.crdt.CrdtStreamOut(stream_cancelled_response=response), *(self._tell() if changed else [])]

    # --- what comes of it

    def _change(self, context: CrdtContext, to: Any) -> bool:
        """The state action of a reply or of an answer to a cancellation: whether there is one."""
        delta = self.value._take()
        if context.deleted:
            to.state_action.delete.SetInParent()
            self.delete()
        elif delta is not None:
            to.state_action.update.CopyFrom(delta)
        else:
            return False
        to.state_action.write_consistency = context.consistency
        return True

    def _tell(self) -> List[Any]:
        """The value has changed: what the open streams have to say."""
        told = []
        for command_id, stream in list(self.streams.items()):
            if stream.on_change is not None:
                message = self._tell_one(command_id, stream)
                if message is not None:
                    told.append(protos.crdt.CrdtStreamOut(streamed_message=message))
        return told

    def _tell_one(self, command_id: int, stream: _Stream) -> Any:
        message = protos.crdt.CrdtStreamedMessage(command_id=command_id)
        context = StreamContext(self.entity_id)
        what = "on_change of command %s" % stream.method.name
        try:
            answer = self._guarded(what, stream.on_change, self.value, context)
        except CommandFailed as failed:
            del self.streams[command_id]
            message.client_action.failure.CopyFrom(protos.entity.Failure(
                command_id=command_id, description=failed.description))
            return message
        if self.value._changed:
            raise self._wrong("%s changed the value: only commands and on_cancel can" % what)
        if context.forwarded is not None:
            message.client_action.forward.CopyFrom(context.forwarded)
        elif answer is not None:
            message.client_action.reply.payload.CopyFrom(pack(self.answer(stream.method, answer)))
        message.side_effects.extend(context.effects)
        message.end_stream = context.ended
        if context.ended:
            del self.streams[command_id]
        something = message.HasField("client_action") or context.effects or context.ended
        return message if something else None
