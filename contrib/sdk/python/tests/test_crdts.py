"""CRDTs: the eight values, declaring and trying an entity, and its server, driven as a proxy drives it."""

import asyncio
import threading

import cairn_sdk
import grpc
import pytest
from boards import board, pb, state
from cairn_sdk import (CUSTOM, CrdtTest, DeclarationError, EntityError, Flag, GCounter, GSet, LWWRegister, ORMap, ORSet,
                       PNCounter, Vote, protos)
from cairn_sdk.crdts import of_delta, to_any
from cairn_sdk.declared import pack

crdt = protos.crdt


def act(what, key=""):
    return pb.Act(id="b", what=what, key=key)


def anys(*values):
    return [to_any(value) for value in values]


def orset(*added, removed=(), cleared=False):
    return crdt.CrdtDelta(orset=crdt.ORSetDelta(added=anys(*added), removed=anys(*removed), cleared=cleared))


def ormap(added=(), updated=(), removed=(), cleared=False):
    def entries(of):
        return [crdt.ORMapEntryDelta(key=to_any(key), delta=delta) for key, delta in dict(of).items()]
    return crdt.CrdtDelta(ormap=crdt.ORMapDelta(added=entries(added), updated=entries(updated),
                                                removed=anys(*removed), cleared=cleared))


def same(value):
    """It is what its whole says it is."""
    assert of_delta(value._whole())._whole() == value._whole()
    return value._whole()


# --- the values ----------------------------------------------------------------------------------------

def test_counters():
    up, both = GCounter(), PNCounter()
    up.increment(2)
    up.increment()
    both.increment(5)
    both.decrement(7)
    assert (up.value, up._take().gcounter.increment) == (3, 3)
    assert (both.value, both._take().pncounter.change) == (-2, -2)
    up.increment(0)
    assert (up._take(), both._take()) == (None, None)
    up._apply(crdt.CrdtDelta(gcounter=crdt.GCounterDelta(increment=4)))
    up.increment()
    assert (up.value, up._take().gcounter.increment, same(up).gcounter.increment) == (8, 1, 8)
    for wrong in (-1, 1 << 63):
        with pytest.raises(ValueError):
            up.increment(wrong)


@pytest.mark.parametrize("value", ["ada", b"\0\1", True, False, 7, -1, 1.5, pb.State(keys=["k"]), ""])
def test_elements_of_every_type_come_back(value):
    it = GSet()
    it.add(value)
    assert value in it and len(it) == 1
    (back,) = of_delta(it._take())
    assert back == value and type(back) is type(value)


def test_types_are_part_of_elements_and_not_everything_is_one():
    it = GSet()
    for value in (1, 1.0, True, "1", b"1"):
        it.add(value)
    assert len(it) == 5
    with pytest.raises(TypeError, match="can be no element"):
        it.add(None)


def test_what_the_sdk_does_not_know_stays_as_it_came():
    packed = protos.crdt.GSetDelta().added.add(type_url="json.cloudstate.io/object", value=b"\x0a\x02{}")
    it = of_delta(crdt.CrdtDelta(gset=crdt.GSetDelta(added=[packed])))
    assert list(it) == [packed] and packed in it


def test_a_set_tells_what_has_changed():
    it = of_delta(orset("a", "b", "c"))
    it.add("a")
    assert it._take() is None
    it.add("d")
    it.discard("a")
    it.discard("nobody")
    assert it._take() == orset("d", removed=["a"])
    it.add("e")
    it.discard("e")
    it.discard("b")
    it.add("b")
    assert it._take() == orset("b", removed=["b"])
    it.clear()
    it.add("f")
    assert it._take() == orset("f", cleared=True)
    assert list(it) == ["f"]
    with pytest.raises(KeyError):
        it.remove("a")
    it._apply(orset("g", "h", removed=["f"]))
    assert list(it) == ["g", "h"]
    it._apply(orset(cleared=True))
    assert len(it) == 0 and same(it) == orset()


