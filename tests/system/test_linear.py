"""Linearizability, stream by stream, by a checker that no one here wrote (porcupine): histories of eight clients
that append with expectations and fences, repeat with the same ids, read and load, while cairnd, the connections to
Postgres and Postgres itself are killed and started again."""

import json
import os

import pytest

import linear
from harness import scaled
from postgres import Postgres

HISTORIES = 20
SEED = int(os.environ.get("CAIRN_SEED", "1"))


def run(name, ports, disturb=None, disturbances=0, count=HISTORIES):
    histories = [linear.History("%s-%d" % (name, n), ports, SEED * 10000 + n, disturb, disturbances).run()
                 for n in range(scaled(count, 2))]
    linear.check(histories)
    operations = sum(len(h.operations) for h in histories)
    unknown = sum(h.unknown for h in histories)
    repeated = sum(o.get("repeated", False) for h in histories for o in h.operations)
    fenced = sum(o["outcome"] == "fenced" for h in histories for o in h.operations)
    assert repeated and fenced, "nothing was repeated, or nothing fenced off"
    assert unknown or not disturbances, "nothing had an unknown outcome"
    print("%s: %d histories, %d operations, %d unknown outcomes, %d repeats, %d fenced off" % (
        name, len(histories), operations, unknown, repeated, fenced))


def test_memory(lab):
    run("memory", [lab.cairnd("memory").port])


def test_file_with_kills_and_restarts(lab):
    cairnd = lab.cairnd()

    def kill(_):
        cairnd.kill()
        cairnd.start()
        cairnd.ready()

    run("file", [cairnd.port], kill, 2)


def test_postgres_with_kills_of_everything(lab):
    """Two cairnd on one database. Connections are cut and a cairnd is killed, and now and then the server."""
    postgres = Postgres(lab)
    cairnds = [lab.cairnd(postgres.uri(), name="cairnd-%d" % n) for n in range(2)]

    def disturb(chance):
        what = chance.random()
        if what < 0.5:
            postgres.cut_connections()
        elif what < 0.9:
            cairnd = chance.choice(cairnds)
            cairnd.kill()
            cairnd.start()
            cairnd.ready()
        else:
            postgres.kill()
            postgres.start()

    run("postgres", [c.port for c in cairnds], disturb, 2)


# --- the checker itself -----------------------------------------------------------

def op(call, end, kind, **what):
    return {"stream": "s|1", "client": 0, "call": call, "return": end, "kind": kind, "outcome": "ok", **what}


def append(call, end, key, sequence, events=1, **what):
    return op(call, end, "append", key=key, events=events, expect="any", sequence=sequence, **what)


FIRST = append(0, 10, 1, 1)
RIGHT = {
    "one after the other": [FIRST, append(20, 30, 2, 2), op(40, 50, "read", records="1.0@1 2.0@2 ")],
    "two at once, in either order": [append(0, 30, 1, 2), append(0, 30, 2, 1),
                                     op(40, 50, "read", records="2.0@1 1.0@2 ")],
    "an unknown outcome that happened late": [append(0, 10, 1, 0, outcome="unknown"), op(20, 30, "read", records=""),
                                              op(40, 50, "read", records="1.0@1 ")],
    "an unknown outcome that never happened": [append(0, 10, 1, 0, outcome="unknown"),
                                               op(20, 30, "read", records="")],
    "a repeat": [FIRST, append(20, 30, 1, 1, repeated=True), op(40, 50, "load", records="1.0@1 ", sequence=1)],
    "a load begins with the snapshot": [append(0, 10, 1, 2, events=2, snapshot=True), append(20, 30, 2, 3),
                                        op(40, 50, "load", records="1.2@2 2.0@3 ", sequence=3)],
    "a fence that holds": [op(0, 10, "claim", session=1, found_epoch=1, found_session=1),
                           append(20, 30, 1, 1, fence=1)],
    "a fence of an earlier epoch": [op(0, 10, "claim", session=1, found_epoch=1, found_session=1),
                                    op(20, 30, "release", session=1, epoch=1, found_epoch=1, found_session=1,
                                       found_released=True),
                                    op(40, 50, "claim", session=2, found_epoch=2, found_session=2),
                                    append(60, 70, 1, 0, fence=1, outcome="fenced", found_epoch=2)],
    "a conflict": [FIRST, op(20, 30, "append", key=2, events=1, expect="none", sequence=1, outcome="conflict")],
}
WRONG = {
    "an acknowledged append is lost": [FIRST, op(20, 30, "read", records="")],
    "an acknowledged append is in no place": [FIRST, append(20, 30, 2, 1), op(40, 50, "read", records="2.0@1 ")],
    "an append is there twice": [FIRST, append(20, 30, 1, 2), op(40, 50, "read", records="1.0@1 1.0@2 ")],
    "a read goes back": [append(0, 100, 1, 1), op(20, 30, "read", records="1.0@1 "), op(40, 50, "read", records="")],
    "order against time": [FIRST, append(20, 30, 2, 2), op(40, 50, "read", records="2.0@1 1.0@2 ")],
    "a stale fence is taken": RIGHT["a fence of an earlier epoch"][:3] + [append(60, 70, 1, 1, fence=1)],
    "a released fence is taken": RIGHT["a fence of an earlier epoch"][:2] + [append(60, 70, 1, 1, fence=1)],
    "an expectation that does not hold": [FIRST, op(20, 30, "append", key=2, events=1, expect="exactly", at=0,
                                                    sequence=2)],
    "a conflict that is none": [FIRST, op(20, 30, "append", key=2, events=1, expect="exactly", at=1, sequence=1,
                                          outcome="conflict")],
    "half an append": [append(0, 10, 1, 2, events=2), op(20, 30, "read", records="1.0@1 ")],
    "a load without its snapshot": [append(0, 10, 1, 1, snapshot=True),
                                    op(20, 30, "load", records="1.0@1 ", sequence=1)],
    "what happened is told as new": [append(0, 10, 1, 0, outcome="unknown"), op(20, 30, "read", records="1.0@1 "),
                                     append(40, 50, 1, 1)],
    "any other answer": [append(0, 10, 1, 0, outcome="ALREADY_EXISTS: in part")],
    "two sessions hold a slot": [op(0, 10, "claim", session=1, found_epoch=1, found_session=1),
                                 op(20, 30, "claim", session=2, found_epoch=2, found_session=2)],
}


@pytest.mark.parametrize("histories, verdict", [(RIGHT, "ok"), (WRONG, "illegal")], ids=["right", "wrong"])
def test_the_checker_knows_right_from_wrong(histories, verdict):
    lines = [json.dumps({"name": name, "operations": operations}) for name, operations in histories.items()]
    answers = linear.verdicts(lines)
    assert {a["name"]: a["verdict"] for a in answers} == {name: verdict for name in histories}


def test_the_checkers_time_out_is_no_pass():
    """Twelve times as many open appends as any history may have, and a read that none of their orders explains."""
    open_ones = [append(0, 10, n, 0, outcome="unknown") for n in range(240)]
    wrong = open_ones + [op(20, 30, "read", records="".join("%d.0@%d " % (n, n + 1) for n in range(120)) + "x")]
    hard = linear.History("hard", [], seed=1)
    hard.operations = wrong
    with pytest.raises(AssertionError, match="is unknown"):
        linear.check([hard], seconds=1)
