"""As the protocol's compatibility kit goes about it (the contract's section 9): all services of the Go SDK's own test
function in one process, the proxy started by three variables of the environment and the journal by nothing at all,
ids from entity-1 on an empty store, every message compared, and nothing more sent."""

import queue
import urllib.parse

import pytest

import harness
import model
import tools
from crdt import Crdt, pncounter, vote
from entity import Action, Entity, Value, effect, pack
from journal_client import Journal, rec
from recorder import ACTION, CRDT_HANDLE, PATIENCE
from records import End, FromFunction, HalfClose, ToFunction
from reflection import Api

MODEL = "cloudstate.tck.model."
ES, ES_TWO, ES_CONFIGURED = (MODEL + n for n in ("EventSourcedTckModel", "EventSourcedTwo", "EventSourcedConfigured"))
VALUE, VALUE_TWO, VALUE_CONFIGURED = (MODEL + "valueentity." + n for n in (
    "ValueEntityTckModel", "ValueEntityTwo", "ValueEntityConfigured"))
ACT, ACT_TWO = MODEL + "action.ActionTckModel", MODEL + "action.ActionTwo"
CRDT, CRDT_TWO, CRDT_CONFIGURED = (MODEL + "crdt." + n for n in ("CrdtTckModel", "CrdtTwo", "CrdtConfigured"))
EVENTS = MODEL + "eventlogeventing."
CART = "com.example.shoppingcart.ShoppingCart"
SERVICES = sorted([ES, ES_TWO, ES_CONFIGURED, VALUE, VALUE_TWO, VALUE_CONFIGURED, ACT, ACT_TWO, CRDT, CRDT_TWO,
                   CRDT_CONFIGURED, CART] + [EVENTS + n for n in (
                       "EventLogSubscriberModel", "EventSourcedEntityOne", "EventSourcedEntityTwo")])
JOURNAL, FRONT, METRICS, FUNCTION = 7117, 9000, 9090, 8080


CRDT_UPDATES = {
    "GCounter-1": {"gcounter": {"increment": 5}}, "PNCounter-1": {"pncounter": {"change": -3}},
    "GSet-1": {"gset": {"add": "a"}}, "ORSet-1": {"orset": {"add": "b"}},
    "LWWRegister-1": {"lwwregister": {"value": "w"}}, "Flag-1": {"flag": {}},
    "ORMap-1": {"ormap": {"update": {"key": "PNCounter-1", "update": {"pncounter": {"change": 3}}}}}}
CRDT_STATES = {
    "GCounter-1": {"gcounter": {"value": "5"}}, "PNCounter-1": {"pncounter": {"value": "-3"}},
    "GSet-1": {"gset": {"elements": ["a"]}}, "ORSet-1": {"orset": {"elements": ["b"]}},
    "LWWRegister-1": {"lwwregister": {"value": "w"}}, "Flag-1": {"flag": {"value": True}},
    "ORMap-1": {"ormap": {"entries": [{"key": "PNCounter-1", "value": {"pncounter": {"value": "3"}}}]}}}


class Kit:
    """The function, the recorder on its usual port, journal and proxy; nothing is said that has a default."""

    def __init__(self, lab):
        for port in (JOURNAL, FRONT, METRICS, FUNCTION):
            if harness.accepts(port):
                pytest.skip("port %d is taken on this machine" % port)
        self.function = lab.function("go-tck", [tools.go_tck()])
        self.rec = lab.recorder(self.function, port=FUNCTION)
        self.journal = lab.run("cairnd", [tools.program("cairnd")], kind=harness.Program)
        self.proxy = lab.run("cairn-proxy", [tools.program("cairn-proxy")], {
            "HTTP_PORT": str(FRONT), "USER_FUNCTION_HOST": "127.0.0.1", "USER_FUNCTION_PORT": str(FUNCTION)},
            kind=harness.Program)
        assert harness.eventually(lambda: harness.status_of(FRONT, "/"), "any request is answered") == 404
        self.rec.expect_discovery()
        harness.eventually(lambda: harness.accepts(JOURNAL), "the journal listens")
        self.api = Api(harness.channel_to(FRONT))

    def request(self, path, **fields):
        return self.api.request(path, **fields)

    def response(self, path, **fields):
        return self.api.type(self.api.method(path).output_type.full_name)(**fields)

    def http(self, path, body, status=200):
        answer = harness.http_request(FRONT, "POST", path, body)
        assert answer.status == status, answer
        assert status != 200 or answer.headers["content-type"] == "application/json"
        return answer.body.decode()

    def quiet(self):
        self.rec.nothing_more()


