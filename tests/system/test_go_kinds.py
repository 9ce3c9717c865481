"""The Go SDK's value entities and actions behind the proxy, each message on the function's side asserted."""

import concurrent.futures
import queue

import grpc
import pytest

import harness
from entity import Action, Value, effect, pack
from recorder import ACTION, PATIENCE
from records import Broken, End, HalfClose, Reset
from test_functions import classes

VALUES, ACTIONS = "cloudstate.tck.model.valueentity.", "cloudstate.tck.model.action."
MODEL, TWO, CONFIGURED = (VALUES + name for name in ("ValueEntityTckModel", "ValueEntityTwo",
                                                     "ValueEntityConfigured"))
ACT, ACT_TWO = ACTIONS + "ActionTckModel", ACTIONS + "ActionTwo"


class Go:
    """The function, a recorder, the journal and the proxy."""

    def __init__(self, lab):
        self.lab, self.function = lab, lab.go_kinds()
        self.journal = lab.cairnd()
        self.rec = lab.recorder(self.function)
        self.proxy = lab.proxy(self.rec, self.journal)
        self.kinds = classes(self.rec.expect_discovery())
        self.connect()

    def connect(self):
        self.channel = harness.channel_to(self.proxy.port)

    def value(self, name):
        return self.kinds(VALUES + name)

    def action(self, name):
        return self.kinds(ACTIONS + name)

    def request(self, entity_id, *actions):
        """Actions as (name, fields) pairs."""
        message = self.value("Request")(id=entity_id)
        for name, fields in actions:
            inner = getattr(message.actions.add(), name)
            inner.SetInParent()
            for key, value in fields.items():
                setattr(inner, key, value)
        return message

    def groups(self, *groups):
        """Each group is a list of (name, fields) pairs."""
        message = self.action("Request")()
        for steps in groups:
            group = message.groups.add()
            for name, fields in steps:
                inner = getattr(group.steps.add(), name)
                inner.SetInParent()
                for key, value in fields.items():
                    setattr(inner, key, value)
        return message

    def response(self, text=""):
        return self.value("Response")(message=text)

    def answered(self, text=""):
        return self.action("Response")(message=text)

    def call(self, path, request, reply):
        return self.channel.unary_unary(path, type(request).SerializeToString, reply.FromString)(
            request, timeout=PATIENCE)

    def process(self, request, service=MODEL, name="Process"):
        return self.call("/%s/%s" % (service, name), request, self.value("Response"))

    def persisted(self, text):
        return self.value("Persisted")(value=text)

    def first(self, stream, service, name, request=None):
        """The call's first message; returns the metadata, which Go copies into what it answers."""
        seen = stream.next()
        meta = seen.metadata
        assert seen == Action(service).first(name, request, meta if seen.HasField("metadata") else None).message
        return meta if seen.HasField("metadata") else None


@pytest.fixture
def go(lab):
    return Go(lab)


def refused(call, *arguments):
    return harness.refused(call, *arguments)


def test_value_state_changes_failures_and_ids(go):
    v = Value(MODEL, "v1")
    update, read = go.request("v1", ("update", {"value": "A"})), go.request("v1")
    assert go.process(update) == go.response("A")
    stream = go.rec.entity(v)
    stream.expect(v.init(), v.command(1, "Process", update),
                  v.reply(1, go.response("A"), update=go.persisted("A")))
    assert go.process(read) == go.response("A")
    stream.expect(v.command(2, "Process", read), v.reply(2, go.response("A")))
    fail = go.request("v1", ("fail", {"message": "not now"}))
    assert refused(go.process, fail) == ("UNKNOWN", "not now")
    stream.expect(v.command(3, "Process", fail), v.refusal(3, "not now"))
    delete = go.request("v1", ("delete", {}))
    assert go.process(delete) == go.response("")
    stream.expect(v.command(4, "Process", delete), v.reply(4, go.response(""), delete=True))
    again = go.request("v1", ("update", {"value": "B"}))
    assert go.process(again) == go.response("B")
    stream.expect(v.command(5, "Process", again), v.reply(5, go.response("B"), update=go.persisted("B")))
    go.rec.nothing_more()


def test_value_is_restored_after_the_function_was_killed(go):
    v = Value(MODEL, "v1")
    update, read = go.request("v1", ("update", {"value": "kept"})), go.request("v1")
    go.process(update)
    stream = go.rec.entity(v)
    stream.expect(v.init(), v.command(1, "Process", update),
                  v.reply(1, go.response("kept"), update=go.persisted("kept")))
    go.function.kill()
    stream.expect(Broken("function"))
    go.function.start()
    go.function.ready()
    harness.eventually(lambda: harness.status_of(go.proxy.management, "/ready") == 200, "is ready again")
    go.rec.expect_discovery()
    assert harness.eventually(lambda: answered(go, read), "the function is reached again") == go.response("kept")
    stream = go.rec.entity(v)
    stream.expect(v.init(go.persisted("kept")), v.command(1, "Process", read), v.reply(1, go.response("kept")))
    go.rec.nothing_more()


