"""The messages of one CRDT entity, as both sides of its stream send them."""

from google.protobuf import any_pb2

import protos
from entity import pack
from records import FromFunction, ToFunction

_crdt = protos.crdt
_cs = protos.cloudstate
LOCAL, MAJORITY, ALL = 0, 1, 2


def text(value):
    """A string as SDKs put it into sets, maps and registers."""
    data = value.encode()
    return any_pb2.Any(type_url="p.cloudstate.io/string",
                       value=b"\x0a" + bytes([len(data)]) + data if data else b"")


def gcounter(increment=0):
    return _crdt.CrdtDelta(gcounter=_crdt.GCounterDelta(increment=increment))


def pncounter(change=0):
    return _crdt.CrdtDelta(pncounter=_crdt.PNCounterDelta(change=change))


def gset(*added):
    return _crdt.CrdtDelta(gset=_crdt.GSetDelta(added=[text(a) for a in added]))


def orset(*added, removed=(), cleared=False):
    return _crdt.CrdtDelta(orset=_crdt.ORSetDelta(cleared=cleared, removed=[text(r) for r in removed],
                                                  added=[text(a) for a in added]))


def lww(value, clock=0, custom=0):
    return _crdt.CrdtDelta(lwwregister=_crdt.LWWRegisterDelta(value=text(value), clock=clock,
                                                              custom_clock_value=custom))


def flag(value=False):
    return _crdt.CrdtDelta(flag=_crdt.FlagDelta(value=value))


def ormap(added=(), updated=(), removed=(), cleared=False):
    """`added` and `updated`: dicts of deltas by key."""
    def entries(of):
        return [_crdt.ORMapEntryDelta(key=text(key), delta=delta) for key, delta in dict(of).items()]
    return _crdt.CrdtDelta(ormap=_crdt.ORMapDelta(cleared=cleared, removed=[text(r) for r in removed],
                                                  updated=entries(updated), added=entries(added)))


def vote(self_vote=False, votes_for=0, total_voters=0):
    return _crdt.CrdtDelta(vote=_crdt.VoteDelta(self_vote=self_vote, votes_for=votes_for,
                                                total_voters=total_voters))


class Crdt:
    """Builds the records that a CRDT's stream consists of. Every method's result can be expected from a
    StreamView; `.message` of it can be sent."""

    def __init__(self, service, entity_id):
        self.service, self.entity_id = service, entity_id

    def init(self, delta=None):
        return ToFunction(_crdt.CrdtStreamIn(init=_crdt.CrdtInit(
            service_name=self.service, entity_id=self.entity_id, delta=delta)))

    def delta(self, delta):
        return ToFunction(_crdt.CrdtStreamIn(delta=delta))

    def deleted(self):
        return ToFunction(_crdt.CrdtStreamIn(delete=_crdt.CrdtDelete()))

    def command(self, command_id, name, payload, streamed=False):
        return ToFunction(_crdt.CrdtStreamIn(command=_cs.Command(
            entity_id=self.entity_id, id=command_id, name=name, payload=pack(payload), streamed=streamed)))

    def cancelled(self, command_id):
        return ToFunction(_crdt.CrdtStreamIn(stream_cancelled=_cs.StreamCancelled(
            entity_id=self.entity_id, id=command_id)))

    @staticmethod
    def _change(to, update, delete, consistency):
        if update is not None:
            to.state_action.update.CopyFrom(update)
        if delete:
            to.state_action.delete.SetInParent()
        if consistency:
            to.state_action.write_consistency = consistency

    def reply(self, command_id, payload=None, update=None, delete=False, consistency=LOCAL, effects=(),
              streamed=False, fail=None):
        """A reply with its payload; None: without any client action; `fail`: a failure's description."""
        message = _crdt.CrdtReply(command_id=command_id, side_effects=effects, streamed=streamed)
        if payload is not None:
            message.client_action.reply.payload.CopyFrom(pack(payload))
        if fail is not None:
            message.client_action.failure.CopyFrom(_cs.Failure(command_id=command_id, description=fail))
        self._change(message, update, delete, consistency)
        return FromFunction(_crdt.CrdtStreamOut(reply=message))

    def streamed(self, command_id, payload=None, effects=(), end=False, fail=None):
        message = _crdt.CrdtStreamedMessage(command_id=command_id, side_effects=effects, end_stream=end)
        if payload is not None:
            message.client_action.reply.payload.CopyFrom(pack(payload))
        if fail is not None:
            message.client_action.failure.CopyFrom(_cs.Failure(command_id=command_id, description=fail))
        return FromFunction(_crdt.CrdtStreamOut(streamed_message=message))

    def cancel_response(self, command_id, update=None, delete=False, effects=()):
        message = _crdt.CrdtStreamCancelledResponse(command_id=command_id, side_effects=effects)
        self._change(message, update, delete, LOCAL)
        return FromFunction(_crdt.CrdtStreamOut(stream_cancelled_response=message))

    def failure(self, command_id, description):
        """A failure of the stream itself."""
        return FromFunction(_crdt.CrdtStreamOut(
            failure=_cs.Failure(command_id=command_id, description=description)))
