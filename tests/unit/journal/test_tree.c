/* The Merkle tree: roots and proofs against a naive model of RFC 6962, tiles over every kind of loss, and the thread
 * on a journal. */
#include <config.h>

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/must.h"
#include "journal/client_verify.h"
#include "journal/internal.h"
#include "journal/tree_key.h"
#include "journal/tree_tiles.h"
#include "storage/wrap/wrap.h"

/* ---- the naive model: RFC 6962, section 2.1, word for word ------------------------------------- */

#define MODEL_SIZE 300

static void model_leaf(uint64_t i, struct tree_hash *ret)
{
	record_sha256(span_of(&i, sizeof(i)), ret->bytes);
}

static void model_root(const struct tree_hash *leaves, size_t n, struct tree_hash *ret)
{
	struct tree_hash left, right;
	size_t k = 1;
	if (n == 0) {
		record_sha256((struct span){0}, ret->bytes);
		return;
	}
	if (n == 1) {
		*ret = leaves[0];
		return;
	}
	while (2 * k < n)
		k *= 2;
	model_root(leaves, k, &left);
	model_root(leaves + k, n - k, &right);
	record_node(left.bytes, right.bytes, ret->bytes);
}

static void model_path(const struct tree_hash *leaves, size_t m, size_t n, struct tree_proof *ret)
{
	size_t k = 1;
	if (n == 1)
		return;
	while (2 * k < n)
		k *= 2;
	if (m < k)
		model_path(leaves, m, k, ret);
	else
		model_path(leaves + k, m - k, n - k, ret);
	model_root(m < k ? leaves + k : leaves, m < k ? n - k : k, &ret->hashes[ret->count++]);
}

static void model_subproof(const struct tree_hash *leaves, size_t m, size_t n, bool whole, struct tree_proof *ret)
{
	size_t k = 1;
	if (m == n) {
		if (!whole)
			model_root(leaves, n, &ret->hashes[ret->count++]);
		return;
	}
	while (2 * k < n)
		k *= 2;
	if (m <= k)
		model_subproof(leaves, m, k, whole, ret);
	else
		model_subproof(leaves + k, m - k, n - k, false, ret);
	model_root(m <= k ? leaves + k : leaves, m <= k ? n - k : k, &ret->hashes[ret->count++]);
}

/* A source over the leaves alone. */
static enum err_code model_node(void *arg, unsigned height, uint64_t index, struct tree_hash *ret, struct err *err)
{
	const struct tree_hash *leaves = arg;
	(void)err;
	tree_fold(leaves + (index << height), (size_t)1 << height, ret);
	return ERR_OK;
}

struct model {
	struct tree_hash leaves[MODEL_SIZE + 1], roots[MODEL_SIZE + 1];
	struct tree_source source;
};

static struct model *model_new(void)
{
	struct model *m = mem_xalloc(sizeof(*m));
	for (uint64_t i = 0; i <= MODEL_SIZE; i++)
		model_leaf(i, &m->leaves[i]);
	for (size_t n = 0; n <= MODEL_SIZE; n++)
		model_root(m->leaves, n, &m->roots[n]);
	m->source = (struct tree_source){model_node, m->leaves};
	return m;
}

static void same_proof(const struct tree_proof *is, const struct tree_proof *was, size_t a, size_t n)
{
	cr_assert_eq(is->count, was->count, "%zu of %zu: %zu hashes, not %zu", a, n, is->count, was->count);
	cr_assert(memcmp(is->hashes, was->hashes, is->count * sizeof(is->hashes[0])) == 0, "%zu of %zu", a, n);
}

Test(tree, roots_are_those_of_the_model_at_every_size)
{
	struct model *m = model_new();
	for (size_t n = 0; n <= MODEL_SIZE; n++) {
		struct tree_hash root;
		cr_assert_eq(tree_root(&m->source, n, &root, NULL), ERR_OK);
		cr_assert(memcmp(&root, &m->roots[n], sizeof(root)) == 0, "size %zu", n);
	}
	mem_free(m);
}

