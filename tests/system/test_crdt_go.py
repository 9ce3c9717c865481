"""CRDTs of the Go SDK's model services, with clients of every sort; what the function was sent is recorded."""

import random
import threading

import pytest

import harness
import tools
from crdt import Crdt, flag, gcounter, gset, lww, ormap, orset, pncounter, vote
from records import End, FromFunction, HalfClose, ToFunction
from recorder import CRDT_HANDLE, PATIENCE
from reflection import Api

MODEL = "cloudstate.tck.model.crdt.CrdtTckModel"
TWO = "cloudstate.tck.model.crdt.CrdtTwo"
CONFIGURED = "cloudstate.tck.model.crdt.CrdtConfigured"


class Functions:
    def __init__(self, lab, storage=None, options=()):
        self.lab = lab
        self.function = lab.go_crdt()
        self.rec = lab.recorder(self.function)
        self.journal = lab.cairnd(storage or "memory")
        self.proxy = lab.proxy(self.rec, self.journal, options=options)
        self.rec.expect_discovery()
        self.api = Api(harness.channel_to(self.proxy.port))

    def process(self, entity_id, *actions):
        reply = self.api.call(MODEL + "/Process", id=entity_id, actions=list(actions))
        return self.api.as_dict(reply).get("state", {})

    def watch(self, entity_id, api=None, **fields):
        path = MODEL + "/ProcessStreamed"
        api = api or self.api
        return api.rpc(path)(api.request(path, id=entity_id, **fields), timeout=4 * PATIENCE)


@pytest.fixture
def go(lab):
    return Functions(lab)


def update(**fields):
    return {"update": fields}


# An entity's id says its type: what is done to it, and the state that its function must say it has.
HISTORIES = {
    "GCounter": ([({"gcounter": {"increment": 5}}, {"value": "5"}), ({"gcounter": {"increment": 2}}, {"value": "7"})],
                 gcounter(7)),
    "PNCounter": ([({"pncounter": {"change": 5}}, {"value": "5"}), ({"pncounter": {"change": -7}}, {"value": "-2"})],
                  pncounter(-2)),
    "GSet": ([({"gset": {"add": "a"}}, {"elements": ["a"]}), ({"gset": {"add": "b"}}, {"elements": ["a", "b"]})],
             gset("a", "b")),
    "ORSet": ([({"orset": {"add": "a"}}, {"elements": ["a"]}), ({"orset": {"add": "b"}}, {"elements": ["a", "b"]}),
               ({"orset": {"remove": "a"}}, {"elements": ["b"]}), ({"orset": {"clear": True}}, {}),
               ({"orset": {"add": "c"}}, {"elements": ["c"]})], orset("c")),
    "LWWRegister": ([({"lwwregister": {"value": "one"}}, {"value": "one"}),
                     ({"lwwregister": {"value": "two"}}, {"value": "two"})], lww("two")),
    "Flag": ([({"flag": {}}, {"value": True})], flag(True)),
    "ORMap": ([({"ormap": {"add": "GSet-1"}}, {"entries": [{"key": "GSet-1", "value": {"gset": {}}}]}),
               ({"ormap": {"update": {"key": "PNCounter-1", "update": {"pncounter": {"change": 3}}}}},
                {"entries": [{"key": "GSet-1", "value": {"gset": {}}},
                             {"key": "PNCounter-1", "value": {"pncounter": {"value": "3"}}}]}),
               ({"ormap": {"remove": "GSet-1"}},
                {"entries": [{"key": "PNCounter-1", "value": {"pncounter": {"value": "3"}}}]})],
              ormap(added={"PNCounter-1": pncounter(3)})),
    "Vote": ([({"vote": {"self_vote": True}}, {"self_vote": True, "votes_for": 1, "total_voters": 1}),
              ({"vote": {"self_vote": False}}, {"total_voters": 1}),
              ({"vote": {"self_vote": True}}, {"self_vote": True, "votes_for": 1, "total_voters": 1})], None),
}


