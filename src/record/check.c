/* The form rules of a record: what may be stored at all, whoever asks. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include "record/record.h"

#include "base/limits.h"
#include "base/must.h"
#include "base/text.h"
#include "record/encode.h"

struct span record_category(struct span stream)
{
	return span_first(stream, span_find(stream, '|'));
}

enum err_code record_check_stream(struct span name, struct err *err)
{
	if (name.n == 0)
		return err_set(err, ERR_INVALID, "stream name is empty: it has 1 to %zu bytes",
			       LIMIT_STREAM_NAME_BYTES);
	if (name.n > LIMIT_STREAM_NAME_BYTES)
		return err_set(err, ERR_LIMIT, "stream name has %zu bytes: it has 1 to %zu", name.n,
			       LIMIT_STREAM_NAME_BYTES);
	if (!utf8_valid(name))
		return err_set(err, ERR_INVALID, "stream name is not valid UTF-8");
	if (!utf8_valid_no_controls(name))
		return err_set(err, ERR_INVALID,
			       "stream name \"%.*s\" has a control character: none is allowed",
			       SPAN_ARG(name));
	return ERR_OK;
}

static enum err_code check_text(const char *field, struct span text, size_t max_bytes, struct err *err)
{
	if (text.n > max_bytes)
		return err_set(err, ERR_LIMIT, "%s has %zu bytes: at most %zu are allowed", field,
			       text.n, max_bytes);
	if (!utf8_valid_no_controls(text))
		return err_set(err, ERR_INVALID,
			       "%s is not valid UTF-8 without control characters", field);
	return ERR_OK;
}

static enum err_code check_metadata(const struct record_new *r, struct err *err)
{
	size_t sum = 0;
	for (size_t i = 0; i < r->metadata_count; i++) {
		const struct record_metadata *m = &r->metadata[i];
		if (m->key.n == 0)
			return err_set(err, ERR_INVALID, "metadata entry %zu has an empty key", i);
		if (m->key.n > LIMIT_METADATA_BYTES || m->value.n > LIMIT_METADATA_BYTES ||
		    (sum += m->key.n + m->value.n) > LIMIT_METADATA_BYTES)
			return err_set(err, ERR_LIMIT,
				       "metadata exceeds %zu bytes, all keys and values together",
				       LIMIT_METADATA_BYTES);
		enum err_code code = check_text("a metadata key", m->key, LIMIT_METADATA_BYTES, err);
		if (code)
			return code;
	}
	return ERR_OK;
}

enum err_code record_check(const struct record_new *r, struct err *err)
{
	static const uint8_t no_id[RECORD_ID_BYTES];
	must(r);
	if (r->kind == 0)
		return err_set(err, ERR_INVALID, "record has no kind");
	enum err_code code = record_check_stream(r->stream, err);
	if (!code)
		code = check_text("type", r->type, LIMIT_TYPE_BYTES, err);
	if (!code)
		code = check_text("content type", r->content_type, LIMIT_CONTENT_TYPE_BYTES, err);
	if (!code)
		code = check_text("actor", r->actor, LIMIT_ACTOR_BYTES, err);
	if (!code)
		code = check_text("key id", r->key_id, LIMIT_KEY_ID_BYTES, err);
	if (!code)
		code = check_metadata(r, err);
	if (code)
		return code;
	/* Two records with no id would be taken for a repetition of each other. */
	if (memcmp(r->id, no_id, sizeof(no_id)) == 0)
		return err_set(err, ERR_INVALID, "record id is all zeros: it is 16 bytes, best a UUID");
	if (r->data.n > LIMIT_RECORD_BYTES || record_encoded_bytes(r) > LIMIT_RECORD_BYTES)
		return err_set(err, ERR_LIMIT, "record exceeds %zu bytes, data, names and metadata together",
			       LIMIT_RECORD_BYTES);
	return ERR_OK;
}
