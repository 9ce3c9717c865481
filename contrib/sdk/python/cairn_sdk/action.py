"""Declaring an action: handlers without state, for methods that stream in every way.

A handler of a method that does not stream is ``handler(command, context)`` and returns the reply. Where the
output streams it is a generator that yields replies, or an asynchronous one; where the input streams its first
argument is an asynchronous iterator and it is an ``async def``::

    @room.command("Total")                       # stream in, one out
    async def total(numbers, context):
        return pb.Sum(value=sum([n.value async for n in numbers]))

    @room.command("Count")                       # one in, stream out
    def count(command, context):
        for i in range(command.to):
            yield pb.Number(value=i)
"""

from __future__ import annotations

import inspect
from typing import Any, AsyncIterator, List, Union

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from . import descriptors, protos
from .declared import Calls, Declared, pack
from .errors import CommandFailed
from .instance import Handling


class ActionContext(Calls):
    """What an action's handler can do. What is asked for by effect(), forward() and add_metadata() goes with the
    next answer: in a stream, with the next one that is yielded (``yield None`` for none)."""

    def __init__(self, metadata: Any) -> None:
        super().__init__()
        self.metadata = metadata  # a cloudstate.Metadata: the request's headers, or the event's attributes
        self.added: List[Message] = []

    def header(self, name: str) -> List[Union[str, bytes]]:
        """The values of a header of the request, or of an event's attribute such as "ce-subject"."""
        return [getattr(e, e.WhichOneof("value") or "string_value") for e in self.metadata.entries
                if e.key.lower() == name.lower()]

    def add_metadata(self, key: str, value: Union[str, bytes]) -> None:
        """With the reply; of a stream's first reply it becomes a header of the response."""
        entry = protos.entity.MetadataEntry(key=key)
        if isinstance(value, bytes):
            entry.bytes_value = value
        else:
            entry.string_value = value
        self.added.append(entry)


class Action(Declared):
    """The declaration of an action.

    `service`: the gRPC service that it implements, a descriptor or its full name.
    """

    entity_type = "cloudstate.action.ActionProtocol"
    kind = "an action"

    def __init__(self, service: Union[ServiceDescriptor, str]) -> None:
        super().__init__(service)

    def _check_method(self, method: MethodDescriptor) -> None:
        handler = self.commands[method.name]
        streams_in, streams_out = descriptors.streams(method)
        generator = inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler)
        if streams_out and not generator:
            raise self.wrong("the handler of its method %s must yield the replies, for they are streamed" % method.name)
        if not streams_out and generator:
            raise self.wrong("the handler of its method %s must return the one reply, it yields" % method.name)
        if streams_in and not (inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(handler)):
            raise self.wrong("the handler of its method %s must be an async def, for its input is streamed"
                             % method.name)


class ActionCall(Handling):
    """One call, without any I/O: `first` is its first ActionCommand, answers() gives the ActionResponses."""

    def __init__(self, action: Action, first: Any) -> None:
        super().__init__(action, "")
        self.called = self.method(first.name)
        self._first = first
        self._context = ActionContext(first.metadata)

    async def answers(self, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """`messages`: the ActionCommands after the first, where the input streams."""
        handler = self.entity.commands[self.called.name]
        streams_in, streams_out = descriptors.streams(self.called)
        what = "the handler of command %s" % self.called.name
        try:
            given: Any = self._inputs(messages) if streams_in \
                else self.request(self.called, self._first.payload)
            result = self._guarded(what, handler, given, self._context)
            if not streams_out:
                answer = await self._awaited(what, result) if inspect.isawaitable(result) else result
                yield self._response(answer, True)
                return
            async for answer in self._each(what, result):
                yield self._response(answer, False)
            if self._context.effects:
                yield self._response(None, False)
        except CommandFailed as failed:
            yield protos.action.ActionResponse(failure=protos.entity.Failure(description=failed.description))

    async def _inputs(self, messages: AsyncIterator[Any]) -> AsyncIterator[Message]:
        async for message in messages:
            yield self.request(self.called, message.payload)

    async def _awaited(self, what: str, result: Any) -> Any:
        try:
            return await result
        except Exception as wrong:
            self._raise(what, wrong)

    async def _each(self, what: str, result: Any) -> AsyncIterator[Any]:
        try:
            if inspect.isasyncgen(result):
                async for answer in result:
                    yield answer
            else:
                for answer in result:
                    yield answer
        except Exception as wrong:
            self._raise(what, wrong)

    def _raise(self, what: str, wrong: Exception) -> None:
        def again() -> None:
            raise wrong
        self._guarded(what, again)

    def _response(self, answer: Any, needed: bool) -> Any:
        context = self._context
        response = protos.action.ActionResponse(side_effects=context.effects)
        if context.forwarded is not None:
            response.forward.CopyFrom(context.forwarded)
            self._add(response.forward)
        elif needed or answer is not None:
            response.reply.payload.CopyFrom(pack(self.answer(self.called, answer)))
            self._add(response.reply)
        context.effects, context.added, context.forwarded = [], [], None
        return response

    def _add(self, to: Any) -> None:
        if self._context.added:
            to.metadata.entries.extend(self._context.added)
