/* Whose turn a background job is: see turn.h. */
#include <config.h>

#include "journal/turn.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/plant.h"
#include "base/random.h"
#include "journal/internal.h"

/* So long after its holder's death another takes over. */
#define TURN_TTL_MS 10000
#define TURN_ACTOR SPAN("cairnd")

static enum err_code refused(const struct append_refusal *refusal, struct err *err)
{
	return err_set(err, refusal->err.code, "%s", refusal->err.text);
}

/* Does a session that lives hold the slot? Writes nothing. */
static enum err_code look(struct turn *t, bool *ret_taken, struct err *err)
{
	struct append_refusal refusal = {0};
	struct append *append = NULL;
	*ret_taken = false;
	if (journal_grants_look_new(t->await->journal, t->service, &append, &refusal))
		return refused(&refusal, err);
	enum err_code code = await_append(t->await, append, &append, err);
	if (code)
		return code;
	const struct journal_grants *grants = journal_grants_of(append);
	for (size_t i = 0; i < grants->grant_count; i++)
		for (size_t k = 0; k < grants->session_count && !grants->grants[i].released; k++)
			*ret_taken = *ret_taken || memcmp(grants->grants[i].session, grants->sessions[k].id,
							  RECORD_ID_BYTES) == 0;
	append_unref(append);
	return ERR_OK;
}

static enum err_code begin(struct turn *t, struct err *err)
{
	struct journal_session_begin request = {
		.services = &t->service, .service_count = 1, .ttl_ms = TURN_TTL_MS, .actor = TURN_ACTOR};
	struct append_refusal refusal = {0};
	struct append *append = NULL;
	uuid_v7(&clock_system, t->session);
	memcpy(request.id, t->session, sizeof(request.id));
	if (journal_session_begin_new(t->await->journal, &request, &append, &refusal))
		return refused(&refusal, err);
	return await_append(t->await, append, NULL, err);
}

static enum err_code claim(struct turn *t, bool *ret_ours, struct err *err)
{
	struct journal_claim request = {.service = t->service, .actor = TURN_ACTOR};
	struct append_refusal refusal = {0};
	struct append *append = NULL;
	memcpy(request.session, t->session, sizeof(request.session));
	if (journal_grant_claim_new(t->await->journal, &request, &append, &refusal))
		return refused(&refusal, err);
	enum err_code code = await_append(t->await, append, &append, err);
	if (code)
		return code;
	*ret_ours = memcmp(journal_grant_of(append)->session, t->session, RECORD_ID_BYTES) == 0;
	append_unref(append);
	return ERR_OK;
}

enum err_code turn_take(struct turn *t, bool *ret_ours, struct err *err)
{
	bool taken;
	t->held = false;
	*ret_ours = true;
	if (!storage_is_shared(t->await->journal->storage) || plant("compaction-out-of-turn"))
		return ERR_OK;
	*ret_ours = false;
	enum err_code code = look(t, &taken, err);
	if (code || taken)
		return code;
	code = begin(t, err);
	if (code)
		return code;
	t->held = true;
	t->beaten = clock_mono(&clock_system);
	code = claim(t, ret_ours, err);
	if (code || !*ret_ours)
		turn_give(t);
	return code;
}

void turn_beat(struct turn *t)
{
	struct append_refusal refusal = {0};
	struct append *append = NULL;
	struct err err = {0};
	struct mono_time now = clock_mono(&clock_system);
	if (!t->held || mono_since_us(now, t->beaten) < TURN_TTL_MS * 1000 / 4)
		return;
	t->beaten = now;
	if (!journal_session_beat_new(t->await->journal, t->session, &append, &refusal))
		await_append(t->await, append, NULL, &err); /* what is lost is done twice */
}

void turn_give(struct turn *t)
{
	struct append_refusal refusal = {0};
	struct append *append = NULL;
	struct err err = {0};
	if (t->held &&
	    !journal_session_end_new(t->await->journal, t->session, TURN_ACTOR, &append, &refusal) &&
	    await_append(t->await, append, NULL, &err))
		log_info("a session was not ended: it runs out", LOG_ERR(&err));
	t->held = false;
}
