"""One active entity, without any I/O: what the proxy sends goes in, what it is answered comes out."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from google.protobuf import any_pb2, empty_pb2, symbol_database
from google.protobuf.message import DecodeError, Message

from . import protos
from .declared import Declared, pack
from .entity import Context, EventSourced
from .errors import CommandFailed, EntityError

S = TypeVar("S")


class Handling:
    """What is done with the command handlers of any kind. Methods may raise EntityError."""

    def __init__(self, entity: Declared, entity_id: str) -> None:
        self.entity: Any = entity
        self.entity_id = entity_id

    def method(self, name: str, command_id: int = 0) -> Any:
        found = self.entity.service.methods_by_name.get(name)
        if found is None:
            raise self._wrong("there is no method %r" % name, command_id)
        return found

    def request(self, method: Any, payload: any_pb2.Any, command_id: int = 0) -> Message:
        wanted = method.input_type.full_name
        if payload.type_url.rpartition("/")[2] != wanted:
            raise self._wrong("command %s takes %s, the proxy sent %r"
                              % (method.name, wanted, payload.type_url), command_id)
        kind = symbol_database.Default().GetPrototype(method.input_type)
        try:
            return kind.FromString(payload.value)
        except DecodeError as wrong:
            raise CommandFailed("%s.%s: the request cannot be read: %s"
                                % (self.entity.service.full_name, method.name, wrong)) from wrong

    def answer(self, method: Any, answer: Any, command_id: int = 0) -> Message:
        wanted = method.output_type.full_name
        if answer is None and wanted == "google.protobuf.Empty":
            return empty_pb2.Empty()
        if not isinstance(answer, Message) or answer.DESCRIPTOR.full_name != wanted:
            got = answer.DESCRIPTOR.full_name if isinstance(answer, Message) else repr(answer)
            raise self._wrong("the handler of command %s must return %s, it returned %s"
                              % (method.name, wanted, got), command_id)
        return answer

    # --- faults

    def _guarded(self, what: str, function: Any, *arguments: Any, command_id: int = 0) -> Any:
        """Call what the user wrote. What it raises, but for a refused command, ends this instance."""
        try:
            return function(*arguments)
        except (CommandFailed, EntityError):
            raise
        except Exception as wrong:
            raise self._wrong("%s raised %s: %s" % (what, type(wrong).__name__, wrong), command_id) from wrong

    def _wrong(self, what: str, command_id: int = 0) -> EntityError:
        return EntityError("entity %r of %s: %s" % (self.entity_id, self.entity.service.full_name, what),
                           command_id)


class Instance(Handling, Generic[S]):
    """Made by an init; then takes the events that follow the snapshot, then commands. Any method may raise
    EntityError: the instance is of no more use then."""

    def __init__(self, entity: EventSourced[S], init: Any) -> None:
        super().__init__(entity, init.entity_id)
        self.sequence = 0
        self.state: S
        if init.HasField("snapshot"):
            self.state = self._restore(init.snapshot.snapshot)
            self.sequence = init.snapshot.snapshot_sequence
        else:
            self.state = self._guarded("making its first state", entity.new_state, init.entity_id)

    # --- replay

    def event(self, event: Any) -> None:
        """An event from the journal."""
        # Not always the next one: acts other than events take numbers of the stream too.
        if event.sequence <= self.sequence:
            raise self._wrong("the proxy sent event %d after %d" % (event.sequence, self.sequence))
        self._apply(self._unpack(event.payload, "event", self.entity.events))
        self.sequence = event.sequence

    def _restore(self, snapshot: any_pb2.Any) -> S:
        message = self._unpack(snapshot, "snapshot", self.entity.restores)
        return self._guarded("restoring a snapshot of type %s" % message.DESCRIPTOR.full_name,
                             self.entity.restores[message.DESCRIPTOR.full_name], message)

    def _unpack(self, packed: any_pb2.Any, what: str, handlers: Any) -> Message:
        name = packed.type_url.rpartition("/")[2]
        if name not in handlers:
            raise self._wrong("%s type %r has no handler; there are handlers for %s"
                              % (what, packed.type_url, ", ".join(sorted(handlers)) or "none"))
        try:
            return self.entity.types[name].FromString(packed.value)
        except DecodeError as wrong:
            raise self._wrong("%s of type %s cannot be read: %s" % (what, name, wrong)) from wrong

    def _apply(self, event: Message, command_id: int = 0) -> None:
        name = event.DESCRIPTOR.full_name
        handler = self.entity.events.get(name)
        if handler is None:
            raise self._wrong("event type %r has no handler; there are handlers for %s"
                              % (name, ", ".join(sorted(self.entity.events)) or "none"), command_id)
        new = self._guarded("the handler of event %s" % name, handler, self.state, event,
                            command_id=command_id)
        if new is not None:
            self.state = new

    # --- commands

    def command(self, command: Any) -> Message:
        """Handle a command; the EventSourcedReply."""
        name = command.name
        method = self.method(name, command.id)
        reply = protos.event_sourced.EventSourcedReply(command_id=command.id)
        context = Context(self.entity_id, lambda event: self._apply(event, command.id))
        try:
            message = self.request(method, command.payload, command.id)
            answer = self._guarded("the handler of command %s" % name, self.entity.commands[name],
                                   self.state, message, context, command_id=command.id)
        except CommandFailed as failed:
            # Emitted events have changed the state already: only a replay brings back what is true.
            reply.client_action.failure.CopyFrom(protos.entity.Failure(
                command_id=command.id, description=failed.description, restart=bool(context.events)))
            return reply
        if context.forwarded is not None:
            reply.client_action.forward.CopyFrom(context.forwarded)
        else:
            reply.client_action.reply.payload.CopyFrom(pack(self.answer(method, answer, command.id)))
        reply.side_effects.extend(context.effects)
        reply.events.extend(context.events)
        self._snapshot(reply, command.id)
        return reply

    def _snapshot(self, reply: Any, command_id: int) -> None:
        before, self.sequence = self.sequence, self.sequence + len(reply.events)
        every = self.entity.snapshot_every
        if every and self.entity.take is not None and before // every != self.sequence // every:
            snapshot = self._guarded("making a snapshot", self.entity.take, self.state,
                                     command_id=command_id)
            if not isinstance(snapshot, Message) \
                    or snapshot.DESCRIPTOR.full_name not in self.entity.restores:
                raise self._wrong("making a snapshot gave %r, which no function is declared to restore"
                                  % (snapshot,), command_id)
            reply.snapshot.CopyFrom(pack(snapshot))
