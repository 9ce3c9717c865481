"""The entity that the SDK's own tests serve; its state is the message Value, changed in place."""

import pathlib

import cairn_sdk

pb = cairn_sdk.load(pathlib.Path(__file__).resolve().parent / "counter.proto")


def declare(snapshot_every=3, **options):
    counter = cairn_sdk.EventSourced("cairn_sdk.test.Counter", "counter", state=lambda name: pb.Value(),
                                     snapshot_every=snapshot_every, **options)

    @counter.command("Increase")
    def increase(state, command, context):
        if command.by <= 0:
            context.fail("by must be at least 1")
        for _ in range(command.times or 1):
            context.emit(pb.Increased(by=command.by))
        if command.then == "fail":
            context.fail("after all no")
        if command.then == "raise":
            raise KeyError("a bug")
        if command.then == "reply wrongly":
            return pb.GetValue()
        if command.then == "reply nothing":
            return None
        if command.then == "emit unhandled":
            context.emit(pb.Unhandled())
        if command.then == "forward":
            context.forward("cairn_sdk.test.Other/Note", pb.GetValue(name=context.entity_id))
        if command.then == "effect":
            context.effect("cairn_sdk.test.Other/Note", pb.GetValue(name="x"), synchronous=True)
            context.effect("cairn_sdk.test.Other/Note", pb.GetValue(name="y"))
        return state

    @counter.command("Reset")
    def reset(state, command, context):
        context.emit(pb.WasReset())

    @counter.command("Get")
    def get(state, command, context):
        return state

    @counter.event(pb.Increased)
    def increased(state, event):
        if event.by == 13:
            raise ValueError("13 is not possible")
        state.value += event.by
        event.by = 0  # what is kept must not change by this

    @counter.event(pb.WasReset)
    def was_reset(state, event):
        return pb.Value()

    @counter.snapshot
    def snapshot(state):
        return state

    @counter.restore(pb.Value)
    def restore(kept):
        return kept

    return counter
