#include <config.h>

#include "proxy/headers.h"

#include <ctype.h>
#include <string.h>

#include "base/must.h"
#include "base/text.h"

static const char *const transport_names[] = {
	"content-type",
	"content-length",
	"content-encoding",
	"accept-encoding",
	"transfer-encoding",
	"connection",
	"keep-alive",
	"te",
	"trailer",
	"upgrade",
	"expect",
	"host",
};
/* Besides those, of what a function must not set. */
static const char *const answer_names[] = {"date", "server"};

static bool is_one_of(struct span name, const char *const *names, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (span_eq_str(name, names[i]))
			return true;
	return false;
}

static bool belongs_to_transport(struct span name)
{
	return name.n == 0 || name.p[0] == ':' || span_starts(name, SPAN("proxy-")) ||
	       span_starts(name, SPAN("grpc-")) ||
	       is_one_of(name, transport_names, ARRAY_LEN(transport_names));
}

/* Is it an option of this Connection header? Such a header is for the next hop alone (RFC 9110, 7.6.1). */
static bool is_option(struct span options, struct span name)
{
	while (options.n) {
		struct span option = span_first(options, span_find(options, ','));
		options = span_skip(options, option.n < options.n ? option.n + 1 : option.n);
		if (name.n && span_eq_nocase(span_trim(option), name))
			return true;
	}
	return false;
}

static bool is_hop_by_hop(const struct headers *headers, struct span name)
{
	for (size_t i = 0; i < headers->n; i++)
		if (span_eq_str(headers->items[i].name, "connection") && is_option(headers->items[i].value, name))
			return true;
	return false;
}

/* The same of a reply's metadata, whose keys may be in any case. */
static bool entry_is_hop_by_hop(const struct metadata *metadata, struct span name)
{
	for (size_t i = 0; i < metadata->n; i++) {
		const struct metadata_entry *e = &metadata->items[i];
		if (!e->bytes && span_eq_nocase(e->key, SPAN("connection")) && is_option(e->value, name))
			return true;
	}
	return false;
}

static bool is_binary(struct span name)
{
	return name.n > 4 && memcmp(name.p + name.n - 4, "-bin", 4) == 0;
}

/* The bytes of base64 text, in the arena; false if it is none. */
static bool binary_value(struct span text, struct arena *a, struct span *ret)
{
	struct buf bytes;
	buf_init(&bytes, text.n + 4);
	bool ok = !base64_decode(&bytes, text);
	if (ok) {
		*ret = arena_dup(a, buf_span(&bytes));
		ok = ret->p != NULL;
	}
	buf_release(&bytes);
	return ok;
}

enum err_code headers_to_metadata(const struct headers *headers, enum headers_wire wire, struct arena *a,
				  struct metadata *ret)
{
	struct metadata_entry *items = arena_alloc(a, (headers->n + 1) * sizeof(items[0]));
	size_t n = 0;
	if (!items)
		return ERR_NOMEM;
	for (size_t i = 0; i < headers->n; i++) {
		const struct header *h = &headers->items[i];
		if (belongs_to_transport(h->name) || is_hop_by_hop(headers, h->name))
			continue;
		struct metadata_entry *e = &items[n++];
		*e = (struct metadata_entry){arena_dup(a, h->name), arena_dup(a, h->value), false};
		if (!e->key.p || !e->value.p)
			return ERR_NOMEM;
		if (is_binary(h->name))
			e->bytes = wire == HEADERS_GRPC || binary_value(h->value, a, &e->value);
	}
	*ret = (struct metadata){items, n};
	return ERR_OK;
}

/* RFC 9110: a token; visible characters and, inside, spaces and tabs. */
static bool legal_name(struct span name)
{
	for (size_t i = 0; i < name.n; i++)
		if (!isalnum(name.p[i]) && !memchr("!#$%&'*+-.^_`|~", name.p[i], 15))
			return false;
	return name.n > 0;
}

bool headers_value_legal(struct span value)
{
	for (size_t i = 0; i < value.n; i++)
		if (value.p[i] != '\t' && (value.p[i] < ' ' || value.p[i] > '~'))
			return false;
	return value.n == 0 || (!isspace(value.p[0]) && !isspace(value.p[value.n - 1]));
}

static struct span lower_case(struct span name, bool add_bin, struct arena *a)
{
	uint8_t *p = arena_alloc(a, name.n + 5);
	if (!p)
		return span_of(NULL, 0);
	for (size_t i = 0; i < name.n; i++)
		p[i] = (uint8_t)tolower(name.p[i]);
	if (add_bin)
		memcpy(p + name.n, "-bin", 4);
	return span_of(p, name.n + (add_bin ? 4 : 0));
}

static enum err_code binary_header(struct span value, enum headers_wire wire, struct arena *a,
				   struct span *ret)
{
	if (wire == HEADERS_GRPC)
		return ERR_OK;
	struct buf text;
	buf_init(&text, 2 * value.n + 8);
	enum err_code code = base64_encode(&text, value, true);
	if (!code) {
		*ret = arena_dup(a, buf_span(&text));
		code = ret->p ? ERR_OK : ERR_NOMEM;
	}
	buf_release(&text);
	return code;
}

enum err_code headers_from_metadata(const struct metadata *metadata, enum headers_wire wire, struct arena *a,
				    struct headers *ret)
{
	struct header *items = arena_alloc(a, (metadata->n + 1) * sizeof(items[0]));
	size_t n = 0;
	if (!items)
		return ERR_NOMEM;
	for (size_t i = 0; i < metadata->n; i++) {
		const struct metadata_entry *e = &metadata->items[i];
		struct header h = {lower_case(e->key, e->bytes && !is_binary(e->key), a),
				   arena_dup(a, e->value)};
		if (!h.name.p || !h.value.p)
			return ERR_NOMEM;
		if (belongs_to_transport(h.name) || !legal_name(h.name) ||
		    is_one_of(h.name, answer_names, ARRAY_LEN(answer_names)) ||
		    entry_is_hop_by_hop(metadata, h.name))
			continue;
		if (e->bytes && binary_header(e->value, wire, a, &h.value))
			return ERR_NOMEM;
		if (!e->bytes && (!headers_value_legal(h.value) || is_binary(h.name)))
			continue;
		items[n++] = h;
	}
	*ret = (struct headers){items, n};
	return ERR_OK;
}
