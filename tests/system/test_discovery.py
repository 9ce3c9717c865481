"""Discovery, the contract's section 1: what is asked, what is refused, and what happens when the function
goes away and comes back."""

import json
import subprocess
import threading

import pytest
from google.protobuf import descriptor_pb2

import harness
import model
import protos
import tools
from entity import Entity
from model import happened, request, response
from records import Broken, HalfClose, ToFunction
from reflection import Api, Reflection
from stage import Stage

OPTIONS = protos.annotations.http


# --- what is refused ------------------------------------------------------------------

def entity(**changes):
    def change(spec):
        for name, value in changes.items():
            setattr(spec.entities[0], name, value)
    return dict(change=change)


def version(major, minor):
    def change(spec):
        spec.service_info.protocol_major_version = major
        spec.service_info.protocol_minor_version = minor
    return dict(change=change)


def no_entities(spec):
    del spec.entities[:]


def twice(spec):
    spec.entities.add().CopyFrom(spec.entities[0])
    spec.entities[-1].persistence_id = "else"


def streamed(**kinds):
    def change(files):
        method = model.method_of(files, "Model", "Process")
        for name, value in kinds.items():
            setattr(method, name, value)
    return dict(change_files=change)


def keyless(files):
    model.method_of(files, "Model", "Process").input_type = ".cairn.test.Keyless"


def homeless(files):
    model.method_of(files, "Model", "Process").input_type = ".cairn.test.Nothing"


def missing_import(files):
    file = model.file_of(files)
    file.dependency.append("other.proto")
    file.message_type[0].field.add(name="other", number=9, label=1, type=11, type_name=".other.Type")


def without(name):
    def change(files):
        for i, file in enumerate(files.file):
            if file.name == name:
                del files.file[i]
                return
    return dict(change_files=change)


def rule(**fields):
    def change(files):
        options = model.method_of(files, "Model", "Process").options
        options.ClearExtension(OPTIONS)
        options.Extensions[OPTIONS].CopyFrom(protos.http.HttpRule(**fields))
    return dict(change_files=change)


def garbage(spec):
    spec.proto = b"\xff\xff\xff\xff"


