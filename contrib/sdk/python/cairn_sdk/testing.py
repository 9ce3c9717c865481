"""Trying an entity without a server, a proxy or a journal.

    test = EntityTest(cart)
    result = test.handle("AddItem", AddItem(user_id="a", product_id="p", quantity=1))
    assert result.events == [ItemAdded(product_id="p", quantity=1)]

It does what a proxy does: keeps events and snapshots, builds the state again after a failure that asks for
it, numbers commands anew on each activation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, List, Optional, TypeVar

from google.protobuf import any_pb2, symbol_database
from google.protobuf.message import Message

from . import protos
from .entity import EventSourced, pack
from .instance import Instance

S = TypeVar("S")


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
    restarted: bool = False


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
        if action.HasField("failure"):
            result.failure = action.failure.description
            result.restarted = action.failure.restart
            if result.restarted:
                self.reactivate()
            return result
        if action.HasField("forward"):
            result.forward = action.forward
        else:
            result.reply = unpack(action.reply.payload)
        result.events = [unpack(event) for event in reply.events]
        self._journal.extend(reply.events)
        self.events.extend(result.events)
        if reply.HasField("snapshot"):
            result.snapshot = unpack(reply.snapshot)
            self._snapshot, self._snapshot_sequence = reply.snapshot, len(self._journal)
        return result
