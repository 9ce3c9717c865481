"""Trying an entity without a server, a proxy or a journal.

    test = EntityTest(cart)
    result = test.handle("AddItem", AddItem(user_id="a", product_id="p", quantity=1))
    assert result.events == [ItemAdded(product_id="p", quantity=1)]

It does what a proxy does: keeps events and snapshots, builds the state again after a failure that asks for
it, numbers commands anew on each activation.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, AsyncIterator, Callable, Dict, Generic, List, Optional, TypeVar

from google.protobuf import any_pb2, symbol_database
from google.protobuf.message import Message

from . import descriptors, protos
from .action import Action, ActionCall
from .crdt import Crdt, CrdtInstance
from .crdts import Value, of_delta
from .declared import pack
from .entity import EventSourced
from .instance import Instance
from .value import ValueEntity, ValueInstance

S = TypeVar("S")
V = TypeVar("V", bound=Message)
C = TypeVar("C", bound=Value)


def unpack(packed: any_pb2.Any) -> Message:
    """The message in an Any."""
    kind = symbol_database.Default().GetSymbol(packed.type_url.rpartition("/")[2])
    return kind.FromString(packed.value)


@dataclass
class Result:
    """What came of a command. Of `reply`, `failure` and `forward` one is set."""

    reply: Optional[Message] = None
    failure: Optional[str] = None
    forward: Optional[Message] = None
    events: List[Message] = field(default_factory=list)
    snapshot: Optional[Message] = None
    effects: List[Message] = field(default_factory=list)
    updated: Optional[Message] = None
    deleted: bool = False
    metadata: List[Message] = field(default_factory=list)
    restarted: bool = False
    consistency: int = 0


def _read(action: Any, result: Result) -> bool:
    """The reply, forward or failure of a ClientAction or an ActionResponse; false: it is a failure."""
    if action.HasField("failure"):
        result.failure = action.failure.description
        return False
    if action.HasField("forward"):
        result.forward = action.forward
    elif action.HasField("reply"):
        result.reply = unpack(action.reply.payload)
        result.metadata = list(action.reply.metadata.entries)
    return True


class EntityTest(Generic[S]):
    """One entity and its journal, in memory."""

    def __init__(self, entity: EventSourced[S], entity_id: str = "entity-1") -> None:
        entity.check()
        self.entity, self.entity_id = entity, entity_id
        self.events: List[Message] = []
        self._journal: List[any_pb2.Any] = []
        self._snapshot: Optional[any_pb2.Any] = None
        self._snapshot_sequence = 0
        self.reactivate()

    @property
    def state(self) -> S:
        """The state as it is now; not to be changed."""
        return self._instance.state

    def reactivate(self) -> None:
        """Let the entity go and build it again from the newest snapshot and the events after it."""
        init = protos.event_sourced.EventSourcedInit(
            service_name=self.entity.service.full_name, entity_id=self.entity_id)
        if self._snapshot is not None:
            init.snapshot.snapshot_sequence = self._snapshot_sequence
            init.snapshot.snapshot.CopyFrom(self._snapshot)
        self._instance: Instance[S] = Instance(self.entity, init)
        for sequence in range(self._snapshot_sequence + 1, len(self._journal) + 1):
            self._instance.event(protos.event_sourced.EventSourcedEvent(
                sequence=sequence, payload=self._journal[sequence - 1]))
        self._command_id = 0

    def given(self, *events: Message) -> "EntityTest[S]":
        """These events have happened before."""
        for event in events:
            self._journal.append(pack(event))
            self.events.append(event)
        self.reactivate()
        return self

    def handle(self, command: str, message: Message) -> Result:
        """Handle a command: the name of a method of the service, and its input. Raises EntityError where the
        entity itself is at fault."""
        self._command_id += 1
        reply: Any = self._instance.command(protos.entity.Command(
            entity_id=self.entity_id, id=self._command_id, name=command, payload=pack(message)))
        action = reply.client_action
        result = Result(effects=list(reply.side_effects))
        if not _read(action, result):
            result.restarted = action.failure.restart
            if result.restarted:
                self.reactivate()
            return result
        result.events = [unpack(event) for event in reply.events]
        self._journal.extend(reply.events)
        self.events.extend(result.events)
        if reply.HasField("snapshot"):
            result.snapshot = unpack(reply.snapshot)
            self._snapshot, self._snapshot_sequence = reply.snapshot, len(self._journal)
        return result


class ValueTest(Generic[V]):
    """One value entity and what the journal has of it."""

    def __init__(self, entity: ValueEntity[V], entity_id: str = "entity-1") -> None:
        entity.check()
        self.entity, self.entity_id = entity, entity_id
        self._stored: Optional[any_pb2.Any] = None
        self.reactivate()

    @property
    def value(self) -> V:
        """The value as it is now; not to be changed."""
        return self._instance.value

    def reactivate(self) -> None:
        """Let the entity go and make it again of what is stored."""
        init = protos.value_entity.ValueEntityInit(
            service_name=self.entity.service.full_name, entity_id=self.entity_id)
        init.state.SetInParent()
        if self._stored is not None:
            init.state.value.CopyFrom(self._stored)
        self._instance: ValueInstance[V] = ValueInstance(self.entity, init)
        self._command_id = 0

    def given(self, value: V) -> "ValueTest[V]":
        """This value has been stored before."""
        self._stored = pack(value)
        self.reactivate()
        return self

    def handle(self, command: str, message: Message) -> Result:
        """Handle a command: the name of a method of the service, and its input."""
        self._command_id += 1
        reply: Any = self._instance.command(protos.entity.Command(
            entity_id=self.entity_id, id=self._command_id, name=command, payload=pack(message)))
        result = Result(effects=list(reply.side_effects))
        if not _read(reply.client_action, result):
            return result
        if reply.state_action.HasField("update"):
            self._stored = reply.state_action.update.value
            result.updated = unpack(self._stored)
        result.deleted = reply.state_action.HasField("delete")
        if result.deleted:
            self._stored = None
        return result


class OpenStream:
    """A client of a streamed command of a CRDT entity: what it was answered so far."""

    def __init__(self, test: "CrdtTest[Any]", command_id: int) -> None:
        self._test, self._command_id = test, command_id
        self.results: List[Result] = []
        self.ended = False

    @property
    def replies(self) -> List[Message]:
        return [result.reply for result in self.results if result.reply is not None]

    def cancel(self) -> Result:
        """The client leaves. The result is of what on_cancel did."""
        self.ended = True
        return self._test._cancel(self._command_id)


class CrdtTest(Generic[C]):
    """One CRDT entity behind one proxy, and what others do to it."""

    def __init__(self, entity: Crdt[C], entity_id: str = "entity-1") -> None:
        entity.check()
        self.entity, self.entity_id = entity, entity_id
        self._streams: Dict[int, OpenStream] = {}
        self._instance: CrdtInstance[C] = self._make(None)
        self._command_id = 0

    def _make(self, whole: Any) -> "CrdtInstance[C]":
        return CrdtInstance(self.entity, protos.crdt.CrdtInit(
            service_name=self.entity.service.full_name, entity_id=self.entity_id, delta=whole))

    @property
    def value(self) -> C:
        """The value as it is now; not to be changed."""
        return self._instance.value

    def reactivate(self) -> None:
        """Let the entity go, with its streams, and make it again of what is kept."""
        self._instance = self._make(self.value._whole())
        self._streams.clear()
        self._command_id = 0

    def others(self, change: Callable[[C], None]) -> "CrdtTest[C]":
        """Another proxy's function changes the value so. (Votes of others are not its own: see told().)"""
        theirs = of_delta(self.value._whole())
        change(theirs)
        delta = theirs._take()
        if delta is not None:
            self.told(delta)
        return self

    def told(self, delta: Any) -> "CrdtTest[C]":
        """The proxy sends this cloudstate.crdt.CrdtDelta."""
        self._take(self._instance.delta(delta))
        return self

    def handle(self, command: str, message: Message) -> Result:
        """Handle a command: the name of a method of the service that does not stream, and its input."""
        return self._command(command, message, False).results[0]

    def stream(self, command: str, message: Message) -> OpenStream:
        """The same for a method whose output streams."""
        return self._command(command, message, True)

    def _command(self, command: str, message: Message, streamed: bool) -> OpenStream:
        self._command_id += 1
        stream = self._streams[self._command_id] = OpenStream(self, self._command_id)
        self._take(self._instance.command(protos.entity.Command(
            entity_id=self.entity_id, id=self._command_id, name=command, payload=pack(message), streamed=streamed)))
        return stream

    def _cancel(self, command_id: int) -> Result:
        first, *rest = self._instance.cancelled(protos.entity.StreamCancelled(
            entity_id=self.entity_id, id=command_id))
        self._take(rest)
        response = first.stream_cancelled_response
        return self._state(response.state_action, Result(effects=list(response.side_effects)))

    @staticmethod
    def _state(action: Any, result: Result) -> Result:
        result.deleted = action.HasField("delete")
        if action.HasField("update"):
            result.updated = action.update
        result.consistency = action.write_consistency
        return result

    def _take(self, messages: List[Any]) -> None:
        """Puts what the entity wrote where it belongs."""
        for message in messages:
            kind = message.WhichOneof("message")
            part = getattr(message, kind)
            stream = self._streams[part.command_id]
            result = Result(effects=list(part.side_effects))
            failed = not _read(part.client_action, result)
            if kind == "reply":
                self._state(part.state_action, result)
                stream.ended = failed or not part.streamed
            else:
                stream.ended = failed or part.end_stream
            stream.results.append(result)


