#include <config.h>

#include "proxy/headers.h"

#include <criterion/criterion.h>

#include "base/limits.h"
#include "base/must.h"

#define H(name, value)                  \
	{                               \
		SPAN(name), SPAN(value) \
	}

Test(headers, a_request_s_transport_headers_do_not_become_metadata)
{
	static const struct header items[] = {
		H("content-type", "application/grpc"),
		H("te", "trailers"),
		H("grpc-timeout", "1S"),
		H("x-one", "1"),
		H("proxy-auth", "no"),
		H("x-one", "2"),
		H("host", "a"),
		H("user-agent", "u"),
		H("connection", "close"),
		H("x-raw-bin", "aGk"),
	};
	struct headers in = {items, ARRAY_LEN(items)};
	struct arena a;
	arena_init(&a, 64 * KIB);
	struct metadata out;
	cr_assert_eq(headers_to_metadata(&in, HEADERS_HTTP, &a, &out), ERR_OK);
	cr_assert_eq(out.n, 4);
	cr_expect(span_eq_str(out.items[0].key, "x-one") && span_eq_str(out.items[0].value, "1"));
	cr_expect(span_eq_str(out.items[1].key, "x-one") && span_eq_str(out.items[1].value, "2"));
	cr_expect(span_eq_str(out.items[2].key, "user-agent"));
	cr_expect(span_eq_str(out.items[3].value, "hi") && out.items[3].bytes);
	cr_assert_eq(headers_to_metadata(&in, HEADERS_GRPC, &a, &out), ERR_OK);
	cr_expect(span_eq_str(out.items[3].value, "aGk") && out.items[3].bytes);
	arena_release(&a);
}

Test(headers, a_reply_s_metadata_becomes_legal_headers_only)
{
	static const struct metadata_entry items[] = {
		{SPAN("X-Good"), SPAN("yes"), false},     {SPAN("date"), SPAN("now"), false},
		{SPAN("server"), SPAN("me"), false},      {SPAN("grpc-status"), SPAN("0"), false},
		{SPAN(":status"), SPAN("200"), false},    {SPAN("bad name"), SPAN("x"), false},
		{SPAN("bad-value"), SPAN("a\nb"), false}, {SPAN("raw"), SPAN("hi"), true},
		{SPAN("raw2-bin"), SPAN("hi"), true},     {SPAN("text-bin"), SPAN("hi"), false},
		{SPAN("content-type"), SPAN("x"), false}, {SPAN("empty"), SPAN(""), false},
	};
	struct metadata in = {items, ARRAY_LEN(items)};
	struct arena a;
	arena_init(&a, 64 * KIB);
	struct headers out;
	cr_assert_eq(headers_from_metadata(&in, HEADERS_HTTP, &a, &out), ERR_OK);
	cr_assert_eq(out.n, 4);
	cr_expect(span_eq_str(out.items[0].name, "x-good") && span_eq_str(out.items[0].value, "yes"));
	cr_expect(span_eq_str(out.items[1].name, "raw-bin") && span_eq_str(out.items[1].value, "aGk="));
	cr_expect(span_eq_str(out.items[2].name, "raw2-bin") && span_eq_str(out.items[2].value, "aGk="));
	cr_expect(span_eq_str(out.items[3].name, "empty"));
	cr_assert_eq(headers_from_metadata(&in, HEADERS_GRPC, &a, &out), ERR_OK);
	cr_expect(span_eq_str(out.items[1].value, "hi"));
	arena_release(&a);
}

/* RFC 9110, 7.6.1: what Connection names is for one hop, and so are these, named or not. */
Test(headers, hop_by_hop_headers_stop_here)
{
	static const struct header items[] = {
		H("connection", "close, X-Hop ,"),   H("connection", "x-hop-2"), H("x-hop", "1"),
		H("x-hop-2", "2"),                   H("x-hop-3", "3"),          H("keep-alive", "timeout=5"),
		H("proxy-connection", "keep-alive"), H("te", "gzip"),            H("trailer", "x"),
		H("transfer-encoding", "chunked"),   H("upgrade", "h2c"),
	};
	static const struct metadata_entry entries[] = {
		{SPAN("Keep-Alive"), SPAN("timeout=5"), false}, {SPAN("Connection"), SPAN("x-HOP,\tclose"), false},
		{SPAN("X-hop"), SPAN("1"), false},              {SPAN("close"), SPAN("2"), false},
		{SPAN("x-hop-3"), SPAN("3"), false},            {SPAN("upgrade"), SPAN("h2c"), false},
		{SPAN("TE"), SPAN("gzip"), false},              {SPAN("transfer-encoding"), SPAN("chunked"), false},
		{SPAN("trailer"), SPAN("x"), false},            {SPAN("proxy-connection"), SPAN("x"), false},
	};
	struct arena a;
	arena_init(&a, 64 * KIB);
	struct metadata metadata;
	struct headers headers;
	cr_assert_eq(headers_to_metadata(&(struct headers){items, ARRAY_LEN(items)}, HEADERS_HTTP, &a, &metadata),
		     ERR_OK);
	cr_assert_eq(metadata.n, 1);
	cr_expect(span_eq_str(metadata.items[0].key, "x-hop-3"));
	for (enum headers_wire wire = HEADERS_GRPC; wire <= HEADERS_HTTP; wire++) {
		struct metadata in = {entries, ARRAY_LEN(entries)};
		cr_assert_eq(headers_from_metadata(&in, wire, &a, &headers), ERR_OK);
		cr_assert_eq(headers.n, 1);
		cr_expect(span_eq_str(headers.items[0].name, "x-hop-3"));
	}
	arena_release(&a);
}

Test(headers, an_exhausted_arena_is_an_error)
{
	static const struct header items[] = {H("x", "0123456789")};
	struct arena a;
	arena_init(&a, 16);
	struct metadata out;
	cr_expect_eq(headers_to_metadata(&(struct headers){items, 1}, HEADERS_HTTP, &a, &out), ERR_NOMEM);
	arena_release(&a);
}