Test(tree, inclusion_is_proved_of_every_leaf_at_every_size)
{
	struct model *m = model_new();
	for (size_t n = 1; n <= MODEL_SIZE; n++) {
		for (size_t i = 0; i < n; i++) {
			struct tree_proof proof, model = {0};
			cr_assert_eq(tree_inclusion(&m->source, i, n, &proof, NULL), ERR_OK);
			if (n <= 70 || n % 64 < 2) {
				model_path(m->leaves, i, n, &model);
				same_proof(&proof, &model, i, n);
			}
			cr_assert_eq(verify_inclusion(i, n, m->leaves[i].bytes, proof.hashes[0].bytes, proof.count,
						      m->roots[n].bytes, NULL), ERR_OK, "%zu of %zu", i, n);
			/* Not of another leaf, in another place, in another tree, nor with a changed hash. */
			cr_assert_eq(verify_inclusion(i, n, m->leaves[n].bytes, proof.hashes[0].bytes, proof.count,
						      m->roots[n].bytes, NULL), ERR_CORRUPT);
			cr_assert(n == 1 || verify_inclusion((i + 1) % n, n, m->leaves[i].bytes,
							     proof.hashes[0].bytes, proof.count, m->roots[n].bytes,
							     NULL) == ERR_CORRUPT);
			cr_assert_eq(verify_inclusion(i, n, m->leaves[i].bytes, proof.hashes[0].bytes, proof.count,
						      m->roots[n - 1].bytes, NULL), ERR_CORRUPT);
			cr_assert_eq(verify_inclusion(i, n, m->leaves[i].bytes, proof.hashes[0].bytes,
						      proof.count + 1, m->roots[n].bytes, NULL), ERR_CORRUPT);
			if (proof.count == 0)
				continue;
			cr_assert_eq(verify_inclusion(i, n, m->leaves[i].bytes, proof.hashes[0].bytes,
						      proof.count - 1, m->roots[n].bytes, NULL), ERR_CORRUPT);
			proof.hashes[i % proof.count].bytes[n % RECORD_HASH_BYTES] ^= 1;
			cr_assert_eq(verify_inclusion(i, n, m->leaves[i].bytes, proof.hashes[0].bytes, proof.count,
						      m->roots[n].bytes, NULL), ERR_CORRUPT);
		}
	}
	mem_free(m);
}

Test(tree, consistency_is_proved_of_every_two_sizes)
{
	struct model *m = model_new();
	for (size_t n = 0; n <= MODEL_SIZE; n++) {
		for (size_t old = 0; old <= n; old++) {
			struct tree_proof proof, model = {0};
			cr_assert_eq(tree_consistency(&m->source, old, n, &proof, NULL), ERR_OK);
			if (old > 0 && (n <= 70 || n % 64 < 2)) {
				model_subproof(m->leaves, old, n, true, &model);
				same_proof(&proof, &model, old, n);
			}
			const uint8_t *hashes = proof.hashes[0].bytes;
			cr_assert_eq(verify_consistency(old, m->roots[old].bytes, n, m->roots[n].bytes, hashes,
							proof.count, NULL), ERR_OK, "%zu and %zu", old, n);
			cr_assert_eq(verify_consistency(old, m->roots[old].bytes, n, m->roots[n].bytes, hashes,
							proof.count + 1, NULL), ERR_CORRUPT);
			/* Another beginning; another end, but for what has none. */
			cr_assert_eq(verify_consistency(old, m->leaves[MODEL_SIZE].bytes, n, m->roots[n].bytes,
							hashes, proof.count, NULL), ERR_CORRUPT);
			cr_assert(old == 0 || verify_consistency(old, m->roots[old].bytes, n,
								 m->leaves[MODEL_SIZE].bytes, hashes, proof.count,
								 NULL) == ERR_CORRUPT);
			if (proof.count == 0)
				continue;
			proof.hashes[old % proof.count].bytes[n % RECORD_HASH_BYTES] ^= 1;
			cr_assert_eq(verify_consistency(old, m->roots[old].bytes, n, m->roots[n].bytes, hashes,
							proof.count, NULL), ERR_CORRUPT);
		}
	}
	mem_free(m);
}

/* ---- keys and notes ---------------------------------------------------------------------------- */

