"""A journal that the test plays: cairn.journal.v1 in memory, as much of it as a proxy uses, whose answers can
be held back, refused or lost. What a real journal does is tested with a real one; this is for the moments in
between, which cannot be hit from outside."""

import concurrent.futures
import os
import threading
import time

import grpc

import protos
from crc32c import crc32c
from ports import free_port
from recorder import PATIENCE

pb, records = protos.journal, protos.journal_record
SERVICE = "cairn.journal.v1.Journal"


class Append:
    """An append that waits for its fate. `events`: (stream, NewRecord), in order."""

    def __init__(self, request):
        self.request = request
        self.answer = concurrent.futures.Future()
        self.events = [(s.stream, e) for s in request.streams for e in s.events]


class PlayedJournal:
    """A server on `port`. While `hold` is set, appends that carry events wait for `accept`, `refuse` or
    `lose_answer`."""

    def __init__(self):
        self.port = free_port()
        self.hold = False
        self.journal_id = os.urandom(16)
        self.log = []  # (header, serialized entry)
        self.heads, self.done = {}, {}
        self.appends, self.loads = [], []
        self._changed = threading.Condition()
        self.server = None
        self.start()

    def start(self):
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(32),
                                  options=[("grpc.so_reuseport", 0)])
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {
            "AppendStream": grpc.stream_stream_rpc_method_handler(
                self._append_stream, pb.AppendRequest.FromString, pb.AppendResponse.SerializeToString),
            "Append": grpc.unary_unary_rpc_method_handler(
                self._append_unary, pb.AppendRequest.FromString, pb.AppendResponse.SerializeToString),
            "Load": grpc.unary_stream_rpc_method_handler(self._load, pb.LoadRequest.FromString, None),
            "Stat": grpc.unary_unary_rpc_method_handler(
                self._stat, pb.StatRequest.FromString, pb.StatResponse.SerializeToString)}),))
        assert self.server.add_insecure_port("127.0.0.1:%d" % self.port) == self.port
        self.server.start()

    def stop(self):
        """Gone, with all its connections; what it holds stays."""
        assert self.server.stop(None).wait(PATIENCE)

    # --- what a test does

    def next_append(self, timeout=None):
        """The next append that waits."""
        with self._changed:
            ok = self._changed.wait_for(lambda: self.appends, timeout or PATIENCE)
            assert ok, "no append came"
            return self.appends.pop(0)

    def accept(self, append):
        """It becomes durable, and is answered."""
        append.answer.set_result(self._write(append.request))

    def lose_answer(self, append):
        """It becomes durable, but the answer is lost with the connection."""
        self._write(append.request)
        append.answer.cancel()

    def refuse(self, append, code, text):
        response = pb.AppendResponse(request=append.request.request)
        response.refusal.code, response.refusal.text = code, text
        append.answer.set_result(response)

    def events(self, stream):
        """(sequence, type, data) of a stream's events."""
        found = []
        for header, data in self.log:
            entry = records.Entry.FromString(data)
            if header.stream == stream and header.kind == records.KIND_EVENT:
                found.append((header.sequence, header.type, entry.body.data))
        return found

    # --- the service

    def _write(self, request):
        with self._changed:
            response = pb.AppendResponse(request=request.request, first_position=len(self.log))
            ids = tuple(r.id for s in request.streams for r in s.events)
            repeated = bool(ids) and all(i in self.done for i in ids)
            for s in request.streams:
                head = self.heads.get(s.stream, 0)
                expected = {1: head == 0, 2: head > 0, 3: head == s.expect.sequence}.get(s.expect.kind, True)
                if not repeated and not expected:
                    response.refusal.code, response.refusal.stream = 10, s.stream
                    response.refusal.text = "expected %d, found %d" % (s.expect.sequence, head)
                    response.refusal.sequence_found = head
                    return response
            for s in request.streams:
                if not repeated:
                    for r in s.events:
                        self.heads[s.stream] = self.heads.get(s.stream, 0) + 1
                        self._put(s.stream, records.KIND_EVENT, r)
                    if s.HasField("snapshot"):
                        self._put(s.stream, records.KIND_SNAPSHOT, s.snapshot)
                response.streams.add(stream=s.stream, sequence=self.heads.get(s.stream, 0))
            response.repeated = repeated
            response.count = len(self.log) - response.first_position
            response.cursor.CopyFrom(self._cursor())
            return response

    def _put(self, stream, kind, new):
        header = records.Header(
            format=1, sequence=self.heads.get(stream, 0), commit_time_us=int(time.time() * 1e6), kind=kind,
            stream=stream, id=new.id or os.urandom(16), type=new.type, content_type=new.content_type,
            last_of_append=True)
        body = records.Body(salt=os.urandom(16), data=new.data)
        for m in new.metadata:
            body.metadata.add(key=m.key, value=m.value)
        entry = records.Entry(position=len(self.log), header=header, body=body)
        data = entry.SerializeToString(deterministic=True)
        data += b"\x7d" + crc32c(data).to_bytes(4, "little")
        self.done[new.id] = True
        self.log.append((header, data))

    def _cursor(self):
        return records.Cursor(journal_id=self.journal_id, incarnation=1, position=len(self.log))

    def _submit(self, request):
        append = Append(request)
        with self._changed:
            held = self.hold and bool(append.events)
            if held:
                self.appends.append(append)
                self._changed.notify_all()
        if not held:
            append.answer.set_result(self._write(request))
        return append

    def _append_stream(self, requests, context):
        ready = []
        changed = threading.Condition()
        state = {"open": 0, "ended": False}

        def answered(future):
            with changed:
                ready.append(future)
                changed.notify()

        def read():
            try:
                for request in requests:
                    with changed:
                        state["open"] += 1
                    self._submit(request).answer.add_done_callback(answered)
            except Exception:  # the client has gone: nothing more is read, which is all there is to do
                pass
            with changed:
                state["ended"] = True
                changed.notify()

        threading.Thread(target=read, daemon=True).start()
        context.add_callback(lambda: answered(None))
        while True:
            with changed:
                changed.wait_for(lambda: ready or state["ended"] and not state["open"])
                if not ready:
                    return
                future = ready.pop(0)
                state["open"] -= 1
            if future is None:
                return
            if future.cancelled():
                context.abort(grpc.StatusCode.UNAVAILABLE, "lost")
            yield future.result()

    def _append_unary(self, request, context):
        response = self._submit(request).answer.result(4 * PATIENCE)
        if response.HasField("refusal"):
            context.abort(next(c for c in grpc.StatusCode if c.value[0] == response.refusal.code),
                          response.refusal.text)
        return response

    def _load(self, request, context):
        with self._changed:
            self.loads.append(request.stream)
            mine = [(h, d) for h, d in self.log if h.stream == request.stream]
            snapshots = [i for i, (h, _) in enumerate(mine) if h.kind == records.KIND_SNAPSHOT]
            chosen = mine
            if snapshots:
                newest = mine[snapshots[-1]]
                chosen = [newest] + [(h, d) for h, d in mine
                                     if h.kind == records.KIND_EVENT and h.sequence > newest[0].sequence]
            tail = pb.LoadResponse(cursor=self._cursor(), end=True,
                                   sequence=self.heads.get(request.stream, 0))
        out = b""
        for _, data in chosen:
            size, length = len(data), b""
            while size >= 0x80:
                length += bytes([size & 0x7F | 0x80])
                size >>= 7
            out += b"\x0a" + length + bytes([size]) + data
        yield out + tail.SerializeToString()

    def _stat(self, request, context):
        return pb.StatResponse(head=self._cursor(), storage="memory", version="played",
                               features=["append", "append-stream", "read", "load"])

