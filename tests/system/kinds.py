"""A function of every kind (data/kinds.proto) that tests play, and the proxy before it."""

import queue

import protos
from entity import Action, Entity, Value
from recorder import ACTION, PATIENCE
from records import HalfClose, ToFunction
from stage import Stage

pb = protos.data("kinds")

VALUE, VALUE_TWO, EVENTS = "cairn.kinds.Value", "cairn.kinds.ValueTwo", "cairn.kinds.Events"
ACT, ACT_TWO = "cairn.kinds.Act", "cairn.kinds.ActTwo"
TYPES = {VALUE: "cloudstate.valueentity.ValueEntity", VALUE_TWO: "cloudstate.valueentity.ValueEntity",
         EVENTS: "cloudstate.eventsourced.EventSourced",
         ACT: "cloudstate.action.ActionProtocol", ACT_TWO: "cloudstate.action.ActionProtocol"}
IDS = {VALUE: "value", VALUE_TWO: "value-two", EVENTS: "events", ACT: "", ACT_TWO: ""}


def spec(passivate_ms=0, types=None, ids=None):
    it = protos.cloudstate.EntitySpec(
        proto=protos.descriptors(pb).SerializeToString(),
        service_info=protos.cloudstate.ServiceInfo(service_name="kinds", protocol_minor_version=2))
    for service, kind in {**TYPES, **(types or {})}.items():
        entity = it.entities.add(entity_type=kind, service_name=service,
                                 persistence_id={**IDS, **(ids or {})}[service])
        if passivate_ms and kind != TYPES[ACT]:
            entity.passivation_strategy.timeout.timeout = passivate_ms
    return it


def request(entity_id="", text=""):
    return pb.Request(id=entity_id, text=text)


def response(message=""):
    return pb.Response(message=message)


def state(value):
    return pb.State(value=value)


class FromClient(ToFunction):
    """The first message of a client's call; its client's own header is left out of account."""

    def matches(self, seen):
        if type(seen) is not ToFunction:
            return False
        message = type(seen.message).FromString(seen.message.SerializeToString())
        entries = [e for e in message.metadata.entries if e.key != "user-agent"]
        message.ClearField("metadata")
        if entries:
            message.metadata.entries.extend(entries)
        return self._same(ToFunction(message))


class Called(Action):
    """The action that clients call."""

    def first(self, name, payload=None, meta=None):
        return FromClient(super().first(name, payload, meta).message)


class Client:
    """A call of the client whose input streams: `put` messages, `done` with them."""

    def __init__(self, call, output_streams, timeout, metadata):
        self._in = queue.Queue()
        self.call = call(iter(self._in.get, None), timeout=timeout, metadata=metadata) if output_streams \
            else call.future(iter(self._in.get, None), timeout=timeout, metadata=metadata)

    def put(self, message):
        self._in.put(message)

    def done(self):
        self._in.put(None)


class Kinds(Stage):
    """As a Stage; `value`, `events` and `act` build messages."""

    def __init__(self, lab, passivate_ms=0, **options):
        super().__init__(lab, spec=options.pop("spec", None) or spec(passivate_ms), **options)
        self.act, self.act_two = Called(ACT), Action(ACT_TWO)

    def value(self, entity_id="v", service=VALUE):
        return Value(service, entity_id)

    def events(self, entity_id="e"):
        return Entity(EVENTS, entity_id)

    def _method(self, kind, service, name):
        return getattr(self.channel, kind)("/%s/%s" % (service, name), pb.Request.SerializeToString,
                                           pb.Response.FromString)

    def unary(self, service, name, message, timeout=None, metadata=None):
        """A client's command, in the background: a grpc future."""
        return self._method("unary_unary", service, name).future(message, timeout=timeout or PATIENCE,
                                                                 metadata=metadata)

    def process(self, entity_id="v", text="", service=VALUE):
        return self.unary(service, "Process", request(entity_id, text))

    def out(self, name="Out", message=None, service=ACT, timeout=None, metadata=None):
        """An iterator over the replies."""
        return self._method("unary_stream", service, name)(message or request(), timeout=timeout or PATIENCE,
                                                           metadata=metadata)

    def stream_in(self, name="In", service=ACT, timeout=None, metadata=None):
        return Client(self._method("stream_unary", service, name), False, timeout or PATIENCE, metadata)

    def both(self, name="Both", service=ACT, timeout=None, metadata=None):
        return Client(self._method("stream_stream", service, name), True, timeout or PATIENCE, metadata)

    def begin_value(self, entity_id="v", text="go", value=None):
        """A command that activates the entity; returns (client's future, stream, entity)."""
        entity = self.value(entity_id)
        answer = self.process(entity_id, text)
        stream = self.rec.entity(entity)
        stream.expect(entity.init(value), entity.command(1, "Process", request(entity_id, text)))
        return answer, stream, entity

    def call_of(self, kind):
        """The next call to an action, "handleUnary" and so on."""
        return self.rec.stream(ACTION + kind)

    def answer_unary(self, stream, *messages, code=0, text=""):
        """The function answers a call that the proxy has half-closed, and ends it."""
        stream.expect(HalfClose())
        stream.send(*[m.message for m in messages])
        stream.end(code, text)
