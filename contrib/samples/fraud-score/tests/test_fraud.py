"""The scores, without a server."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from fraud import accounts, alerts, cairn_sdk, fraud, pb  # noqa: E402


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


def test_a_payment_is_an_event_and_the_suspicious_one_an_alert():
    made = cairn_sdk.EntityTest(accounts).handle("Pay", payment(200000)).events
    assert made == [pb.PaymentMade(payment=payment(200000))]
    assert cairn_sdk.EntityTest(accounts).handle("Pay", payment(0)).failure == "A payment of 0 cents is none"
    test = cairn_sdk.ActionTest(fraud)
    assert len(test.handle("Paid", made[0], {"ce-id": "1"}).effects) == 1
    assert test.handle("Paid", pb.PaymentMade(payment=payment()), {"ce-id": "2"}).effects == []


def test_an_alert_is_raised_once_however_often_its_event_comes():
    test = cairn_sdk.ValueTest(alerts)
    alert = pb.Alert(account="a", event_id="1", payment=payment(200000))
    assert test.handle("Raise", alert).updated == pb.AlertList(alerts=[alert])
    assert test.handle("Raise", alert).updated is None
    assert test.handle("GetAlerts", pb.Account(account="a")).reply == pb.AlertList(alerts=[alert])
