#include <config.h>

#include "grpc/wire.h"
#include "grpc/header_text.h"

#include <stdio.h>

#include "base/limits.h"
#include "base/must.h"
#include "base/text.h"

struct span headers_get(const struct headers *h, const char *name)
{
	struct span want = span_str(name);
	for (size_t i = 0; i < h->n; i++)
		if (span_eq(h->items[i].name, want))
			return h->items[i].value;
	return (struct span){NULL, 0};
}

const char *grpc_code_name(enum grpc_code code)
{
	static const char *const names[] = {"OK",
					    "CANCELLED",
					    "UNKNOWN",
					    "INVALID_ARGUMENT",
					    "DEADLINE_EXCEEDED",
					    "NOT_FOUND",
					    "ALREADY_EXISTS",
					    "PERMISSION_DENIED",
					    "RESOURCE_EXHAUSTED",
					    "FAILED_PRECONDITION",
					    "ABORTED",
					    "OUT_OF_RANGE",
					    "UNIMPLEMENTED",
					    "INTERNAL",
					    "UNAVAILABLE",
					    "DATA_LOSS",
					    "UNAUTHENTICATED"};
	return (unsigned)code < ARRAY_LEN(names) ? names[code] : "UNKNOWN";
}

enum grpc_code grpc_code_of(enum err_code code)
{
	switch (code) {
	case ERR_OK: return GRPC_OK;
	case ERR_INVALID: return GRPC_INVALID_ARGUMENT;
	case ERR_NOT_FOUND: return GRPC_NOT_FOUND;
	case ERR_EXISTS: return GRPC_ALREADY_EXISTS;
	case ERR_CONFLICT: return GRPC_FAILED_PRECONDITION;
	case ERR_LIMIT: return GRPC_INVALID_ARGUMENT;
	case ERR_FULL: return GRPC_RESOURCE_EXHAUSTED;
	case ERR_UNAVAILABLE: return GRPC_UNAVAILABLE;
	case ERR_TIMEOUT: return GRPC_DEADLINE_EXCEEDED;
	case ERR_IO: return GRPC_UNAVAILABLE;
	case ERR_CORRUPT: return GRPC_DATA_LOSS;
	case ERR_NOMEM: return GRPC_RESOURCE_EXHAUSTED;
	case ERR_CANCELLED: return GRPC_CANCELLED;
	case ERR_UNSUPPORTED: return GRPC_UNIMPLEMENTED;
	case ERR_INTERNAL: return GRPC_INTERNAL;
	case ERR_CODE_COUNT: break;
	}
	return GRPC_UNKNOWN;
}

int wire_decimal(struct span text)
{
	if (text.n == 0 || text.n > 9)
		return -1;
	int value = 0;
	for (size_t i = 0; i < text.n; i++) {
		if (text.p[i] < '0' || text.p[i] > '9')
			return -1;
		value = value * 10 + (text.p[i] - '0');
	}
	return value;
}

enum grpc_code wire_code_of_status(struct span grpc_status)
{
	int value = wire_decimal(grpc_status);
	return value >= 0 && value <= GRPC_UNAUTHENTICATED ? (enum grpc_code)value : GRPC_UNKNOWN;
}

enum grpc_code wire_code_of_http(int http_status)
{
	switch (http_status) {
	case 400: return GRPC_INTERNAL;
	case 401: return GRPC_UNAUTHENTICATED;
	case 403: return GRPC_PERMISSION_DENIED;
	case 404: return GRPC_UNIMPLEMENTED;
	case 429:
	case 502:
	case 503:
	case 504: return GRPC_UNAVAILABLE;
	default: return GRPC_UNKNOWN;
	}
}

enum grpc_code wire_code_of_reset(uint32_t http2_error)
{
	switch (http2_error) {
	case HTTP2_REFUSED_STREAM: return GRPC_UNAVAILABLE;
	case HTTP2_CANCEL: return GRPC_CANCELLED;
	case HTTP2_ENHANCE_YOUR_CALM: return GRPC_RESOURCE_EXHAUSTED;
	case 12: return GRPC_PERMISSION_DENIED; /* INADEQUATE_SECURITY */
	default: return GRPC_INTERNAL;
	}
}

