"""Declaring an event sourced entity.

An entity's state changes by events alone. A command handler looks at the state and emits events; an event
handler changes the state. Events are kept in the journal by the proxy, and the state is built again by
handing the same events to the same handlers, so an event handler must depend on nothing but its arguments.
"""

from __future__ import annotations

import copy
from typing import Any, Callable, Dict, Generic, List, Optional, Type, TypeVar, Union

from google.protobuf import any_pb2
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from .declared import Calls, Handler, Kept, pack

S = TypeVar("S")


class Context(Calls):
    """What a command handler can do besides looking at the state."""

    def __init__(self, entity_id: str, apply: Callable[[Message], None]) -> None:
        super().__init__()
        self.entity_id = entity_id
        self.events: List[any_pb2.Any] = []
        self._apply = apply

    def emit(self, event: Message) -> None:
        """Something has happened. The event handler is called at once, so the state that the command
        handler holds has changed when this returns; the event is kept before the client gets its answer."""
        # A copy goes to the handler: what is kept must not change by what the handler does with its own.
        packed = pack(event)
        self._apply(copy.deepcopy(event))
        self.events.append(packed)


class EventSourced(Kept, Generic[S]):
    """The declaration of an event sourced entity. A command handler is ``handler(state, command, context)``, its
    context a Context, and returns the reply.

    `service`: the gRPC service that it implements, a descriptor or its full name.
    `persistence_id`: under which its events are kept; it must never change.
    `state`: called with the entity's id, gives the state before the first event.
    `snapshot_every`: take a snapshot each time so many events have been kept; 0: never.
    `passivate_after_ms`: let an idle entity go after this time; 0: as the proxy is configured.
    """

    entity_type = "cloudstate.eventsourced.EventSourced"
    kind = "an event sourced"

    def __init__(self, service: Union[ServiceDescriptor, str], persistence_id: str,
                 state: Callable[[str], S], *, snapshot_every: int = 0, passivate_after_ms: int = 0) -> None:
        super().__init__(service, persistence_id, passivate_after_ms)
        self.new_state = state
        self.snapshot_every = snapshot_every
        self.events: Dict[str, Callable[[S, Any], Optional[S]]] = {}
        self.take: Optional[Callable[[S], Message]] = None
        self.restores: Dict[str, Callable[[Any], S]] = {}
        if snapshot_every < 0 or passivate_after_ms < 0:
            raise self.wrong("snapshot_every and passivate_after_ms must not be negative")

    def event(self, kind: Type[Message]) -> Callable[[Handler], Handler]:
        """Decorates the handler of one type of event: ``handler(state, event)`` changes the state, or
        returns a new one."""
        if kind.DESCRIPTOR.full_name in self.events:
            raise self.wrong("two event handlers are declared for %s" % kind.DESCRIPTOR.full_name)

        def declare(handler: Handler) -> Handler:
            self._know(kind)
            self.events[kind.DESCRIPTOR.full_name] = handler
            return handler
        return declare

    def snapshot(self, handler: Handler) -> Handler:
        """Decorates the function that makes a snapshot: ``handler(state)`` returns a message with all of
        the state."""
        if self.take is not None:
            raise self.wrong("two functions are declared to make a snapshot")
        self.take = handler
        return handler

    def restore(self, kind: Type[Message]) -> Callable[[Handler], Handler]:
        """Decorates the function that makes the state from a snapshot of one type: ``handler(snapshot)``.
        Declare one for every type that was ever written."""
        if kind.DESCRIPTOR.full_name in self.restores:
            raise self.wrong("two functions are declared to restore %s" % kind.DESCRIPTOR.full_name)

        def declare(handler: Handler) -> Handler:
            self._know(kind)
            self.restores[kind.DESCRIPTOR.full_name] = handler
            return handler
        return declare

    def _know(self, kind: Type[Message]) -> None:
        self.types[kind.DESCRIPTOR.full_name] = kind

    def check(self) -> None:
        """Raise DeclarationError for what would only fail once it is used."""
        super().check()
        if self.snapshot_every and self.take is None:
            raise self.wrong("snapshot_every is %d, but no function is declared with @snapshot"
                             % self.snapshot_every)
        if self.take is not None and not self.restores:
            raise self.wrong("it makes snapshots, but no function is declared with @restore")