REFUSED = {
    "version 0.1": (version(0, 1), r"0\.1"),
    "version 0.0": (version(0, 0), r"0\.0"),
    "version 1.2": (version(1, 2), r"1\.2"),
    "no entities": (dict(change=no_entities), "entit"),
    "service not described": (entity(service_name="cairn.test.Nowhere"), "cairn.test.Nowhere"),
    "service twice": (dict(change=twice), "cairn.test.Model"),
    "reserved service": (entity(service_name="grpc.health.v1.Health"), "grpc.health.v1.Health"),
    "reserved reflection": (entity(service_name="grpc.reflection.v1alpha.ServerReflection"),
                            "grpc.reflection.v1alpha.ServerReflection"),
    "unknown type": (entity(entity_type="cloudstate.nothing.Such"), "cloudstate.nothing.Such"),
    "a type that is nowhere": (dict(change_files=homeless), "cairn.test.Nothing"),
    "an import that is missing and used": (dict(change_files=missing_import), "other.Type"),
    "garbage": (dict(change=garbage), "."),
    "no key": (dict(change_files=keyless), "Keyless|Process"),
    "streamed in": (streamed(client_streaming=True), "Process"),
    "streamed out": (streamed(server_streaming=True), "Process"),
    "path with an unknown field": (rule(get="/a/{nope}"), "nope"),
    "path with a repeated field": (rule(get="/a/{id}/{id}"), "id"),
    "body on GET": (rule(get="/a/{id}", body="*"), "body|GET"),
    "body is no message": (rule(post="/a", body="text"), "text"),
    "** not last": (rule(get="/a/**/b"), r"\*\*"),
    "nested additional bindings": (rule(get="/a", additional_bindings=[protos.http.HttpRule(
        get="/b", additional_bindings=[protos.http.HttpRule(get="/c")])]), "additional"),
    "selector of another method": (rule(selector="cairn.test.Model.Look", get="/a"), "selector|Look"),
    "persistence id with a bar": (entity(persistence_id="a|b"), r"a\|b"),
    "persistence id with a dollar": (entity(persistence_id="$a"), r"\$a"),
    "no persistence id": (entity(persistence_id=""), "persistence"),
    "persistence id twice": (entity(persistence_id="two"), "two"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_spec_is_refused_by_name(lab, name):
    spoil, why = REFUSED[name]
    rec = lab.recorder(spec=model.spec(**spoil))
    proxy = lab.proxy(rec, harness.free_port(), wait=False)
    rec.expect_discovery()
    message = rec.expect_report(why)
    logged = message.splitlines()[0].split('"')[0][:40]
    harness.eventually(lambda: logged in proxy.text(), "the log says it too: %r" % logged)
    assert not harness.accepts(proxy.port), "the outside port is bound though the spec was refused"
    assert harness.status_of(proxy.management, "/ready") == 503
    assert harness.status_of(proxy.management, "/alive") == 200
    rec.nothing_more()


def test_a_refused_function_is_asked_again_when_it_comes_back(lab):
    rec = lab.recorder(spec=model.spec(**version(0, 1)))
    proxy = lab.proxy(rec, lab.cairnd("memory"), wait=False)
    rec.expect_discovery()
    rec.expect_report(r"0\.1")
    rec.drop()
    rec.expect_discovery()  # and the same refusal is not reported twice
    rec.nothing_more()
    rec.spec = model.spec()
    rec.drop()
    rec.expect_discovery()
    proxy.ready()
    assert harness.accepts(proxy.port)
    rec.nothing_more()


@pytest.mark.parametrize("how", ["flag", "environment"])
def test_the_protocol_check_can_be_switched_off(lab, how):
    rec = lab.recorder(spec=model.spec(**version(0, 0)))
    proxy = lab.proxy(rec, lab.cairnd("memory"),
                      options=["--protocol-check=off"] if how == "flag" else [],
                      env={} if how == "flag" else {"CAIRN_PROTOCOL_CHECK": "off"})
    rec.expect_discovery()
    assert harness.accepts(proxy.port)
    rec.nothing_more()


def test_an_import_that_only_brings_options_may_be_missing(lab):
    def change(files):
        for name in ("cloudstate/eventing.proto", "google/api/http.proto", "google/api/annotations.proto"):
            without(name)["change_files"](files)
    rec = lab.recorder(spec=model.spec(change_files=change))
    lab.proxy(rec, lab.cairnd("memory"))
    rec.expect_discovery()
    rec.nothing_more()


# --- the function comes and goes ---------------------------------------------------------

def test_the_proxy_waits_for_the_function(lab):
    rec = lab.recorder(spec=model.spec(), listen=False)
    proxy = lab.proxy(rec, lab.cairnd("memory"), wait=False)
    harness.eventually(lambda: harness.status_of(proxy.management, "/alive") == 200, "it is alive")
    assert harness.status_of(proxy.management, "/ready") == 503
    assert not harness.accepts(proxy.port)
    rec.listen()
    rec.expect_discovery(timeout=5)
    proxy.ready()
    rec.nothing_more()


def test_a_connection_that_does_not_answer_is_dropped_and_tried_again(lab):
    rec = lab.recorder(spec=None)  # nobody answers discover
    proxy = lab.proxy(rec, lab.cairnd("memory"), wait=False)
    first = rec.stream("/cloudstate.EntityDiscovery/discover")
    begun = first.opened.at
    first.expect(ToFunction(), HalfClose())
    rec.spec = model.spec()  # the next one is answered
    second = rec.stream("/cloudstate.EntityDiscovery/discover", timeout=25)
    assert 8 <= second.opened.at - begun <= 16, second.opened.at - begun
    assert second.connection is not first.connection
    proxy.ready()


def test_the_same_spec_after_a_reconnect_changes_nothing(lab):
    stage = Stage(lab)
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response(""), events=[happened("1")]).message)
    answer.result()
    stage.rec.drop()
    stream.expect(Broken("function"))
    stage.rec.expect_discovery()
    answer, stream, e = stage.begin(expect=(e.init(), e.event(1, happened("1"))))
    stream.send(e.reply(1, response("ok")).message)
    assert answer.result() == response("ok")
    stage.quiet()


