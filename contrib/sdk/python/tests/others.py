"""A value entity and an action, as the SDK's own tests serve them."""

import pathlib

import cairn_sdk

pb = cairn_sdk.load(pathlib.Path(__file__).resolve().parent / "others.proto")


def wallet(**options):
    it = cairn_sdk.ValueEntity("cairn_sdk.others.Wallet", "wallet", pb.Balance, **options)

    @it.command("Put")
    def put(balance, command, context):
        balance.amount += command.amount  # a copy, until update() takes it
        if balance.amount < 0:
            context.fail("there are only %d" % (balance.amount - command.amount))
        if command.amount:
            context.update(balance)
        if command.then == "forward":
            context.forward("cairn_sdk.others.Sums/Double", pb.Number(value=balance.amount))
        if command.then == "effect":
            context.effect("cairn_sdk.others.Sums/Double", pb.Number(value=1), synchronous=True)
        if command.then == "raise":
            raise KeyError("a bug")
        if command.then == "wrong":
            context.update(pb.Number())
        return balance

    @it.command("Close")
    def close(balance, command, context):
        context.delete()

    return it


def sums():
    it = cairn_sdk.Action("cairn_sdk.others.Sums")

    @it.command("Double")
    def double(number, context):
        if number.value < 0:
            context.fail("not below zero")
        if number.value == 13:
            raise KeyError("a bug")
        for value in context.header("x-mine"):
            context.add_metadata("x-yours", value)
        return pb.Number(value=2 * number.value)

    @it.command("Total")
    async def total(numbers, context):
        total = 0
        async for number in numbers:
            total += number.value
            if number.value < 0:
                context.fail("not below zero")
        return pb.Number(value=total)

    @it.command("Count")
    def count(number, context):
        for value in range(number.value):
            if value == 3:
                context.effect("cairn_sdk.others.Wallet/Put", pb.Amount(name="a", amount=1))
                yield None
            if value == 4:
                context.fail("no further than 4")
            yield pb.Number(value=value)

    @it.command("Echo")
    async def echo(numbers, context):
        async for number in numbers:
            yield number

    return it