class ActionTest:
    """An action's methods, of every streaming kind."""

    def __init__(self, action: Action) -> None:
        action.check()
        self.action = action

    def handle(self, command: str, message: Message, headers: Optional[Dict[str, str]] = None) -> Result:
        """A method that does not stream."""
        return self.stream(command, message, headers=headers)[0]

    def stream(self, command: str, *messages: Message, headers: Optional[Dict[str, str]] = None) -> List[Result]:
        """Every answer of a method. Where its input streams, any number of messages is given, else one."""
        streams_in = descriptors.streams(self.action.service.methods_by_name[command])[0]
        first = protos.action.ActionCommand(service_name=self.action.service.full_name, name=command)
        for key, value in (headers or {}).items():
            first.metadata.entries.add(key=key, string_value=value)
        if not streams_in:
            first.payload.CopyFrom(pack(messages[0]))
        return asyncio.run(self._run(first, messages if streams_in else ()))

    async def _run(self, first: Any, messages: Any) -> List[Result]:
        async def later() -> AsyncIterator[Any]:
            for message in messages:
                yield protos.action.ActionCommand(payload=pack(message))
        results = []
        async for response in ActionCall(self.action, first).answers(later()):
            result = Result(effects=list(response.side_effects))
            _read(response, result)
            results.append(result)
        return results