@pytest.fixture
def kit(lab):
    return Kit(lab)


def failing(kit, path, **fields):
    return harness.refused(kit.api.call, path, **fields)


def emitted(value):
    return {"emit": {"value": value}}


def test_reflection_lists_the_services(kit):
    assert sorted(kit.api.services) == SERVICES
    assert kit.api.services == SERVICES
    kit.quiet()


def test_event_sourced(kit):
    path, e = ES + "/Process", Entity(ES, "entity-1")
    persisted = kit.api.type(MODEL + "Persisted")

    def ask(*actions):
        return kit.request(path, id="entity-1", actions=list(actions))

    def answer(text=""):
        return kit.response(path, message=text)
    # Five events make a snapshot of this function; a failure after an event restarts it.
    assert kit.api.call(path, id="entity-1") == answer()
    stream = kit.rec.entity(e)
    stream.expect(e.init(), e.command(1, "Process", ask()), e.reply(1, answer()))
    text, number = "", 1
    for values in (["A"], ["B", "C", "D"], ["E"]):
        number += 1
        text += "".join(values)
        actions = [emitted(v) for v in values]
        assert kit.api.call(path, id="entity-1", actions=actions) == answer(text)
        stream.expect(e.command(number, "Process", ask(*actions)), e.reply(
            number, answer(text), events=[persisted(value=v) for v in values],
            snapshot=persisted(value=text) if values == ["E"] else None))
    forward = [{"forward": {"id": "entity-2"}}]
    two = Entity(ES_TWO, "entity-2")
    other = kit.request(ES_TWO + "/Call", id="entity-2")
    assert kit.api.call(path, id="entity-1", actions=forward) == answer()
    stream.expect(e.command(5, "Process", ask(*forward)), e.forward(5, ES_TWO, "Call", other))
    second = kit.rec.entity(two)
    second.expect(two.init(), two.command(1, "Call", other), two.reply(1, answer()))
    side = [{"effect": {"id": "entity-2", "synchronous": True}}]
    assert kit.api.call(path, id="entity-1", actions=side) == answer("ABCDE")
    stream.expect(e.command(6, "Process", ask(*side)),
                  e.reply(6, answer("ABCDE"), effects=[effect(ES_TWO, "Call", other, True)]))
    second.expect(two.command(2, "Call", other), two.reply(2, answer()))
    fail = [emitted("X"), {"fail": {"message": "expected failure"}}]
    assert failing(kit, path, id="entity-1", actions=fail) == ("UNKNOWN", "expected failure")
    stream.expect(e.command(7, "Process", ask(*fail)), e.refusal(7, "expected failure", restart=True),
                  HalfClose(), End(0))
    stream = kit.rec.entity(e)
    stream.expect(e.init(persisted(value="ABCDE"), 5))
    assert kit.api.call(path, id="entity-1") == answer("ABCDE")
    stream.expect(e.command(1, "Process", ask()), e.reply(1, answer("ABCDE")))
    assert kit.http("/tck/model/eventsourced/entity-1", '{"actions": [{"emit": {"value": "F"}}]}') == \
        '{"message":"ABCDEF"}'
    stream.expect(e.command(2, "Process", ask(emitted("F"))),
                  e.reply(2, answer("ABCDEF"), events=[persisted(value="F")]))
    assert kit.http("/tck/model/eventsourced/entity-1", '{"actions": [{"fail": {"message": "no"}}]}', 500) == "no"
    stream.expect(ToFunction(), e.refusal(3, "no"))
    # A failure after an event by HTTP: 500 with the words alone, and again the restart.
    assert kit.http("/tck/model/eventsourced/entity-1",
                    '{"actions": [{"emit": {"value": "z"}}, {"fail": {"message": "emit then fail"}}]}',
                    500) == "emit then fail"
    stream.expect(ToFunction(), e.refusal(4, "emit then fail", restart=True), HalfClose(), End(0))
    stream = kit.rec.entity(e)
    stream.expect(e.init(persisted(value="ABCDE"), 5), e.event(6, persisted(value="F")))
    assert kit.http("/tck/model/eventsourced/entity-1", "{}") == '{"message":"ABCDEF"}'
    stream.expect(e.command(1, "Process", ask()), e.reply(1, answer("ABCDEF")))
    configured = Entity(ES_CONFIGURED, "entity-3")
    kit.api.call(ES_CONFIGURED + "/Call", id="entity-3")
    kit.rec.entity(configured).expect(configured.init(), ToFunction(), FromFunction(), HalfClose(), End(0))
    kit.quiet()
    assert kit.proxy.terminate() == 0
    stream.expect(HalfClose(), End(0))
    second.expect(HalfClose(), End(0))
    kit.quiet()