int64_t grpc_timeout_parse(struct span text)
{
	return wire_timeout_parse(text);
}

struct span grpc_message_encode(struct span text, size_t max_bytes, struct arena *a)
{
	return wire_message_encode(text, max_bytes, a);
}

bool wire_is_grpc(struct span content_type)
{
	struct span grpc = SPAN("application/grpc");
	if (!span_starts(content_type, grpc))
		return false;
	struct span rest = span_skip(content_type, grpc.n);
	if (span_starts(rest, SPAN("+proto")))
		rest = span_skip(rest, 6);
	return rest.n == 0 || rest.p[0] == ';' || rest.p[0] == ' ';
}

/* ---- metadata -------------------------------------------------------------------------------------- */

static bool name_is_binary(struct span name)
{
	return name.n > 4 && memcmp(name.p + name.n - 4, "-bin", 4) == 0;
}

static bool name_ends_call(struct span name)
{
	return span_eq(name, SPAN("grpc-status")) || span_eq(name, SPAN("grpc-message"));
}

static enum err_code metadata_read_binary(const struct header *h, struct arena *a, struct header_list *ret)
{
	struct span rest = h->value;
	struct buf bytes;
	buf_init(&bytes, LIMIT_HEADER_BYTES);
	enum err_code rc = ERR_OK;
	for (;;) {
		size_t comma = span_find(rest, ',');
		struct span piece = span_first(rest, comma);
		while (piece.n && piece.p[0] == ' ')
			piece = span_skip(piece, 1);
		while (piece.n && piece.p[piece.n - 1] == ' ')
			piece.n--;
		buf_clear(&bytes);
		rc = base64_decode(&bytes, piece);
		if (rc == ERR_OK)
			rc = header_list_add(ret, a, h->name, buf_span(&bytes));
		if (rc || comma == rest.n)
			break;
		rest = span_skip(rest, comma + 1);
	}
	buf_release(&bytes);
	return rc;
}

enum err_code wire_metadata_read(const struct headers *received, struct arena *a, struct header_list *ret)
{
	for (size_t i = 0; i < received->n; i++) {
		const struct header *h = &received->items[i];
		if ((h->name.n && h->name.p[0] == ':') || name_ends_call(h->name))
			continue;
		enum err_code rc = name_is_binary(h->name) ? metadata_read_binary(h, a, ret)
							   : header_list_put(ret, a, h->name, h->value);
		if (rc)
			return rc;
	}
	return ERR_OK;
}