@pytest.mark.parametrize("how", ["closes", "goes away"])
def test_an_idle_connection_that_the_function_closes_is_made_again_on_need(lab, how):
    stage = Stage(lab)
    if how == "goes away":
        stage.rec.goaway()
    stage.rec.drop()
    stage.quiet()
    answer, stream, e = stage.begin()
    stage.rec.expect_discovery()
    stream.send(e.reply(1, response("ok")).message)
    assert answer.result() == response("ok")
    stage.quiet()


def test_a_changed_spec_is_taken_over(lab):
    stage = Stage(lab, model.spec({model.MODEL: "model"}))
    assert harness.refused(stage.send(model.pb.Pair(first="a", second="b"), "Call").result)[0] \
        == "UNIMPLEMENTED"
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response("")).message)
    answer.result()
    stage.rec.spec = model.spec({model.MODEL: "model", model.TWO: "two"})
    stage.rec.drop()
    stream.expect(Broken("function"))
    stage.rec.expect_discovery()
    harness.eventually(lambda: model.TWO in Reflection(stage.channel).services(), "the new service is there")
    answer = stage.send(model.pb.Pair(first="a", second="b"), "Call")
    two = stage.entity("a-b", model.TWO)
    stream = stage.rec.entity(two)
    stream.expect(two.init(), two.command(1, "Call", model.pb.Pair(first="a", second="b")))
    stream.send(two.reply(1, response("ok")).message)
    assert answer.result() == response("ok")
    stage.quiet()


def test_a_refused_spec_leaves_the_old_one_in_force(lab):
    stage = Stage(lab)
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response("")).message)
    answer.result()
    stage.rec.spec = model.spec(**version(3, 4))
    stage.rec.drop()
    stream.expect(Broken("function"))
    stage.rec.expect_discovery()
    stage.rec.expect_report(r"3\.4")
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response("ok")).message)
    assert answer.result() == response("ok")
    stage.quiet()


def test_a_function_that_is_not_there_makes_commands_unavailable(lab):
    stage = Stage(lab)
    stage.rec.unlisten()
    stage.rec.drop()
    code, text = harness.refused(stage.send(request("e")).result)
    assert code == "UNAVAILABLE"
    assert text.startswith("the function at 127.0.0.1:%d cannot be reached (" % stage.rec.port), text
    assert "USER_FUNCTION_PORT" in text
    stage.rec.listen()
    stage.rec.expect_discovery()
    answer, stream, e = stage.begin()
    stream.send(e.reply(1, response("ok")).message)
    assert answer.result() == response("ok")
    stage.quiet()


def test_a_function_whose_full_connection_outlives_it_is_discovered_again(lab):
    """Section 1, rule 3: "gone" is also where every new call fails to connect, though an old connection, at its
    stream limit, still stands."""
    stage = Stage(lab, max_streams=4)
    kept = []
    for i in range(4):
        answer, stream, e = stage.begin("e%d" % i)
        stream.send(e.reply(1, response("")).message)
        answer.result()
        kept.append((stream, e))
    stage.rec.unlisten()
    code, text = harness.refused(stage.send(request("e4")).result)
    assert code == "UNAVAILABLE" and text.startswith("the function at "), text
    stage.command(kept[0][0], kept[0][1], 2, "still there", kept[0][1].reply(2, response("yes")))
    stage.rec.spec = model.spec({model.MODEL: "model", model.TWO: "two"})
    stage.rec.listen()
    stage.rec.expect_discovery()
    harness.eventually(lambda: model.TWO in Reflection(stage.channel).services(), "the new service is there")
    answer, stream, e = stage.begin("e4")
    stream.send(e.reply(1, response("ok")).message)
    assert answer.result() == response("ok")
    stage.command(kept[1][0], kept[1][1], 2, "there too", kept[1][1].reply(2, response("yes")))
    stage.quiet()


