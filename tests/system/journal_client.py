"""The journal's service as a grpcio client sees it: one method an operation, and what every test wants of
records and refusals."""

import queue
import uuid

import grpc
from google.protobuf import descriptor_pb2

from harness import channel_to
from protos import journal as pb
from protos import journal_record as rec

SERVICE = "/cairn.journal.v1.Journal/"
EXPECT = pb.Expectation


def new_id():
    return uuid.uuid4().bytes


def event(type="Happened", data=b"", id=None, **more):
    return pb.NewRecord(id=new_id() if id is None else id, type=type, data=data, **more)


def exactly(n):
    return EXPECT(kind=EXPECT.EXACTLY, sequence=n)


def none():
    return EXPECT(kind=EXPECT.NONE)


def exists():
    return EXPECT(kind=EXPECT.EXISTS)


def to_stream(name, *events, expect=None, snapshot=None):
    return pb.StreamAppend(stream=name, events=events, expect=expect, snapshot=snapshot)


class Refused(Exception):
    """A call that failed: `code` is the status code's name, `refusal` the detail of a refused append."""

    def __init__(self, error):
        super().__init__("%s: %s" % (error.code().name, error.details()))
        self.code, self.text = error.code().name, error.details()
        self.refusal = None
        for key, value in error.trailing_metadata() or ():
            if key == "cairn-refusal-bin":
                self.refusal = pb.Refusal.FromString(value)


class Journal:
    """A client on a connection of its own."""

    def __init__(self, port, timeout=20, **options):
        self.timeout = timeout
        self.channel = channel_to(port, **options)
        self._calls = {}
        for method in pb.DESCRIPTOR.services_by_name["Journal"].methods:
            streams = descriptor_pb2.MethodDescriptorProto()
            method.CopyToProto(streams)
            kind = "_".join("stream" if s else "unary" for s in (streams.client_streaming, streams.server_streaming))
            self._calls[method.name] = getattr(self.channel, kind)(
                SERVICE + method.name, request_serializer=lambda m: m.SerializeToString(),
                response_deserializer=getattr(pb, method.output_type.name).FromString)

    def close(self):
        self.channel.close()

    def call(self, name, request, timeout=None):
        try:
            return self._calls[name](request, timeout=timeout or self.timeout, wait_for_ready=True)
        except grpc.RpcError as error:
            raise Refused(error) from None

    def responses(self, name, request, timeout=None):
        try:
            return list(self._calls[name](request, timeout=timeout or self.timeout, wait_for_ready=True))
        except grpc.RpcError as error:
            raise Refused(error) from None

    # --- operations

    def append(self, *streams, conditions=(), **more):
        return self.call("Append", pb.AppendRequest(streams=streams, conditions=conditions, **more))

    def append_stream(self):
        return AppendStream(self._calls["AppendStream"])

    def read_responses(self, **query):
        return self.responses("Read", pb.ReadRequest(**query))

    def read(self, **query):
        """All entries of a read; the last response alone says that it is the end."""
        responses = self.read_responses(**query)
        assert [r.end for r in responses] == [False] * (len(responses) - 1) + [True]
        return [e for r in responses for e in r.entries]

    def truncate(self, stream, before_sequence, reason="a test"):
        return self.call("Truncate", pb.TruncateRequest(
            stream=stream, before_sequence=before_sequence, reason=reason))

    def load(self, stream, **more):
        """(entries, the last response)"""
        responses = self.responses("Load", pb.LoadRequest(stream=stream, **more))
        assert [r.end for r in responses] == [False] * (len(responses) - 1) + [True]
        return [e for r in responses for e in r.entries], responses[-1]

    def subscribe(self, timeout=None, **query):
        return Subscription(self._calls["Subscribe"](pb.SubscribeRequest(**query),
                                                     timeout=timeout or self.timeout, wait_for_ready=True))

    def stat(self, stream="", **more):
        return self.call("Stat", pb.StatRequest(stream=stream, **more))

    def list_streams(self, **more):
        return self.call("ListStreams", pb.ListStreamsRequest(**more))


    # --- sessions and grants

    def begin_session(self, *services, session=None, ttl_ms=60000, **more):
        session = session or new_id()
        self.call("BeginSession", pb.BeginSessionRequest(session=session, services=services, ttl_ms=ttl_ms,
                                                         **more))
        return session

    def beat(self, session):
        return self.call("BeatSession", pb.BeatSessionRequest(session=session)).beats

    def end_session(self, session):
        return self.call("EndSession", pb.EndSessionRequest(session=session))

    def claim(self, service, session, *slots):
        """(epoch, holder) of each slot"""
        answer = self.call("ClaimGrants", pb.ClaimGrantsRequest(service=service, session=session, slots=slots))
        assert [g.slot for g in answer.grants] == list(slots)
        return [(g.epoch, g.session) for g in answer.grants]

    def release(self, service, session, *slots_and_epochs):
        grants = [rec.Grant(slot=s, epoch=e) for s, e in slots_and_epochs]
        return self.call("ReleaseGrants", pb.ReleaseGrantsRequest(service=service, session=session,
                                                                  grants=grants)).grants

    def watch(self, service, timeout=None):
        return self._calls["WatchGrants"](pb.WatchGrantsRequest(service=service),
                                          timeout=timeout or self.timeout, wait_for_ready=True)


    def groups(self, prefix=""):
        """Every partition of every group."""
        found, token = [], ""
        while True:
            page = self.call("ListGroups", pb.ListGroupsRequest(prefix=prefix, page_token=token))
            found.extend(page.partitions)
            token = page.next_page_token
            if not token:
                return found

    def marks(self, group, **more):
        return list(self.call("ListGroupMarks", pb.ListGroupMarksRequest(group=group, **more)).marks)

    def act_on_group(self, group, act, reason="a test", **more):
        return self.call("ActOnGroup", pb.ActOnGroupRequest(
            group=group, act=rec.GroupAct.Act.Value("ACT_" + act), reason=reason, **more)).records

    def consume(self, group, timeout=None, **more):
        return Consumer(self._calls["Consume"], pb.ConsumeRequest(group=group, **more), timeout or self.timeout)