def test_values(kit):
    path, v = VALUE + "/Process", Value(VALUE, "entity-1")
    persisted = kit.api.type(MODEL + "valueentity.Persisted")

    def ask(*actions):
        return kit.request(path, id="entity-1", actions=list(actions))

    def answer(text=""):
        return kit.response(path, message=text)
    update = {"update": {"value": "A"}}
    assert kit.api.call(path, id="entity-1", actions=[update]) == answer("A")
    stream = kit.rec.entity(v)
    stream.expect(v.init(), v.command(1, "Process", ask(update)),
                  v.reply(1, answer("A"), update=persisted(value="A")))
    assert kit.http("/tck/model/entity/entity-1", '{"actions": [{"delete": {}}]}') == '{"message":""}'
    stream.expect(v.command(2, "Process", ask({"delete": {}})), v.reply(2, answer(), delete=True))
    forward = [update, {"forward": {"id": "entity-2"}}]
    two, other = Value(VALUE_TWO, "entity-2"), kit.request(VALUE_TWO + "/Call", id="entity-2")
    assert kit.api.call(path, id="entity-1", actions=forward) == answer()
    stream.expect(v.command(3, "Process", ask(*forward)),
                  v.forward(3, VALUE_TWO, "Call", other, update=persisted(value="A")))
    kit.rec.entity(two).expect(two.init(), two.command(1, "Call", other), two.reply(1, answer()))
    assert failing(kit, path, id="entity-1", actions=[{"fail": {"message": "no"}}]) == ("UNKNOWN", "no")
    stream.expect(ToFunction(), v.refusal(4, "no"))
    configured = Value(VALUE_CONFIGURED, "entity-3")
    kit.api.call(VALUE_CONFIGURED + "/Call", id="entity-3")
    kit.rec.entity(configured).expect(configured.init(), ToFunction(), FromFunction(), HalfClose(), End(0))
    kit.quiet()


def group(*steps):
    return {"groups": [{"steps": list(steps)}]}


def test_actions_of_all_four_kinds(kit):
    a, two = Action(ACT), Action(ACT_TWO)
    step, later = group({"reply": {"message": "one"}}), group(
        {"reply": {"message": "two"}}, {"effect": {"id": "x", "synchronous": True}})
    other = kit.request(ACT_TWO + "/Call", id="x")

    def path(name):
        return ACT + "/Process" + name

    def answer(text):
        return kit.response(path("Unary"), message=text)

    def calls(kind):
        return kit.rec.stream(ACTION + kind)

    def effected():
        stream = calls("handleUnary")
        assert stream.next().payload == pack(other)
        stream.expect(HalfClose(), FromFunction(), End(0))

    def begins(stream, name, payload=None):
        first = stream.next()
        assert first == a.first(name, payload, first.metadata if first.HasField("metadata") else None).message

    def replied(stream, text, *effects):
        out = stream.next(FromFunction)
        for seen in out.side_effects:
            seen.ClearField("metadata")  # Go's is a copy of the command's
        assert (out.reply.payload, list(out.side_effects)) == (pack(answer(text)), list(effects))
    side = effect(ACT_TWO, "Call", other, True)
    assert kit.api.call(path("Unary"), **later) == answer("two")
    stream = calls("handleUnary")
    begins(stream, "ProcessUnary", kit.request(path("Unary"), **later))
    stream.expect(HalfClose())
    replied(stream, "two", side)
    stream.expect(End(0))
    effected()
    requests = [kit.request(path("StreamedIn"), **r) for r in (step, later)]
    assert kit.api.rpc(path("StreamedIn"))(iter(requests), timeout=PATIENCE) == answer("two")
    stream = calls("handleStreamedIn")
    begins(stream, "ProcessStreamedIn")
    stream.expect(a.element(requests[0]), a.element(requests[1]), HalfClose())
    replied(stream, "two", side)
    stream.expect(End(0))
    effected()
    many = {"groups": step["groups"] + later["groups"]}
    assert list(kit.api.rpc(path("StreamedOut"))(kit.request(path("StreamedOut"), **many), timeout=PATIENCE)) == [
        answer("one"), answer("two")]
    stream = calls("handleStreamedOut")
    begins(stream, "ProcessStreamedOut", kit.request(path("StreamedOut"), **many))
    stream.expect(HalfClose())
    replied(stream, "one")
    replied(stream, "two", side)
    stream.expect(End(0))
    effected()
    asked = queue.Queue()
    answers = kit.api.rpc(path("Streamed"))(iter(asked.get, None), timeout=PATIENCE)
    stream = calls("handleStreamed")
    begins(stream, "ProcessStreamed")
    for message, text, effects in ((requests[0], "one", []), (requests[1], "two", [side])):
        asked.put(message)
        assert next(answers) == answer(text)
        stream.expect(a.element(message))
        replied(stream, text, *effects)
    effected()
    asked.put(None)
    stream.expect(HalfClose(), End(0))
    assert not list(answers)
    assert kit.api.call(path("Unary"), **group({"forward": {"id": "x"}})) == answer("")
    stream, target = calls("handleUnary"), calls("handleUnary")
    stream.expect(ToFunction(), HalfClose())
    forward = stream.next(FromFunction).forward
    stream.expect(End(0))
    target.expect(two.first("Call", other, forward.metadata), HalfClose(), FromFunction(), End(0))
    assert kit.http("/tck/model/action/unary", '{"groups": [{"steps": [{"fail": {"message": "no"}}]}]}', 500) == "no"
    calls("handleUnary").expect(ToFunction(), HalfClose(), FromFunction(), End(0))
    kit.quiet()


