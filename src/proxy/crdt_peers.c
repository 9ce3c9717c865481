/* What others do to a CRDT: what they have changed, who they are, and what they have confirmed (contract, section
 * 7, rules 2, 6 and 7). */
#include <config.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "proxy/crdt.h"

/* How long others may take to have a change (contract). */
#define CONFIRM_MS 5000

static struct mono_time now(const struct crdt *c)
{
	return clock_mono(c->config.clock);
}

/* --- what others have changed ---------------------------------------------------------------------------------- */

bool crdt_outstanding(const struct crdt *c)
{
	return !list_empty(&c->sent) || !list_empty(&c->cancelling) || !list_empty(&c->inbox) ||
	       (c->work != CRDT_IDLE && c->work != CRDT_SNAPSHOTTING);
}

bool crdt_untold(const struct crdt *c)
{
	return c->unsure || crdt_fold_sequence(c->fold) > c->told_sequence;
}

void crdt_applied(struct crdt *c, bool own)
{
	uint64_t sequence = crdt_fold_sequence(c->fold);
	if (own && c->told_sequence == sequence - 1)
		c->told_sequence = sequence; /* it knows what it did */
	else if (!c->untold_since.us)
		c->untold_since = now(c);
}

void crdt_nodes_make(const struct crdt *c, struct crdt_nodes *ret)
{
	const struct entity_peers *peers = c->config.peers;
	size_t count = peers ? peers->count : 0;
	uint8_t(*live)[CRDT_SESSION_BYTES] = mem_xalloc((count + 1) * sizeof *live);
	memcpy(ret->self, c->config.session, sizeof ret->self);
	memcpy(live[0], c->config.session, sizeof live[0]);
	for (size_t i = 0; i < count; i++)
		memcpy(live[i + 1], peers->others[i].session, sizeof live[0]);
	ret->live = (const uint8_t(*)[CRDT_SESSION_BYTES])live;
	ret->live_count = count + 1;
}

bool crdt_make_told(struct crdt *c, struct arena *a, const struct Cloudstate__Crdt__CrdtDelta **ret)
{
	struct crdt_nodes nodes;
	struct err err = {0};
	crdt_nodes_make(c, &nodes);
	arena_init(a, SIZE_MAX / 2); /* what the fold holds has passed the journal's limits */
	enum err_code code = crdt_told_tell(c->told, c->fold, &nodes, a, ret, &err);
	mem_free((void *)(uintptr_t)nodes.live);
	memcpy(c->told_session, c->config.session, sizeof c->told_session);
	c->told_peers = c->config.peers ? c->config.peers->version : 0;
	c->told_sequence = crdt_fold_sequence(c->fold);
	c->unsure = false;
	c->untold_since.us = 0;
	if (!code)
		return true;
	log_warn("a CRDT's function cannot be told of it", LOG_SPAN("stream", c->config.stream),
		 LOG_STR("error", err.text));
	crdt_end_waiting(c, code == ERR_CONFLICT ? GRPC_FAILED_PRECONDITION : GRPC_RESOURCE_EXHAUSTED,
			 span_str(err.text), false);
	return false;
}

void crdt_tell(struct crdt *c)
{
	struct arena a;
	const struct Cloudstate__Crdt__CrdtDelta *delta = NULL;
	if (crdt_fold_deleted(c->fold)) {
		crdt_deleted(c, true);
		return;
	}
	if (!crdt_make_told(c, &a, &delta))
		crdt_close(c, false);
	else if (delta)
		crdt_send_delta(c, delta);
	crdt_grew(c, a.used_bytes);
	arena_release(&a);
}

/* --- the session of this process -------------------------------------------------------------------------------- */

bool crdt_peers_known(const struct crdt *c)
{
	return !c->config.peers || c->config.peers->known;
}

bool crdt_peers_alive(const struct crdt *c)
{
	return !c->config.peers || c->config.peers->alive;
}

void crdt_await_session(struct crdt *c)
{
	c->work = CRDT_UNFENCED;
	c->peers_wait = crdt_after_ms(c, c->config.command_timeout_ms);
	if (crdt_peers_alive(c))
		crdt_change_again(c);
}

/* --- confirmations ---------------------------------------------------------------------------------------------- */

