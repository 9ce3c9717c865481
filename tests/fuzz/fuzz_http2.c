/* Any bytes as one side of an HTTP/2 connection: the session errs or goes on, each stream ends exactly once,
 * and no message is delivered beyond its limit. The first byte says which side we are, the second in which
 * pieces the rest comes. */
#include <config.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "grpc/frame.h"
#include "grpc/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MESSAGE_MAX_BYTES ((size_t)4096)
#define REQUESTS 3

struct fuzz {
	size_t open; /* streams of ours that have not ended */
};

struct peer {
	struct fuzz *fuzz;
	struct stream *stream;
	struct deframer in;
	bool closed;
};

static struct peer *peer_new(struct fuzz *fuzz)
{
	struct peer *peer = mem_xalloc(sizeof(*peer));
	peer->fuzz = fuzz;
	fuzz->open++;
	deframer_init(&peer->in, MESSAGE_MAX_BYTES);
	peer->in.may_compress = true;
	return peer;
}

static void peer_on_data(struct stream *s, struct span piece)
{
	struct peer *peer = s->user;
	struct span message = {0};
	int r;
	must(!peer->closed);
	while ((r = deframer_next(&peer->in, &piece, &message, NULL)) > 0) {
		must(message.n <= MESSAGE_MAX_BYTES);
		stream_write(s, message);
		stream_written(s);
	}
	if (r < 0)
		stream_reset(s, HTTP2_CANCEL);
	/* Held now and then, as a slow consumer does. */
	stream_hold(s, message.n % 7 == 3);
}

static void peer_on_end(struct stream *s)
{
	struct header trailer = {SPAN("grpc-status"), SPAN("0")};
	struct headers trailers = {&trailer, 1};
	must(!((struct peer *)s->user)->closed);
	stream_end(s, s->session ? &trailers : NULL);
}

static void peer_on_close(struct stream *s, uint32_t http2_error, bool lost)
{
	struct peer *peer = s->user;
	(void)http2_error;
	(void)lost;
	must(!peer->closed);
	peer->closed = true;
	peer->fuzz->open--;
	deframer_release(&peer->in);
	stream_detach(peer->stream);
	mem_free(peer);
}

static const struct stream_ops peer_ops = {
	.on_data = peer_on_data, .on_end = peer_on_end, .on_close = peer_on_close};

static void fuzz_on_request(struct stream *s, void *user)
{
	struct peer *peer = peer_new(user);
	struct header status = {SPAN(":status"), SPAN("200")};
	struct headers headers = {&status, 1};
	peer->stream = stream_ref(s);
	s->ops = &peer_ops;
	s->user = peer;
	stream_respond(s, &headers, s->headers.h.n % 5 == 4);
}

static void request(struct session *session, struct fuzz *fuzz)
{
	static const struct header items[] = {{SPAN(":method"), SPAN("POST")},
					      {SPAN(":scheme"), SPAN("http")},
					      {SPAN(":path"), SPAN("/x")},
					      {SPAN(":authority"), SPAN("here")}};
	struct headers headers = {items, ARRAY_LEN(items)};
	struct peer *peer = peer_new(fuzz);
	peer->stream = stream_new(&peer_ops, peer);
	must(peer->stream);
	must(session_start(session, peer->stream, &headers, false) == ERR_OK);
	stream_write(peer->stream, SPAN("hello"));
	stream_written(peer->stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct session_ops ops = {.on_request = fuzz_on_request};
	struct fuzz fuzz = {0};
	struct outq out;
	if (size < 2)
		return 0;
	struct session_config config = {
		.server = data[0] & 1, .window_bytes = 65536, .connection_window_bytes = 1 * MIB};
	struct session *session = session_new(&config, &ops, &fuzz);
	must(session);
	outq_init(&out, 4096);
	for (int i = 0; !config.server && i < REQUESTS; i++)
		request(session, &fuzz);
	size_t chunk = data[1] ? data[1] : size;
	struct span rest = span_of(data + 2, size - 2);
	struct err err = {0};
	while (rest.n && session_send(session, &out, 1 * MIB, &err) == ERR_OK) {
		size_t n = rest.n < chunk ? rest.n : chunk;
		outq_release(&out);
		if (session_recv(session, span_first(rest, n), &err)) {
			must(err.text[0]);
			break;
		}
		rest = span_skip(rest, n);
	}
	session_abort(session);
	must(fuzz.open == 0);
	session_free(session);
	outq_release(&out);
	return 0;
}
