"""What a function serves is in the journal too, once for each time it changes, and tools show its records by it."""

import json
import re

import cairn_cli
import harness
import model
from journal_client import Journal, event, rec, to_stream
from model import happened, response
from stage import Stage

SCHEMA = "$schema-" + model.MODEL  # the first of its services by bytes


def kept(stage, least=1):
    """The records of descriptors, once there are as many."""
    journal = Journal(stage.journal.port)

    def events():
        return [r for r in journal.read(stream=SCHEMA) if r.header.kind == rec.KIND_EVENT]
    harness.eventually(lambda: len(events()) >= least, "descriptors are kept")
    return events()


def cairn(stage, *arguments):
    return cairn_cli.cairn(stage.journal, *arguments).text()


def with_events(stage, *what, entity_id="e"):
    answer, stream, e = stage.begin(entity_id)
    stream.send(e.reply(1, response("x"), events=[happened(w) for w in what]).message)
    answer.result()


def rediscovered(stage, spec):
    """The function is there with another spec, on another connection."""
    stage.rec.spec = spec
    stage.rec.goaway()
    with_events(stage, "new", entity_id=str(id(spec)))
    stage.rec.expect_discovery()


def test_records_are_shown_by_their_types(lab):
    stage = Stage(lab)
    with_events(stage, "one", "two")
    (record,) = kept(stage)
    assert record.header.type == "type.googleapis.com/google.protobuf.FileDescriptorSet"
    assert record.body.data == stage.rec.spec.proto
    assert [(m.key, m.value) for m in record.body.metadata] == [("cairn-categories", b"model\nn\ntwo")]
    rows = json.loads(cairn(stage, "read", "model|e", "-o", "json"))
    assert [row["data"] for row in rows] == [{"what": "one"}, {"what": "two"}]
    assert '{"what":"two"}' in cairn(stage, "read", "model|e")
    (row,) = map(json.loads, cairn(stage, "tail", "model|e", "--from", "2", "--limit", "1", "-o", "jsonl").splitlines())
    assert row["data"] == {"what": "two"}
    as_it_is = json.loads(cairn(stage, "read", "model|e", "--no-decode", "-o", "json"))
    assert ["data" in row for row in as_it_is] == [False, False]
    stage.quiet()


def test_what_is_not_known_is_shown_as_it_is(lab):
    stage = Stage(lab)
    kept(stage)
    Journal(stage.journal.port).append(to_stream(
        "other|1",
        event(type="type.googleapis.com/no.such.Type", data=b"\x0a\x01\xff"),
        event(type="type.googleapis.com/cairn.test.Happened", data=b"\xff\xff"),  # and none of that
        event(type="type.googleapis.com/cairn.test.Happened", data=happened("elsewhere").SerializeToString()),
        event(type="json.cloudstate.io/a/b.C", data=b"\x0a\x07{\"n\":1}"),
        event(type="json.cloudstate.io/a/b.C", data=b"\x0a\x01{"),
        event(type="p.cloudstate.io/string", data=b"\x0a\x02hi"),
        event(type="p.cloudstate.io/int64", data=b"\x08\x05"),
        event(type="no-url", data=b"\x0a\x01\xfe")))
    rows = json.loads(cairn(stage, "read", "other|1", "-o", "json"))
    assert [row.get("data", row.get("data_base64", row.get("data_text"))) for row in rows] == [
        "CgH/", "//8=", {"what": "elsewhere"}, {"n": 1}, "CgF7", "hi", "5", "CgH+"]