Test(tree, a_checkpoint_verifies_with_its_key_alone_and_not_when_changed)
{
	struct tree_key *key = tree_key_new(SPAN("cairn/x")), *other = tree_key_new(SPAN("cairn/x"));
	struct tree_hash root;
	struct buf note, text;
	struct verify_checkpoint c;
	struct verify_key parsed;
	model_leaf(1, &root);
	buf_init(&note, KIB);
	buf_init(&text, KIB);
	cr_assert_eq(tree_key_checkpoint(key, 12345, &root, &note), ERR_OK);
	cr_assert_eq(verify_key_text(tree_key_public(key), &text), ERR_OK);
	cr_assert_eq(verify_key_parse(buf_span(&text), &parsed, NULL), ERR_OK);
	cr_assert_eq(verify_checkpoint(buf_span(&note), &parsed, &c, NULL), ERR_OK);
	cr_assert(span_eq_str(c.origin, "cairn/x"));
	cr_assert_eq(c.size, 12345u);
	cr_assert(memcmp(c.root, root.bytes, sizeof(c.root)) == 0);
	cr_assert_eq(verify_checkpoint(buf_span(&note), tree_key_public(other), &c, NULL), ERR_CORRUPT);
	for (size_t i = 0; i < note.n; i++) {
		note.p[i] ^= 4;
		cr_assert_neq(verify_checkpoint(buf_span(&note), &parsed, &c, NULL), ERR_OK, "byte %zu", i);
		note.p[i] ^= 4;
		cr_assert_neq(verify_checkpoint(span_first(buf_span(&note), i), &parsed, &c, NULL), ERR_OK);
	}
	for (size_t i = 0; i < text.n; i++) {
		text.p[i] ^= 4;
		cr_assert_eq(verify_key_parse(buf_span(&text), &parsed, NULL), ERR_INVALID, "byte %zu", i);
		text.p[i] ^= 4;
	}
	tree_key_free(key);
	tree_key_free(other);
	buf_release(&note);
	buf_release(&text);
}

Test(tree, a_key_that_is_kept_is_the_same_next_time)
{
	char dir[] = "/tmp/tree-key.XXXXXX", *path;
	struct tree_key *key, *again;
	struct err err = {0};
	cr_assert(mkdtemp(dir));
	log_setup(LOG_WARN, LOG_LOGFMT);
	path = mem_xprintf("%s/key.pem", dir);
	cr_assert_eq(tree_key_keep(path, SPAN("n"), &key, &err), ERR_OK, "%s", err.text);
	cr_assert_eq(tree_key_keep(path, SPAN("n"), &again, &err), ERR_OK, "%s", err.text);
	cr_assert(memcmp(tree_key_public(key), tree_key_public(again), sizeof(struct verify_key)) == 0);
	tree_key_free(again);
	cr_assert_eq(truncate(path, 40), 0);
	cr_assert_eq(tree_key_keep(path, SPAN("n"), &again, &err), ERR_INVALID);
	cr_assert(strstr(err.text, path) && strstr(err.text, "openssl genpkey -algorithm ed25519"), "%s", err.text);
	tree_key_free(key);
	unlink(path);
	rmdir(dir);
	mem_free(path);
}

/* ---- a journal and its tree -------------------------------------------------------------------- */

struct rig {
	char dir[64], *uri;
	struct journal *journal;
	struct storage *storage;
	struct mailbox mailbox;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool woken, done;
	struct tree_hash leaves[2048]; /* of the log as it is read */
	size_t n;
	/* of the last question */
	struct tree_answer answer;
	struct err err;
	char note[512], key[256];
};

static void rig_wake(void *arg)
{
	struct rig *r = arg;
	pthread_mutex_lock(&r->lock);
	r->woken = true;
	pthread_cond_signal(&r->cond);
	pthread_mutex_unlock(&r->lock);
}

static void rig_start(struct rig *r)
{
	struct err err = {0};
	struct storage_config storage = {0};
	cr_assert_eq(storage_open(r->uri, &storage, &r->storage, &err), ERR_OK, "%s", err.text);
	struct journal_config config = {.storage = r->storage, .threads = true, .not_before_wait_ms = 20000};
	cr_assert_eq(journal_open(&config, &r->journal, &err), ERR_OK, "%s", err.text);
}