def test_without_a_journal_it_discovers_and_is_not_ready(lab):
    rec = lab.recorder(spec=model.spec())
    port = harness.free_port()
    proxy = lab.proxy(rec, port, wait=False)
    rec.expect_discovery()
    harness.eventually(lambda: harness.accepts(proxy.port), "the outside port is bound")
    assert harness.status_of(proxy.management, "/ready") == 503
    channel = harness.channel_to(proxy.port)
    call = channel.unary_unary("/cairn.test.Model/Process", model.pb.Request.SerializeToString,
                               model.pb.Response.FromString)
    code, text = harness.refused(call, request("e"), timeout=20)
    assert code == "UNAVAILABLE"
    assert text.startswith("the journal at 127.0.0.1:%d cannot be reached (" % port), text
    assert "--journal" in text
    lab.cairnd("memory", port=port)
    proxy.ready()
    answer = call.future(request("e"), timeout=20)
    stream = rec.stream()
    stream.next()
    stream.next()
    stream.send(Entity(model.MODEL, "e").reply(1, response("ok")).message)
    assert answer.result() == response("ok")


# --- reflection, health, unknown paths ------------------------------------------------------

SERVICES = [model.MODEL, model.NUMBERED, model.TWO]


@pytest.fixture
def stage(lab):
    return Stage(lab)


@pytest.mark.parametrize("version_of", ["v1", "v1alpha"])
def test_list_services(stage, version_of):
    names = Reflection(stage.channel, version_of).services()
    own = "grpc.reflection.%s.ServerReflection" % version_of
    assert names == [own] + SERVICES


@pytest.mark.parametrize("version_of", ["v1", "v1alpha"])
def test_reflection_answers(stage, version_of):
    reflection = Reflection(stage.channel, version_of)
    first, = reflection.ask({"host": "me", "file_containing_symbol": "cairn.test.Model.Process"})
    assert first.valid_host == "me"
    assert first.original_request.file_containing_symbol == "cairn.test.Model.Process"
    files = [descriptor_pb2.FileDescriptorProto.FromString(f)
             for f in first.file_descriptor_response.file_descriptor_proto]
    assert files[0].name == "model.proto"
    assert {f.name for f in files} == {f.name for f in model.files().file}
    for unknown in ({"file_containing_symbol": "cairn.test.Nope"}, {"file_by_filename": "nope.proto"},
                    {"file_containing_extension": {"containing_type": "cairn.test.Request",
                                                   "extension_number": 7}}):
        answer, = reflection.ask(unknown)
        assert answer.WhichOneof("message_response") == "file_descriptor_response"
        assert list(answer.file_descriptor_response.file_descriptor_proto) == []
    numbers, = reflection.ask({"all_extension_numbers_of_type": "cairn.test.Request"})
    assert numbers.all_extension_numbers_response.base_type_name == "cairn.test.Request"
    assert list(numbers.all_extension_numbers_response.extension_number) == []
    keys, = reflection.ask({"all_extension_numbers_of_type": "google.protobuf.FieldOptions"})
    assert {1080, 50002} <= set(keys.all_extension_numbers_response.extension_number)
    extension, = reflection.ask({"file_containing_extension": {
        "containing_type": "google.protobuf.FieldOptions", "extension_number": 1080}})
    assert descriptor_pb2.FileDescriptorProto.FromString(
        extension.file_descriptor_response.file_descriptor_proto[0]).name == "cloudstate/entity_key.proto"
    # The file asked for comes first; what it imports comes once a stream.
    _, again = reflection.ask({"file_containing_symbol": "cairn.test.Request"},
                              {"file_containing_symbol": "cloudstate.entity_key"})
    assert [descriptor_pb2.FileDescriptorProto.FromString(f).name
            for f in again.file_descriptor_response.file_descriptor_proto] == ["cloudstate/entity_key.proto"]


