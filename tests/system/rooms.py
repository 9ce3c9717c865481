"""CRDTs of the service cairn.rooms.Room, whose function the test plays, behind a proxy or several on one journal."""

import harness
import protos
from crdt import Crdt
from recorder import CRDT_HANDLE, PATIENCE

pb = protos.data("rooms")
ROOM = "cairn.rooms.Room"


def spec(passivate_ms=0):
    it = protos.cloudstate.EntitySpec(
        proto=protos.descriptors(pb).SerializeToString(),
        service_info=protos.cloudstate.ServiceInfo(service_name="rooms", protocol_minor_version=2))
    entity = it.entities.add(entity_type="cloudstate.crdt.Crdt", service_name=ROOM, persistence_id="room")
    if passivate_ms:
        entity.passivation_strategy.timeout.timeout = passivate_ms
    return it


def request(entity_id, text=""):
    return pb.Request(id=entity_id, text=text)


def response(text):
    return pb.Response(message=text)


class Rooms:
    """A proxy before a function that the test plays."""

    def __init__(self, lab, passivate_ms=0, options=(), storage="memory", journal=None, name="cairn-proxy"):
        self.lab = lab
        self.journal = journal or lab.cairnd(storage)
        self.rec = lab.recorder(spec=spec(passivate_ms))
        self.proxy = lab.proxy(self.rec, self.journal, name=name, options=options)
        self.rec.expect_discovery()
        self.connect()

    def connect(self):
        channel = harness.channel_to(self.proxy.port)
        self._say = channel.unary_unary("/%s/Say" % ROOM, pb.Request.SerializeToString, pb.Response.FromString)
        self._watch = channel.unary_stream("/%s/Watch" % ROOM, pb.Request.SerializeToString,
                                           pb.Response.FromString)

    def say(self, entity_id, text=""):
        return self._say.future(request(entity_id, text), timeout=PATIENCE)

    def watch(self, entity_id, text=""):
        return self._watch(request(entity_id, text), timeout=4 * PATIENCE)

    def begin(self, entity_id="r", value=None):
        """Activates the entity by one command; returns (client's future, stream, room)."""
        room = Crdt(ROOM, entity_id)
        answer = self.say(entity_id, "1")
        stream = self.rec.stream(CRDT_HANDLE)
        stream.expect(room.init(value), room.command(1, "Say", request(entity_id, "1")))
        return answer, stream, room

    def answered(self, stream, room, command_id, **reply):
        """One more command, and its answer."""
        text = str(command_id)
        answer = self.say(room.entity_id, text)
        stream.expect(room.command(command_id, "Say", request(room.entity_id, text)))
        stream.send(room.reply(command_id, response(text), **reply).message)
        return answer

    def with_value(self, value, entity_id="r"):
        answer, stream, room = self.begin(entity_id)
        stream.send(room.reply(1, response("1"), update=value).message)
        assert answer.result() == response("1")
        return stream, room

    def open_watch(self, stream, room, command_id):
        answers = self.watch(room.entity_id)
        stream.expect(room.command(command_id, "Watch", request(room.entity_id), streamed=True))
        stream.send(room.reply(command_id, response("open"), streamed=True).message)
        assert next(answers) == response("open")
        return answers


def failed(answer, code="UNKNOWN", details=None):
    """The call, of either sort, ends so."""
    assert (answer.code().name, answer.details()) == (code, details)