def test_crdts_and_a_watcher_of_connections(kit):
    path, watch = CRDT + "/Process", CRDT + "/ProcessStreamed"
    c = Crdt(CRDT, "PNCounter-1")
    assert kit.http("/tck/model/crdt/PNCounter-1", '{"actions": [{"update": {"pncounter": {"change": 42} }}]}') == \
        '{"state":{"pncounter":{"value":"42"}}}'
    stream = kit.rec.stream(CRDT_HANDLE)
    stream.expect(c.init(), c.command(1, "Process", kit.request(path, id="PNCounter-1", actions=[
        {"update": {"pncounter": {"change": "42"}}}])), c.reply(
            1, kit.response(path, state={"pncounter": {"value": 42}}), update=pncounter(42)))
    kit.api.call(path, id="PNCounter-1", actions=[{"delete": {}}])
    stream.expect(ToFunction(), c.reply(2, kit.response(path, state={"pncounter": {"value": 42}}), delete=True),
                  HalfClose(), End(0))
    its = Crdt(CRDT, "Vote-2")

    def voted(mine, count):
        return kit.response(path, state={"vote": {"self_vote": mine, "votes_for": count, "total_voters": 1}})
    monitor = kit.api.rpc(watch)(kit.request(watch, id="Vote-2"), timeout=PATIENCE)
    assert next(monitor) == voted(False, 0)
    stream = kit.rec.stream(CRDT_HANDLE)
    stream.expect(its.init(), its.command(1, "ProcessStreamed", kit.request(watch, id="Vote-2"), streamed=True),
                  its.reply(1, voted(False, 0), streamed=True))
    request = kit.request(watch, id="Vote-2", initial_update={"vote": {"self_vote": True}},
                          cancel_update={"vote": {"self_vote": False}}, empty=True)
    connected = kit.api.rpc(watch)(request, timeout=PATIENCE)
    assert next(monitor) == voted(True, 1)
    stream.expect(its.command(2, "ProcessStreamed", request, streamed=True),
                  its.reply(2, streamed=True, update=vote(True)), its.streamed(1, voted(True, 1)))
    connected.cancel()
    assert next(monitor) == voted(False, 0)
    stream.expect(its.cancelled(2), its.cancel_response(2, update=vote(False)), its.streamed(1, voted(False, 0)))
    monitor.cancel()
    stream.expect(its.cancelled(1), its.cancel_response(1))
    assert kit.api.call(path, id="Vote-2", actions=[{"delete": {}}]) == voted(False, 0)
    stream.expect(ToFunction(), its.reply(3, voted(False, 0), delete=True), HalfClose(), End(0))
    configured = Crdt(CRDT_CONFIGURED, "Configured-3")
    kit.api.call(CRDT_CONFIGURED + "/Call", id="Configured-3")
    kit.rec.stream(CRDT_HANDLE).expect(configured.init(), ToFunction(), FromFunction(), HalfClose(), End(0))
    kit.quiet()


