/* The service: its table of methods, and what all of them need. */
#include <config.h>

#include "journal/service_internal.h"

#include "base/mem.h"
#include "base/must.h"

static void service_on_drain(struct task *task)
{
	struct service_loop *l = CONTAINER_OF(task, struct service_loop, drain);

	l->draining = true;
	service_appends_drain(l);
	service_reads_drain(l);
	service_watches_drain(l);
	service_consumers_drain(l);
}

struct journal_service *journal_service_new(struct journal *j, struct grpc_server *server,
					    struct loop **loops, size_t loop_count)
{
	struct journal_service *s = mem_xalloc(sizeof(*s));
	const struct grpc_method methods[] = {
		{.path = JOURNAL_METHOD("Append"), .open = service_append_open, .arg = s},
		{.path = JOURNAL_METHOD("AppendStream"), .open = service_append_stream_open, .arg = s},
		{.path = JOURNAL_METHOD("Read"), .open = service_read_open, .arg = s},
		{.path = JOURNAL_METHOD("Load"), .open = service_load_open, .arg = s},
		{.path = JOURNAL_METHOD("Subscribe"), .open = service_subscribe_open, .arg = s},
		{.path = JOURNAL_METHOD("BeginSession"), .unary = service_begin_session, .arg = s},
		{.path = JOURNAL_METHOD("BeatSession"), .unary = service_beat_session, .arg = s},
		{.path = JOURNAL_METHOD("EndSession"), .unary = service_end_session, .arg = s},
		{.path = JOURNAL_METHOD("ClaimGrants"), .unary = service_claim_grants, .arg = s},
		{.path = JOURNAL_METHOD("ReleaseGrants"), .unary = service_release_grants, .arg = s},
		{.path = JOURNAL_METHOD("WatchGrants"), .open = service_watch_grants_open, .arg = s},
		{.path = JOURNAL_METHOD("Consume"), .open = service_consume_open, .arg = s},
		{.path = JOURNAL_METHOD("ListGroups"), .unary = service_list_groups, .arg = s},
		{.path = JOURNAL_METHOD("ListGroupMarks"), .unary = service_list_group_marks, .arg = s},
		{.path = JOURNAL_METHOD("ActOnGroup"), .unary = service_act_on_group, .arg = s},
		{.path = JOURNAL_METHOD("Stat"), .unary = service_stat, .arg = s},
		{.path = JOURNAL_METHOD("ListStreams"), .unary = service_list_streams, .arg = s},
		{.path = JOURNAL_METHOD("Delete"), .unary = service_delete, .arg = s},
		{.path = JOURNAL_METHOD("Truncate"), .unary = service_truncate, .arg = s},
		{.path = JOURNAL_METHOD("Erase"), .unary = service_erase, .arg = s},
		{.path = JOURNAL_METHOD("SetRetention"), .unary = service_set_retention, .arg = s},
		{.path = JOURNAL_METHOD("Compact"), .unary = service_compact, .arg = s},
		{.path = JOURNAL_METHOD("Backup"), .open = service_backup_open, .arg = s},
		{.path = JOURNAL_METHOD("Checkpoint"), .unary = service_checkpoint, .arg = s},
		{.path = JOURNAL_METHOD("InclusionProof"), .unary = service_inclusion_proof, .arg = s},
		{.path = JOURNAL_METHOD("ConsistencyProof"), .unary = service_consistency_proof, .arg = s},
	};

	_Static_assert(sizeof(methods) == sizeof(s->methods), "the table has room for every method");
	s->magic = SERVICE_MAGIC;
	s->journal = j;
	s->loop_count = loop_count;
	group_meter_init(&s->groups);
	s->loops = mem_xalloc(loop_count * sizeof(*s->loops));
	for (size_t i = 0; i < loop_count; i++) {
		s->loops[i].loop = loops[i];
		s->loops[i].service = s;
		s->loops[i].drain.run = service_on_drain;
		list_init(&s->loops[i].appends);
		list_init(&s->loops[i].reads);
		list_init(&s->loops[i].watches);
		list_init(&s->loops[i].consumers);
	}
	memcpy(s->methods, methods, sizeof(methods));
	grpc_server_add(server, s->methods, ARRAY_LEN(methods));
	return s;
}

void journal_service_drain(struct journal_service *s)
{
	for (size_t i = 0; i < s->loop_count; i++)
		mailbox_post(loop_mailbox(s->loops[i].loop), &s->loops[i].drain);
}

enum err_code journal_service_metrics(struct journal_service *s, struct buf *out)
{
	must(s->magic == SERVICE_MAGIC);
	return group_meter_render(&s->groups, journal_head(s->journal), out);
}

void journal_service_free(struct journal_service *s)
{
	if (!s)
		return;
	must(s->magic == SERVICE_MAGIC);
	for (size_t i = 0; i < s->loop_count; i++) {
		must(list_empty(&s->loops[i].appends));
		must(list_empty(&s->loops[i].reads));
		must(list_empty(&s->loops[i].watches));
		must(list_empty(&s->loops[i].consumers));
	}
	s->magic = 0;
	group_meter_release(&s->groups);
	mem_free(s->loops);
	mem_free(s);
}

struct service_loop *service_loop_of(struct journal_service *s, const struct loop *loop)
{
	for (size_t i = 0; i < s->loop_count; i++)
		if (s->loops[i].loop == loop)
			return &s->loops[i];
	unreachable_state("a call on a loop of another server");
}

enum err_code service_check_journal(ProtobufCBinaryData name, struct err *err)
{
	if (name.len == 0)
		return ERR_OK;
	return err_set(err, ERR_NOT_FOUND,
		       "there is no journal \"%.*s\" here: this server has one, and its name is empty",
		       SPAN_ARG(pb_span(name)));
}

enum err_code service_cursor_of(const PB(Cursor) *pb, const char *field, struct journal_cursor *ret,
				struct err *err)
{
	*ret = (struct journal_cursor){0};
	if (!pb)
		return ERR_OK;
	if (pb->journal_id.len != sizeof(ret->journal_id))
		return err_set(err, ERR_INVALID, "%s: journal_id has %zu bytes, not 16: give back a cursor "
			       "that the journal handed out", field, pb->journal_id.len);
	if (!pb->incarnation)
		return err_set(err, ERR_INVALID, "%s: incarnation is 0, they begin with 1: give back a "
			       "cursor that the journal handed out", field);
	memcpy(ret->journal_id, pb->journal_id.data, sizeof(ret->journal_id));
	ret->incarnation = pb->incarnation;
	ret->position = pb->position;
	return ERR_OK;
}

void service_cursor_to(const struct journal_cursor *cursor, PB(Cursor) *ret)
{
	cairn__journal__v1__cursor__init(ret);
	ret->journal_id = pb_bytes(span_of(cursor->journal_id, sizeof(cursor->journal_id)));
	ret->incarnation = cursor->incarnation;
	ret->position = cursor->position;
}
