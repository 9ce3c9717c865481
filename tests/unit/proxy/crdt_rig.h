/* A host for one CRDT machine: what it asks for is written down, a line each; what it is told is said by the
 * test. Answers to commands leave nothing behind: a command may be used again. */
#ifndef CRDT_RIG_H
#define CRDT_RIG_H

#include "base/clock.h"
#include "base/limits.h"
#include "crdt_model.h"
#include "proxy/entity.h"

#define RIG_PASSIVATION_MS 30000
#define RIG_TIMEOUT_MS 60000
#define RIG_GRACE_MS 5000
#define RIG_COMMANDS (LIMIT_CRDT_STREAMS + 256)

struct rig {
	struct entity *e;
	struct buf log;
	struct clock clock;
	struct arena arena; /* of what the test makes */
	int64_t now_us, wake_us;
	bool gone;
	struct entity_command commands[RIG_COMMANDS];
	char names[RIG_COMMANDS][8];
	size_t command_count;
	struct buf appended; /* the delta of the newest append */

	struct entity_peers peers; /* where there are any (rig_init_peers) */
	struct entity_peer others[3];
	uint8_t session[16];
	Cloudstate__Crdt__CrdtWriteConsistency consistency; /* of the replies */
	bool effect;					    /* the replies have one */
	bool full;					    /* the function does not read */
	bool awaiting;
	size_t snapshot_sessions; /* that the newest snapshot tells apart */
};

void rig_init(struct rig *r);
/* With that many others: not known and without a session until rig_peers(). Theirs are 1 to 3, as in rig_record(). */
void rig_init_peers(struct rig *r, size_t others);
void rig_peers(struct rig *r, bool known, bool alive);
void rig_peer_has(struct rig *r, unsigned session, uint64_t position);
void rig_peer_ends(struct rig *r, unsigned session);
void rig_session(struct rig *r, uint8_t first_byte); /* of this process: 0xaa at first */
void rig_release(struct rig *r);
/* The lines since the last look, joined by "; ". */
#define rig_expect(r, text) rig_expect_at((r), (text), __FILE__, __LINE__)
void rig_expect_at(struct rig *r, const char *text, const char *file, int line);

struct entity_command *rig_command(struct rig *r, const char *name, bool streamed);
void rig_withdraw(struct rig *r, struct entity_command *c);
void rig_loaded(struct rig *r, uint64_t sequence);
void rig_appended(struct rig *r, uint64_t sequence);
void rig_refused(struct rig *r, enum grpc_code code, bool stale);
void rig_fenced(struct rig *r);
void rig_end(struct rig *r);
void rig_end_too_large(struct rig *r);
void rig_pass(struct rig *r, int64_t ms);

/* A record of another session (1 to 9; 0: this one), loaded or followed. NULL: the delete. */
void rig_record(struct rig *r, bool follow, unsigned session, uint64_t sequence, uint64_t observed,
		const delta_t *delta);
void rig_record_as(struct rig *r, const char *kind, const char *type);

/* Messages of the function: reply of text (NULL: no action), with a change (NULL: none). */
void rig_reply(struct rig *r, int64_t id, const char *text, delta_t *change);
void rig_streamed_reply(struct rig *r, int64_t id, const char *text, delta_t *change);
void rig_failing_reply(struct rig *r, int64_t id, const char *text, bool streamed);
void rig_deleting_reply(struct rig *r, int64_t id, const char *text);
void rig_streamed(struct rig *r, int64_t id, const char *text, bool end);
void rig_streamed_failure(struct rig *r, int64_t id, const char *text);
void rig_cancel_response(struct rig *r, int64_t id, delta_t *change);
void rig_failure(struct rig *r, int64_t id, const char *text);
void rig_bytes(struct rig *r, struct span bytes);

delta_t *rig_counter(struct rig *r, uint64_t increment);
delta_t *rig_register(struct rig *r, unsigned value, int64_t clock);
delta_t *rig_vote(struct rig *r, bool yes);

#endif
