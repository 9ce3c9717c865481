"""The scores, without a server."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from fraud import cairn_sdk, fraud, pb  # noqa: E402


def payment(cents=100, country="de", home="de"):
    return pb.Payment(account="a", cents=cents, country=country, home_country=home)


def test_one_payment():
    test = cairn_sdk.ActionTest(fraud)
    assert test.handle("Score", payment()).reply == pb.Verdict()
    assert test.handle("Score", payment(cents=200000, country="fr")).reply == pb.Verdict(
        score=80, reasons=["more than 100000 cents", "not at home"])
    assert test.handle("Score", payment(cents=0)).failure == "A payment of 0 cents is none"


def test_each_of_a_stream():
    results = cairn_sdk.ActionTest(fraud).stream(
        "Watch", payment(), payment(country="fr"), payment(cents=-1), payment())
    assert [r.reply.score for r in results[:2]] == [0, 30]
    assert results[2].failure == "A payment of -1 cents is none"
    assert len(results) == 3


def test_all_together():
    test = cairn_sdk.ActionTest(fraud)
    assert test.stream("ScoreAll", payment(60000), payment(60000, "fr"))[0].reply == pb.Verdict(
        score=100, reasons=["more than 100000 cents", "not at home", "from several countries"])
    assert test.stream("ScoreAll")[0].reply == pb.Verdict()
