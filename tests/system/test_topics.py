"""Topics: replies that are published, and methods that their events call (the contract's section 8)."""

import concurrent.futures
import datetime
import json
import subprocess
import uuid

import grpc
import pytest
from google.protobuf import any_pb2, empty_pb2

import cairn_cli
import harness
import protos
import tools
from crdt import Crdt, gcounter
from entity import Action, Entity, Value, effect, metadata, pack
from journal_client import Journal, event, to_stream
from played_journal import PlayedJournal
from recorder import ACTION, CRDT_HANDLE, HANDLE, PATIENCE, VALUE
from records import HalfClose, ToFunction
from test_functions import classes

pb = protos.data("topics")
ORDERS, KEEPER, MAILER, AUDITOR, PURSE, BOARD = [
    "cairn.topics." + name for name in ("Orders", "Keeper", "Mailer", "Auditor", "Purse", "Board")]
KINDS = {KEEPER: "cloudstate.eventsourced.EventSourced", PURSE: "cloudstate.valueentity.ValueEntity",
         BOARD: "cloudstate.crdt.Crdt"}
SOON = ("--event-retry=50ms",)


def spec(change=None, services=(ORDERS, KEEPER)):
    files = protos.descriptors(pb)
    if change:
        change([f for f in files.file if f.name == "topics.proto"][0])
    it = protos.cloudstate.EntitySpec(
        proto=files.SerializeToString(),
        service_info=protos.cloudstate.ServiceInfo(service_name="topics", protocol_minor_version=2))
    for name in services:
        it.entities.add(entity_type=KINDS.get(name, "cloudstate.action.ActionProtocol"), service_name=name,
                        persistence_id=name.split(".")[-1].lower() if name in KINDS else "")
    return it


def order(text, owner="ada"):
    return pb.Order(owner=owner, text=text)


def placed(text):
    return pb.Placed(text=text)