static void rig_open(struct rig *r, bool file)
{
	*r = (struct rig){.dir = "/tmp/tree.XXXXXX"};
	log_setup(LOG_ERROR, LOG_LOGFMT);
	cr_assert(mkdtemp(r->dir));
	r->uri = file ? mem_xprintf("file:%s/j", r->dir) : mem_xstrdup("memory");
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->cond, NULL);
	mailbox_init(&r->mailbox, rig_wake, r);
	rig_start(r);
}

static void rig_stop(struct rig *r)
{
	journal_stop(r->journal);
	mailbox_drain(&r->mailbox);
	journal_close(r->journal);
}

static void rig_close(struct rig *r)
{
	char command[96];
	rig_stop(r);
	mailbox_release(&r->mailbox);
	snprintf(command, sizeof(command), "rm -rf '%s'", r->dir);
	cr_assert_eq(system(command), 0);
	mem_free(r->uri);
}

static void rig_wait(struct rig *r)
{
	while (!r->done) {
		pthread_mutex_lock(&r->lock);
		while (!r->woken)
			pthread_cond_wait(&r->cond, &r->lock);
		r->woken = false;
		pthread_mutex_unlock(&r->lock);
		mailbox_drain(&r->mailbox);
	}
}

static void rig_appended(struct append *append, void *arg)
{
	struct rig *r = arg;
	cr_assert_eq(append_answer(append)->code, ERR_OK);
	append_unref(append);
	r->done = true;
}

/* So many events in one append. */
static void rig_append(struct rig *r, size_t count)
{
	struct append_record *records = mem_xalloc(count * sizeof(*records));
	for (size_t i = 0; i < count; i++)
		records[i] = (struct append_record){.type = SPAN("t"), .data = SPAN("some data")};
	struct append_stream s = {.name = SPAN("s"), .events = records, .event_count = count};
	struct append_request request = {.streams = &s, .stream_count = 1};
	struct append_refusal refusal = {0};
	struct append *a;
	cr_assert_eq(append_new(r->journal, &request, &a, &refusal), ERR_OK, "%s", refusal.err.text);
	r->done = false;
	cr_assert_eq(journal_append(r->journal, &a, &r->mailbox, rig_appended, r, NULL), ERR_OK);
	rig_wait(r);
	mem_free(records);
}

static void rig_answered(const struct tree_answer *answer, const struct err *err, void *arg)
{
	struct rig *r = arg;
	r->done = true;
	r->err = err ? *err : (struct err){0};
	if (!answer)
		return;
	r->answer = *answer;
	snprintf(r->note, sizeof(r->note), "%.*s", SPAN_ARG(answer->note));
	snprintf(r->key, sizeof(r->key), "%.*s", SPAN_ARG(answer->key));
}

static enum err_code rig_ask(struct rig *r, const struct tree_query *q)
{
	r->done = false;
	err_clear(&r->err);
	if (tree_ask(r->journal, q, &r->mailbox, rig_answered, r, &r->err))
		return r->err.code;
	rig_wait(r);
	return r->err.code;
}

/* Reads the log and hashes it, without the tree's help. */
static void rig_read(struct rig *r)
{
	struct storage_reader *reader;
	struct storage_query q = {.include_system = true, .raw = true, .below_position = UINT64_MAX,
				  .max_bytes = 16 * MIB};
	struct storage_page page;
	struct span entry;
	struct buf out;
	buf_init(&out, 20 * MIB);
	cr_assert_eq(storage_reader_open(r->storage, &reader, NULL), ERR_OK);
	cr_assert_eq(storage_read(reader, &q, &out, &page, NULL), ERR_OK);
	cr_assert(page.end);
	r->n = 0;
	for (struct span run = buf_span(&out); run.n > 0; r->n++) {
		struct record_view view;
		cr_assert(r->n < ARRAY_LEN(r->leaves));
		cr_assert_eq(record_next(&run, &entry, NULL, NULL), ERR_OK);
		cr_assert_eq(record_decode(entry, &view, NULL), ERR_OK);
		record_leaf(&view, r->leaves[r->n].bytes);
	}
	storage_reader_close(reader);
	buf_release(&out);
}