def test_event_logs(kit):
    def subscriber(name):
        stream = kit.rec.stream(ACTION + "handleUnary")
        command = stream.next()
        assert (command.service_name, command.name) == (EVENTS + "EventLogSubscriberModel", name)
        keys = [e.key for e in command.metadata.entries]
        assert sorted(keys) == ["Content-Type", "ce-id", "ce-source", "ce-specversion", "ce-subject", "ce-time",
                                "ce-type"]
        stream.expect(HalfClose(), FromFunction(), End(0))

    def emitter(service, entity_id):
        e = Entity(EVENTS + service, entity_id)
        kit.rec.entity(e).expect(e.init(), ToFunction(), FromFunction())
    for number, kind in ((1, "reply"), (2, "forward")):
        entity_id = "eventlogeventing:%d" % number
        kit.api.call(EVENTS + "EventSourcedEntityOne/EmitEvent", id=entity_id,
                     event_one={"step": {kind: {"message": "some message"}}})
        emitter("EventSourcedEntityOne", entity_id)
        subscriber("ProcessEventOne")
    subscriber("Effect")
    kit.api.call(EVENTS + "EventSourcedEntityTwo/EmitJsonEvent", id="eventlogeventing:3", message="some json message")
    emitter("EventSourcedEntityTwo", "eventlogeventing:3")
    subscriber("ProcessAnyEvent")
    kit.quiet()


def test_services_without_bindings_have_their_default_paths(kit):
    es, value, act, crdt = (Entity(ES_TWO, "entity-1"), Value(VALUE_TWO, "entity-1"), Action(ACT_TWO),
                            Crdt(CRDT_TWO, "PNCounter-1"))
    for service, entity_id, body in ((ES_TWO, "entity-1", '{"message":""}'), (VALUE_TWO, "entity-1", '{"message":""}'),
                                     (ACT_TWO, "x", '{"message":""}'), (CRDT_TWO, "PNCounter-1", "{}")):
        assert kit.http("/%s/Call" % service, '{"id": "%s"}' % entity_id) == body
    for its in (es, value):
        request = kit.request(its.service + "/Call", id="entity-1")
        kit.rec.entity(its).expect(its.init(), its.command(1, "Call", request), FromFunction())
    stream = kit.rec.stream(ACTION + "handleUnary")
    first, asked = stream.next(), kit.request(ACT_TWO + "/Call", id="x")
    assert first == act.first("Call", asked, first.metadata if first.HasField("metadata") else None).message
    stream.expect(HalfClose(), FromFunction(), End(0))
    kit.rec.stream(CRDT_HANDLE).expect(
        crdt.init(), crdt.command(1, "Call", kit.request(CRDT_TWO + "/Call", id="PNCounter-1")), FromFunction())
    kit.quiet()


@pytest.mark.parametrize("odd", ["a/b:c%d+e|f", " with space ", "%2F", "ü", "x" * 400])
def test_ids_are_taken_as_they_are(kit, odd):
    """By every kind that has them, over gRPC and HTTP alike."""
    path = urllib.parse.quote(odd, safe="")
    for service, url, its in ((ES, "eventsourced/", Entity), (VALUE, "entity/", Value), (CRDT, "crdt/GCounter-", Crdt)):
        entity_id = "GCounter-" + odd if its is Crdt else odd
        kit.api.call(service + "/Process", id=entity_id)
        assert kit.http("/tck/model/" + url + path, "{}")
        its = its(service, entity_id)
        request = kit.request(service + "/Process", id=entity_id)
        stream = kit.rec.stream(CRDT_HANDLE) if service == CRDT else kit.rec.entity(its)
        stream.expect(its.init(), its.command(1, "Process", request), FromFunction(),
                      its.command(2, "Process", request), FromFunction())
    kit.quiet()


