#!/usr/bin/python3
"""Fraud scores, an action: a function without state, whose calls stream in every way. Beside it are accounts, whose
events it is called by, and the alerts that it raises.

Run it as it stands: it serves on HOST and PORT (127.0.0.1:8080 by default), for a Cairn proxy to connect to.
"""

import pathlib
import sys
from typing import AsyncIterator, Iterable

HERE = pathlib.Path(__file__).resolve().parent
try:
    import cairn_sdk
except ImportError:  # not installed: the one of this source tree
    sys.path.append(str(HERE.parents[1] / "sdk" / "python"))
    try:
        import cairn_sdk
    except ImportError as missing:
        sys.exit("%s: run it with /usr/bin/python3, after apt-get install python3-grpcio python3-protobuf"
                 % missing)

pb = cairn_sdk.load(HERE / "fraud.proto")

fraud = cairn_sdk.Action(pb.DESCRIPTOR.services_by_name["FraudScore"])

accounts = cairn_sdk.EventSourced[int](
    pb.DESCRIPTOR.services_by_name["Accounts"], persistence_id="accounts", state=lambda account: 0)
alerts = cairn_sdk.ValueEntity(pb.DESCRIPTOR.services_by_name["Alerts"], persistence_id="alerts",
                               value=pb.AlertList)

LARGE_CENTS = 100000
SUSPICIOUS = 50


def judge(payments: Iterable[pb.Payment]) -> pb.Verdict:
    """What speaks against them, and how much."""
    payments = list(payments)
    verdict = pb.Verdict()
    if sum(p.cents for p in payments) > LARGE_CENTS:
        verdict.score += 50
        verdict.reasons.append("more than %d cents" % LARGE_CENTS)
    if any(p.country != p.home_country for p in payments):
        verdict.score += 30
        verdict.reasons.append("not at home")
    if len({p.country for p in payments}) > 1:
        verdict.score += 20
        verdict.reasons.append("from several countries")
    return verdict


def check(payment: pb.Payment, context: cairn_sdk.ActionContext) -> None:
    if payment.cents <= 0:
        context.fail("A payment of %d cents is none" % payment.cents)


@fraud.command("Score")
def score(payment: pb.Payment, context: cairn_sdk.ActionContext) -> pb.Verdict:
    check(payment, context)
    return judge([payment])


@fraud.command("Watch")
async def watch(payments: AsyncIterator[pb.Payment],
                context: cairn_sdk.ActionContext) -> AsyncIterator[pb.Verdict]:
    async for payment in payments:
        check(payment, context)
        yield judge([payment])


@fraud.command("ScoreAll")
async def score_all(payments: AsyncIterator[pb.Payment], context: cairn_sdk.ActionContext) -> pb.Verdict:
    seen = []
    async for payment in payments:
        check(payment, context)
        seen.append(payment)
    return judge(seen)


@fraud.command("Paid")
def paid(event: pb.PaymentMade, context: cairn_sdk.ActionContext) -> pb.Verdict:
    verdict = judge([event.payment])
    if verdict.score >= SUSPICIOUS:
        context.effect("com.example.fraud.Alerts/Raise", pb.Alert(
            account=event.payment.account, event_id=context.header("ce-id")[0], payment=event.payment,
            verdict=verdict), synchronous=True)
    context.add_metadata("ce-subject", event.payment.account)  # in the topic: an account's verdicts are in order
    return verdict


@accounts.command("Pay")
def pay(count: int, payment: pb.Payment, context: cairn_sdk.Context) -> None:
    if payment.cents <= 0:
        context.fail("A payment of %d cents is none" % payment.cents)
    context.emit(pb.PaymentMade(payment=payment))


@accounts.event(pb.PaymentMade)
def payment_made(count: int, event: pb.PaymentMade) -> int:
    return count + 1


@alerts.command("Raise")
def raise_alert(value: pb.AlertList, alert: pb.Alert, context: cairn_sdk.ValueContext) -> None:
    if any(a.event_id == alert.event_id for a in value.alerts):
        return
    value.alerts.append(alert)
    context.update(value)


@alerts.command("GetAlerts")
def get_alerts(value: pb.AlertList, command: pb.Account, context: cairn_sdk.ValueContext) -> pb.AlertList:
    return value


if __name__ == "__main__":
    cairn_sdk.serve(fraud, accounts, alerts, name="fraud-score", version=cairn_sdk.__version__)
