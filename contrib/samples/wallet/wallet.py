#!/usr/bin/python3
"""A wallet, one value entity for each owner.

Run it as it stands: it serves on HOST and PORT (127.0.0.1:8080 by default), for a Cairn proxy to connect to.
"""

import pathlib
import sys

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

pb = cairn_sdk.load(HERE / "wallet.proto")

wallet = cairn_sdk.ValueEntity(pb.DESCRIPTOR.services_by_name["Wallet"], persistence_id="wallet",
                               value=pb.Balance)


def pay(balance: pb.Balance, cents: int, context: cairn_sdk.ValueContext) -> pb.Balance:
    balance.cents += cents
    balance.payments += 1
    context.update(balance)
    return balance


@wallet.command("Deposit")
def deposit(balance: pb.Balance, command: pb.Payment, context: cairn_sdk.ValueContext) -> pb.Balance:
    if command.cents <= 0:
        context.fail("Cannot deposit %d cents: it must be at least 1" % command.cents)
    return pay(balance, command.cents, context)


@wallet.command("Withdraw")
def withdraw(balance: pb.Balance, command: pb.Payment, context: cairn_sdk.ValueContext) -> pb.Balance:
    if command.cents <= 0:
        context.fail("Cannot withdraw %d cents: it must be at least 1" % command.cents)
    if command.cents > balance.cents:
        context.fail("Cannot withdraw %d cents: there are %d" % (command.cents, balance.cents))
    return pay(balance, -command.cents, context)


@wallet.command("GetBalance")
def get_balance(balance: pb.Balance, command: pb.Owner, context: cairn_sdk.ValueContext) -> pb.Balance:
    return balance


@wallet.command("Close")
def close(balance: pb.Balance, command: pb.Owner, context: cairn_sdk.ValueContext) -> pb.Balance:
    context.delete()
    return balance


if __name__ == "__main__":
    cairn_sdk.serve(wallet, name="wallet", version=cairn_sdk.__version__)