def test_the_same_again_is_not_kept_again_and_a_changed_spec_once(lab):
    stage = Stage(lab, storage="file:%s" % (lab.folder / "data"))
    assert len(kept(stage)) == 1

    def shuffled(files):
        files.file.sort(key=lambda f: f.name)

    def renamed(it):
        del it.entities[:]
        it.CopyFrom(model.spec({model.TWO: "two", model.MODEL: "model", model.NUMBERED: "other"}))

    def more(files):
        model.file_of(files).message_type.add(name="Later").field.add(name="text", number=1, type=9, label=1)
    rediscovered(stage, model.spec({model.TWO: "two", model.MODEL: "model", model.NUMBERED: "n"}))
    rediscovered(stage, model.spec(change_files=shuffled))
    rediscovered(stage, model.spec(change=renamed))
    records = kept(stage, 2)
    assert [r.body.metadata[0].value for r in records] == [b"model\nn\ntwo", b"model\nother\ntwo"]
    rediscovered(stage, model.spec(change_files=more))
    records = kept(stage, 3)
    assert len(records) == 3 and records[-1].body.data == stage.rec.spec.proto
    stage.proxy.terminate()
    stage.proxy.start().ready()
    stage.rec.expect_discovery()
    with_events(stage, "after it")
    Journal(stage.journal.port).append(to_stream(
        "model|by hand", event(type="type.googleapis.com/cairn.test.Later", data=b"\x0a\x02ok")))
    assert json.loads(cairn(stage, "read", "model|by hand", "-o", "json"))[0]["data"] == {"text": "ok"}
    rediscovered(stage, model.spec())  # the newest is another one: kept once more, and behind what came before
    assert len(kept(stage, 4)) == 4


def test_several_proxies_keep_it_once(lab):
    """All have asked what there is before one of them can write."""
    journal = lab.cairnd("memory")
    journal.process.send_signal(19)  # SIGSTOP
    try:
        recorders = [lab.recorder(spec=model.spec()) for _ in range(3)]
        proxies = [lab.proxy(rec, journal, name="proxy-%d" % i, wait=False) for i, rec in enumerate(recorders)]
        for rec, proxy in zip(recorders, proxies):
            rec.expect_discovery()
            proxy.wait_text("function discovered")
    finally:
        journal.process.send_signal(18)  # SIGCONT
    for proxy in proxies:
        proxy.ready()
    client = Journal(journal.port)
    harness.eventually(lambda: client.read(stream=SCHEMA), "descriptors are kept")
    for proxy in proxies:  # what they have to do with the journal is done before it
        assert proxy.terminate() == 0
    assert len(client.read(stream=SCHEMA)) == 1


def test_another_namespace_is_another_stream(lab):
    stage = Stage(lab, options=["--namespace", "eu"])
    with_events(stage, "there")
    journal = Journal(stage.journal.port)
    (record,) = harness.eventually(lambda: journal.read(stream="$schema-eu/" + model.MODEL), "descriptors are kept")
    assert record.body.metadata[0].value == b"eu/model\neu/n\neu/two"
    assert json.loads(cairn(stage, "read", "eu/model|e", "-o", "json"))[0]["data"] == {"what": "there"}


def test_what_is_larger_than_a_record_is_named_and_left_out(lab):
    def large(files):
        for i in range(4):
            model.file_of(files).message_type.add(name="Large%d" % i).options.uninterpreted_option.add(
                string_value=b"x" * (1 << 20)).name.add(name_part="x", is_extension=False)
    stage = Stage(lab, model.spec(change_files=large))
    stage.proxy.wait_text("descriptors are not kept.*a record of the journal at most 3145728")
    with_events(stage, "all the same")
    assert not Journal(stage.journal.port).read(stream=SCHEMA)
    stage.quiet()


def test_a_journal_that_comes_later_gets_it(lab):
    stage = Stage(lab, storage="file:%s" % (lab.folder / "data"))
    kept(stage)
    assert stage.proxy.terminate() == 0
    stage.journal.kill()

    def more(files):
        model.file_of(files).message_type.add(name="Later")
    stage.rec.spec = model.spec(change_files=more)
    stage.proxy.start()
    stage.rec.expect_discovery()
    stage.proxy.wait_text("journal not reached")
    stage.journal.start().ready()
    assert len(kept(stage, 2)) == 2


def test_what_an_operator_deleted_is_kept_anew(lab):
    stage = Stage(lab)
    kept(stage)
    cairn(stage, "delete", SCHEMA, "--reason", "a test", "--yes")

    def more(files):
        model.file_of(files).message_type.add(name="Later")
    rediscovered(stage, model.spec(change_files=more))
    assert len(kept(stage)) == 1
    assert not re.search("descriptors were not kept", stage.proxy.text())