@pytest.mark.parametrize("kind", HISTORIES)
def test_a_type_keeps_its_value_over_a_restart_of_function_journal_and_proxy(lab, kind):
    go = Functions(lab, storage="file:%s" % (lab.folder / "data"))
    entity_id, (steps, kept) = kind + "-1", HISTORIES[kind]
    for change, state in steps:
        assert go.process(entity_id, update(**change)) == {kind.lower(): state}
    stream = go.rec.stream(CRDT_HANDLE)
    its = Crdt(MODEL, entity_id)
    stream.expect(its.init())
    for i, (change, _) in enumerate(steps, 1):
        stream.expect(its.command(i, "Process", go.api.request(
            MODEL + "/Process", id=entity_id, actions=[update(**change)])))
        assert stream.next(FromFunction).reply.HasField("state_action")
    go.rec.nothing_more()  # a function's own changes are not echoed

    assert go.proxy.terminate() == 0
    stream.expect(HalfClose(), End())
    go.rec.nothing_more()
    go.journal.kill()
    go.journal.start().ready()
    go.proxy.start().ready()
    go.rec.expect_discovery()
    go.api = Api(harness.channel_to(go.proxy.port))
    state = {} if kind == "Vote" else {kind.lower(): steps[-1][1]}
    got = go.process(entity_id)
    if kind == "Vote":  # the vote went with the process that it was of
        assert got == {"vote": {"total_voters": 1}}
        kept = vote(False, 0, 1)
    else:
        assert got == state
    go.rec.stream(CRDT_HANDLE).expect(its.init(kept), ToFunction(), FromFunction())
    go.rec.nothing_more()


def test_a_stream_gets_every_change_until_its_end_state(go):
    its = Crdt(MODEL, "GSet-1")
    answers = go.watch("GSet-1", end_state={"gset": {"elements": ["a", "b"]}})
    assert go.api.as_dict(next(answers)) == {"state": {"gset": {}}}
    go.process("GSet-1", update(gset={"add": "a"}))
    go.process("GSet-1", update(gset={"add": "b"}))
    assert [go.api.as_dict(a)["state"]["gset"]["elements"] for a in answers] == [["a"], ["a", "b"]]
    stream = go.rec.stream(CRDT_HANDLE)
    stream.expect(its.init(), its.command(1, "ProcessStreamed", go.api.request(
        MODEL + "/ProcessStreamed", id="GSet-1", end_state={"gset": {"elements": ["a", "b"]}}), streamed=True))
    opened = stream.next(FromFunction).reply
    assert opened.command_id == 1 and opened.streamed
    for i in (2, 3):
        stream.expect(ToFunction())
        seen = [stream.next(FromFunction), stream.next(FromFunction)]
        assert sorted(m.WhichOneof("message") for m in seen) == ["reply", "streamed_message"]
        said = [m.streamed_message for m in seen if m.WhichOneof("message") == "streamed_message"][0]
        assert said.command_id == 1 and said.end_stream == (i == 3)
    go.rec.nothing_more()


def test_a_client_that_leaves_is_told_once_and_what_the_function_does_then_is_kept(go):
    its = Crdt(MODEL, "PNCounter-1")
    answers = go.watch("PNCounter-1", cancel_update={"pncounter": {"change": 7}})
    next(answers)
    stream = go.rec.stream(CRDT_HANDLE)
    stream.expect(its.init(), ToFunction(), FromFunction())
    answers.cancel()
    stream.expect(its.cancelled(1), its.cancel_response(1, update=pncounter(7)))
    assert go.process("PNCounter-1") == {"pncounter": {"value": "7"}}
    stream.expect(ToFunction(), FromFunction())
    go.rec.nothing_more()


def test_a_deleted_one_stays_deleted(go):
    go.process("Flag-1", update(flag={}))
    go.process("Flag-1", {"delete": {}})
    its = Crdt(MODEL, "Flag-1")
    stream = go.rec.stream(CRDT_HANDLE)
    stream.expect(its.init(), ToFunction(), FromFunction(), ToFunction())
    assert stream.next(FromFunction).reply.state_action.HasField("delete")
    stream.expect(HalfClose(), End())
    for _ in range(2):
        refused = harness.refused(go.api.call, MODEL + "/Process", id="Flag-1")
        assert refused == ("UNKNOWN", "Entity deleted")
    go.rec.nothing_more()  # no stream was opened for it


def test_forwards_effects_and_failures(go):
    assert go.process("GCounter-f", {"forward": {"id": "GCounter-other"}}) == {}
    assert go.process("GCounter-f", {"effect": {"id": "GCounter-other", "synchronous": True}},
                      update(gcounter={"increment": 2})) == {"gcounter": {"value": "2"}}
    assert harness.refused(go.api.call, MODEL + "/Process", id="GCounter-f",
                           actions=[{"fail": {"message": "expected"}}]) == ("UNKNOWN", "expected")
    for consistency in ("MAJORITY", "ALL"):  # of one node
        go.process("GCounter-f", {"update": {"gcounter": {"increment": 1}, "write_consistency": consistency}})
    assert go.process("GCounter-f") == {"gcounter": {"value": "4"}}
    stream, other = go.rec.stream(CRDT_HANDLE), go.rec.stream(CRDT_HANDLE)
    stream.expect(Crdt(MODEL, "GCounter-f").init(), *[ToFunction(), FromFunction()] * 6)
    other.expect(Crdt(TWO, "GCounter-other").init(), *[ToFunction(), FromFunction()] * 2)
    go.rec.nothing_more()


