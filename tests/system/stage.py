"""A proxy between clients and a function that the test plays, with its journal."""

import grpc

import harness
import model
from entity import Entity
from recorder import PATIENCE
from records import HalfClose

METHODS = {
    "Process": (model.MODEL, model.pb.Request, model.pb.Response),
    "Look": (model.MODEL, model.pb.Request, model.pb.Response),
    "Call": (model.TWO, model.pb.Pair, model.pb.Response),
    "Count": (model.NUMBERED, model.pb.Number, model.pb.Response),
}


class Stage:
    """Everything up and discovered. `rec` plays the function, `send` and `call` are clients' commands."""

    def __init__(self, lab, spec=None, max_streams=None, storage="memory", journal=None, options=(),
                 env=None):
        self.lab = lab
        self.journal = journal or lab.cairnd(storage)
        self.rec = lab.recorder(spec=spec or model.spec(), max_streams=max_streams)
        self.proxy = lab.proxy(self.rec, self.journal, options=options, env=env)
        self.rec.expect_discovery()
        self.channel = harness.channel_to(self.proxy.port)

    def send(self, message, name="Process", timeout=None, metadata=None):
        """A client's command, in the background: a grpc future."""
        service, request, reply = METHODS[name]
        call = self.channel.unary_unary("/%s/%s" % (service, name), request.SerializeToString,
                                        reply.FromString)
        return call.future(message, timeout=timeout or PATIENCE, metadata=metadata)

    def entity(self, entity_id, service=model.MODEL):
        return Entity(service, entity_id)

    def begin(self, entity_id="e", text="go", expect=(), ids=1):
        """A command that activates the entity; returns (client's future, stream, entity) with the command
        just received. `expect`: what comes between init and command."""
        entity = self.entity(entity_id)
        answer = self.send(model.request(entity_id, text))
        stream = self.rec.entity(entity)
        stream.expect(*(expect or (entity.init(),)),
                      entity.command(ids, "Process", model.request(entity_id, text)))
        return answer, stream, entity

    def command(self, stream, entity, command_id, text, reply):
        """One more command on an open stream, answered with `reply`; returns the client's answer."""
        answer = self.send(model.request(entity.entity_id, text))
        stream.expect(entity.command(command_id, "Process", model.request(entity.entity_id, text)))
        stream.send(reply.message)
        return answer.result()

    def ended(self, stream):
        """The proxy half-closes; the function ends."""
        stream.expect(HalfClose())
        stream.end(0)

    def failed(self, answer, code="UNKNOWN", details=None):
        """The client's command fails so; returns its details."""
        try:
            result = answer.result()
        except grpc.RpcError as error:
            assert error.code().name == code, (error.code(), error.details())
            if details is not None:
                assert error.details() == details
            return error.details()
        raise AssertionError("answered %r" % result)

    def quiet(self):
        """Nothing came that was not expected."""
        self.rec.nothing_more()