/* Everything that the tree says is what the model says of the log. */
static void rig_check(struct rig *r)
{
	struct tree_hash root;
	struct verify_checkpoint c;
	struct verify_key key;
	rig_read(r);
	cr_assert_eq(rig_ask(r, &(struct tree_query){.what = TREE_CHECKPOINT}), ERR_OK, "%s", r->err.text);
	cr_assert_eq(r->answer.size, r->n);
	model_root(r->leaves, r->n, &root);
	cr_assert(memcmp(&r->answer.root, &root, sizeof(root)) == 0, "size %zu", r->n);
	cr_assert_eq(verify_key_parse(span_str(r->key), &key, NULL), ERR_OK, "%s", r->key);
	cr_assert_eq(verify_checkpoint(span_str(r->note), &key, &c, NULL), ERR_OK, "%s", r->note);
	for (size_t i = 0; i < r->n; i += 1 + r->n / 50) {
		size_t size = i + 1 + (i * 7919) % (r->n - i);
		model_root(r->leaves, size, &root);
		cr_assert_eq(rig_ask(r, &(struct tree_query){.what = TREE_INCLUSION, .position = i, .size = size}),
			     ERR_OK, "%s", r->err.text);
		cr_assert(memcmp(&r->answer.leaf, &r->leaves[i], sizeof(root)) == 0, "leaf %zu", i);
		cr_assert(memcmp(&r->answer.root, &root, sizeof(root)) == 0, "size %zu", size);
		cr_assert_eq(verify_inclusion(i, size, r->leaves[i].bytes, r->answer.proof.hashes[0].bytes,
					      r->answer.proof.count, root.bytes, NULL), ERR_OK);
		cr_assert_eq(rig_ask(r, &(struct tree_query){.what = TREE_CONSISTENCY, .old_size = size}), ERR_OK);
		cr_assert(memcmp(&r->answer.old_root, &root, sizeof(root)) == 0, "size %zu", size);
		cr_assert_eq(verify_consistency(size, root.bytes, r->answer.size, r->answer.root.bytes,
						r->answer.proof.hashes[0].bytes, r->answer.proof.count, NULL), ERR_OK);
	}
}

Test(tree, of_a_journal_is_that_of_its_records_through_restarts)
{
	static const size_t steps[] = {1, 1, 3, 250, 1, 1, 255, 1, 100, 413, 300};
	for (int file = 0; file < 2; file++) {
		struct rig r;
		rig_open(&r, file);
		for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
			char key[256] = "";
			rig_append(&r, steps[i]);
			rig_check(&r);
			if (!file)
				continue;
			memcpy(key, r.key, sizeof(key));
			rig_stop(&r);
			rig_start(&r);
			rig_check(&r);
			cr_assert_str_eq(r.key, key);
		}
		rig_close(&r);
	}
}

/* Nobody asks: each commit has to wake it, one that came late and told it nothing new, too. */
Test(tree, follows_the_log_by_itself)
{
	struct rig r;
	struct storage_reader *reader;
	struct tile tile;
	rig_open(&r, false);
	cr_assert_eq(storage_reader_open(r.storage, &reader, NULL), ERR_OK);
	for (uint64_t n = 0; n < 4; n++) {
		rig_check(&r);
		for (int i = 0; i < 20; i++) {
			usleep(1000);
			tree_head_moved(r.journal->tree, true);
		}
		rig_append(&r, 300);
		int waited = 0;
		while (storage_tile_get(reader, 0, n, tile.hashes[0].bytes, NULL) == ERR_NOT_FOUND) {
			cr_assert(waited++ < 30000, "tile %llu does not come", (unsigned long long)n);
			usleep(1000);
		}
	}
	storage_reader_close(reader);
	rig_close(&r);
}

