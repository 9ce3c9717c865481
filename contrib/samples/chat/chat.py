#!/usr/bin/python3
"""Chat rooms with presence, one CRDT for each room.

A room is a map: under "lines" the set of what was said, and under each guest's name a vote. A proxy votes for a guest
as long as one of his streams is open on it, so he is in the room while any proxy says so, and when a proxy dies he
leaves with it.

Run it as it stands: it serves on HOST and PORT (127.0.0.1:8080 by default), for a Cairn proxy to connect to.
"""

import collections
import pathlib
import sys
import time

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

pb = cairn_sdk.load(HERE / "chat.proto")

LINES_KEPT = 100

chat = cairn_sdk.Crdt(pb.DESCRIPTOR.services_by_name["Chat"], persistence_id="chat", value=cairn_sdk.ORMap)

# The open streams of this process: (room, name) -> how many. Lost with it, as the streams are.
streams = collections.Counter()


def lines(room: cairn_sdk.ORMap) -> list:
    said = room.get("lines")
    return sorted(said or (), key=lambda line: (line.time_us, line.name, line.text))


def here(room: cairn_sdk.ORMap) -> list:
    return sorted(guest.name for guest, vote in room.items()
                  if isinstance(guest, pb.Guest) and vote.at_least_one)


def leave(room: cairn_sdk.ORMap, guest: pb.Guest) -> None:
    """This process has no stream of his any more. If a proxy that we have not heard of yet votes for him, he stays."""
    vote = room.get(guest)
    if vote is not None:
        vote.vote(False)
        if not vote.at_least_one:
            room.discard(guest)


def tidy(room: cairn_sdk.ORMap, name: str) -> None:
    """Takes back votes for streams that went with an earlier process of this function."""
    for guest, vote in room.items():
        if isinstance(guest, pb.Guest) and vote.self_vote and not streams[name, guest.name]:
            leave(room, guest)


@chat.command("Join")
def join(room: cairn_sdk.ORMap, guest: pb.Guest, context: cairn_sdk.CrdtContext) -> pb.News:
    if not guest.name:
        context.fail("Say who you are: the name is empty")
    tidy(room, guest.room)
    # Not the guest's room: each room is an entity of its own, and its keys are short.
    key = pb.Guest(name=guest.name)
    room.entry(key, cairn_sdk.Vote).vote(True)
    streams[guest.room, guest.name] += 1
    seen = pb.News(here=here(room), lines=lines(room))
    told = {line.SerializeToString() for line in seen.lines}
    last_here = list(seen.here)

    def changed(room: cairn_sdk.ORMap, stream: cairn_sdk.StreamContext) -> pb.News:
        nonlocal last_here
        now = here(room)
        new = [line for line in lines(room) if line.SerializeToString() not in told]
        if not new and now == last_here:
            return None
        told.update(line.SerializeToString() for line in new)
        last_here = now
        return pb.News(here=now, lines=new)

    def left(room: cairn_sdk.ORMap, context: cairn_sdk.CrdtContext) -> None:
        streams[guest.room, guest.name] -= 1
        if not streams[guest.room, guest.name]:
            leave(room, key)

    context.stream(on_change=changed, on_cancel=left)
    return seen


@chat.command("Say")
def say(room: cairn_sdk.ORMap, saying: pb.Saying, context: cairn_sdk.CrdtContext) -> None:
    tidy(room, saying.room)
    if saying.name not in here(room):
        context.fail("Who speaks must be in the room: %r is not" % saying.name)
    if not saying.text:
        context.fail("Say something: the text is empty")
    said = room.entry("lines", cairn_sdk.ORSet)
    said.add(pb.Line(time_us=time.time_ns() // 1000, name=saying.name, text=saying.text))
    for old in lines(room)[:-LINES_KEPT]:
        said.discard(old)


@chat.command("Look")
def look(room: cairn_sdk.ORMap, command: pb.Room, context: cairn_sdk.CrdtContext) -> pb.News:
    tidy(room, command.room)
    return pb.News(here=here(room), lines=lines(room))


if __name__ == "__main__":
    cairn_sdk.serve(chat, name="chat", version=cairn_sdk.__version__)