def answered(go, request):
    try:
        return go.process(request)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        return None


def test_values_survive_a_restart_of_everything_of_ours(go):
    for i in range(5):
        go.process(go.request("v%d" % i, ("update", {"value": str(i)})))
    go.proxy.terminate()
    go.journal.kill()
    go.journal.start()
    go.journal.ready()
    go.proxy.start()
    go.proxy.ready()
    go.connect()
    for i in range(5):
        assert go.process(go.request("v%d" % i)) == go.response(str(i))


def test_value_passivation_is_a_half_close(go):
    v = Value(CONFIGURED, "v1")
    read = go.request("v1")
    for _ in range(2):
        assert go.process(read, CONFIGURED, "Call") == go.response("")
        stream = go.rec.entity(v)
        stream.expect(v.init(), v.command(1, "Call", read), v.reply(1, go.response("")))
        stream.expect(HalfClose(), End(0))
    go.rec.nothing_more()


def test_value_forwards_and_effects(go):
    v, two = Value(MODEL, "v1"), Value(TWO, "t1")
    forward = go.request("v1", ("update", {"value": "A"}), ("forward", {"id": "t1"}))
    assert go.process(forward) == go.response("")
    stream, other = go.rec.entity(v), go.rec.entity(two)
    stream.expect(v.init(), v.command(1, "Process", forward),
                  v.forward(1, TWO, "Call", go.request("t1"), update=go.persisted("A")))
    other.expect(two.init(), two.command(1, "Call", go.request("t1")), two.reply(1, go.response("")))
    for synchronous in (True, False):
        command_id = 2 if synchronous else 3
        request = go.request("v1", ("effect", {"id": "t1", "synchronous": synchronous}))
        assert go.process(request) == go.response("A")
        stream.expect(v.command(command_id, "Process", request), v.reply(
            command_id, go.response("A"), effects=[effect(TWO, "Call", go.request("t1"), synchronous)]))
        other.expect(two.command(command_id, "Call", go.request("t1")), two.reply(command_id, go.response("")))
    go.rec.nothing_more()


def test_values_over_http(go):
    answer = harness.http_request(go.proxy.port, "POST", "/tck/model/entity/v1",
                                  '{"actions":[{"update":{"value":"x"}},{"delete":{}},{"update":{"value":"y"}}]}')
    assert (answer.status, answer.headers["content-type"], answer.body) == (
        200, "application/json", b'{"message":"y"}')
    v = Value(MODEL, "v1")
    stream = go.rec.entity(v)
    request = go.request("v1", ("update", {"value": "x"}), ("delete", {}), ("update", {"value": "y"}))
    stream.expect(v.init(), v.command(1, "Process", request))  # the empty member `delete` is there
    stream.next(kind=type(v.reply(1)))
    failed = harness.http_request(go.proxy.port, "POST", "/tck/model/entity/v1",
                                  '{"actions":[{"fail":{"message":"no"}}]}')
    assert (failed.status, failed.body) == (500, b"no")


@pytest.mark.parametrize("entity_id", ["a/b:c+d%e|f g", "ü", "x" * 400])
def test_entity_ids_of_every_sort(go, entity_id):
    go.process(go.request(entity_id, ("update", {"value": "A"})))
    v = Value(MODEL, entity_id)
    stream = go.rec.entity(v)
    stream.expect(v.init())


# --- actions --------------------------------------------------------------------------------------------

def test_unary_replies_failures_forwards_and_effects(go):
    path = "/%s/ProcessUnary" % ACT
    reply = go.groups([("reply", {"message": "one"})])
    assert go.call(path, reply, go.action("Response")) == go.answered("one")
    stream = go.rec.stream(ACTION + "handleUnary")
    go.first(stream, ACT, "ProcessUnary", reply)
    stream.expect(HalfClose())
    assert stream.next(kind=type(Action(ACT).reply())).reply.payload == pack(go.answered("one"))
    stream.expect(End(0))

    fail = go.groups([("fail", {"message": "not now"})])
    assert refused(go.call, path, fail, go.action("Response")) == ("UNKNOWN", "not now")
    go.rec.forgive(lambda r: True)

    forward = go.groups([("forward", {"id": "x"})])
    assert go.call(path, forward, go.action("Response")) == go.answered("")
    stream = go.rec.stream(ACTION + "handleUnary")
    meta = go.first(stream, ACT, "ProcessUnary", forward)
    stream.expect(HalfClose(), Action(ACT).forward(ACT_TWO, "Call", go.action("OtherRequest")(id="x"), meta),
                  End(0))
    two = go.rec.stream(ACTION + "handleUnary")
    two.expect(Action(ACT_TWO).first("Call", go.action("OtherRequest")(id="x"), meta), HalfClose())
    two.next(kind=type(Action(ACT).reply()))
    two.expect(End(0))

    for synchronous in (True, False):
        request = go.groups([("reply", {"message": "r"}), ("effect", {"id": "e", "synchronous": synchronous})])
        assert go.call(path, request, go.action("Response")) == go.answered("r")
        stream = go.rec.stream(ACTION + "handleUnary")
        meta = go.first(stream, ACT, "ProcessUnary", request)
        stream.expect(HalfClose())
        seen = stream.next(kind=type(Action(ACT).reply()))
        assert [(e.service_name, e.command_name, e.synchronous) for e in seen.side_effects] == [
            (ACT_TWO, "Call", synchronous)]
        stream.expect(End(0))
        two = go.rec.stream(ACTION + "handleUnary")
        two.expect(Action(ACT_TWO).first("Call", go.action("OtherRequest")(id="e"), meta), HalfClose())
        two.next(kind=type(Action(ACT).reply()))
        two.expect(End(0))
    go.rec.nothing_more()


