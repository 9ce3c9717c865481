"""Serving entities to a proxy: discovery, and one stream for each active entity."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import signal
import socket
import sys
from typing import Any, AsyncIterator, Dict, Optional

import grpc
import grpc.aio
from google.protobuf import empty_pb2

from . import descriptors, protos
from .action import Action, ActionCall
from .crdt import Crdt, CrdtInstance
from .declared import Declared, Kept
from .entity import EventSourced
from .errors import DeclarationError, EntityError
from .instance import Instance
from .value import ValueEntity, ValueInstance
from .version import VERSION

log = logging.getLogger("cairn_sdk")

# A snapshot travels in one message with the entity's init, and a request may be as large as a proxy takes.
_MAX_MESSAGE_BYTES = 16 << 20


def entity_spec(*entities: Declared, name: str = "", version: str = "") -> Any:
    """What discovery answers. Raises DeclarationError for what the proxy would refuse."""
    if not entities:
        raise DeclarationError("there is no entity to serve")
    files = []
    services: Dict[str, Declared] = {}
    kept: Dict[str, Declared] = {}
    for entity in entities:
        entity.check()
        if entity.service.full_name in services:
            raise entity.wrong("it is given twice")
        if isinstance(entity, Kept):
            if entity.persistence_id in kept:
                raise entity.wrong("its persistence id %r is that of %s too; each needs its own"
                                   % (entity.persistence_id, kept[entity.persistence_id].service.full_name))
            kept[entity.persistence_id] = entity
        services[entity.service.full_name] = entity
        files.append(entity.service.file)
        # The events' too, so that tools can read what is in the journal.
        files.extend(kind.DESCRIPTOR.file for kind in entity.types.values())
    return protos.entity.EntitySpec(
        proto=descriptors.file_set(files).SerializeToString(deterministic=True),
        entities=[entity.proto() for entity in entities],
        service_info=protos.entity.ServiceInfo(
            service_name=name or entities[0].service.full_name, service_version=version,
            service_runtime="%s %s" % (platform.python_implementation(), platform.python_version()),
            support_library_name="cairn-sdk", support_library_version=VERSION,
            protocol_major_version=0, protocol_minor_version=2))


class Server:
    """The function's gRPC server. Runs in an asyncio loop; handlers are called in it, one at a time, so a
    handler that waits for something holds up every other entity."""

    def __init__(self, *entities: Declared, name: str = "", version: str = "") -> None:
        self._spec = entity_spec(*entities, name=name, version=version)
        self._entities = {entity.service.full_name: entity for entity in entities}
        self._stopping: Optional["asyncio.Future[None]"] = None
        self._server: Optional[grpc.aio.Server] = None
        self.port = 0

    async def start(self, host: str, port: int) -> int:
        """Listen; port 0 takes a free one. Returns the port."""
        address = "%s:%d" % ("[%s]" % host if ":" in host else host, port)
        _require_free(host, port, address)
        self._stopping = asyncio.get_running_loop().create_future()
        self._server = grpc.aio.server(options=[
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)])
        entity, es, value = protos.entity, protos.event_sourced, protos.value_entity
        self._server.add_generic_rpc_handlers((
            grpc.method_handlers_generic_handler("cloudstate.EntityDiscovery", {
                "discover": grpc.unary_unary_rpc_method_handler(
                    self._discover, entity.ProxyInfo.FromString, entity.EntitySpec.SerializeToString),
                "reportError": grpc.unary_unary_rpc_method_handler(
                    self._report, entity.UserFunctionError.FromString,
                    empty_pb2.Empty.SerializeToString)}),
            grpc.method_handlers_generic_handler("cloudstate.eventsourced.EventSourced", {
                "handle": grpc.stream_stream_rpc_method_handler(
                    self._handle_events, es.EventSourcedStreamIn.FromString,
                    es.EventSourcedStreamOut.SerializeToString)}),
            grpc.method_handlers_generic_handler("cloudstate.valueentity.ValueEntity", {
                "handle": grpc.stream_stream_rpc_method_handler(
                    self._handle_value, value.ValueEntityStreamIn.FromString,
                    value.ValueEntityStreamOut.SerializeToString)}),
            grpc.method_handlers_generic_handler("cloudstate.crdt.Crdt", {
                "handle": grpc.stream_stream_rpc_method_handler(
                    self._handle_crdt, protos.crdt.CrdtStreamIn.FromString,
                    protos.crdt.CrdtStreamOut.SerializeToString)}),
            grpc.method_handlers_generic_handler("cloudstate.action.ActionProtocol", self._action_methods())))
        try:
            self.port = self._server.add_insecure_port(address)
        except RuntimeError:
            self.port = 0
        if self.port == 0:
            raise OSError("cannot listen on %s: is the port taken?" % address)
        await self._server.start()
        return self.port

    async def stop(self, grace: float = 5.0) -> None:
        """Take no new stream, finish the commands under way, end the streams."""
        if self._server is not None and self._stopping is not None and not self._stopping.done():
            self._stopping.set_result(None)
            await self._server.stop(grace)

    async def wait(self) -> None:
        """Until the server has stopped."""
        if self._server is not None:
            await self._server.wait_for_termination()

    async def _discover(self, info: Any, context: Any) -> Any:
        log.info("discovered by %s %s, protocol %d.%d", info.proxy_name, info.proxy_version,
                 info.protocol_major_version, info.protocol_minor_version)
        return self._spec

    async def _report(self, error: Any, context: Any) -> Any:
        log.error("the proxy reports: %s", error.message)
        return empty_pb2.Empty()

    async def _handle_events(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        out = protos.event_sourced.EventSourcedStreamOut
        async for message in self._handle(context, EventSourced, Instance, out):
            yield message

    async def _handle_value(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        out = protos.value_entity.ValueEntityStreamOut
        async for message in self._handle(context, ValueEntity, ValueInstance, out):
            yield message

    async def _handle(self, context: Any, declared: Any, make: Any, out: Any) -> AsyncIterator[Any]:
        """One active entity."""
        instance: Any = None
        try:
            while True:
                request = await self._next(context)
                if request is None:
                    return
                kind = request.WhichOneof("message")
                if instance is None:
                    instance = make(self._activate(kind, request, declared), request.init)
                elif kind == "event":
                    instance.event(request.event)
                elif kind == "command":
                    yield out(reply=instance.command(request.command))
                else:
                    raise EntityError("entity %r of %s: the proxy sent %s after init" % (
                        instance.entity_id, instance.entity.service.full_name, kind or "an empty message"))
        except EntityError as wrong:
            log.error("%s", wrong, exc_info=wrong.__cause__)
            yield out(failure=protos.entity.Failure(command_id=wrong.command_id, description=str(wrong)))

    async def _handle_crdt(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """One active CRDT."""
        instance: Any = None
        try:
            while True:
                request = await self._next(context)
                if request is None:
                    return
                kind = request.WhichOneof("message")
                if instance is None:
                    instance = CrdtInstance(self._activate(kind, request, Crdt), request.init)
                    continue
                for message in self._crdt_answers(instance, kind, request):
                    yield message
        except EntityError as wrong:
            log.error("%s", wrong, exc_info=wrong.__cause__)
            yield protos.crdt.CrdtStreamOut(failure=protos.entity.Failure(
                command_id=wrong.command_id, description=str(wrong)))

    @staticmethod
    def _crdt_answers(instance: Any, kind: Optional[str], request: Any) -> Any:
        if kind == "command":
            return instance.command(request.command)
        if kind == "delta":
            return instance.delta(request.delta)
        if kind == "delete":
            return instance.delete()
        if kind == "stream_cancelled":
            return instance.cancelled(request.stream_cancelled)
        raise EntityError("entity %r of %s: the proxy sent %s after init" % (
            instance.entity_id, instance.entity.service.full_name, kind or "an empty message"))

    def _activate(self, kind: Optional[str], request: Any, declared: Any) -> Any:
        if kind != "init":
            raise EntityError("the proxy sent %s before init" % (kind or "an empty message"),
                              request.command.id if kind == "command" else 0)
        return self._find(request.init.service_name, declared)

    def _find(self, service: str, declared: Any) -> Any:
        entity = self._entities.get(service)
        if not isinstance(entity, declared):
            raise EntityError("there is no service %r of this kind; there are %s" % (
                service, ", ".join(sorted(n for n, e in self._entities.items() if isinstance(e, declared)))))
        return entity

    # --- actions

    def _action_methods(self) -> Any:
        take, give = protos.action.ActionCommand.FromString, protos.action.ActionResponse.SerializeToString
        return {
            "handleUnary": grpc.unary_unary_rpc_method_handler(self._unary, take, give),
            "handleStreamedIn": grpc.stream_unary_rpc_method_handler(self._streamed_in, take, give),
            "handleStreamedOut": grpc.unary_stream_rpc_method_handler(self._streamed_out, take, give),
            "handleStreamed": grpc.stream_stream_rpc_method_handler(self._streamed, take, give)}

    async def _unary(self, command: Any, context: Any) -> Any:
        return await self._one(self._answers(command, _nothing(), context))

    async def _streamed_in(self, commands: AsyncIterator[Any], context: Any) -> Any:
        return await self._one(self._streamed(commands, context))

    async def _streamed_out(self, command: Any, context: Any) -> AsyncIterator[Any]:
        async for answer in self._answers(command, _nothing(), context):
            yield answer

    async def _streamed(self, commands: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        later = commands.__aiter__()
        try:
            first = await later.__anext__()
        except StopAsyncIteration:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a streamed call without a first message")
            return
        async for answer in self._answers(first, later, context):
            yield answer

    async def _one(self, answers: AsyncIterator[Any]) -> Any:
        async for answer in answers:
            return answer
        return protos.action.ActionResponse()

    async def _answers(self, first: Any, later: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        try:
            call = ActionCall(self._find(first.service_name, Action), first)
            async for answer in call.answers(later):
                yield answer
        except EntityError as wrong:
            log.error("%s", wrong, exc_info=wrong.__cause__)
            await context.abort(grpc.StatusCode.UNKNOWN, "Unexpected action failure")

    async def _next(self, context: Any) -> Any:
        """The next message, or None when the proxy has ended its side or the server stops."""
        assert self._stopping is not None
        reading = asyncio.ensure_future(context.read())
        await asyncio.wait({reading, self._stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            reading.cancel()
            return None
        message = reading.result()
        return None if message is grpc.aio.EOF else message


async def _nothing() -> AsyncIterator[Any]:
    for message in ():
        yield message


def _require_free(host: str, port: int, address: str) -> None:
    """An address nobody can listen on is refused before gRPC's server exists: a process in which that server
    failed to bind does not always end (gRPC 1.51 can wait for its own threads at exit)."""
    try:
        family, kind, protocol, _, name = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(name)
            probe.listen(1)
    except OSError as wrong:
        raise OSError("cannot listen on %s: %s" % (address, wrong.strerror or wrong)) from None


def _address(host: Optional[str], port: Optional[int]) -> Any:
    text = os.environ.get("PORT") or "8080"
    if port is None and (not text.isdigit() or int(text) > 65535):
        sys.exit("cairn_sdk: PORT is %r, which is no port number" % text)
    return host or os.environ.get("HOST") or "127.0.0.1", int(text) if port is None else port


async def _serve(server: Server, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    port = await server.start(host, port)
    log.info("serving on %s:%d", host, port)
    await stop.wait()
    log.info("stopping")
    await server.stop()


def serve(*entities: Declared, host: Optional[str] = None, port: Optional[int] = None,
          name: str = "", version: str = "") -> None:
    """Serve these entities until SIGTERM or SIGINT: commands under way are finished first. Host and port are
    by default those of the environment variables HOST (else 127.0.0.1) and PORT (else 8080)."""
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    address = _address(host, port)
    server = Server(*entities, name=name, version=version)
    try:
        asyncio.run(_serve(server, *address))
    except OSError as wrong:
        sys.exit("cairn_sdk: %s" % wrong)
