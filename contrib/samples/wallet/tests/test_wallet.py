"""The wallet's behaviour, without a server."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from wallet import cairn_sdk, pb, wallet  # noqa: E402


def pay(cents):
    return pb.Payment(owner="ada", cents=cents)


def balance(test):
    return test.handle("GetBalance", pb.Owner(owner="ada")).reply.cents


def test_money_comes_and_goes():
    test = cairn_sdk.ValueTest(wallet)
    assert test.handle("Deposit", pay(500)).reply == pb.Balance(cents=500, payments=1)
    assert test.handle("Withdraw", pay(120)).updated == pb.Balance(cents=380, payments=2)
    test.reactivate()
    assert balance(test) == 380


def test_there_is_never_less_than_nothing():
    test = cairn_sdk.ValueTest(wallet).given(pb.Balance(cents=10))
    assert test.handle("Withdraw", pay(11)).failure == "Cannot withdraw 11 cents: there are 10"
    for method in ("Deposit", "Withdraw"):
        for cents in (0, -5):
            assert "must be at least 1" in test.handle(method, pay(cents)).failure
    assert balance(test) == 10


def test_a_closed_wallet_begins_anew():
    test = cairn_sdk.ValueTest(wallet).given(pb.Balance(cents=10))
    result = test.handle("Close", pb.Owner(owner="ada"))
    assert (result.reply.cents, result.deleted) == (10, True)
    test.reactivate()
    assert balance(test) == 0
