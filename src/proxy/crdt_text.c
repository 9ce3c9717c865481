#include <config.h>

#include "proxy/crdt_text.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/must.h"
#include "base/random.h"

void crdt_text_add(struct crdt_text *text, const char *key, struct span value)
{
	must(text->count < CRDT_TEXT_MAX);
	text->metadata[text->count++] = (struct record_metadata){span_str(key), value};
}

void crdt_text_set(struct crdt_text *text, const uint8_t session[RECORD_ID_BYTES], const char *key, uint64_t number)
{
	uuid_format(session, text->session);
	snprintf(text->number, sizeof text->number, "%" PRIu64, number);
	crdt_text_add(text, CRDT_SESSION_KEY, span_str(text->session));
	crdt_text_add(text, key, span_str(text->number));
}

static bool parse_number(struct span text, uint64_t *ret)
{
	uint64_t n = 0;
	for (size_t i = 0; i < text.n; i++) {
		if (text.p[i] < '0' || text.p[i] > '9' || n > (UINT64_MAX - 9) / 10)
			return false;
		n = n * 10 + (uint64_t)(text.p[i] - '0');
	}
	*ret = n;
	return text.n > 0;
}

bool crdt_text_read(const struct record_view *record, struct crdt_said *ret)
{
	struct record_metadata m;
	size_t state = 0;
	bool session = false, sane = record->content == RECORD_BODY;
	*ret = (struct crdt_said){.has_observed = false};
	while (sane && record_metadata_next(record, &state, &m)) {
		if (span_eq_str(m.key, CRDT_SESSION_KEY)) {
			session = sane = uuid_parse(m.value, ret->session) == 0;
		} else if (span_eq_str(m.key, CRDT_OBSERVED_KEY)) {
			ret->has_observed = sane = parse_number(m.value, &ret->observed);
		} else if (span_eq_str(m.key, CRDT_APPLIED_KEY)) {
			sane = parse_number(m.value, &ret->applied);
		} else if (span_eq_str(m.key, CRDT_CONFIRM_KEY)) {
			ret->confirm = true;
		}
	}
	return sane && session;
}