def test_registers_and_flags():
    register, flag = LWWRegister(), Flag()
    assert register.value is None and not flag
    register.set("a", CUSTOM, 7)
    flag.enable()
    flag.enable()
    delta = register._take().lwwregister
    assert (delta.clock, delta.custom_clock_value, delta.value) == (CUSTOM, 7, to_any("a"))
    assert flag._take().flag.value and flag
    register._apply(crdt.CrdtDelta(lwwregister=crdt.LWWRegisterDelta(value=to_any(3))))
    assert register.value == 3


def test_a_vote_counts_its_own_by_itself():
    it = Vote()
    it.vote(True)
    assert (it.votes_for, it.voters, it.all, it.majority) == (1, 1, True, True)
    assert it._take().vote.self_vote
    it._apply(crdt.CrdtDelta(vote=crdt.VoteDelta(self_vote=True, votes_for=1, total_voters=3)))
    assert it.at_least_one and not it.majority
    it.vote(True)
    assert it._take() is None
    it.vote(False)
    assert (it.votes_for, it.at_least_one, it._take().vote.self_vote) == (0, False, False)


def test_a_map_tells_what_has_changed_in_its_entries():
    it = ORMap()
    it["a"] = GCounter()
    it["a"].increment(2)
    it.entry("m", ORMap).entry("s", ORSet).add("x")
    assert it._take() == ormap(added={"a": crdt.CrdtDelta(gcounter=crdt.GCounterDelta(increment=2)),
                                      "m": ormap(added={"s": orset("x")})})
    assert it._take() is None
    it["m"]["s"].add("y")
    assert it._take() == ormap(updated={"m": ormap(updated={"s": orset("y")})})
    it["a"].increment()
    del it["a"]
    it["z"] = Flag()
    assert it._take() == ormap(added={"z": crdt.CrdtDelta(flag=crdt.FlagDelta())}, removed=["a"])
    it["z"] = GSet()
    assert it._take() == ormap(added={"z": crdt.CrdtDelta(gset=crdt.GSetDelta())}, removed=["z"])
    it.clear()
    it.entry("n", PNCounter).decrement()
    assert it._take() == ormap(added={"n": crdt.CrdtDelta(pncounter=crdt.PNCounterDelta(change=-1))}, cleared=True)
    assert list(it) == ["n"] and same(it)


def test_a_map_is_told_what_others_have_changed():
    it = of_delta(ormap(added={"a": orset("x"), "b": orset("y")}))
    it._apply(ormap(added={"c": orset("z"), "a": crdt.CrdtDelta(flag=crdt.FlagDelta(value=True))},
                    updated={"b": orset(removed=["y"])}, removed=["a"]))
    assert {key: type(value) for key, value in it.items()} == {"b": ORSet, "c": ORSet, "a": Flag}
    assert len(it["b"]) == 0
    it["c"].add("w")
    assert it._take() == ormap(updated={"c": orset("w")})
    it._apply(ormap(cleared=True))
    assert len(it) == 0
    with pytest.raises(KeyError):
        it["a"]
    with pytest.raises(TypeError, match="no other map"):
        it["q"] = it2 = GSet()
        it["r"] = it2


def test_everything_that_was_done_can_be_undone():
    it = of_delta(ormap(added={
        "counter": crdt.CrdtDelta(pncounter=crdt.PNCounterDelta(change=4)), "set": orset("a", "b"),
        "register": crdt.CrdtDelta(lwwregister=crdt.LWWRegisterDelta(value=to_any("r"))),
        "flag": crdt.CrdtDelta(flag=crdt.FlagDelta()), "map": ormap(added={"inner": orset("i")}),
        "vote": crdt.CrdtDelta(vote=crdt.VoteDelta(votes_for=1, total_voters=2))}))
    before = {key: value._whole() for key, value in it.items()}

    def change():
        it["counter"].increment(9)
        it["set"].add("c")
        it["set"].discard("a")
        it["set"].clear()
        it["set"].add("d")
        it["register"].set("new")
        it["flag"].enable()
        it["map"]["inner"].discard("i")
        it["map"].clear()
        it["map"].entry("other", GCounter).increment()
        it["vote"].vote(True)
        it["fresh"] = GSet()
        del it["counter"]
        it["flag"] = GCounter()
        it.clear()
        it["last"] = Flag()

    change()
    it._roll_back()
    after = {key: value._whole() for key, value in it.items()}
    assert {key: (sorted(map(str, value.orset.added)) if value.WhichOneof("delta") == "orset" else value)
            for key, value in after.items()} == {
        key: (sorted(map(str, value.orset.added)) if value.WhichOneof("delta") == "orset" else value)
        for key, value in before.items()}
    assert it._take() is None
    it["map"]["inner"].add("j")
    assert it._take() == ormap(updated={"map": ormap(updated={"inner": orset("j")})})


