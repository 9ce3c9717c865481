"""Event logs: a function's methods are called by the events of entities (the contract's section 8)."""

import datetime
import re
import uuid

import pytest
from google.protobuf import any_pb2, empty_pb2

import harness
import protos
from entity import Action, Entity, effect, metadata, pack
from journal_client import Journal, event, to_stream
from recorder import ACTION, HANDLE, PATIENCE
from records import HalfClose, ToFunction
from test_functions import classes

pb = protos.data("logs")
LISTENER, KEEPER = "cairn.logs.Listener", "cairn.logs.Keeper"
SOON = ("--event-retry=50ms",)


def spec(change=None):
    files = protos.descriptors(pb)
    if change:
        change([f for f in files.file if f.name == "logs.proto"][0])
    it = protos.cloudstate.EntitySpec(
        proto=files.SerializeToString(),
        service_info=protos.cloudstate.ServiceInfo(service_name="logs", protocol_minor_version=2))
    it.entities.add(entity_type="cloudstate.action.ActionProtocol", service_name=LISTENER)
    it.entities.add(entity_type="cloudstate.eventsourced.EventSourced", service_name=KEEPER,
                    persistence_id="keeper")
    return it


def one(text):
    return pb.EventOne(text=text)


class Logs:
    """The journal with a client of its own, the proxy, and the function that the test plays."""

    def __init__(self, lab, options=SOON, journal=None):
        self.lab, self.options = lab, options
        self.cairnd = journal or lab.cairnd()
        self.journal = Journal(self.cairnd.port)
        self.act = Action(LISTENER)
        self.start()

    def start(self, name="cairn-proxy"):
        self.rec = self.lab.recorder(spec=spec())
        self.proxy = self.lab.proxy(self.rec, self.cairnd, options=self.options, name=name)
        self.rec.expect_discovery()

    def emit(self, stream, *messages):
        """Events as an entity's proxy keeps them."""
        anys = [pack(m) for m in messages]
        self.journal.append(to_stream(stream, *[event(a.type_url, a.value) for a in anys]))

    def described(self, stream, sequence, source="source"):
        """The metadata that goes with an event."""
        entry = [e for e in self.journal.read(stream=stream) if e.header.sequence == sequence][0]
        moment = datetime.datetime.fromtimestamp(entry.header.commit_time_us // 1000000, datetime.timezone.utc)
        result = metadata()
        for key, value in (
                ("ce-id", str(uuid.UUID(bytes=entry.header.id))), ("ce-source", source),
                ("ce-specversion", "1.0"), ("ce-type", entry.header.type),
                ("Content-Type", "application/vnd.cloudstate.protobuf.any"),
                ("ce-subject", stream.split("|", 1)[1]),
                ("ce-time", moment.strftime("%Y-%m-%dT%H:%M:%S.") +
                 "%06dZ" % (entry.header.commit_time_us % 1000000))):
            result.entries.add(key=key, string_value=value)
        return result

    def called(self, kind="handleUnary"):
        return self.rec.stream(ACTION + kind)

    def delivered(self, stream, sequence, message, name="One"):
        """The next call is this event's; returns its stream."""
        call = self.called()
        call.expect(self.act.first(name, message, self.described(stream, sequence)), HalfClose())
        return call

    def answer(self, call, *messages, code=0, text=""):
        call.send(*[m.message for m in messages or [self.act.reply(pb.Response(message="done"))]])
        call.end(code, text)

    def metric(self, name, service=LISTENER):
        text = harness.http_request(self.proxy.metrics, "GET", "/metrics").body.decode()
        return int(re.search(r'^%s{service="%s",[^}]*} (\d+)$' % (name, re.escape(service)), text, re.M).group(1))

    def done(self, count):
        harness.eventually(lambda: self.metric("cairn_proxy_events_delivered_total") == count,
                           "%d events are done" % count)


@pytest.fixture
def logs(lab):
    return Logs(lab)


def test_an_event_is_a_call_with_all_that_is_known_of_it(logs):
    logs.emit("source|a/1|x", one("first"))
    logs.answer(logs.delivered("source|a/1|x", 1, one("first")))
    logs.emit("source|", one("of the empty id"))
    logs.answer(logs.delivered("source|", 1, one("of the empty id")))
    logs.done(2)
    logs.rec.nothing_more()


def test_streamed_methods_get_the_one_event_and_a_half_close(logs):
    logs.emit("source|a", pb.EventOut(text="out"))
    call = logs.called("handleStreamedOut")
    call.expect(logs.act.first("Out", pb.EventOut(text="out"), logs.described("source|a", 1)), HalfClose())
    logs.answer(call, logs.act.reply(pb.Response(message="1")), logs.act.reply(pb.Response(message="2")))
    logs.emit("source|a", pb.EventIn(text="in"))
    call = logs.called("handleStreamedIn")
    element = logs.act.element(pb.EventIn(text="in")).message
    element.metadata.CopyFrom(logs.described("source|a", 2))
    call.expect(logs.act.first("In"), ToFunction(element), HalfClose())
    logs.answer(call)
    logs.done(2)
    logs.rec.nothing_more()


def test_json_and_whatever_else_goes_to_the_method_that_takes_any(logs):
    anys = [any_pb2.Any(type_url="json.cloudstate.io/a/b/C", value=b"\x0a\x02{}"),
            any_pb2.Any(type_url="p.cloudstate.io/string", value=b""),
            any_pb2.Any(type_url="type.googleapis.com/nobody.Knows", value=b"\x08\x01")]
    logs.emit("other|j", *anys)
    for i, payload in enumerate(anys):
        call = logs.called()
        call.expect(logs.act.first("Json", payload, logs.described("other|j", i + 1, "other")), HalfClose())
        logs.answer(call)
    logs.done(3)
    assert "$grants-$group-jsons|other" in {e.header.stream for e in logs.journal.read(include_system=True)}


def test_an_entitys_events_come_in_order_and_others_do_not_wait(logs):
    logs.emit("source|a", one("a1"), one("a2"))
    logs.emit("source|b", one("b1"))
    first, other = logs.called(), logs.called()
    first.expect(logs.act.first("One", one("a1"), logs.described("source|a", 1)), HalfClose())
    other.expect(logs.act.first("One", one("b1"), logs.described("source|b", 1)), HalfClose())
    logs.answer(other)
    logs.done(1)
    logs.rec.nothing_more()
    logs.answer(first)
    logs.answer(logs.delivered("source|a", 2, one("a2")))
    logs.done(3)


def test_what_fails_comes_again_and_what_is_behind_it_waits(logs):
    logs.emit("source|a", one("a1"), one("a2"))
    call = logs.delivered("source|a", 1, one("a1"))
    for attempt in ([logs.act.refusal("not now")], 0, ""), ([], 13, "broken"), ([], 14, ""):
        messages, code, text = attempt
        call.send(*[m.message for m in messages])
        call.end(code, text)
        call = logs.delivered("source|a", 1, one("a1"))
    logs.emit("source|b", one("b1"))
    logs.answer(logs.delivered("source|b", 1, one("b1")))
    logs.answer(call)
    logs.answer(logs.delivered("source|a", 2, one("a2")))
    logs.done(3)
    assert logs.metric("cairn_proxy_event_failures_total") == 3
    logs.proxy.wait_text("event not delivered: it comes again.* stream=source\\|a position=\\d+ .*not now")
    logs.rec.nothing_more()


def test_what_was_truncated_while_it_waited_does_not_hold_up_the_rest(logs):
    logs.emit("source|a", one("a1"), one("a2"))
    call = logs.delivered("source|a", 1, one("a1"))
    logs.journal.truncate("source|a", 2)
    logs.answer(call, logs.act.refusal("not now"))
    logs.answer(logs.delivered("source|a", 2, one("a2")))
    logs.done(1)


def test_a_failure_can_count_as_an_answer(lab):
    logs = Logs(lab, options=SOON + ("--event-failure=ack",))
    logs.emit("source|a", one("a1"), one("a2"))
    logs.answer(logs.delivered("source|a", 1, one("a1")), logs.act.refusal("no"))
    call = logs.delivered("source|a", 2, one("a2"))
    call.end(13, "broken")
    logs.answer(logs.delivered("source|a", 2, one("a2")))
    logs.done(2)


def test_no_answer_or_no_next_one_in_time_is_a_failed_delivery(lab):
    logs = Logs(lab, options=SOON + ("--command-timeout=200ms",))
    logs.emit("source|a", pb.EventOut(text="silence"))
    first = logs.called("handleStreamedOut")
    logs.rec.forgive(lambda r: r.stream == first.number)
    again = logs.called("handleStreamedOut")
    again.send(logs.act.reply(pb.Response(message="and then nothing")).message)
    once_more = logs.called("handleStreamedOut")
    logs.rec.forgive(lambda r: r.stream in (first.number, again.number, once_more.number))
    logs.answer(once_more)
    logs.done(1)
    assert logs.metric("cairn_proxy_event_failures_total") == 2


def test_an_event_that_no_method_takes_is_named_and_never_passed_over(logs):
    logs.emit("source|a", pb.Kept(text="?"), one("behind"))
    logs.emit("source|b", one("b1"))
    logs.answer(logs.delivered("source|b", 1, one("b1")))
    logs.proxy.wait_text("no method of %s takes events of type type.googleapis.com/cairn.logs.Kept from the event "
                         "log .*source" % re.escape(LISTENER))
    logs.done(1)
    logs.rec.nothing_more()


def test_forwards_and_effects_of_a_delivery_are_done_first(logs):
    logs.emit("source|a", one("a1"), one("a2"))
    call = logs.delivered("source|a", 1, one("a1"))
    logs.answer(call, logs.act.forward(LISTENER, "Plain", one("on"), effects=[
        effect(LISTENER, "Plain", one("aside"), synchronous=True)]))
    for text in ("aside", "on"):
        call = logs.called()
        call.expect(logs.act.first("Plain", one(text)), HalfClose())
        assert logs.metric("cairn_proxy_events_delivered_total") == 0
        logs.answer(call)
    logs.answer(logs.delivered("source|a", 2, one("a2")))
    logs.done(2)


def test_effects_that_nobody_else_waits_for_are_done_first_too(logs):
    logs.emit("source|a", one("a1"), one("a2"))
    logs.answer(logs.delivered("source|a", 1, one("a1")),
                logs.act.reply(pb.Response(message="done"), effects=[effect(LISTENER, "Plain", one("aside"))]))
    aside = logs.called()
    aside.expect(logs.act.first("Plain", one("aside")), HalfClose())
    logs.answer(aside, logs.act.reply(pb.Response(message="done"),
                                      effects=[effect(LISTENER, "Plain", one("further aside"))]))
    further = logs.called()
    further.expect(logs.act.first("Plain", one("further aside")), HalfClose())
    assert logs.metric("cairn_proxy_events_delivered_total") == 0
    logs.answer(further, code=13, text="an effect that fails does not undo its cause")
    logs.answer(logs.delivered("source|a", 2, one("a2")))
    logs.done(2)


def fail_until_parked(logs, stream, message, tries=16):
    for _ in range(tries):
        logs.answer(logs.delivered(stream, 1, message), logs.act.refusal("cannot be done"))
    harness.eventually(lambda: logs.metric("cairn_proxy_events_parked_total") == 1, "it is parked")


def test_after_sixteen_tries_an_event_is_parked_and_its_entitys_later_ones_wait(lab):
    logs = Logs(lab, options=("--event-retry=2ms",))
    logs.emit("source|a", one("a1"), one("a2"))
    fail_until_parked(logs, "source|a", one("a1"))
    logs.emit("source|a", one("a3"))
    logs.emit("source|b", one("b1"))
    logs.answer(logs.delivered("source|b", 1, one("b1")))
    group = LISTENER + "|source"
    (mark,) = logs.journal.marks(group)
    assert mark.stream == "source|a" and mark.parked_at == logs.journal.read(stream="source|a")[0].position
    logs.proxy.wait_text("event parked.* service=%s method=One entity=source\\|a group=\"?%s\"? position=%d .*"
                         "cairn group replay '%s' --position %d" % (
                             LISTENER, re.escape(group), mark.parked_at, re.escape(group), mark.parked_at))
    logs.rec.nothing_more()
    assert logs.journal.act_on_group(group, "REPLAY", position=mark.parked_at) == 1
    for sequence, text in (1, "a1"), (2, "a2"), (3, "a3"):
        logs.answer(logs.delivered("source|a", sequence, one(text)))
    logs.done(4)
    logs.rec.nothing_more()


def test_a_parked_event_stays_so_for_the_next_proxy_and_is_skipped(lab):
    logs = Logs(lab, options=("--event-retry=2ms",))
    logs.emit("source|a", one("a1"), one("a2"))
    fail_until_parked(logs, "source|a", one("a1"))
    logs.proxy.kill()
    logs.start("another")
    logs.emit("source|b", one("b1"))
    logs.answer(logs.delivered("source|b", 1, one("b1")))
    logs.rec.nothing_more()
    assert logs.journal.act_on_group(LISTENER + "|source", "SKIP") == 1
    logs.answer(logs.delivered("source|a", 2, one("a2")))
    logs.rec.nothing_more()


def test_an_entity_is_called_by_the_key_in_the_event(logs):
    kept = pb.Kept(owner="ada", text="k")
    logs.emit("kept|x", kept)
    e = Entity(KEEPER, "ada")
    stream = logs.rec.stream(HANDLE)
    stream.expect(e.init(), e.command(1, "Keep", kept))
    stream.send(e.reply(1, pb.Response(message="ok"), events=[one("noted")]).message)
    harness.eventually(lambda: logs.metric("cairn_proxy_events_delivered_total", KEEPER) == 1, "it is done")
    kept = logs.journal.read(stream="keeper|ada")
    assert [x.header.type for x in kept] == ["type.googleapis.com/cairn.logs.EventOne"]


def test_values_are_no_events(logs):
    value = event("type.googleapis.com/cairn.logs.EventOne", one("value").SerializeToString())
    value.metadata.add(key="cairn-kind", value=b"value")
    logs.journal.append(to_stream("source|v", value))
    logs.emit("source|a", one("a1"))
    logs.answer(logs.delivered("source|a", 1, one("a1")))
    logs.done(1)
    logs.rec.nothing_more()


def test_a_drain_leaves_the_group_where_it_is(logs):
    logs.emit("source|a", one("a1"), one("a2"))
    logs.answer(logs.delivered("source|a", 1, one("a1")))
    under_way = logs.delivered("source|a", 2, one("a2"))
    logs.done(1)
    logs.proxy.process.terminate()
    logs.answer(under_way)
    assert logs.proxy.process.wait(PATIENCE) == 0
    logs.emit("source|a", one("a3"))
    logs.start("cairn-proxy-2")
    logs.answer(logs.delivered("source|a", 3, one("a3")))
    logs.done(1)
    logs.rec.nothing_more()


def test_what_was_not_acknowledged_comes_again_after_kills(logs):
    logs.emit("source|a", one("a1"))
    logs.delivered("source|a", 1, one("a1"))
    logs.proxy.kill()
    logs.start("cairn-proxy-2")
    call = logs.delivered("source|a", 1, one("a1"))
    logs.cairnd.kill()
    logs.answer(call)
    logs.cairnd.start().ready()
    logs.answer(logs.delivered("source|a", 1, one("a1")))
    harness.eventually(lambda: logs.metric("cairn_proxy_events_delivered_total") >= 2, "it is done")


def test_of_several_proxies_one_consumes_and_the_next_takes_over(logs):
    first, rec = logs.proxy, logs.rec
    logs.emit("source|a", one("a1"))
    logs.answer(logs.delivered("source|a", 1, one("a1")))
    logs.done(1)
    logs.start("cairn-proxy-2")
    logs.emit("source|a", one("a2"))
    second, logs.rec = logs.rec, rec
    logs.delivered("source|a", 2, one("a2"))
    second.nothing_more()
    first.kill()
    logs.rec = second
    logs.answer(logs.delivered("source|a", 2, one("a2")))
    logs.done(1)


def test_a_namespace_is_before_logs_and_groups(lab):
    logs = Logs(lab, options=SOON + ("--namespace=ns",))
    logs.emit("source|a", one("another's"))
    logs.emit("ns/source|a", one("ours"))
    logs.answer(logs.delivered("ns/source|a", 1, one("ours")))
    logs.done(1)
    logs.proxy.wait_text("events consumed.*group=\"?ns/%s\\|source" % re.escape(LISTENER))
    logs.rec.nothing_more()


def test_a_spec_that_takes_over_has_the_events_from_then_on(logs):
    logs.emit("source|a", one("a1"))
    logs.answer(logs.delivered("source|a", 1, one("a1")))
    logs.done(1)

    def rename(file):
        listener = [s for s in file.service if s.name == "Listener"][0]
        listener.method[0].name = "Renamed"
    logs.rec.spec = spec(rename)
    logs.rec.drop()
    plain = harness.channel_to(logs.proxy.port).unary_unary(
        "/%s/Plain" % LISTENER, pb.EventOne.SerializeToString, pb.Response.FromString).future(one(""), timeout=PATIENCE)
    call = logs.called()  # it is connected to again on need, and discovered then
    logs.rec.forgive(lambda r: r.stream == call.number)
    logs.rec.expect_discovery()
    logs.answer(call)
    assert plain.result() == pb.Response(message="done")
    logs.proxy.wait_text("(?s)events consumed.*(events consumed.*){3}")
    logs.emit("source|a", one("a2"))
    logs.answer(logs.delivered("source|a", 2, one("a2"), name="Renamed"))
    logs.done(2)


def eventing(option):
    """Changes the option of Listener's first method."""
    def change(file):
        listener = [s for s in file.service if s.name == "Listener"][0]
        listener.method[0].options.Extensions[protos.eventing.eventing].CopyFrom(option)
    return change


Source = protos.eventing.EventSource


@pytest.mark.parametrize("option, reason", [
    ({"in": Source(topic="t"), "out": protos.eventing.EventDestination(topic="t")},
     'Listener.One: it takes its events from the topic that it publishes to: "t"'),
    ({"in": Source(event_log="a|b")}, 'Listener.One: the event log is no persistence id .*"a|b"'),
    ({"in": Source(event_log="$acts")}, "Listener.One: the event log is no persistence id"),
    ({"in": Source(topic="")}, "Listener.One: the source has no name"),
    ({"in": Source(event_log="source", consumer_group="a\nb")}, "Listener.One: the consumer group is no name"),
])
def test_options_that_cannot_be_are_refused(lab, option, reason):
    rec = lab.recorder(spec=spec(eventing(protos.eventing.Eventing(**option))))
    lab.proxy(rec, lab.cairnd("memory"), wait=False)
    rec.expect_discovery()
    rec.expect_report(reason)


def test_two_methods_for_the_same_events_are_refused(lab):
    def change(file):
        listener = [s for s in file.service if s.name == "Listener"][0]
        listener.method[1].input_type = listener.method[0].input_type
    rec = lab.recorder(spec=spec(change))
    lab.proxy(rec, lab.cairnd("memory"), wait=False)
    rec.expect_discovery()
    rec.expect_report("methods One and Out of the service cairn.logs.Listener take the same events, "
                      'cairn.logs.EventOne of "source" for the group "cairn.logs.Listener"')


def test_the_go_sdks_event_logs(lab):
    """Its model services: events answered, forwarded, of both serialisations, one and many answers."""
    package = "cloudstate.tck.model.eventlogeventing."
    function = lab.go_events()
    cairnd = lab.cairnd()
    journal = Journal(cairnd.port)
    rec = lab.recorder(function)
    proxy = lab.proxy(rec, cairnd)
    of = classes(rec.expect_discovery())
    channel = harness.channel_to(proxy.port)

    def call(path, request):
        return channel.unary_unary("/" + package + path, type(request).SerializeToString,
                                   empty_pb2.Empty.FromString)(request, timeout=PATIENCE)

    def step(**kind):
        result = of(package + "ProcessStep")()
        for name, text in kind.items():
            getattr(result, name).message = text
        return result
    subscriber = package + "EventLogSubscriberModel"
    one_event = of(package + "EventOne")(step=step(reply="hello"))
    two = of(package + "EventTwo")(step=[step(reply="x"), step(forward="y")])
    emit = of(package + "EmitEventRequest")
    call("EventSourcedEntityOne/EmitEvent", emit(id="eventlogeventing:1", event_one=one_event))
    unary = rec.stream(ACTION + "handleUnary")
    first = unary.next()
    assert (first.service_name, first.name, first.payload) == (subscriber, "ProcessEventOne", pack(one_event))
    assert [e.string_value for e in first.metadata.entries if e.key == "ce-subject"] == ["eventlogeventing:1"]
    call("EventSourcedEntityOne/EmitEvent", emit(id="eventlogeventing:1", event_two=two))
    out = rec.stream(ACTION + "handleStreamedOut")
    second = out.next()
    assert (second.name, second.payload) == ("ProcessEventTwo", pack(two))
    forwarded = rec.stream(ACTION + "handleUnary").next()
    assert forwarded.name == "Effect"
    assert forwarded.payload == pack(of(package + "EffectRequest")(id="eventlogeventing:1", message="y"))
    assert forwarded.metadata == second.metadata
    call("EventSourcedEntityTwo/EmitJsonEvent", of(package + "JsonEvent")(id="eventlogeventing:2", message="json"))
    json = rec.stream(ACTION + "handleUnary").next()
    assert json.name == "ProcessAnyEvent" and json.payload.type_url.startswith("json.cloudstate.io/")
    assert json.payload.value == journal.read(stream="eventlogeventing-two|eventlogeventing:2")[0].body.data

    def delivered():
        text = harness.http_request(proxy.metrics, "GET", "/metrics").body.decode()
        return 'cairn_proxy_events_delivered_total{service="%s",kind="action"} 3\n' % subscriber in text
    harness.eventually(delivered, "all three are delivered")
    journal.close()
