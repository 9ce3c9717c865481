#include <config.h>

#include "base/limits.h"
#include "base/must.h"
#include "proxy/entity.h"

const struct entity_ops *const entity_kinds[] = {
	&entity_action,
	&entity_value,
	&entity_event_sourced,
	&entity_crdt,
};
const size_t entity_kind_count = ARRAY_LEN(entity_kinds);

const struct entity_ops *entity_kind_find(struct span type)
{
	for (size_t i = 0; i < entity_kind_count; i++)
		if (span_eq_str(type, entity_kinds[i]->type))
			return entity_kinds[i];
	return NULL;
}

void entity_report_too_large(const struct entity_config *config, struct span name, const struct entity_end *end,
			     struct buf *ret_text)
{
	buf_init(ret_text, 4 * KIB);
	buf_printf(ret_text, "%.*s%s%.*s", SPAN_ARG(config->service), name.n ? "." : "", SPAN_ARG(name));
	if (config->stream.n) /* not an action */
		buf_printf(ret_text, ", entity [%.*s]", SPAN_ARG(config->entity_id));
	buf_printf(ret_text,
		   ": the function's reply is not taken: %.*s; make it smaller, or raise --function-message-max",
		   SPAN_ARG(end->message));
	config->host->report(config->host_arg, buf_span(ret_text));
}

const struct entity_ops *entity_kind_of_record(const struct record_view *record, struct span *ret_mark)
{
	struct record_metadata m;
	size_t state = 0;
	*ret_mark = span_of(NULL, 0);
	while (record->content == RECORD_BODY && record_metadata_next(record, &state, &m))
		if (span_eq_str(m.key, ENTITY_MARK_KEY))
			*ret_mark = m.value;
	for (size_t i = 0; i < entity_kind_count; i++) {
		const char *mark = entity_kinds[i]->mark;
		if (!entity_kinds[i]->stateful)
			continue;
		if (mark ? span_eq_str(*ret_mark, mark) : ret_mark->n == 0)
			return entity_kinds[i];
	}
	return NULL;
}