struct crdt_wait *crdt_wait_new(const struct crdt *c, Cloudstate__Crdt__CrdtWriteConsistency consistency)
{
	const struct entity_peers *peers = c->config.peers;
	bool all = consistency == CLOUDSTATE__CRDT__CRDT_WRITE_CONSISTENCY__ALL;
	if (!peers || !peers->count || (!all && consistency != CLOUDSTATE__CRDT__CRDT_WRITE_CONSISTENCY__MAJORITY))
		return NULL;
	struct crdt_wait *w = mem_xalloc(sizeof *w + peers->count * CRDT_SESSION_BYTES);
	w->all = all;
	w->count = peers->count;
	for (size_t i = 0; i < peers->count; i++)
		memcpy(w->sessions[i], peers->others[i].session, CRDT_SESSION_BYTES);
	return w;
}

static const struct entity_peer *find(const struct entity_peers *peers, const uint8_t *session)
{
	for (size_t i = 0; i < peers->count; i++)
		if (memcmp(peers->others[i].session, session, CRDT_SESSION_BYTES) == 0)
			return &peers->others[i];
	return NULL;
}

/* Who has left meanwhile does not count. This process is the one that has it for sure. */
static bool is_confirmed(const struct crdt *c, struct crdt_wait *w)
{
	size_t have = 1;
	for (size_t i = w->count; i-- > 0;) {
		const struct entity_peer *p = find(c->config.peers, w->sessions[i]);
		if (!p)
			memcpy(w->sessions[i], w->sessions[--w->count], CRDT_SESSION_BYTES);
		else if (p->applied > w->position)
			have++;
	}
	if (plant("confirmation-not-awaited"))
		return true;
	return w->all ? have == w->count + 1 : have > (w->count + 1) / 2;
}

bool crdt_confirm(struct crdt *c)
{
	struct crdt_flight *f = c->flight;
	struct crdt_wait *w = c->wait;
	if (is_confirmed(c, w))
		return false;
	w->left = f->phase == CRDT_LEFT;
	w->out = c->out;
	w->arena = c->arena;
	arena_init(&c->arena, 0);
	c->wait = NULL;
	crdt_out_drop(c);
	f->wait = w;
	f->phase = CRDT_CONFIRMING;
	f->deadline = crdt_after_ms(c, CONFIRM_MS);
	list_remove(&f->node);
	list_push_back(&c->confirming, &f->node);
	c->config.host->await_peers(c->config.host_arg, true);
	return true;
}

static void look(struct crdt *c)
{
	struct list_node *next;
	for (struct list_node *n = list_first(&c->confirming); n; n = next) {
		struct crdt_flight *f = CONTAINER_OF(n, struct crdt_flight, node);
		bool held = c->work == CRDT_HELD && c->flight == f;
		next = list_next(&c->confirming, n);
		if (is_confirmed(c, f->wait))
			crdt_out_confirmed(c, f);
		else if (mono_since_us(now(c), f->deadline) >= 0)
			crdt_out_refused(c, f);
		else
			continue;
		if (held)
			crdt_out_held(c);
	}
	if (list_empty(&c->confirming))
		c->config.host->await_peers(c->config.host_arg, false);
}

void crdt_end_unconfirmed(struct crdt *c)
{
	crdt_flights_end(c, &c->confirming, GRPC_UNKNOWN, CRDT_UNCONFIRMED, true);
}

/* --- what the host tells ----------------------------------------------------------------------------------------- */

void crdt_peers_changed(struct crdt *c)
{
	bool others = c->config.peers->version != c->told_peers ||
		      memcmp(c->told_session, c->config.session, sizeof c->told_session) != 0;
	if (c->state == CRDT_READY && others && crdt_fold_has_votes(c->fold))
		c->unsure = true;
	if (c->work == CRDT_UNFENCED && crdt_peers_alive(c))
		crdt_change_again(c);
	if (!list_empty(&c->confirming))
		look(c);
}

void crdt_peers_on_time(struct crdt *c)
{
	if (!list_empty(&c->confirming))
		look(c);
	if (c->work == CRDT_UNFENCED && mono_since_us(now(c), c->peers_wait) >= 0)
		crdt_give_up(c, GRPC_UNAVAILABLE, CRDT_SESSIONLESS);
}
