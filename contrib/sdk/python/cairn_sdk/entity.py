"""Declaring an event sourced entity.

An entity's state changes by events alone. A command handler looks at the state and emits events; an event
handler changes the state. Events are kept in the journal by the proxy, and the state is built again by
handing the same events to the same handlers, so an event handler must depend on nothing but its arguments.
"""

from __future__ import annotations

import copy
from typing import Any, Callable, Dict, Generic, List, NoReturn, Optional, Type, TypeVar, Union

from google.protobuf import any_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from . import descriptors, protos
from .errors import CommandFailed, DeclarationError

S = TypeVar("S")
Handler = TypeVar("Handler", bound=Callable[..., Any])

TYPE_URL_PREFIX = "type.googleapis.com/"


def pack(message: Message) -> any_pb2.Any:
    """A message as the protocol carries it; the same message always gives the same bytes."""
    return any_pb2.Any(type_url=TYPE_URL_PREFIX + message.DESCRIPTOR.full_name,
                       value=message.SerializeToString(deterministic=True))


class Context:
    """What a command handler can do besides looking at the state."""

    def __init__(self, entity_id: str, apply: Callable[[Message], None]) -> None:
        self.entity_id = entity_id
        self.events: List[any_pb2.Any] = []
        self.effects: List[Message] = []
        self.forwarded: Optional[Message] = None
        self._apply = apply

    def emit(self, event: Message) -> None:
        """Something has happened. The event handler is called at once, so the state that the command
        handler holds has changed when this returns; the event is kept before the client gets its answer."""
        # A copy goes to the handler: what is kept must not change by what the handler does with its own.
        packed = pack(event)
        self._apply(copy.deepcopy(event))
        self.events.append(packed)

    def fail(self, description: str) -> NoReturn:
        """Refuse the command. The client gets the description, nothing is kept; if events had been emitted,
        the entity's state is built again without them."""
        raise CommandFailed(description)

    def forward(self, method: str, command: Message) -> None:
        """Let another service of this function answer: `method` is "package.Service/Method". The handler's
        own return value is not used then."""
        service, name = _split(method)
        self.forwarded = protos.entity.Forward(service_name=service, command_name=name, payload=pack(command))

    def effect(self, method: str, command: Message, synchronous: bool = False) -> None:
        """Run another command besides, once the events are kept. Nobody gets its answer; with
        `synchronous` the client's answer waits until it is done."""
        service, name = _split(method)
        self.effects.append(protos.entity.SideEffect(service_name=service, command_name=name,
                                                     payload=pack(command), synchronous=synchronous))


def _split(method: str) -> List[str]:
    parts = method.strip("/").split("/")
    if len(parts) != 2 or not all(parts):
        raise ValueError('%r is no method: write "package.Service/Method"' % method)
    return parts


class EventSourced(Generic[S]):
    """The declaration of an event sourced entity.

    `service`: the gRPC service that it implements, a descriptor or its full name.
    `persistence_id`: under which its events are kept; it must never change.
    `state`: called with the entity's id, gives the state before the first event.
    `snapshot_every`: take a snapshot each time so many events have been kept; 0: never.
    `passivate_after_ms`: let an idle entity go after this time; 0: as the proxy is configured.
    """

    def __init__(self, service: Union[ServiceDescriptor, str], persistence_id: str,
                 state: Callable[[str], S], *, snapshot_every: int = 0, passivate_after_ms: int = 0) -> None:
        self.service = _service(service)
        self.persistence_id = persistence_id
        self.new_state = state
        self.snapshot_every = snapshot_every
        self.passivate_after_ms = passivate_after_ms
        self.commands: Dict[str, Callable[[S, Any, Context], Optional[Message]]] = {}
        self.events: Dict[str, Callable[[S, Any], Optional[S]]] = {}
        self.types: Dict[str, Type[Message]] = {}
        self.take: Optional[Callable[[S], Message]] = None
        self.restores: Dict[str, Callable[[Any], S]] = {}
        if not persistence_id or "|" in persistence_id or persistence_id.startswith("$"):
            raise self.wrong("its persistence id %r must not be empty, hold '|' or begin with '$'"
                             % persistence_id)
        if snapshot_every < 0 or passivate_after_ms < 0:
            raise self.wrong("snapshot_every and passivate_after_ms must not be negative")

    def command(self, name: str) -> Callable[[Handler], Handler]:
        """Decorates the handler of one method: ``handler(state, command, context)`` returns the reply. For a
        method that answers google.protobuf.Empty it may return nothing."""
        method = self.service.methods_by_name.get(name)
        if method is None:
            raise self.wrong("a command handler is declared for %r, which is none of its methods (%s)"
                             % (name, ", ".join(sorted(self.service.methods_by_name))))
        if name in self.commands:
            raise self.wrong("two command handlers are declared for %s" % name)

        def declare(handler: Handler) -> Handler:
            self.commands[name] = handler
            return handler
        return declare

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

    def wrong(self, what: str) -> DeclarationError:
        return DeclarationError("entity %s: %s" % (self.service.full_name, what))

    def check(self) -> None:
        """Raise DeclarationError for what would only fail once it is used."""
        for method in self.service.methods:
            if method.name not in self.commands:
                raise self.wrong("its method %s has no command handler" % method.name)
            self._check_method(method)
        if self.snapshot_every and self.take is None:
            raise self.wrong("snapshot_every is %d, but no function is declared with @snapshot"
                             % self.snapshot_every)
        if self.take is not None and not self.restores:
            raise self.wrong("it makes snapshots, but no function is declared with @restore")

    def _check_method(self, method: MethodDescriptor) -> None:
        if descriptors.is_streamed(method):
            raise self.wrong("its method %s is streamed, which an event sourced entity's cannot be"
                             % method.name)
        if not descriptors.entity_keys(method.input_type):
            raise self.wrong("the input of its method %s, %s, has no entity key: mark the field that names "
                             "the entity with [(cloudstate.entity_key) = true]"
                             % (method.name, method.input_type.full_name))

    def proto(self) -> Message:
        """The entity as discovery tells of it."""
        entity = protos.entity.Entity(
            entity_type="cloudstate.eventsourced.EventSourced", service_name=self.service.full_name,
            persistence_id=self.persistence_id)
        if self.passivate_after_ms:
            entity.passivation_strategy.timeout.timeout = self.passivate_after_ms
        return entity


def _service(service: Union[ServiceDescriptor, str]) -> ServiceDescriptor:
    if isinstance(service, str):
        try:
            return descriptor_pool.Default().FindServiceByName(service)
        except KeyError:
            raise DeclarationError("there is no service %r: load its .proto file first" % service) from None
    return service
