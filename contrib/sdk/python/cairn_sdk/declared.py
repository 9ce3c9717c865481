"""What the declarations of all kinds share: the service, its command handlers, and what a handler can do."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, NoReturn, Optional, Type, TypeVar, Union

from google.protobuf import any_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from . import descriptors, protos
from .errors import CommandFailed, DeclarationError

Handler = TypeVar("Handler", bound=Callable[..., Any])

TYPE_URL_PREFIX = "type.googleapis.com/"


def pack(message: Message) -> any_pb2.Any:
    """A message as the protocol carries it; the same message always gives the same bytes."""
    return any_pb2.Any(type_url=TYPE_URL_PREFIX + message.DESCRIPTOR.full_name,
                       value=message.SerializeToString(deterministic=True))


class Calls:
    """What every command handler can do."""

    def __init__(self) -> None:
        self.effects: List[Message] = []
        self.forwarded: Optional[Message] = None

    def fail(self, description: str) -> NoReturn:
        """Refuse the command. The client gets the description, and nothing that the handler did is kept."""
        raise CommandFailed(description)

    def forward(self, method: str, command: Message) -> None:
        """Let another service of this function answer: `method` is "package.Service/Method". The handler's
        own return value is not used then."""
        service, name = _split(method)
        self.forwarded = protos.entity.Forward(service_name=service, command_name=name, payload=pack(command))

    def effect(self, method: str, command: Message, synchronous: bool = False) -> None:
        """Run another command besides, once what the handler did is kept. Nobody gets its answer; with
        `synchronous` the client's answer waits until it is done."""
        service, name = _split(method)
        self.effects.append(protos.entity.SideEffect(service_name=service, command_name=name,
                                                     payload=pack(command), synchronous=synchronous))


def _split(method: str) -> List[str]:
    parts = method.strip("/").split("/")
    if len(parts) != 2 or not all(parts):
        raise ValueError('%r is no method: write "package.Service/Method"' % method)
    return parts


class Declared:
    """A service of the function, of whatever kind, and the handlers of its methods."""

    entity_type = ""
    kind = ""  # in words
    persistence_id = ""

    def __init__(self, service: Union[ServiceDescriptor, str]) -> None:
        self.service = _service(service)
        self.commands: Dict[str, Callable[..., Any]] = {}
        self.types: Dict[str, Type[Message]] = {}

    def command(self, name: str) -> Callable[[Handler], Handler]:
        """Decorates the handler of one method. For a method that answers google.protobuf.Empty it may return
        nothing."""
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

    def wrong(self, what: str) -> DeclarationError:
        return DeclarationError("entity %s: %s" % (self.service.full_name, what))

    def check(self) -> None:
        """Raise DeclarationError for what would only fail once it is used."""
        for method in self.service.methods:
            if method.name not in self.commands:
                raise self.wrong("its method %s has no command handler" % method.name)
            self._check_method(method)

    def _check_method(self, method: MethodDescriptor) -> None:
        pass

    def proto(self) -> Any:
        """The service as discovery tells of it."""
        return protos.entity.Entity(entity_type=self.entity_type, service_name=self.service.full_name,
                                    persistence_id=self.persistence_id)


class Kept(Declared):
    """An entity whose state is kept in the journal, under its persistence id."""

    def __init__(self, service: Union[ServiceDescriptor, str], persistence_id: str,
                 passivate_after_ms: int) -> None:
        super().__init__(service)
        self.persistence_id = persistence_id
        self.passivate_after_ms = passivate_after_ms
        if not persistence_id or "|" in persistence_id or persistence_id.startswith("$"):
            raise self.wrong("its persistence id %r must not be empty, hold '|' or begin with '$'"
                             % persistence_id)

    def _check_method(self, method: MethodDescriptor) -> None:
        if any(descriptors.streams(method)):
            raise self.wrong("its method %s is streamed, which %s entity's cannot be" % (method.name, self.kind))
        self._check_key(method)

    def _check_key(self, method: MethodDescriptor) -> None:
        if not descriptors.entity_keys(method.input_type):
            raise self.wrong("the input of its method %s, %s, has no entity key: mark the field that names "
                             "the entity with [(cloudstate.entity_key) = true]"
                             % (method.name, method.input_type.full_name))

    def proto(self) -> Any:
        entity = super().proto()
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