def test_a_client_that_knows_it_only_by_reflection(stage):
    api = Api(stage.channel)
    assert api.services == SERVICES
    answer = api.start("cairn.test.Model/Process", id="e", text="hello")
    e = stage.entity("e")
    stream = stage.rec.entity(e)
    stream.expect(e.init(), e.command(1, "Process", request("e", "hello")))
    stream.send(e.reply(1, response("hi")).message)
    assert api.as_dict(answer.result()) == {"message": "hi"}
    stage.quiet()


def test_grpcurl(stage):
    def run(*arguments, **more):
        return subprocess.run([tools.grpcurl(), "-plaintext", *arguments], capture_output=True, text=True,
                              timeout=30, **more)
    address = "127.0.0.1:%d" % stage.proxy.port
    listed = run(address, "list")
    assert set(SERVICES) <= set(listed.stdout.split()), listed
    described = run(address, "describe", "cairn.test.Request")
    assert "string id = 1" in described.stdout, described
    process = subprocess.Popen([tools.grpcurl(), "-plaintext", "-d", '{"id": "e", "text": "t"}', address,
                                "cairn.test.Model/Process"], stdout=subprocess.PIPE, text=True)
    e = stage.entity("e")
    stream = stage.rec.entity(e)
    stream.expect(e.init(), e.command(1, "Process", request("e", "t")))
    stream.send(e.reply(1, response("for grpcurl")).message)
    assert json.loads(process.communicate(timeout=30)[0]) == {"message": "for grpcurl"}
    assert process.returncode == 0


def test_health(stage):
    def check(service):
        call = stage.channel.unary_unary("/grpc.health.v1.Health/Check", None, None)
        return call(b"\x0a" + bytes([len(service)]) + service.encode() if service else b"", timeout=20)
    assert check("") == b"\x08\x01"
    assert check(model.MODEL) == b"\x08\x01"
    assert harness.refused(check, "nobody.Here")[0] == "NOT_FOUND"
    watch = stage.channel.unary_stream("/grpc.health.v1.Health/Watch", None, None)
    call = watch(b"\x0a\x04nope", timeout=20)
    assert next(call) == b"\x08\x03"
    call.cancel()
    call = watch(b"", timeout=20)
    assert next(call) == b"\x08\x01"
    call.cancel()


@pytest.mark.parametrize("path", ["/cairn.test.Model/Nope", "/no.Such/Method", "/x"])
def test_unknown_grpc_paths(stage, path):
    call = stage.channel.unary_unary(path, None, None)
    assert harness.refused(call, b"", timeout=20)[0] == "UNIMPLEMENTED"


def test_http_without_a_binding(stage):
    port = stage.proxy.port
    assert harness.http_request(port, "GET", "/").status == 404
    assert harness.http_request(port, "POST", "/no.Such/Method", "{}").status == 404
    probe = harness.http_request(port, "GET", "/any/where", headers={"K-Network-Probe": "queue"})
    assert (probe.status, probe.body) == (200, b"queue")
    probe = harness.http_request(port, "GET", "/", headers={"K-Network-Probe": "other"})
    assert (probe.status, probe.body) == (400, b"unexpected probe header value: other")