# --- entities --------------------------------------------------------------------------------------------

def test_commands_change_the_value_and_tell_how():
    test = CrdtTest(board())
    result = test.handle("Do", act("add", "a"))
    assert (result.reply, result.updated) == (pb.State(keys=["a"]), ormap(added={"a": orset("x")}))
    result = test.handle("Do", act("look"))
    assert (result.reply, result.updated) == (pb.State(keys=["a"]), None)
    assert test.handle("Do", act("add-all", "b")).consistency == cairn_sdk.ALL
    test.reactivate()
    assert test.handle("Do", act("remove", "a")).updated == ormap(removed=["a"])
    test.others(lambda board: board.entry("c", ORSet))
    assert test.handle("Do", act("look")).reply == pb.State(keys=["b", "c"])


def test_what_a_refused_command_has_changed_is_undone():
    test = CrdtTest(board())
    result = test.handle("Do", act("add-and-fail", "a"))
    assert (result.failure, result.updated) == ("not today", None)
    assert test.handle("Do", act("look")).updated is None
    assert list(test.value) == []


def test_effects_forwards_and_the_end():
    test = CrdtTest(board())
    assert len(test.handle("Do", act("effect")).effects) == 1
    assert test.handle("Do", act("forward")).forward.command_name == "Do"
    assert test.handle("Do", act("delete")).deleted
    assert test.handle("Do", act("look")).failure == "Entity deleted"


def test_streams_are_told_of_every_change_but_their_own():
    test = CrdtTest(board())
    first = test.stream("Watch", act("all", "1"))
    quiet = test.stream("Watch", act("quiet", "2"))
    assert first.replies == [pb.State(keys=["watched"]), pb.State(keys=["watched"])]
    test.handle("Do", act("add", "a"))
    test.handle("Do", act("look"))
    test.others(lambda board: board.entry("b", ORSet))
    assert first.replies[2:] == [pb.State(keys=["a", "watched"]), pb.State(keys=["a", "b", "watched"])]
    assert quiet.replies == [] and not quiet.ended
    assert test.stream("Watch", act("once")).ended


def test_a_stream_ends_when_it_says_so_or_fails():
    test = CrdtTest(board())
    until, failing = test.stream("Watch", act("until", "a")), test.stream("Watch", act("fail"))
    assert not until.ended
    test.handle("Do", act("add", "a"))
    assert until.ended and until.replies[-1] == pb.State(keys=["a", "watched"])
    assert failing.ended and failing.results[-1].failure == "the board has changed"
    test.handle("Do", act("add", "b"))
    assert until.replies[-1] == pb.State(keys=["a", "watched"])


def test_who_leaves_may_change_the_value():
    test = CrdtTest(board())
    stays, leaves = test.stream("Watch", act("all", "1")), test.stream("Watch", act("all", "2"))
    result = leaves.cancel()
    assert result.updated == ormap(added={"left": orset("2")})
    assert stays.replies[-1] == pb.State(keys=["left", "watched"])
    refuses = test.stream("Watch", act("refuse-to-leave", "3"))
    assert refuses.cancel().updated is None
    assert list(test.value["left"]) == ["2"]


def test_bugs():
    with pytest.raises(EntityError, match="the handler of command Do raised KeyError"):
        CrdtTest(board()).handle("Do", act("add-and-raise", "a"))
    with pytest.raises(EntityError, match="the handler of command Do raised TypeError: this method has one reply"):
        CrdtTest(board()).handle("Do", act("stream"))
    test = CrdtTest(board())
    test.stream("Watch", act("changes"))
    with pytest.raises(EntityError, match="on_change of command Watch changed the value"):
        test.handle("Do", act("add", "a"))
    with pytest.raises(EntityError, match="stored as a GSet, and declared as a ORMap"):
        CrdtTest(board())._make(crdt.CrdtDelta(gset=crdt.GSetDelta()))


