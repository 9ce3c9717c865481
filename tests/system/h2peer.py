"""One end of an HTTP/2 connection, for the recorder: frames in, events out, and queues that wait for the
window of the other side.

It is python3-h2 with three things around it: bytes of a stream are acknowledged only when whoever takes them
says so (so that back-pressure passes through a man in the middle); headers and the end of a stream wait
behind the data queued before them; and GOAWAY does not end the connection (h2 refuses every frame after one,
but a peer that goes away gracefully still finishes its streams).
"""

import asyncio
import collections
import struct

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings

_PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
_GOAWAY = 7


class Peer(asyncio.Protocol):
    """Calls `owner.on_connected(peer)`, `owner.on_event(peer, event)` for h2's events,
    `owner.on_goaway(peer, last, code)`, `owner.on_violation(peer, text)` and `owner.on_lost(peer)`. All in
    the loop's thread."""

    def __init__(self, owner, client_side, max_streams=None):
        config = h2.config.H2Configuration(
            client_side=client_side, header_encoding=None, validate_outbound_headers=False,
            normalize_outbound_headers=False)
        self.owner = owner
        self.h2 = h2.connection.H2Connection(config=config)
        if max_streams is not None:
            settings = dict(self.h2.local_settings)
            settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = max_streams
            self.h2.local_settings = h2.settings.Settings(client=client_side, initial_values=settings)
        self.transport = None
        self.lost = False
        self._started, self._early = False, b""
        self.heard = asyncio.Event()  # the other side has sent something, or is lost
        self._queues = collections.defaultdict(collections.deque)
        self._raw = b""
        self._preface_left = 0 if client_side else _PREFACE

    def connection_made(self, transport):
        self.transport = transport
        self.owner.on_connected(self)

    def start(self):
        """Send our preface and settings, then read what has come before."""
        self.h2.initiate_connection()
        self.flush()
        self._started = True
        if self._early:
            self.data_received(b"")

    # --- in ---------------------------------------------------------------

    def _without_goaway(self, data):
        """Whole frames of what has come so far, GOAWAY taken out and reported."""
        self._raw += data
        out = b""
        if self._preface_left:
            out = self._raw[:self._preface_left]
            self._raw = self._raw[len(out):]
            self._preface_left -= len(out)
        while len(self._raw) >= 9:
            size = 9 + int.from_bytes(self._raw[:3], "big")
            if len(self._raw) < size and size <= 9 + (1 << 20):
                break
            frame, self._raw = self._raw[:size], self._raw[size:]
            if frame[3] == _GOAWAY and size >= 17:
                last, code = struct.unpack(">II", frame[9:17])
                self.owner.on_goaway(self, last & 0x7FFFFFFF, code)
            else:
                out += frame
        return out

    def data_received(self, data):
        self.heard.set()
        if not self._started:
            self._early += data
            return
        data, self._early = self._early + data, b""
        try:
            events = self.h2.receive_data(self._without_goaway(data))
        except h2.exceptions.ProtocolError as wrong:
            self.owner.on_violation(self, "%s: %s" % (type(wrong).__name__, wrong))
            self.flush()
            self.transport.close()
            return
        for event in events:
            if isinstance(event, (h2.events.WindowUpdated, h2.events.RemoteSettingsChanged)):
                for stream_id in list(self._queues):
                    self._pump(stream_id)
            self.owner.on_event(self, event)
        self.flush()

    def connection_lost(self, exc):
        self.lost = True
        self.heard.set()
        self.owner.on_lost(self)

    def consumed(self, stream_id, size):
        """The bytes of a DATA frame have been taken: open the window again."""
        if size and not self.lost:
            try:
                self.h2.acknowledge_received_data(size, stream_id)
            except h2.exceptions.ProtocolError:
                pass  # the stream or the connection is over: there is no window to open
            self.flush()

    def consumed_but_for_its_stream(self, size):
        """The connection's window is opened again, its stream's is not: others go on."""
        if size and not self.lost:
            self.h2.increment_flow_control_window(size)
            self.flush()

    def stream_consumed(self, stream_id, size):
        """The other half of that."""
        if size and not self.lost:
            try:
                self.h2.increment_flow_control_window(size, stream_id)
            except h2.exceptions.ProtocolError:
                pass  # the stream is over: there is no window to open
            self.flush()

    # --- out --------------------------------------------------------------

    def flush(self):
        data = self.h2.data_to_send()
        if data and not self.lost:
            self.transport.write(data)

    def send_headers(self, stream_id, headers, end=False):
        self._queues[stream_id].append(("headers", headers, end))
        self._pump(stream_id)

    def send_data(self, stream_id, data, on_sent=None):
        self._queues[stream_id].append(("data", data, on_sent))
        self._pump(stream_id)

    def send_end(self, stream_id):
        self._queues[stream_id].append(("end", None, None))
        self._pump(stream_id)

    def send_reset(self, stream_id, code):
        """RST_STREAM behind what is queued."""
        self._queues[stream_id].append(("reset", code, None))
        self._pump(stream_id)

    def reset(self, stream_id, code):
        """RST_STREAM at once; what is still queued is dropped."""
        self._drop(stream_id)
        self.send_reset(stream_id, code)

    def _drop(self, stream_id):
        for kind, _, on_sent in self._queues.pop(stream_id, ()):
            if kind == "data" and on_sent:
                on_sent()

    def goaway(self, last_stream_id, code):
        """GOAWAY by hand: streams up to `last_stream_id` go on."""
        self.flush()
        payload = struct.pack(">II", last_stream_id, code)
        self.transport.write(len(payload).to_bytes(3, "big") + bytes([_GOAWAY, 0]) + bytes(4) + payload)

    def close(self):
        if self.transport and not self.lost:
            self.transport.close()

    def abort(self):
        if self.transport and not self.lost:
            self.transport.abort()

    def _pump(self, stream_id):
        queue = self._queues[stream_id]
        try:
            while queue and self._pump_one(stream_id, queue):
                pass
        except h2.exceptions.TooManyStreamsError as wrong:
            self._drop(stream_id)
            self.owner.on_violation(self, "stream not opened: %s" % wrong)
        except h2.exceptions.ProtocolError:
            self._drop(stream_id)  # reset or closed by the other side meanwhile: nobody wants it
        if not queue:
            self._queues.pop(stream_id, None)
        self.flush()

    def _pump_one(self, stream_id, queue):
        kind, what, extra = queue[0]
        if kind == "headers":
            self.h2.send_headers(stream_id, what, end_stream=extra)
        elif kind == "end":
            self.h2.end_stream(stream_id)
        elif kind == "reset":
            self.h2.reset_stream(stream_id, what)
        else:
            room = min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size)
            if what and room <= 0:
                return False
            if len(what) > room:
                self.h2.send_data(stream_id, what[:room])
                queue[0] = (kind, what[room:], extra)
                return True
            self.h2.send_data(stream_id, what)
            if extra:
                extra()
        queue.popleft()
        return True