/* Of what it is not asked: not the past's future, nor what is not there. */
Test(tree, says_what_it_cannot_prove)
{
	struct rig r;
	rig_open(&r, false);
	cr_assert_eq(rig_ask(&r, &(struct tree_query){.what = TREE_CHECKPOINT}), ERR_OK);
	cr_assert_eq(r.answer.size, 0u);
	cr_assert_eq(rig_ask(&r, &(struct tree_query){.what = TREE_INCLUSION}), ERR_NOT_FOUND);
	rig_append(&r, 10);
	cr_assert_eq(rig_ask(&r, &(struct tree_query){.what = TREE_CHECKPOINT, .size = 11}), ERR_NOT_FOUND);
	cr_assert_eq(rig_ask(&r, &(struct tree_query){.what = TREE_INCLUSION, .position = 10}), ERR_NOT_FOUND);
	cr_assert_eq(rig_ask(&r, &(struct tree_query){.what = TREE_INCLUSION, .position = 5, .size = 5}),
		     ERR_INVALID);
	cr_assert_eq(rig_ask(&r, &(struct tree_query){.what = TREE_CONSISTENCY, .old_size = 11}), ERR_NOT_FOUND);
	cr_assert_eq(rig_ask(&r, &(struct tree_query){.what = TREE_CONSISTENCY, .old_size = 6, .size = 5}),
		     ERR_INVALID);
	cr_assert_eq(rig_ask(&r, &(struct tree_query){.what = TREE_CONSISTENCY}), ERR_OK);
	cr_assert_eq(r.answer.proof.count, 0u);
	rig_close(&r);
}

static void shell(const struct rig *r, const char *what)
{
	char *command = mem_xprintf("cd '%s/j' && mkdir -p tree && touch tree/0 && %s", r->dir, what);
	cr_assert_eq(system(command), 0, "%s", command);
	mem_free(command);
}

/* Tiles are a copy: whatever happens to them, the log gives them again. */
Test(tree, tiles_that_are_lost_or_damaged_are_made_again)
{
	static const char *const damages[] = {
		"rm -r tree",
		"truncate -s 10000 tree/0",
		"truncate -s 20000 tree/0",
		"dd if=/dev/zero of=tree/0 bs=1 count=1 seek=3000 conv=notrunc status=none",
		"dd if=/dev/zero of=tree/0 bs=1 count=1 seek=30000 conv=notrunc status=none",
		/* tiles in others' places */
		("dd if=tree/0 of=tree/x bs=8196 count=2 status=none && "
		 "dd if=tree/x of=tree/0 bs=8196 seek=2 conv=notrunc status=none"),
	};
	struct rig r;
	rig_open(&r, true);
	rig_append(&r, 1200);
	rig_check(&r);
	for (size_t i = 0; i < ARRAY_LEN(damages); i++) {
		rig_stop(&r);
		shell(&r, damages[i]);
		rig_start(&r);
		rig_check(&r);
		shell(&r, damages[i]);
		rig_append(&r, 30);
		rig_check(&r);
	}
	rig_close(&r);
}

/* A directory whose log was put back and went on otherwise: its tiles are right in themselves, and of another log. */
Test(tree, tiles_of_another_history_are_not_believed)
{
	struct rig r;
	rig_open(&r, true);
	rig_append(&r, 100);
	rig_stop(&r);
	shell(&r, "cp -a . ../old");
	rig_start(&r);
	rig_append(&r, 800);
	rig_check(&r);
	rig_stop(&r);
	shell(&r, "mv tree ../theirs && rm -rf ./* && cp -a ../old/. .");
	rig_start(&r);
	rig_check(&r);
	rig_append(&r, 700);
	rig_check(&r);
	rig_stop(&r);
	shell(&r, "rm -r tree && cp -a ../theirs tree");
	rig_start(&r);
	rig_check(&r);
	rig_close(&r);
}

/* ---- tiles by hand, high enough for their second level to be whole ------------------------------- */

static struct storage *big_storage(uint64_t n)
{
	struct storage_config config = {0};
	struct storage *s;
	cr_assert_eq(storage_open("memory", &config, &s, NULL), ERR_OK);
	uint8_t id[RECORD_ID_BYTES] = {1};
	struct buf bytes;
	buf_init(&bytes, 64 * MIB);
	for (uint64_t at = 0; at < n;) {
		struct storage_record records[1000] = {0};
		size_t count = n - at < 1000 ? (size_t)(n - at) : 1000;
		uint8_t ids[1000][RECORD_ID_BYTES];
		size_t places[1000], sizes[1000];
		buf_clear(&bytes);
		for (size_t i = 0; i < count; i++) {
			uint64_t number = at + i + 1;
			memcpy(ids[i], id, sizeof(id));
			memcpy(ids[i] + 8, &number, sizeof(number));
			struct record_new new = {.kind = RECORD_EVENT, .stream = SPAN("s"), .type = SPAN("t"),
						 .last_of_append = true};
			struct record_place place;
			memcpy(new.id, ids[i], sizeof(new.id));
			cr_assert_eq(record_encode(&bytes, &new, &place, NULL), ERR_OK);
			record_patch(bytes.p, &place, at + i, at + i + 1, (struct wall_time){1});
			places[i] = place.at;
			sizes[i] = place.n;
		}
		for (size_t i = 0; i < count; i++)
			records[i] = (struct storage_record){.bytes = span_of(bytes.p + places[i], sizes[i]),
							     .position = at + i,
							     .sequence = at + i + 1,
							     .kind = RECORD_EVENT,
							     .stream = SPAN("s"),
							     .id = ids[i],
							     .commit_time = {1},
							     .last_of_append = true};
		struct err err = {0};
		cr_assert_eq(storage_append(s, at, records, count, &err), STORAGE_OK, "%s", err.text);
		at += count;
	}
	buf_release(&bytes);
	return s;
}