def test_declarations_are_checked():
    with pytest.raises(DeclarationError, match="none of GCounter, PNCounter"):
        cairn_sdk.Crdt("cairn_sdk.crdts.Board", "board", dict)
    with pytest.raises(DeclarationError, match="has no command handler"):
        cairn_sdk.Crdt("cairn_sdk.crdts.Board", "board", ORMap).check()


# --- the server --------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def channel():
    started, loop = threading.Event(), asyncio.new_event_loop()
    server = cairn_sdk.Server(board(passivate_after_ms=1500))

    def run():
        asyncio.set_event_loop(loop)
        loop.run_until_complete(server.start("127.0.0.1", 0))
        started.set()
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert started.wait(30)
    with grpc.insecure_channel("127.0.0.1:%d" % server.port) as it:
        yield it
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)


def handle(channel, *requests):
    call = channel.stream_stream("/cloudstate.crdt.Crdt/handle", crdt.CrdtStreamIn.SerializeToString,
                                 crdt.CrdtStreamOut.FromString)
    return list(call(iter(requests), timeout=20))


def begin(delta=None, service="cairn_sdk.crdts.Board"):
    return crdt.CrdtStreamIn(init=crdt.CrdtInit(service_name=service, entity_id="b", delta=delta))


def command(number, what, key="", name="Do"):
    return crdt.CrdtStreamIn(command=protos.entity.Command(
        entity_id="b", id=number, name=name, payload=pack(act(what, key)), streamed=name == "Watch"))


def test_discovery_announces_it(channel):
    spec = channel.unary_unary("/cloudstate.EntityDiscovery/discover", protos.entity.ProxyInfo.SerializeToString,
                               protos.entity.EntitySpec.FromString)(protos.entity.ProxyInfo(), timeout=20)
    assert [(e.entity_type, e.service_name, e.persistence_id) for e in spec.entities] == [
        ("cloudstate.crdt.Crdt", "cairn_sdk.crdts.Board", "board")]


def test_a_stream_of_its_own(channel):
    out = handle(channel, begin(ormap(added={"a": orset("x")})), command(1, "watch", "w", "Watch"),
                 command(2, "add", "b"), crdt.CrdtStreamIn(delta=ormap(removed=["a"])),
                 crdt.CrdtStreamIn(stream_cancelled=protos.entity.StreamCancelled(entity_id="b", id=1)),
                 crdt.CrdtStreamIn(delete=crdt.CrdtDelete()))
    assert [m.WhichOneof("message") for m in out] == [
        "reply", "reply", "streamed_message", "streamed_message", "stream_cancelled_response"]
    assert out[0].reply.streamed and out[0].reply.state_action.update == ormap(added={"watched": orset("w")})
    assert out[1].reply.client_action.reply.payload == pack(pb.State(keys=["a", "b", "watched"]))
    assert out[3].streamed_message.client_action.reply.payload == pack(pb.State(keys=["b", "watched"]))
    assert out[4].stream_cancelled_response.state_action.update == ormap(added={"left": orset("w")})


@pytest.mark.parametrize("requests, command_id, says", [
    ([command(3, "look")], 3, "before init"),
    ([begin(service="nobody")], 0, "no service 'nobody'"),
    ([begin(), begin()], 0, "init after init"),
    ([begin(), command(1, "add-and-raise", "a")], 1, "raised KeyError"),
    ([begin(orset("x"))], 0, "stored as a ORSet"),
])
def test_faults_end_the_stream(channel, requests, command_id, says):
    (failure,) = handle(channel, *requests)
    assert failure.failure.command_id == command_id and says in failure.failure.description


def test_the_state_is_what_it_says():
    assert state(of_delta(ormap(added={"b": orset(), "a": orset()}))) == pb.State(keys=["a", "b"])