def test_the_functions_own_passivation_time_counts(go):
    go.api.call(CONFIGURED + "/Call", id="x")
    stream = go.rec.stream(CRDT_HANDLE)
    stream.expect(Crdt(CONFIGURED, "x").init(), ToFunction(), FromFunction(), HalfClose(), End())
    go.rec.nothing_more()


def test_what_another_proxy_writes_is_told(lab):
    here = Functions(lab)
    function = lab.function("go-crdt-2", [tools.go_crdt()])
    rec = lab.recorder(function)
    proxy = lab.proxy(rec, here.journal, name="cairn-proxy-2")
    rec.expect_discovery()
    there = Api(harness.channel_to(proxy.port))
    path = MODEL + "/ProcessStreamed"
    answers = there.rpc(path)(there.request(path, id="GCounter-1"), timeout=4 * PATIENCE)
    assert there.as_dict(next(answers)) == {"state": {"gcounter": {}}}
    # Whose first change comes first is open: what is sure is that both are told of all.
    here.process("GCounter-1", update(gcounter={"increment": 5}))
    assert there.as_dict(next(answers)) == {"state": {"gcounter": {"value": "5"}}}
    there.call(MODEL + "/Process", id="GCounter-1", actions=[update(gcounter={"increment": 2})])
    assert there.as_dict(next(answers)) == {"state": {"gcounter": {"value": "7"}}}
    its = Crdt(MODEL, "GCounter-1")
    stream = here.rec.stream(CRDT_HANDLE)
    stream.expect(its.init(), ToFunction(), FromFunction(), its.delta(gcounter(2)))
    other = rec.stream(CRDT_HANDLE)
    other.expect(its.init(), ToFunction(), FromFunction(), its.delta(gcounter(5)))
    here.process("GCounter-1", {"delete": {}})
    with pytest.raises(StopIteration):
        next(answers)  # the stream ends well
    stream.expect(ToFunction(), FromFunction(), HalfClose(), End())
    other.expect(FromFunction(), ToFunction(), FromFunction(), FromFunction(), its.deleted(), HalfClose(), End())
    here.rec.nothing_more()
    rec.nothing_more()


def test_random_cancellations_leave_the_function_alive(go):
    """A stream_cancelled for an id that it does not know kills a Go function. (No stream ends by itself here: its
    end and a cancellation may always pass each other on the wire.)"""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    dice = random.Random(seed)
    count = harness.scaled(1000, least=100)
    lock = threading.Lock()
    left = [count]

    def client():
        api, uses = None, 0
        while True:
            if uses % 50 == 0:  # grpcio resets calls that it has not begun, which ends a connection
                api = Api(harness.channel_to(go.proxy.port))
            uses += 1
            with lock:
                if not left[0]:
                    return
                left[0] -= 1
                choice, wait = dice.randrange(4), dice.random() * 0.004
                entity_id = "GCounter-%d" % dice.randrange(4)
            fields = dict(initial_update={"gcounter": {"increment": 1}}) if choice == 1 else {}
            if choice == 2:
                fields["cancel_update"] = {"gcounter": {"increment": 1}}
            answers = go.watch(entity_id, api, **fields)
            if choice == 0:
                answers.cancel()  # before its reply
                continue
            threading.Event().wait(wait)  # anywhere on its way
            if choice == 3:
                go.process(entity_id, update(gcounter={"increment": 1}))
            answers.cancel()
    threads = [threading.Thread(target=client) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(10 * PATIENCE)
        assert not t.is_alive(), "seed %d: a client does not end" % seed
    assert go.function.alive(), "seed %d: %s" % (seed, go.function.text()[-2000:])
    sent = []
    for r in go.rec.records:
        if isinstance(r, ToFunction) and type(r.message).__name__ == "CrdtStreamIn" \
                and r.message.HasField("stream_cancelled"):
            sent.append((r.stream, r.message.stream_cancelled.id))
    assert len(sent) == len(set(sent)), "cancelled twice"
    assert len(sent) > count // 10, "only %d were cancelled" % len(sent)
    assert go.process("GCounter-0")["gcounter"]
    go.rec.forgive(lambda r: True)
