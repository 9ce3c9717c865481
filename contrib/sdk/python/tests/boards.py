"""A CRDT entity, as the SDK's own tests serve it: a map of sets."""

import pathlib

import cairn_sdk

pb = cairn_sdk.load(pathlib.Path(__file__).resolve().parent / "crdts.proto")


def state(board):
    return pb.State(keys=sorted(board))


def board(**options):
    it = cairn_sdk.Crdt("cairn_sdk.crdts.Board", "board", cairn_sdk.ORMap, **options)

    @it.command("Do")
    def do(board, act, context):
        if act.what in ("add", "add-all", "add-and-fail", "add-and-raise"):
            board.entry(act.key, cairn_sdk.ORSet).add("x")
        if act.what == "add-all":
            context.write(cairn_sdk.ALL)
        if act.what == "add-and-fail":
            context.fail("not today")
        if act.what == "add-and-raise":
            raise KeyError("a bug")
        if act.what == "remove":
            board.discard(act.key)
        if act.what == "delete":
            context.delete()
        if act.what == "effect":
            context.effect("cairn_sdk.crdts.Board/Do", act)
        if act.what == "forward":
            context.forward("cairn_sdk.crdts.Board/Do", act)
        if act.what == "stream":
            context.stream()
        return state(board)

    @it.command("Watch")
    def watch(board, act, context):
        def changed(board, stream):
            if act.what == "until" and act.key in board:
                stream.end()
            if act.what == "fail":
                stream.fail("the board has changed")
            if act.what == "changes":
                board.entry("mine", cairn_sdk.ORSet)
            return None if act.what == "quiet" else state(board)

        def left(board, context):
            board.entry("left", cairn_sdk.ORSet).add(act.key)
            if act.what == "refuse-to-leave":
                context.fail("no")

        if act.what == "once":
            return state(board)
        board.entry("watched", cairn_sdk.ORSet).add(act.key)
        context.stream(on_change=changed, on_cancel=left)
        return None if act.what == "quiet" else state(board)

    return it
