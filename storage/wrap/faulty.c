/* Errors above the contract, by script or by chance. */
#include <config.h>

#include "storage/wrap/wrap.h"

#include <pthread.h>

#include "base/mem.h"
#include "base/must.h"

#define MAX_RULES 16

struct faulty {
	struct storage base;
	struct storage *inner;
	pthread_mutex_t lock;
	/* Under lock. */
	struct faulty_rule rules[MAX_RULES];
	uint64_t due[MAX_RULES]; /* the call it is for; 0: by chance */
	size_t rule_count;
	uint64_t calls[FAULTY_OPS];
	uint64_t seed;
	bool failed;
};
struct faulty_reader {
	struct storage_reader base;
	struct storage_reader *inner;
};

static struct faulty *faulty_of(struct storage *s)
{
	must(s->ops == &storage_faulty);
	return (struct faulty *)s;
}

static struct storage_reader *inner_of(struct storage_reader *r)
{
	faulty_of(r->storage);
	return ((struct faulty_reader *)r)->inner;
}

static unsigned chance(struct faulty *f)
{
	f->seed ^= f->seed << 13;
	f->seed ^= f->seed >> 7;
	f->seed ^= f->seed << 17;
	return (unsigned)(f->seed % 1000);
}

/* Counts the call; true when a rule is for it. */
static bool strikes(struct faulty *f, enum faulty_op op, struct faulty_rule *ret)
{
	bool hit = false;
	must(pthread_mutex_lock(&f->lock) == 0);
	f->calls[op]++;
	for (size_t i = 0; i < f->rule_count && !hit; i++) {
		if (f->rules[i].op != op)
			continue;
		hit = f->due[i] ? f->due[i] == f->calls[op] : chance(f) < f->rules[i].per_mille;
		if (hit)
			*ret = f->rules[i];
	}
	must(pthread_mutex_unlock(&f->lock) == 0);
	return hit;
}

static enum err_code strike(struct faulty *f, enum faulty_op op, struct err *err)
{
	struct faulty_rule rule;
	if (!strikes(f, op, &rule))
		return ERR_OK;
	return rule.code == ERR_NOT_FOUND ? rule.code
					  : err_set(err, rule.code, "injected: %s", err_name(rule.code));
}

struct storage *storage_faulty_new(struct storage *inner, uint64_t seed)
{
	must(inner);
	struct faulty *f = mem_xalloc(sizeof(*f));
	f->base.ops = &storage_faulty;
	f->inner = inner;
	f->seed = seed * 0x9e3779b97f4a7c15u + 1;
	must(pthread_mutex_init(&f->lock, NULL) == 0);
	return &f->base;
}

void storage_faulty_add(struct storage *s, const struct faulty_rule *rule)
{
	struct faulty *f = faulty_of(s);
	must(rule->op < FAULTY_OPS);
	must(rule->op == FAULTY_APPEND ? rule->outcome != STORAGE_OK : rule->code != ERR_OK);
	must(rule->code != ERR_NOT_FOUND || rule->op == FAULTY_SNAPSHOT || rule->op == FAULTY_TILE_GET);
	must(pthread_mutex_lock(&f->lock) == 0);
	must(f->rule_count < MAX_RULES);
	f->due[f->rule_count] = rule->nth ? f->calls[rule->op] + rule->nth : 0;
	f->rules[f->rule_count++] = *rule;
	must(pthread_mutex_unlock(&f->lock) == 0);
}

void storage_faulty_heal(struct storage *s)
{
	struct faulty *f = faulty_of(s);
	must(pthread_mutex_lock(&f->lock) == 0);
	f->rule_count = 0;
	f->failed = false;
	must(pthread_mutex_unlock(&f->lock) == 0);
}

uint64_t storage_faulty_calls(struct storage *s, enum faulty_op op)
{
	struct faulty *f = faulty_of(s);
	must(op < FAULTY_OPS);
	must(pthread_mutex_lock(&f->lock) == 0);
	uint64_t n = f->calls[op];
	must(pthread_mutex_unlock(&f->lock) == 0);
	return n;
}