def test_http_by_binding_and_by_default(lab):
    stage = Stage(lab)
    answers = []

    def ask(*arguments):
        thread = threading.Thread(target=lambda: answers.append(
            harness.http_request(stage.proxy.port, *arguments)))
        thread.start()
        return thread
    thread = ask("POST", "/model/e%2F1/process", '{"text": "t"}')
    e = stage.entity("e/1")
    stream = stage.rec.entity(e)
    stream.expect(e.init(), e.command(1, "Process", request("e/1", "t")))
    stream.send(e.reply(1, response("ü")).message)
    thread.join()
    assert answers[-1].status == 200
    assert answers[-1].headers["content-type"] == "application/json"
    assert answers[-1].body.decode() == '{"message":"ü"}'
    thread = ask("GET", "/model/e%2F1?text=q")
    stream.expect(e.command(2, "Look", request("e/1", "q")))
    stream.send(e.refusal(2, "not <now>").message)
    thread.join()
    assert (answers[-1].status, answers[-1].body) == (500, b"not <now>")
    assert answers[-1].headers["content-type"] == "text/plain; charset=UTF-8"
    thread = ask("POST", "/cairn.test.Two/Call", '{"first": "a", "second": "b"}')
    two = stage.entity("a-b", model.TWO)
    other = stage.rec.entity(two)
    other.expect(two.init(), two.command(1, "Call", model.pb.Pair(first="a", second="b")))
    other.send(two.reply(1, response("")).message)
    thread.join()
    assert (answers[-1].status, answers[-1].body) == (200, b'{"message":""}')
    # A method with bindings has no default path.
    assert harness.http_request(stage.proxy.port, "POST", "/cairn.test.Model/Process", "{}").status == 404
    for method, path, body, status in (("POST", "/model/e/process", "{", 400),
                                       ("POST", "/model/e/process", '{"nope": 1}', 400),
                                       ("GET", "/model/e?nope=1", None, 400)):
        answer = harness.http_request(stage.proxy.port, method, path, body)
        assert answer.status == status, answer
        assert answer.body.count(b"\n") <= 1 and answer.body, answer
    stage.quiet()


# --- the environment -------------------------------------------------------------------------

def test_what_other_deployments_set_is_taken_and_ignored(lab):
    rec = lab.recorder(spec=model.spec())
    proxy = lab.proxy(rec, lab.cairnd("memory"), env={
        "REMOTING_PORT": "2552", "SELECTOR_LABEL": "a", "SELECTOR_LABEL_VALUE": "b",
        "REQUIRED_CONTACT_POINT_NR": "1", "POSTGRES_HOST": "x", "CASSANDRA_CONTACT_POINTS": "y"})
    rec.expect_discovery()
    assert "REMOTING_PORT" in proxy.text()


@pytest.mark.parametrize("flag, value", [
    ("journal", "nowhere"), ("journal", "127.0.0.1:70000"), ("function-host", "a:b"), ("host", "::1"),
    ("namespace", "a|b"), ("namespace", "$acts"), ("namespace", "x" * 501)])
def test_a_value_of_the_wrong_form_is_refused(lab, flag, value):
    for name, more in (("run", []), ("check", ["--check-config"])):
        proxy = lab.run(name, [tools.program("cairn-proxy"), "--" + flag, value, *more])
        assert proxy.process.wait(10) == 2
        assert "--" + flag in proxy.text()


def test_a_function_that_is_not_there_is_said(lab):
    rec = lab.recorder(spec=model.spec(), listen=False)
    proxy = lab.proxy(rec, lab.cairnd("memory"), wait=False)
    said = proxy.wait_text(r"level=warn msg=\"function not reached.*", timeout=20).group(0)
    assert "127.0.0.1:%d" % rec.port in said and "refused" in said
    rec.listen()
    proxy.ready()
    rec.expect_discovery()


def test_an_unknown_flag_is_refused(lab):
    proxy = lab.run("refused", [tools.program("cairn-proxy"), "--no-such-flag"])
    assert proxy.process.wait(10) == 2
    assert "no-such-flag" in proxy.text()


def test_metrics(stage):
    answer = harness.http_request(stage.proxy.metrics, "GET", "/metrics")
    assert answer.status == 200
    assert b'cairn_build_info{version="' in answer.body


def test_a_taken_port_is_named(lab):
    stage = Stage(lab)
    rec = lab.recorder(spec=model.spec())
    second = lab.run("second", [tools.program("cairn-proxy")], {
        "HTTP_PORT": str(stage.proxy.port), "METRICS_PORT": str(harness.free_port()),
        "USER_FUNCTION_PORT": str(rec.port), "CAIRN_JOURNAL": "127.0.0.1:%d" % stage.journal.port})
    assert second.process.wait(20) != 0
    assert str(stage.proxy.port) in second.text()