static struct tiles *tiles_new(struct storage_reader *reader, atomic_bool *stop)
{
	struct tiles *t = mem_xalloc(sizeof(*t));
	tiles_init(t, reader, stop);
	return t;
}

static void tiles_free(struct tiles *t)
{
	tiles_release(t);
	mem_free(t);
}

static void tiles_grow(struct tiles *t, uint64_t head, bool shared)
{
	struct err err = {0};
	while (t->size < head)
		cr_assert_eq(tiles_step(t, head, shared, &err), ERR_OK, "%s", err.text);
}

Test(tree, of_a_long_log_is_the_same_however_it_was_come_by)
{
	const uint64_t n = 66100;
	struct storage *s = storage_faulty_new(big_storage(n), 7);
	struct storage_reader *reader;
	struct tree_hash root, again, *leaves = mem_xalloc(n * sizeof(*leaves));
	atomic_bool stop = false;
	struct err err = {0};
	log_setup(LOG_OFF, LOG_LOGFMT);
	cr_assert_eq(storage_reader_open(s, &reader, NULL), ERR_OK);
	struct tiles *t = tiles_new(reader, &stop);
	cr_assert_eq(tiles_resume(t, n, &err), ERR_OK);
	cr_assert_eq(t->size, 0u);
	tiles_grow(t, n, false);
	struct tree_source source = tiles_source(t);
	for (uint64_t i = 0; i < n; i++)
		cr_assert_eq(source.node(source.arg, 0, i, &leaves[i], &err), ERR_OK);
	model_root(leaves, n, &root);
	cr_assert_eq(tree_root(&source, n, &again, &err), ERR_OK);
	cr_assert(memcmp(&root, &again, sizeof(root)) == 0);
	/* Begun where the tiles end; with a third of them missing; from tiles that another process has made. */
	for (int round = 0; round < 3; round++) {
		struct tiles *u = tiles_new(reader, &stop);
		if (round == 1)
			storage_faulty_add(s, &(struct faulty_rule){.op = FAULTY_TILE_GET, .per_mille = 333,
								    .code = ERR_NOT_FOUND});
		if (round < 2)
			cr_assert_eq(tiles_resume(u, n, &err), ERR_OK, "%s", err.text);
		if (round == 0)
			cr_assert_eq(u->size, n - n % STORAGE_TILE_HASHES);
		tiles_grow(u, n, round == 2);
		source = tiles_source(u);
		for (uint64_t size = n; size > 300; size = size * 3 / 4) {
			model_root(leaves, size, &root);
			cr_assert_eq(tree_root(&source, size, &again, &err), ERR_OK);
			cr_assert(memcmp(&root, &again, sizeof(root)) == 0, "round %d, size %llu", round,
				  (unsigned long long)size);
		}
		storage_faulty_heal(s);
		tiles_free(u);
	}
	/* Trouble is trouble, not another tree. */
	storage_faulty_add(s, &(struct faulty_rule){.op = FAULTY_TILE_GET, .per_mille = 1000, .code = ERR_IO});
	struct tiles *u = tiles_new(reader, &stop);
	cr_assert_eq(tiles_resume(u, n, &err), ERR_IO);
	tiles_free(u);
	tiles_free(t);
	storage_reader_close(reader);
	storage_close(s);
	mem_free(leaves);
}