def test_a_restart_of_everything_loses_nothing(kit):
    """All three are killed at once, while they are idle and when all that must be known is on the disk."""
    emit = EVENTS + "EventSourcedEntityOne/EmitEvent"
    kit.api.call(ES + "/Process", id="entity-1", actions=[emitted("A"), emitted("B")])
    kit.api.call(VALUE + "/Process", id="entity-1", actions=[{"update": {"value": "V"}}])
    for crdt, update in CRDT_UPDATES.items():
        kit.api.call(CRDT + "/Process", id=crdt, actions=[{"update": update}])
    kit.api.call(CRDT + "/Process", id="Flag-2", actions=[{"update": {"flag": {}}}])
    kit.api.call(CRDT + "/Process", id="Flag-2", actions=[{"delete": {}}])
    kit.api.call(emit, id="before", event_one={"step": {"reply": {"message": "m"}}})
    delivered = kit.rec.stream(ACTION + "handleUnary")
    delivered.expect(ToFunction(), HalfClose(), FromFunction(), End(0))
    journal = Journal(JOURNAL)
    emitted_at = journal.read(category="eventlogeventing-one")[-1].position

    def kept():
        offsets = [journal.read(stream=s.name)[-1] for s in journal.list_streams(prefix="$group-").streams
                   if s.name.endswith("|eventlogeventing-one")]
        return any(rec.GroupOffset.FromString(e.body.data).position > emitted_at for e in offsets)
    harness.eventually(kept, "the group's place behind it is kept", pause=0.1)
    kit.rec.forgive(lambda r: True)
    for process in (kit.proxy, kit.journal, kit.function):
        process.kill()
    kit.function.start()
    kit.function.ready()
    kit.journal.start()
    kit.proxy.start()
    harness.eventually(lambda: harness.accepts(FRONT), "the proxy is back")
    kit.rec.expect_discovery()
    kit.api = Api(harness.channel_to(FRONT))
    assert kit.api.call(ES + "/Process", id="entity-1").message == "AB"
    assert kit.api.call(VALUE + "/Process", id="entity-1").message == "V"
    for crdt, update in CRDT_UPDATES.items():
        state = kit.api.as_dict(kit.api.call(CRDT + "/Process", id=crdt))["state"]
        assert state == CRDT_STATES[crdt], crdt
    assert failing(kit, CRDT + "/Process", id="Flag-2") == ("UNKNOWN", "Entity deleted")
    kit.api.call(emit, id="after", event_one={"step": {"reply": {"message": "m"}}})
    stream = kit.rec.stream(ACTION + "handleUnary")
    command = stream.next()  # the first that is delivered: the one before was, and is not again
    assert [e.string_value for e in command.metadata.entries if e.key == "ce-subject"] == ["after"]
    kit.rec.forgive(lambda r: True)


def test_metrics_and_the_journals_port_are_the_usual_ones(kit):
    kit.api.call(ES + "/Process", id="entity-1", actions=[emitted("A")])
    page = harness.http_request(METRICS, "GET", "/metrics").body.decode()
    assert 'service="%s"' % ES in page
    assert harness.status_of(JOURNAL, "/readyz") == 200
    assert "127.0.0.1:7117" in kit.journal.text() and (kit.journal.log.parent / "cairn-data").is_dir()
    assert harness.accepts(FRONT, host="127.0.0.2")  # on all interfaces
    assert not harness.accepts(JOURNAL, host="127.0.0.2")
    kit.rec.forgive(lambda r: True)


def test_what_is_not_said_is_the_usual(lab):
    """No port at all, and the journal by its variable alone."""
    for port in (FRONT, METRICS, FUNCTION):
        if harness.accepts(port):
            pytest.skip("port %d is taken on this machine" % port)
    journal = lab.cairnd("memory")
    rec = lab.recorder(spec=model.spec(), port=FUNCTION)
    lab.run("cairn-proxy", [tools.program("cairn-proxy")], {"CAIRN_JOURNAL": "127.0.0.1:%d" % journal.port},
            kind=harness.Program)
    rec.expect_discovery()
    harness.eventually(lambda: harness.accepts(FRONT), "the proxy listens")
    assert harness.status_of(METRICS, "/healthz") == 200 and harness.accepts(METRICS, host="127.0.0.2")
    call = harness.channel_to(FRONT).unary_unary("/cairn.test.Model/Process", model.pb.Request.SerializeToString,
                                                 model.pb.Response.FromString)
    answer = call.future(model.request("e", "go"), timeout=PATIENCE)
    e = Entity(model.MODEL, "e")
    stream = rec.entity(e)
    stream.expect(e.init(), e.command(1, "Process", model.request("e", "go")))
    stream.send(e.reply(1, model.response("x"), events=[model.happened("1")]).message)
    assert answer.result() == model.response("x")
    assert len(Journal(journal.port).read(stream="model|e")) == 1