static enum err_code faulty_open(const struct storage_config *config, struct storage **ret, struct err *err)
{
	(void)config;
	(void)ret;
	return err_set(err, ERR_UNSUPPORTED, "faulty wraps a store that is open: storage_faulty_new()");
}

static void faulty_close(struct storage *s)
{
	struct faulty *f = faulty_of(s);
	storage_close(f->inner);
	pthread_mutex_destroy(&f->lock);
	mem_free(f);
}

static void faulty_head(struct storage *s, struct storage_head *ret)
{
	storage_head(faulty_of(s)->inner, ret);
}

static enum err_code faulty_lookup(struct storage *s, struct storage_stream_fact *streams,
				   size_t stream_count, struct storage_id_fact *ids, size_t id_count,
				   struct arena *a, uint64_t *ret_head, struct err *err)
{
	enum err_code code = strike(faulty_of(s), FAULTY_LOOKUP, err);
	return code ? code
		    : storage_lookup(faulty_of(s)->inner, streams, stream_count, ids, id_count, a, ret_head,
				     err);
}

static enum err_code append_error(enum storage_outcome outcome)
{
	switch (outcome) {
	case STORAGE_FULL: return ERR_FULL;
	case STORAGE_REFUSED: return ERR_INVALID;
	case STORAGE_UNKNOWN: return ERR_UNAVAILABLE;
	default: return ERR_IO;
	}
}

static enum storage_outcome faulty_append(struct storage *s, uint64_t expected_head,
					  const struct storage_record *records, size_t count, struct err *err)
{
	struct faulty *f = faulty_of(s);
	struct faulty_rule rule = {.outcome = STORAGE_OK};
	if (count > 0)
		strikes(f, FAULTY_APPEND, &rule);
	must(pthread_mutex_lock(&f->lock) == 0);
	rule.done = rule.done && !f->failed;
	f->failed = f->failed || rule.outcome == STORAGE_FAILED;
	enum storage_outcome outcome = f->failed ? STORAGE_FAILED : rule.outcome;
	must(pthread_mutex_unlock(&f->lock) == 0);
	if (outcome == STORAGE_OK)
		return storage_append(f->inner, expected_head, records, count, err);
	if (rule.done && (outcome == STORAGE_UNKNOWN || outcome == STORAGE_FAILED)) {
		struct err ignored = {0};
		storage_append(f->inner, expected_head, records, count, &ignored);
	}
	if (outcome != STORAGE_MOVED)
		err_set(err, append_error(outcome), "injected: an append's outcome");
	return outcome;
}

static enum err_code faulty_session_beat(struct storage *s, enum storage_beat beat,
					 struct storage_session *sessions, size_t count, struct err *err)
{
	enum err_code code = strike(faulty_of(s), FAULTY_SESSION_BEAT, err);
	return code ? code : storage_session_beat(faulty_of(s)->inner, beat, sessions, count, err);
}

static enum err_code faulty_reader_open(struct storage *s, struct storage_reader **ret, struct err *err)
{
	struct storage_reader *inner;
	enum err_code code = strike(faulty_of(s), FAULTY_READER_OPEN, err);
	if (!code)
		code = storage_reader_open(faulty_of(s)->inner, &inner, err);
	if (code)
		return code;
	struct faulty_reader *r = mem_xalloc(sizeof(*r));
	r->base.storage = s;
	r->inner = inner;
	*ret = &r->base;
	return ERR_OK;
}

static void faulty_reader_close(struct storage_reader *r)
{
	storage_reader_close(inner_of(r));
	mem_free(r);
}

static enum err_code faulty_read(struct storage_reader *r, const struct storage_query *q, struct buf *out,
				 struct storage_page *ret, struct err *err)
{
	enum err_code code = strike(faulty_of(r->storage), FAULTY_READ, err);
	return code ? code : storage_read(inner_of(r), q, out, ret, err);
}