def moment(us):
    at = datetime.datetime.fromtimestamp(us // 1000000, datetime.timezone.utc)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + "%06dZ" % (us % 1000000)


def attributes(*pairs):
    result = metadata()
    for key, value in pairs:
        result.entries.add(key=key, string_value=value)
    return result


def said(entry):
    """A record's metadata."""
    return [(m.key, m.value.decode()) for m in entry.body.metadata]


class Topics:
    """The journal with a client of its own, the proxy, and the function that the test plays."""

    def __init__(self, lab, services=(ORDERS, KEEPER), options=SOON, journal=None):
        self.lab, self.options, self.services = lab, options, services
        self.cairnd = journal or lab.cairnd()
        self.journal = Journal(self.cairnd.port)
        self.pool = concurrent.futures.ThreadPoolExecutor(8)
        self.start()

    def start(self, name="cairn-proxy"):
        self.rec = self.lab.recorder(spec=spec(services=self.services))
        self.proxy = self.lab.proxy(self.rec, self.cairnd, options=self.options, name=name)
        self.rec.expect_discovery()
        self.channel = harness.channel_to(self.proxy.port)

    def call(self, name, request, answer=pb.Placed, service=ORDERS, timeout=PATIENCE):
        """The client's call, under way."""
        return self.channel.unary_unary("/%s/%s" % (service, name), type(request).SerializeToString,
                                        answer.FromString).future(request, timeout=timeout)

    def given(self, name, request, service=ORDERS, kind="handleUnary", meta=None):
        """The function's side of the next action call, which is this one; a client's own metadata is its library's."""
        call = self.rec.stream(ACTION + kind)
        first = call.next(ToFunction)
        if [e.key for e in first.metadata.entries] == ["user-agent"]:
            first.ClearField("metadata")
        assert first == Action(service).first(name, request, meta).message
        call.expect(HalfClose())
        return call

    def answer(self, call, *messages, code=0, text=""):
        call.send(*[m.message for m in messages])
        call.end(code, text)

    def reply(self, message, meta=None, effects=()):
        return Action(ORDERS).reply(message, effects, meta)

    def topic(self, name):
        """What the topic holds."""
        return self.journal.read(category="$topic-" + name)

    def metric(self, name, service=ORDERS):
        return self.metrics()[name, service]

    def metrics(self):
        """By name and the value of the first label."""
        text = harness.http_request(self.proxy.metrics, "GET", "/metrics").body.decode()
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#"]
        return {(k.split("{")[0], k.split('="', 1)[1].split('"')[0]): int(v) for k, v in lines if "{" in k}

    def delivered(self, count, service):
        harness.eventually(lambda: self.metric("cairn_proxy_events_delivered_total", service) == count,
                           "%d events are done" % count)

    def cli(self, *arguments, data=b""):
        return cairn_cli.cairn(self.cairnd, *arguments, input=data).text()


@pytest.fixture
def topics(lab):
    return Topics(lab)


@pytest.fixture
def listeners(lab):
    return Topics(lab, services=(MAILER, AUDITOR))


# --- what is published ----------------------------------------------------------------------------------


def test_a_reply_is_an_event_of_the_topic(topics):
    waiting = topics.call("Place", order("first"))
    topics.answer(topics.given("Place", order("first")), topics.reply(placed("1")))
    assert waiting.result() == placed("1")
    entry, = topics.topic("orders")
    header = entry.header
    assert (header.stream, header.type, header.content_type) == (
        "$topic-orders|", "cairn.topics.Placed", "application/protobuf")
    assert entry.body.data == placed("1").SerializeToString()
    known = dict(said(entry))
    assert said(entry) == [("ce-id", str(uuid.UUID(bytes=header.id))), ("ce-source", ORDERS),
                           ("ce-time", known["ce-time"])]
    assert moment(header.commit_time_us - 5000000) < known["ce-time"] <= moment(header.commit_time_us)
    assert topics.metric("cairn_proxy_published_total") == 1
    assert topics.metrics()["cairn_proxy_topic_published_total", "orders"] == 1


def test_what_the_reply_says_of_itself_is_what_is_published(topics):
    meta = metadata(ce_id="7", ce_source="elsewhere", ce_type="order.placed", ce_subject="ada|1", ce_time="then",
                    ce_dataschema="urn:x", ce_more="a", other="not an attribute")
    for number in (1, 2):
        waiting = topics.call("Place", order("x"))
        topics.answer(topics.given("Place", order("x")), topics.reply(placed("1"), meta))
        assert waiting.result() == placed("1")
    first, second = topics.topic("orders")  # an id of the user's that repeats loses nothing
    assert first.header.id != second.header.id
    for entry in first, second:
        assert (entry.header.stream, entry.header.type, entry.header.content_type) == (
            "$topic-orders|ada|1", "order.placed", "application/protobuf; proto=cairn.topics.Placed")
        assert said(entry) == [("ce-id", "7"), ("ce-source", "elsewhere"), ("ce-dataschema", "urn:x"),
                               ("ce-subject", "ada|1"), ("ce-time", "then"), ("ce-more", "a")]


def test_a_subject_that_makes_no_name_is_no_key(topics):
    for subject in ("a\nb", "x" * 600):
        waiting = topics.call("Place", order("x"))
        topics.answer(topics.given("Place", order("x")), topics.reply(placed("1"), metadata(ce_subject=subject)))
        assert waiting.result() == placed("1")
    assert [(e.header.stream, dict(said(e))["ce-subject"]) for e in topics.topic("orders")] == [
        ("$topic-orders|", "a\nb"), ("$topic-orders|", "x" * 600)]


def test_json_text_and_bytes_are_published_as_they_are(topics):
    for payload, meta, expected in (
            (any_pb2.Any(type_url="json.cloudstate.io/a/b.C", value=b'\x0a\x02{}'), None,
             ("a/b.C", "application/json", b"{}")),
            (any_pb2.Any(type_url="p.cloudstate.io/string", value=b"\x0a\x05hello"), metadata(ce_type="greeting"),
             ("greeting", "text/plain; charset=utf-8", b"hello")),
            (any_pb2.Any(type_url="p.cloudstate.io/bytes", value=b"\x0a\x01\xff"), metadata(content_type="image/png"),
             ("p.cloudstate.io/bytes", "image/png", b"\xff"))):
        waiting = topics.call("Tell", order("x"), empty_pb2.Empty)
        reply = Action(ORDERS).reply(payload, meta=meta)
        topics.answer(topics.given("Tell", order("x")), reply)
        waiting.result()
        topics.rec.expect_report("has type %s" % payload.type_url)
        entry = topics.topic("told")[-1]
        assert (entry.header.type, entry.header.content_type, entry.body.data) == expected
    assert [dict(said(e)).get("ce-type") for e in topics.topic("told")] == [None, None, ""]


def test_metadata_that_is_echoed_is_not_the_replys_own(topics):
    sent = (("ce-id", "input"), ("ce-source", "input"), ("ce-subject", "input"), ("ce-type", "input"))
    call = topics.channel.unary_unary("/%s/Place" % ORDERS, pb.Order.SerializeToString, pb.Placed.FromString)
    waiting = call.future(order("x"), metadata=sent, timeout=PATIENCE)
    given = topics.rec.stream(ACTION + "handleUnary")
    received = given.next(ToFunction).metadata
    assert set(sent) <= {(e.key, e.string_value) for e in received.entries}
    given.expect(HalfClose())
    topics.answer(given, topics.reply(placed("1"), received))
    assert waiting.result() == placed("1")
    entry, = topics.topic("orders")
    assert (entry.header.stream, entry.header.type) == ("$topic-orders|", "cairn.topics.Placed")
    assert dict(said(entry))["ce-id"] == str(uuid.UUID(bytes=entry.header.id))
    assert dict(said(entry))["ce-source"] == ORDERS


def test_every_reply_of_a_stream_is_published_and_a_failure_is_not(topics):
    call = topics.channel.unary_stream("/%s/Watch" % ORDERS, pb.Order.SerializeToString, pb.Placed.FromString)
    replies = call(order("w"), timeout=PATIENCE)
    given = topics.given("Watch", order("w"), kind="handleStreamedOut")
    for number in ("1", "2"):
        given.send(topics.reply(placed(number)).message)
        assert next(replies) == placed(number)
        assert [e.body.data for e in topics.topic("orders")][-1] == placed(number).SerializeToString()
    given.send(Action(ORDERS).refusal("no more").message)
    with pytest.raises(grpc.RpcError) as refused:
        next(replies)
    assert refused.value.details() == "no more"
    topics.rec.forgive(lambda r: r.stream == given.number)
    waiting = topics.call("Place", order("x"))
    topics.answer(topics.given("Place", order("x")), Action(ORDERS).refusal("no"))
    assert waiting.exception().details() == "no"
    assert len(topics.topic("orders")) == 2


def test_who_is_forwarded_to_publishes_nothing_of_its_own(topics):
    waiting = topics.call("Plain", order("x"))
    topics.answer(topics.given("Plain", order("x")), Action(ORDERS).forward(
        ORDERS, "Place", order("f"), effects=[effect(ORDERS, "Place", order("e"), synchronous=True)]))
    topics.answer(topics.given("Place", order("e")), topics.reply(placed("effect")))
    topics.answer(topics.given("Place", order("f")), topics.reply(placed("forward")))
    assert waiting.result() == placed("forward")
    assert topics.topic("orders") == []
    # What it answers is the answer of the method that was called.
    waiting = topics.call("Place", order("x"))
    topics.answer(topics.given("Place", order("x")), Action(ORDERS).forward(ORDERS, "Plain", order("f")))
    topics.answer(topics.given("Plain", order("f")), topics.reply(placed("answer")))
    assert waiting.result() == placed("answer")
    assert [e.body.data for e in topics.topic("orders")] == [placed("answer").SerializeToString()]


def test_what_values_and_crdts_answer_is_published_behind_their_changes(lab):
    topics = Topics(lab, services=(PURSE, BOARD))
    waiting = topics.call("Fill", order("x"), service=PURSE)
    purse = Value(PURSE, "ada")
    stream = topics.rec.stream(VALUE)
    stream.expect(purse.init(), purse.command(1, "Fill", order("x")))
    stream.send(purse.reply(1, placed("filled"), update=pb.Kept(text="k")).message)
    assert waiting.result() == placed("filled")
    replies = topics.channel.unary_stream("/%s/Follow" % BOARD, pb.Order.SerializeToString, pb.Placed.FromString)(
        order("f"), timeout=PATIENCE)
    board = Crdt(BOARD, "ada")
    stream = topics.rec.stream(CRDT_HANDLE)
    stream.expect(board.init(), board.command(1, "Follow", order("f"), streamed=True))
    stream.send(board.reply(1, placed("begun"), update=gcounter(1), streamed=True).message,
                board.streamed(1, placed("more")).message, board.streamed(1, end=True).message)
    assert list(replies) == [placed("begun"), placed("more")]
    everything = topics.journal.read(include_system=True)
    assert [(e.header.stream, e.body.data) for e in everything if e.header.stream.startswith(
        ("purse|", "board|", "$topic-"))] == [
            ("purse|ada", pb.Kept(text="k").SerializeToString()),
            ("$topic-kept|", placed("filled").SerializeToString()),
            ("board|ada", gcounter(1).SerializeToString()),
            ("$topic-kept|", placed("begun").SerializeToString()),
            ("$topic-kept|", placed("more").SerializeToString())]


def test_over_http_too(topics):
    answer = topics.pool.submit(harness.http_request, topics.proxy.port, "POST", "/%s/Place" % ORDERS,
                                json.dumps({"owner": "ada", "text": "x"}))
    given = topics.rec.stream(ACTION + "handleUnary")
    assert given.next(ToFunction).name == "Place"
    given.expect(HalfClose())
    topics.answer(given, topics.reply(placed("1")))
    assert (answer.result().status, answer.result().body) == (200, b'{"text":"1"}')
    assert len(topics.topic("orders")) == 1


def test_a_reply_that_no_record_can_be_is_reported(topics):
    waiting = topics.call("Place", order("x"))
    topics.answer(topics.given("Place", order("x")), topics.reply(placed("x" * (3 << 20))))
    assert waiting.exception().code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    topics.rec.expect_report("%s.Place could not be published to the topic \"orders\": record exceeds" % ORDERS)
    waiting = topics.call("Tell", order("x"), empty_pb2.Empty)
    topics.answer(topics.given("Tell", order("x")), topics.reply(
        any_pb2.Any(type_url="json.cloudstate.io/C", value=b"{}")))
    assert waiting.exception().code() == grpc.StatusCode.INTERNAL
    topics.rec.expect_report("has type json.cloudstate.io/C")
    topics.rec.expect_report("its payload is malformed: one of type json.cloudstate.io/C has its data in field 1")
    assert topics.metric("cairn_proxy_publish_failures_total") == 2


# --- when it is published --------------------------------------------------------------------------------


@pytest.fixture
def played(lab):
    journal = PlayedJournal()
    yield Topics(lab, services=(KEEPER, ORDERS), options=SOON + ("--append-timeout=2s",), journal=journal)
    journal.server.stop(None)


def test_events_then_effects_then_the_publication_then_the_answer(played):
    played.cairnd.hold = True
    waiting = played.call("Keep", order("x"), service=KEEPER)
    e = Entity(KEEPER, "ada")
    stream = played.rec.stream(HANDLE)
    stream.expect(e.init(), e.command(1, "Keep", order("x")))
    stream.send(e.reply(1, placed("1"), events=[pb.Kept(text="k")],
                        effects=[effect(ORDERS, "Plain", order("e"), synchronous=True)]).message)
    events = played.cairnd.next_append()
    assert [s for s, _ in events.events] == ["keeper|ada"]
    played.cairnd.accept(events)
    done = played.given("Plain", order("e"))
    assert not played.cairnd.appends
    played.answer(done, played.reply(placed("effect")))
    publication = played.cairnd.next_append()
    assert [(s, r.type, r.data) for s, r in publication.events] == [
        ("$topic-kept|", "cairn.topics.Placed", placed("1").SerializeToString())]
    with pytest.raises(grpc.FutureTimeoutError):
        waiting.result(timeout=0.2)
    played.cairnd.accept(publication)
    assert waiting.result() == placed("1")


def test_a_publication_whose_answer_is_lost_is_repeated_by_its_id(played):
    played.cairnd.hold = True
    waiting = played.call("Place", order("x"))
    played.answer(played.given("Place", order("x")), played.reply(placed("1")))
    first = played.cairnd.next_append()
    played.cairnd.lose_answer(first)
    again = played.cairnd.next_append()
    assert [(s, r.id) for s, r in again.events] == [(s, r.id) for s, r in first.events]
    played.cairnd.accept(again)
    assert waiting.result() == placed("1")
    assert len(played.cairnd.events("$topic-orders|")) == 1


def test_a_journal_that_stays_away_fails_the_call_in_time(played):
    played.cairnd.hold = True
    waiting = played.call("Place", order("x"))
    played.answer(played.given("Place", order("x")), played.reply(placed("1")))
    played.cairnd.next_append()  # and nobody answers it
    error = waiting.exception()
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert error.details().startswith(
        'the reply of %s.Place may or may not have been published to the topic "orders": ' % ORDERS)
    assert played.metric("cairn_proxy_publish_failures_total") == 1
    played.cairnd.stop()
    waiting = played.call("Place", order("y"))
    played.answer(played.given("Place", order("y")), played.reply(placed("2")))
    assert waiting.exception().code() == grpc.StatusCode.UNAVAILABLE


def test_many_publications_wait_for_those_before_them(lab):
    """No more than 16 MiB are on their way at once."""
    journal = PlayedJournal()
    played = Topics(lab, services=(ORDERS,), journal=journal)
    journal.hold = True
    waiting = []
    for number in range(7):
        waiting.append(played.call("Place", order("x")))
        played.answer(played.given("Place", order("x")), played.reply(placed("%d" % number + "x" * (3000 << 10))))
    first = [journal.next_append() for _ in range(5)]
    small = played.call("Tell", order("x"), empty_pb2.Empty)  # does not overtake
    played.answer(played.given("Tell", order("x")), played.reply(any_pb2.Any(type_url="p.cloudstate.io/string")))
    played.rec.expect_report("has type p.cloudstate.io/string")
    assert played.metric("cairn_proxy_commands_waiting") == 8 and not journal.appends
    for append in first:
        journal.accept(append)
    last = [journal.next_append() for _ in range(3)]
    assert [s for a in last for s, _ in a.events] == ["$topic-orders|", "$topic-orders|", "$topic-told|"]
    for append in last:
        journal.accept(append)
    assert [call.result().text[:1] for call in waiting] == list("0123456")
    small.result()
    assert played.metric("cairn_proxy_published_total") == 8
    journal.server.stop(None)


def test_publications_that_wait_fail_in_time_too(played):
    played.cairnd.hold = True
    waiting = []
    for number in range(7):
        waiting.append(played.call("Place", order("x"), timeout=4 * PATIENCE))
        played.answer(played.given("Place", order("x")), played.reply(placed("x" * (3000 << 10))))
    assert [call.exception().code() for call in waiting] == [grpc.StatusCode.UNAVAILABLE] * 7
    assert played.metric("cairn_proxy_publish_failures_total") == 7


def test_a_proxy_that_stops_ends_what_it_publishes(played):
    played.cairnd.hold = True
    waiting = played.call("Place", order("x"))
    played.answer(played.given("Place", order("x")), played.reply(placed("1")))
    publication = played.cairnd.next_append()
    played.proxy.process.terminate()
    played.proxy.wait_text("stopping|drain")
    played.cairnd.accept(publication)
    assert waiting.result() == placed("1")
    assert played.proxy.process.wait(PATIENCE) == 0


def test_what_a_client_has_left_is_published_all_the_same(played):
    played.cairnd.hold = True
    waiting = played.call("Keep", order("x"), service=KEEPER)
    e = Entity(KEEPER, "ada")
    stream = played.rec.stream(HANDLE)
    stream.expect(e.init(), e.command(1, "Keep", order("x")))
    stream.send(e.reply(1, placed("1"), events=[pb.Kept(text="k")]).message)
    events = played.cairnd.next_append()
    waiting.cancel()
    harness.eventually(lambda: played.metric("cairn_proxy_commands_waiting", KEEPER) == 1, "it is under way")
    played.cairnd.accept(events)
    played.cairnd.accept(played.cairnd.next_append())
    harness.eventually(lambda: played.metric("cairn_proxy_published_total", KEEPER) == 1, "it is published")


def test_a_refused_publication_fails_the_call(played):
    played.cairnd.hold = True
    waiting = played.call("Place", order("x"))
    played.answer(played.given("Place", order("x")), played.reply(placed("1")))
    played.cairnd.refuse(played.cairnd.next_append(), 8, "the disk is full")
    error = waiting.exception()
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert error.details() == ("the reply of %s.Place could not be published to the topic \"orders\": "
                               "the disk is full" % ORDERS)


def test_a_command_publishes_once_whatever_the_journal_does(topics):
    waiting = topics.call("Place", order("x"))
    given = topics.given("Place", order("x"))
    topics.cairnd.kill()
    topics.answer(given, topics.reply(placed("1")))
    harness.eventually(lambda: harness.status_of(topics.proxy.management, "/ready") == 503, "it is missed")
    topics.cairnd.start().ready()
    assert waiting.result() == placed("1")
    assert len(topics.topic("orders")) == 1


def test_what_was_published_when_the_proxy_died_is_not_published_again(played):
    played.cairnd.hold = True
    waiting = played.call("Place", order("y"))
    played.answer(played.given("Place", order("y")), played.reply(placed("1")))
    publication = played.cairnd.next_append()
    played.proxy.kill()
    played.cairnd.accept(publication)
    assert waiting.exception().code() == grpc.StatusCode.UNAVAILABLE
    played.start("cairn-proxy-2")
    played.rec.nothing_more()
    assert not played.cairnd.appends and len(played.cairnd.events("$topic-orders|")) == 1


def test_an_event_of_a_log_publishes_at_least_once(lab):
    """The proxy dies between the publication and the end of its delivery, then the journal before it: each time the
    event comes again, and what it publishes then is another event."""
    topics = Topics(lab)
    kept = pack(pb.Kept(text="k"))
    topics.journal.append(to_stream("keeper|ada", event(kept.type_url, kept.value)))

    def delivered():
        given = topics.rec.stream(ACTION + "handleStreamedOut")
        first = given.next(ToFunction)
        assert (first.name, first.payload) == ("FromLog", kept)
        given.expect(HalfClose())
        return given, topics.reply(placed("p"), first.metadata)
    given, reply = delivered()
    given.send(reply.message)
    harness.eventually(lambda: len(topics.topic("orders")) == 1, "it is published")
    topics.proxy.kill()
    topics.start("cairn-proxy-2")
    given, reply = delivered()
    topics.cairnd.kill()
    topics.answer(given, reply)
    topics.cairnd.start().ready()
    given, reply = delivered()
    topics.answer(given, reply)
    harness.eventually(lambda: topics.metric("cairn_proxy_events_delivered_total") >= 2, "it is done")
    published = topics.topic("orders")
    assert len({e.header.id for e in published}) == 3
    # The event's own attributes, echoed, are not theirs.
    assert [dict(said(e))["ce-source"] for e in published] == [ORDERS] * 3


# --- what is consumed ---------------------------------------------------------------------------------------


def test_whatever_is_appended_to_a_topic_is_delivered(listeners):
    def taken(payload, content_type, type, key, extra=()):
        entry = listeners.topic("any")[-1]
        meta = attributes(("ce-id", str(uuid.UUID(bytes=entry.header.id))), ("ce-source", "any"),
                          ("ce-specversion", "1.0"), ("ce-type", type), ("Content-Type", content_type),
                          *([("ce-subject", key)] if key else []), ("ce-time", moment(entry.header.commit_time_us)),
                          *extra)
        call = listeners.given("Any", payload, AUDITOR, meta=meta)
        listeners.answer(call, Action(AUDITOR).reply(empty_pb2.Empty()))
    listeners.cli("append", "$topic-any|k|1", '{"a": 1}', "--type", "com.example.A")
    taken(any_pb2.Any(type_url="json.cloudstate.io/com.example.A", value=b'\x0a\x08{"a": 1}'),
          "application/json", "com.example.A", "k|1")
    listeners.cli("append", "$topic-any|", "hello", "--type", "greeting")
    taken(any_pb2.Any(type_url="p.cloudstate.io/string", value=b"\x0a\x05hello"),
          "text/plain; charset=utf-8", "greeting", "")
    listeners.cli("append", "$topic-any", "-", "--type", "odd", "--metadata", "ce-more=1,unheard=2", data=b"\xff\0")
    taken(any_pb2.Any(type_url="p.cloudstate.io/bytes", value=b"\x0a\x02\xff\0"), "application/octet-stream", "odd",
          "", extra=[("ce-more", "1")])
    listeners.cli("append", "$topic-any|m", "-", "--type", "cairn.topics.Kept", "--content-type",
                  "application/protobuf", data=pb.Kept(text="x").SerializeToString())
    taken(pack(pb.Kept(text="x")), "application/protobuf", "cairn.topics.Kept", "m")
    listeners.delivered(4, AUDITOR)
    rows = [json.loads(line) for line in
            listeners.cli("read", "--category", "$topic-any", "-o", "jsonl").splitlines()]
    assert [(r["stream"], r["type"]) for r in rows] == [
        ("$topic-any|k|1", "com.example.A"), ("$topic-any|", "greeting"), ("$topic-any", "odd"),
        ("$topic-any|m", "cairn.topics.Kept")]
    listeners.rec.nothing_more()


def test_a_topic_can_be_followed(listeners):
    command = [tools.program("cairn"), "tail", "--category", "$topic-heard", "--from", "0", "-o", "jsonl", "--journal",
               "127.0.0.1:%d" % listeners.cairnd.port]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tail:
        listeners.cli("append", "$topic-heard|k", "hello", "--type", "greeting")
        row = json.loads(tail.stdout.readline())
        tail.terminate()
    assert (row["stream"], row["type"]) == ("$topic-heard|k", "greeting")


def test_two_services_in_a_chain(lab):
    topics = Topics(lab, services=(ORDERS, MAILER, AUDITOR))
    waiting = topics.call("Place", order("x"))
    topics.answer(topics.given("Place", order("x")), topics.reply(placed("1"), metadata(ce_subject="ada")))
    assert waiting.result() == placed("1")

    def received(topic, source, type, subject=()):
        entry, = harness.eventually(lambda: topics.topic(topic), "it is published")
        known = dict(said(entry))
        return attributes(("ce-id", known["ce-id"]), ("ce-source", source), ("ce-specversion", "1.0"),
                          ("ce-type", type), ("Content-Type", "application/protobuf"), *subject,
                          ("ce-time", known["ce-time"]))
    meta = received("orders", ORDERS, "cairn.topics.Placed", [("ce-subject", "ada")])
    given = topics.given("Mail", placed("1"), MAILER, meta=meta)
    topics.answer(given, Action(MAILER).reply(pb.Sent(text="2"), meta=meta))  # as the Go SDK does
    given = topics.given("Note", pb.Sent(text="2"), AUDITOR, meta=received("sent", MAILER, "cairn.topics.Sent"))
    topics.answer(given, Action(AUDITOR).reply(empty_pb2.Empty()))
    topics.delivered(1, MAILER)
    topics.delivered(1, AUDITOR)
    assert topics.metric("cairn_proxy_published_total", MAILER) == 1
    topics.rec.nothing_more()


def mail(topics, text, key="a", topic="orders"):
    topics.journal.append(to_stream("$topic-%s|%s" % (topic, key), event(
        "cairn.topics.Placed", placed(text).SerializeToString(), content_type="application/protobuf")))


def mailed(topics, text):
    """The next call of Mailer is this event's."""
    given = topics.rec.stream(ACTION + "handleUnary")
    first = given.next(ToFunction)
    assert (first.service_name, first.name, first.payload) == (MAILER, "Mail", pack(placed(text)))
    given.expect(HalfClose())
    return given


def sent(text):
    return Action(MAILER).reply(pb.Sent(text=text))


def test_a_keys_events_come_in_order_and_what_fails_comes_again(lab):
    topics = Topics(lab, services=(MAILER,))
    mail(topics, "a1")
    first = mailed(topics, "a1")
    mail(topics, "a2")
    mail(topics, "b1", key="b")
    topics.answer(mailed(topics, "b1"), sent("b1"))
    topics.answer(first, Action(MAILER).refusal("not now"))
    topics.answer(mailed(topics, "a1"), sent("a1"))
    topics.answer(mailed(topics, "a2"), sent("a2"))
    topics.delivered(3, MAILER)
    assert [e.body.data for e in topics.topic("sent")] == [
        pb.Sent(text=t).SerializeToString() for t in ("b1", "a1", "a2")]


def test_an_event_that_no_method_takes_is_named(lab):
    topics = Topics(lab, services=(MAILER,))
    topics.cli("append", "$topic-orders|a", "hello", "--type", "greeting")
    topics.proxy.wait_text("no method of %s takes events of type p.cloudstate.io/string from the topic .*orders"
                           % MAILER)
    topics.rec.nothing_more()


def test_the_next_proxy_takes_over(lab):
    topics = Topics(lab, services=(MAILER,))
    mail(topics, "a1")
    topics.answer(mailed(topics, "a1"), sent("a1"))
    topics.delivered(1, MAILER)
    first, rec = topics.proxy, topics.rec
    topics.start("cairn-proxy-2")
    second, topics.rec = topics.rec, rec
    mail(topics, "a2")
    mailed(topics, "a2")
    second.nothing_more()
    first.kill()
    topics.rec = second
    topics.answer(mailed(topics, "a2"), sent("a2"))
    topics.delivered(1, MAILER)


def test_a_namespace_has_topics_of_its_own(lab):
    topics = Topics(lab, services=(ORDERS, MAILER), options=SOON + ("--namespace=ns",))
    mail(topics, "another's")
    waiting = topics.call("Place", order("x"))
    topics.answer(topics.given("Place", order("x")), topics.reply(placed("ours")))
    assert waiting.result() == placed("ours")
    given = mailed(topics, "ours")
    topics.answer(given, sent("1"))
    topics.delivered(1, MAILER)
    topics.proxy.wait_text("events consumed.*from=topic name=orders group=\"?ns/%s\\|\\$topic-orders" % MAILER)
    assert [e.header.stream for e in topics.topic("ns/orders") + topics.topic("ns/sent")] == [
        "$topic-ns/orders|", "$topic-ns/sent|"]
    topics.rec.nothing_more()


# --- discovery -------------------------------------------------------------------------------------------


Eventing, Source, Destination = protos.eventing.Eventing, protos.eventing.EventSource, protos.eventing.EventDestination


@pytest.mark.parametrize("option, reason", [
    ({"out": Destination(topic="a|b")}, 'Orders.Place: the topic is no name of .* "a|b"'),
    ({"out": Destination(topic="x" * 201)}, "Orders.Place: the topic is no name of 1 to 200 bytes"),
    ({"out": Destination(topic="")}, "Orders.Place: the topic is no name"),
    ({"in": Source(topic="a\nb")}, "Orders.Place: the topic is no name"),
    ({"in": Source(topic="t", consumer_group="a\nb")}, "Orders.Place: the consumer group is no name"),
])
def test_topics_that_cannot_be_are_refused(lab, option, reason):
    def change(file):
        file.service[0].method[0].options.Extensions[protos.eventing.eventing].CopyFrom(Eventing(**option))
    rec = lab.recorder(spec=spec(change))
    lab.proxy(rec, lab.cairnd("memory"), wait=False)
    rec.expect_discovery()
    rec.expect_report(reason)


# --- with the Go SDK --------------------------------------------------------------------------------------------


def test_the_go_sdks_actions_on_topics(lab):
    """Its model action under services of our own (go/topics.go), in a chain: it echoes all metadata."""
    package = "cairn.topics.go."
    cairnd = lab.cairnd()
    journal = Journal(cairnd.port)
    rec = lab.recorder(lab.go_topics())
    proxy = lab.proxy(rec, cairnd)
    of = classes(rec.expect_discovery())
    model = "cloudstate.tck.model.action."

    def step(**kind):
        result = of(model + "ProcessStep")()
        for name, text in kind.items():
            getattr(result, name).message = text
        return result
    request = of(model + "Request")(groups=[of(model + "ProcessGroup")(steps=[step(reply="hello")])])
    response = of(model + "Response")(message="hello")
    call = harness.channel_to(proxy.port).unary_unary(
        "/%sFirst/Do" % package, request.SerializeToString, type(response).FromString)
    assert call(request, timeout=PATIENCE, metadata=(("ce-id", "the client's"),)) == response
    rec.stream(ACTION + "handleUnary")
    second = rec.stream(ACTION + "handleUnary").next(ToFunction)
    assert (second.service_name, second.name) == (package + "Second", "Heard")
    assert second.payload == pack(response)
    harness.eventually(lambda: len(journal.read(category="$topic-second")) == 1, "the second one publishes, too")
    first, = journal.read(category="$topic-first")
    assert [(e.key, e.string_value) for e in second.metadata.entries] == [
        ("ce-id", str(uuid.UUID(bytes=first.header.id))), ("ce-source", package + "First"),
        ("ce-specversion", "1.0"), ("ce-type", model + "Response"), ("Content-Type", "application/protobuf"),
        ("ce-time", dict(said(first))["ce-time"])]
    last, = journal.read(category="$topic-second")
    assert dict(said(last))["ce-source"] == package + "Second"
    journal.close()