static bool name_is_sendable(struct span name)
{
	if (name.n == 0 || span_starts(name, SPAN("grpc-")) || span_eq(name, SPAN("content-type")) ||
	    span_eq(name, SPAN("te")) || span_eq(name, SPAN("user-agent")) ||
	    span_eq(name, SPAN("connection")) || span_eq(name, SPAN("transfer-encoding")))
		return false;
	for (size_t i = 0; i < name.n; i++) {
		uint8_t c = name.p[i];
		bool ok =
			(c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
		if (!ok)
			return false;
	}
	return true;
}

static bool value_is_sendable(struct span value)
{
	for (size_t i = 0; i < value.n; i++)
		if (value.p[i] < 0x20 || value.p[i] > 0x7e)
			return false;
	return true;
}

enum err_code wire_metadata_write(const struct headers *metadata, struct arena *a, struct header_list *ret)
{
	enum err_code rc = ERR_OK;
	for (size_t i = 0; rc == ERR_OK && metadata && i < metadata->n; i++) {
		const struct header *h = &metadata->items[i];
		if (!name_is_sendable(h->name))
			continue;
		if (!name_is_binary(h->name)) {
			if (value_is_sendable(h->value))
				rc = header_list_add(ret, a, h->name, h->value);
			continue;
		}
		struct buf text;
		buf_init(&text, 2 * LIMIT_METADATA_BYTES);
		rc = base64_encode(&text, h->value, false);
		if (rc == ERR_OK)
			rc = header_list_add(ret, a, h->name, buf_span(&text));
		buf_release(&text);
	}
	return rc;
}

/* ---- grpc-timeout ----------------------------------------------------------------------------------- */

int64_t wire_timeout_parse(struct span text)
{
	if (text.n < 2 || text.n > 9)
		return -1;
	int64_t n = wire_decimal(span_first(text, text.n - 1));
	if (n < 0)
		return -1;
	switch (text.p[text.n - 1]) {
	case 'H': return n * 3600 * 1000;
	case 'M': return n * 60 * 1000;
	case 'S': return n * 1000;
	case 'm': return n;
	case 'u': return (n + 999) / 1000;
	case 'n': return (n + 999999) / 1000000;
	default: return -1;
	}
}

void wire_timeout_format(int64_t timeout_ms, char buf[WIRE_TIMEOUT_BYTES])
{
	const int64_t most = 99999999;
	if (timeout_ms <= most)
		snprintf(buf, WIRE_TIMEOUT_BYTES, "%lldm", (long long)timeout_ms);
	else if (timeout_ms / 1000 <= most)
		snprintf(buf, WIRE_TIMEOUT_BYTES, "%lldS", (long long)(timeout_ms / 1000));
	else
		snprintf(buf, WIRE_TIMEOUT_BYTES, "%lldH",
			 (long long)(timeout_ms / 3600000 <= most ? timeout_ms / 3600000 : most));
}

/* ---- grpc-message ------------------------------------------------------------------------------------- */

static bool message_byte_is_plain(uint8_t c)
{
	return c >= 0x20 && c <= 0x7e && c != '%';
}

/* How much of the text fits; not half of a UTF-8 sequence. */
static size_t message_fit(struct span text, size_t max_bytes)
{
	size_t fit = 0, encoded = 0;
	for (size_t i = 0; i < text.n; i++) {
		if ((text.p[i] & 0xc0) != 0x80)
			fit = i;
		encoded += message_byte_is_plain(text.p[i]) ? 1 : 3;
		if (encoded > max_bytes)
			return fit;
	}
	return text.n;
}

struct span wire_message_encode(struct span text, size_t max_bytes, struct arena *a)
{
	static const char digits[] = "0123456789ABCDEF";
	bool whole = message_fit(text, max_bytes) == text.n;
	size_t fit = whole ? text.n : message_fit(text, max_bytes - 3);
	uint8_t *out = arena_alloc(a, 3 * fit + 3);
	if (!out)
		return (struct span){NULL, 0};
	size_t n = 0;
	for (size_t i = 0; i < fit; i++) {
		uint8_t c = text.p[i];
		if (message_byte_is_plain(c)) {
			out[n++] = c;
			continue;
		}
		out[n++] = '%';
		out[n++] = (uint8_t)digits[c >> 4];
		out[n++] = (uint8_t)digits[c & 15];
	}
	for (int i = 0; !whole && i < 3; i++)
		out[n++] = '.';
	return span_of(out, n);
}

static int hex_digit(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

struct span wire_message_decode(struct span text, struct arena *a)
{
	uint8_t *out = arena_alloc(a, text.n);
	if (!out)
		return (struct span){NULL, 0};
	size_t n = 0;
	for (size_t i = 0; i < text.n; i++) {
		int high = text.p[i] == '%' && i + 2 < text.n ? hex_digit(text.p[i + 1]) : -1;
		int low = high >= 0 ? hex_digit(text.p[i + 2]) : -1;
		if (low < 0) {
			out[n++] = text.p[i];
			continue;
		}
		out[n++] = (uint8_t)(high << 4 | low);
		i += 2;
	}
	return span_of(out, n);
}
