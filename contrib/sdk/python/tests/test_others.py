"""Value entities and actions: declaring and trying them, and their server, driven as a proxy drives it."""

import asyncio
import threading

import cairn_sdk
import grpc
import pytest
from cairn_sdk import ActionTest, DeclarationError, EntityError, ValueTest, protos
from cairn_sdk.declared import pack
from google.protobuf import any_pb2
from others import pb, sums, wallet


def put(amount, then=""):
    return pb.Amount(name="a", amount=amount, then=then)


def number(value):
    return pb.Number(value=value)


# --- values ------------------------------------------------------------------------------------------

def test_a_value_is_updated_and_comes_back():
    test = ValueTest(wallet())
    result = test.handle("Put", put(5))
    assert (result.reply, result.updated, result.deleted) == (pb.Balance(amount=5), pb.Balance(amount=5), False)
    test.reactivate()
    assert test.value == pb.Balance(amount=5)
    assert test.handle("Put", put(0)).updated is None


def test_a_refused_command_changes_nothing():
    test = ValueTest(wallet()).given(pb.Balance(amount=1))
    result = test.handle("Put", put(-2))
    assert (result.failure, result.updated) == ("there are only 1", None)
    assert test.value == pb.Balance(amount=1)


def test_a_deleted_value_begins_anew():
    test = ValueTest(wallet()).given(pb.Balance(amount=1))
    assert test.handle("Close", pb.Owner(name="a")).deleted
    assert test.value == pb.Balance()
    test.reactivate()
    assert test.handle("Put", put(2)).reply == pb.Balance(amount=2)


def test_a_value_forwards_and_has_effects():
    test = ValueTest(wallet())
    result = test.handle("Put", put(5, "forward"))
    assert (result.forward.command_name, result.updated, result.reply) == ("Double", pb.Balance(amount=5), None)
    assert [e.synchronous for e in test.handle("Put", put(5, "effect")).effects] == [True]


def test_bugs_of_a_value():
    with pytest.raises(EntityError, match="the handler of command Put raised KeyError"):
        ValueTest(wallet()).handle("Put", put(1, "raise"))
    with pytest.raises(EntityError, match=r"update\(\) was given .*which is no cairn_sdk.others.Balance"):
        ValueTest(wallet()).handle("Put", put(1, "wrong"))
    with pytest.raises(EntityError, match="its stored value has the type"):
        ValueTest(wallet()).given(number(1))


def test_declarations_of_values_are_checked():
    with pytest.raises(DeclarationError, match="persistence id"):
        cairn_sdk.ValueEntity("cairn_sdk.others.Wallet", "a|b", pb.Balance)
    with pytest.raises(DeclarationError, match="has no command handler"):
        cairn_sdk.ValueEntity("cairn_sdk.others.Wallet", "w", pb.Balance).check()
    streamed = cairn_sdk.ValueEntity("cairn_sdk.others.Sums", "w", pb.Balance)
    for name in ("Double", "Total", "Count", "Echo"):
        streamed.command(name)(lambda value, command, context: None)
    with pytest.raises(DeclarationError, match="no entity key"):
        streamed.check()


# --- actions -----------------------------------------------------------------------------------------

def test_actions_of_every_kind():
    test = ActionTest(sums())
    assert test.handle("Double", number(4)).reply == number(8)
    assert test.stream("Total", number(1), number(2))[0].reply == number(3)
    assert test.stream("Total")[0].reply == number(0)
    assert [r.reply for r in test.stream("Count", number(3))] == [number(0), number(1), number(2)]
    assert [r.reply for r in test.stream("Echo", number(7), number(8))] == [number(7), number(8)]


def test_effects_go_with_the_next_answer_and_a_failure_ends_the_stream():
    results = ActionTest(sums()).stream("Count", number(9))
    assert [(r.reply, r.failure, len(r.effects)) for r in results[3:]] == [
        (None, None, 1), (number(3), None, 0), (None, "no further than 4", 0)]


def test_metadata_of_an_action():
    result = ActionTest(sums()).handle("Double", number(1), headers={"x-mine": "1"})
    assert [(e.key, e.string_value) for e in result.metadata] == [("x-yours", "1")]
    assert ActionTest(sums()).handle("Double", number(-1)).failure == "not below zero"


def test_bugs_of_an_action():
    with pytest.raises(EntityError, match="the handler of command Double raised KeyError"):
        ActionTest(sums()).handle("Double", number(13))