def test_an_effect_alone_is_an_empty_reply(go):
    request = go.groups([("effect", {"id": "e", "synchronous": True})])
    assert go.call("/%s/ProcessUnary" % ACT, request, go.action("Response")) == go.answered("")


def test_streamed_in(go):
    messages = [go.groups([("reply", {"message": "a"})]), go.groups([("reply", {"message": "b"})])]
    call = go.channel.stream_unary("/%s/ProcessStreamedIn" % ACT, type(messages[0]).SerializeToString,
                                   go.action("Response").FromString)
    assert call(iter(messages), timeout=PATIENCE).message in ("a", "b")
    stream = go.rec.stream(ACTION + "handleStreamedIn")
    go.first(stream, ACT, "ProcessStreamedIn")
    stream.expect(*[Action(ACT).element(m) for m in messages], HalfClose())
    stream.next(kind=type(Action(ACT).reply()))
    stream.expect(End(0))
    go.rec.nothing_more()


def test_streamed_out(go):
    request = go.groups(*[[("reply", {"message": str(i)})] for i in range(5)])
    call = go.channel.unary_stream("/%s/ProcessStreamedOut" % ACT, type(request).SerializeToString,
                                   go.action("Response").FromString)
    assert [r.message for r in call(request, timeout=PATIENCE)] == [str(i) for i in range(5)]
    stream = go.rec.stream(ACTION + "handleStreamedOut")
    go.first(stream, ACT, "ProcessStreamedOut", request)
    stream.expect(HalfClose())
    for i in range(5):
        assert stream.next(kind=type(Action(ACT).reply())).reply.payload == pack(go.answered(str(i)))
    stream.expect(End(0))
    go.rec.nothing_more()


def test_streamed_out_forwards_take_their_place(go):
    request = go.groups([("reply", {"message": "1"})], [("forward", {"id": "x"})], [("reply", {"message": "3"})])
    call = go.channel.unary_stream("/%s/ProcessStreamedOut" % ACT, type(request).SerializeToString,
                                   go.action("Response").FromString)
    assert [r.message for r in call(request, timeout=PATIENCE)] == ["1", "", "3"]


def test_streamed_both_ways(go):
    send = queue.Queue()
    call = go.channel.stream_stream("/%s/ProcessStreamed" % ACT, go.action("Request").SerializeToString,
                                    go.action("Response").FromString)
    replies = call(iter(send.get, None), timeout=PATIENCE)
    stream = go.rec.stream(ACTION + "handleStreamed")
    go.first(stream, ACT, "ProcessStreamed")
    message = go.groups([("reply", {"message": "a"})])
    send.put(message)
    stream.expect(Action(ACT).element(message))
    assert next(replies) == go.answered("a")
    send.put(None)
    assert list(replies) == []


def test_a_thousand_cancellations_leave_the_function_alive(go):
    """Of streamed calls, at any moment; the process is the same one afterwards."""
    pid = go.function.pid
    request = go.groups(*[[("reply", {"message": str(i)})] for i in range(20)])
    call = go.channel.unary_stream("/%s/ProcessStreamedOut" % ACT, type(request).SerializeToString,
                                   go.action("Response").FromString)

    def one(i):
        replies = call(request, timeout=PATIENCE)
        for _ in range(i % 4):
            next(replies)
        replies.cancel()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(harness.scaled(1000, 100))))
    assert go.function.alive() and go.function.pid == pid
    reply = go.groups([("reply", {"message": "still"})])
    assert go.call("/%s/ProcessUnary" % ACT, reply, go.action("Response")) == go.answered("still")
    go.rec.forgive(lambda r: isinstance(r, (Reset, End)))


def test_echoed_metadata_makes_no_headers_over_http(go):
    answer = harness.http_request(go.proxy.port, "POST", "/tck/model/action/unary",
                                  '{"groups":[{"steps":[{"reply":{"message":"x"}}]}]}',
                                  {"x-mine": "1", "accept": "*/*"})
    assert (answer.status, answer.body) == (200, b'{"message":"x"}')
    assert not {"x-mine", "accept", "user-agent", "content-type-x"} & set(answer.headers)