class Consumer:
    """A Consume call."""

    def __init__(self, call, first, timeout):
        self._requests = queue.SimpleQueue()
        self._requests.put(first)
        self._call = call(iter(self._requests.get, None), timeout=timeout, wait_for_ready=True)
        self.pending, self.active, self.parked, self.held, self.partitions = [], None, set(), None, []

    def response(self):
        try:
            r = next(self._call)
        except grpc.RpcError as error:
            raise Refused(error) from None
        except StopIteration:
            raise AssertionError("the call has ended") from None
        if r.HasField("active"):
            self.active = r.active
            self.partitions.append(r.partition)
        if r.held:
            self.held = {h.partition: h.address for h in r.held}
        self.parked.update(r.parked)
        self.pending.extend(r.entries)

    def take(self, n):
        """The next n entries, in the order in which they come."""
        while len(self.pending) < n:
            self.response()
        taken, self.pending = self.pending[:n], self.pending[n:]
        return taken

    def until_active(self):
        while self.active is None:
            self.response()
        return self.active.position

    def send(self, **what):
        self._requests.put(pb.ConsumeRequest(**what))

    def ack(self, *entries):
        self.send(ack=[e.position for e in entries])

    def nack(self, entry, delay_ms=0):
        self.send(nack=[pb.Nack(position=entry.position, delay_ms=delay_ms)])

    def until_held(self):
        """Who has the partitions, as it is told that has none."""
        while self.held is None:
            self.response()
        return self.held

    def park(self, entry, reason, goes_on=False):
        self.send(park=[pb.Park(position=entry.position, reason=reason, goes_on=goes_on)])
        while entry.position not in self.parked:
            self.response()

    def finish(self):
        """No more acknowledgements; entries that were still on their way."""
        self._requests.put(None)
        for r in self._call:
            self.pending.extend(r.entries)
        assert self._call.code() == grpc.StatusCode.OK

    def cancel(self):
        self._call.cancel()
        self._requests.put(None)


class AppendStream:
    """An AppendStream: `send` requests, take answers as they come."""

    def __init__(self, call):
        self._requests = queue.SimpleQueue()
        self._call = call(iter(self._requests.get, None), wait_for_ready=True)

    def send(self, number, *streams, **more):
        self._requests.put(pb.AppendRequest(request=number, streams=streams, **more))

    def send_raw(self, request):
        self._requests.put(request)

    def half_close(self):
        self._requests.put(None)

    def answer(self):
        try:
            return next(self._call)
        except grpc.RpcError as error:
            raise Refused(error) from None

    def rest(self):
        """What still comes, until the call ends; its status code's name."""
        answers = []
        try:
            for a in self._call:
                answers.append(a)
        except grpc.RpcError as error:
            return answers, error.code().name
        return answers, self._call.code().name

    def cancel(self):
        self._call.cancel()
        self._requests.put(None)


class Subscription:
    """A Subscribe call."""

    def __init__(self, call):
        self._call = call

    def next(self):
        try:
            return next(self._call)
        except grpc.RpcError as error:
            raise Refused(error) from None

    def take(self, n):
        """At least n entries: (entries, responses)."""
        entries, responses = [], []
        while len(entries) < n:
            responses.append(self.next())
            entries.extend(responses[-1].entries)
        return entries, responses

    def until_caught_up(self):
        entries = []
        while True:
            response = self.next()
            entries.extend(response.entries)
            if response.caught_up:
                return entries, response

    def cancel(self):
        self._call.cancel()


def brief(entries):
    """(stream, sequence, type) of each."""
    return [(e.header.stream, e.header.sequence, e.header.type) for e in entries]


def check_whole(entries):
    """The whole journal: positions and, in every stream, sequences without gaps, ids unique, time never
    going back. Returns the entries by id."""
    by_id, sequences, last = {}, {}, 0
    for i, e in enumerate(entries):
        h = e.header
        assert e.position == i, "position %d stands at %d" % (e.position, i)
        assert h.commit_time_us >= last, "time goes back at %d" % i
        last = h.commit_time_us
        assert h.id not in by_id, "the id of %d is also at %d" % (i, by_id[h.id].position)
        by_id[h.id] = e
        if h.kind in (rec.KIND_EVENT, rec.KIND_DELETE, rec.KIND_ERASE):
            assert h.sequence == sequences.get(h.stream, 0) + 1, "%r: sequence %d after %d" % (
                h.stream, h.sequence, sequences.get(h.stream, 0))
            sequences[h.stream] = h.sequence
        else:
            assert h.sequence == sequences.get(h.stream, 0)
    return by_id