@pytest.mark.parametrize("name, handler, says", [
    ("Count", lambda command, context: None, "must yield"),
    ("Total", lambda command, context: None, "async def"),
])
def test_declarations_of_actions_are_checked(name, handler, says):
    action = sums()
    action.commands[name] = handler
    with pytest.raises(DeclarationError, match=says):
        action.check()


# --- the server ---------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def channel():
    started, loop = threading.Event(), asyncio.new_event_loop()
    server = cairn_sdk.Server(wallet(passivate_after_ms=1500), sums())

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


def test_discovery_announces_both(channel):
    spec = channel.unary_unary("/cloudstate.EntityDiscovery/discover", protos.entity.ProxyInfo.SerializeToString,
                               protos.entity.EntitySpec.FromString)(protos.entity.ProxyInfo(), timeout=20)
    assert [(e.entity_type, e.service_name, e.persistence_id) for e in spec.entities] == [
        ("cloudstate.valueentity.ValueEntity", "cairn_sdk.others.Wallet", "wallet"),
        ("cloudstate.action.ActionProtocol", "cairn_sdk.others.Sums", "")]
    assert spec.entities[0].passivation_strategy.timeout.timeout == 1500


def test_a_values_stream(channel):
    va, out = protos.value_entity, protos.value_entity.ValueEntityStreamOut
    init = va.ValueEntityInit(service_name="cairn_sdk.others.Wallet", entity_id="a")
    init.state.value.CopyFrom(pack(pb.Balance(amount=1)))
    replies = list(channel.stream_stream(
        "/cloudstate.valueentity.ValueEntity/handle", va.ValueEntityStreamIn.SerializeToString, out.FromString)(
            iter([va.ValueEntityStreamIn(init=init)] + [
                va.ValueEntityStreamIn(command=protos.entity.Command(
                    entity_id="a", id=i + 1, name="Put", payload=pack(put(amount))))
                for i, amount in enumerate((4, -9))]), timeout=20))
    kept = va.ValueEntityReply(command_id=1)
    kept.client_action.reply.payload.CopyFrom(pack(pb.Balance(amount=5)))
    kept.state_action.update.value.CopyFrom(pack(pb.Balance(amount=5)))
    refused = va.ValueEntityReply(command_id=2)
    refused.client_action.failure.CopyFrom(protos.entity.Failure(command_id=2, description="there are only 5"))
    assert replies == [out(reply=kept), out(reply=refused)]


def first(name, payload=None):
    return protos.action.ActionCommand(service_name="cairn_sdk.others.Sums", name=name,
                                       payload=None if payload is None else pack(payload))


def element(payload):
    return protos.action.ActionCommand(payload=pack(payload))


def method(channel, kind, name):
    return getattr(channel, kind)("/cloudstate.action.ActionProtocol/" + name,
                                  protos.action.ActionCommand.SerializeToString,
                                  protos.action.ActionResponse.FromString)


def payloads(responses):
    return [r.reply.payload for r in responses]


def test_the_four_calls_of_an_action(channel):
    unary = method(channel, "unary_unary", "handleUnary")
    assert unary(first("Double", number(4)), timeout=20).reply.payload == pack(number(8))
    streamed_in = method(channel, "stream_unary", "handleStreamedIn")
    assert streamed_in(iter([first("Total"), element(number(1)), element(number(2))]),
                       timeout=20).reply.payload == pack(number(3))
    out = method(channel, "unary_stream", "handleStreamedOut")
    assert payloads(out(first("Count", number(2)), timeout=20)) == [pack(number(0)), pack(number(1))]
    both = method(channel, "stream_stream", "handleStreamed")
    assert payloads(both(iter([first("Echo"), element(number(1))]), timeout=20)) == [pack(number(1))]


def test_a_bug_ends_the_call_without_its_words(channel):
    with pytest.raises(grpc.RpcError) as error:
        method(channel, "unary_unary", "handleUnary")(first("Double", number(13)), timeout=20)
    assert (error.value.code().name, error.value.details()) == ("UNKNOWN", "Unexpected action failure")


def test_an_empty_any_is_a_message_of_zeros(channel):
    command = first("Double")
    command.payload.CopyFrom(any_pb2.Any(type_url="type.googleapis.com/cairn_sdk.others.Number"))
    answer = method(channel, "unary_unary", "handleUnary")(command, timeout=20)
    assert answer.reply.payload.type_url == "type.googleapis.com/cairn_sdk.others.Number"
    assert answer.reply.payload.value == b""