static enum err_code faulty_snapshot(struct storage_reader *r, struct span stream, uint64_t at_sequence,
				     uint64_t below_position, struct buf *out, struct err *err)
{
	enum err_code code = strike(faulty_of(r->storage), FAULTY_SNAPSHOT, err);
	return code ? code : storage_snapshot(inner_of(r), stream, at_sequence, below_position, out, err);
}

static enum err_code faulty_list(struct storage_reader *r, struct span prefix, struct span after, size_t max,
				 struct arena *a, struct storage_stream_info *ret, size_t *ret_count,
				 struct err *err)
{
	enum err_code code = strike(faulty_of(r->storage), FAULTY_LIST, err);
	return code ? code : storage_list(inner_of(r), prefix, after, max, a, ret, ret_count, err);
}

static enum err_code faulty_stat(struct storage_reader *r, struct span stream, struct arena *a,
				 struct storage_stream_info *ret, bool *ret_exists, struct err *err)
{
	enum err_code code = strike(faulty_of(r->storage), FAULTY_STAT, err);
	return code ? code : storage_stat(inner_of(r), stream, a, ret, ret_exists, err);
}

static enum err_code faulty_unit(struct storage_reader *r, uint64_t position, struct storage_unit *ret,
				 struct err *err)
{
	return storage_unit(inner_of(r), position, ret, err);
}

static void faulty_close_unit(struct storage *s)
{
	storage_close_unit(faulty_of(s)->inner);
}

static enum err_code faulty_remove(struct storage_reader *r, const struct storage_removal *list, size_t count,
				   struct err *err)
{
	enum err_code code = strike(faulty_of(r->storage), FAULTY_REMOVE, err);
	return code ? code : storage_remove(inner_of(r), list, count, err);
}

static enum err_code faulty_tile_put(struct storage_reader *r, unsigned level, uint64_t index, const uint8_t *tile,
				     struct err *err)
{
	enum err_code code = strike(faulty_of(r->storage), FAULTY_TILE_PUT, err);
	return code ? code : storage_tile_put(inner_of(r), level, index, tile, err);
}

static enum err_code faulty_tile_get(struct storage_reader *r, unsigned level, uint64_t index, uint8_t *ret,
				     struct err *err)
{
	enum err_code code = strike(faulty_of(r->storage), FAULTY_TILE_GET, err);
	return code ? code : storage_tile_get(inner_of(r), level, index, ret, err);
}

static bool faulty_is_shared(struct storage *s)
{
	return storage_is_shared(faulty_of(s)->inner);
}

static const char *faulty_directory(struct storage *s)
{
	return storage_directory(faulty_of(s)->inner);
}

static enum err_code faulty_watch(struct storage *s, uint64_t known, int64_t timeout_ms, uint64_t *ret_head,
			       struct err *err)
{
	return storage_watch(faulty_of(s)->inner, known, timeout_ms, ret_head, err);
}

static void faulty_watch_end(struct storage *s)
{
	storage_watch_end(faulty_of(s)->inner);
}

static bool faulty_ready(struct storage *s, struct err *err)
{
	return storage_ready(faulty_of(s)->inner, err);
}

const struct storage_ops storage_faulty = {
	.name = "faulty",
	.open = faulty_open,
	.close = faulty_close,
	.head = faulty_head,
	.lookup = faulty_lookup,
	.append = faulty_append,
	.session_beat = faulty_session_beat,
	.reader_open = faulty_reader_open,
	.reader_close = faulty_reader_close,
	.read = faulty_read,
	.snapshot = faulty_snapshot,
	.list = faulty_list,
	.stat = faulty_stat,
	.unit = faulty_unit,
	.close_unit = faulty_close_unit,
	.remove = faulty_remove,
	.tile_put = faulty_tile_put,
	.tile_get = faulty_tile_get,
	.watch = faulty_watch,
	.watch_end = faulty_watch_end,
	.ready = faulty_ready,
	.directory = faulty_directory,
	.is_shared = faulty_is_shared,
};
