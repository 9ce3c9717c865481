/* The file of a backup: see backup.h. */
#include <config.h>

#include "journal/backup.h"

#include "base/endian.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/plant.h"
#include "journal/wire.h"

#define MAGIC SPAN("CAIRNBK1")
#define FRAME_BYTES 9 /* kind, length, CRC */
#define RUN_BYTES (1 * MIB)
/* A run is at least one record; the other payloads are smaller. */
#define PAYLOAD_MAX (RUN_BYTES + LIMIT_RECORD_BYTES + 16)

/* ---- the sum of leaves ------------------------------------------------------------------------ */

void leaf_sum_add(struct leaf_sum *sum, const uint8_t leaf[RECORD_HASH_BYTES])
{
	uint8_t hash[RECORD_HASH_BYTES];
	unsigned level = 0;
	memcpy(hash, leaf, sizeof(hash));
	for (uint64_t bits = sum->count; bits & 1; bits >>= 1, level++)
		record_node(sum->nodes[level], hash, hash);
	memcpy(sum->nodes[level], hash, sizeof(hash));
	sum->count++;
}

void leaf_sum_root(const struct leaf_sum *sum, uint8_t ret[RECORD_HASH_BYTES])
{
	bool any = false;
	if (sum->count == 0)
		record_sha256((struct span){0}, ret);
	for (unsigned level = 0; level < 64; level++) {
		if (!(sum->count >> level & 1))
			continue;
		if (any)
			record_node(sum->nodes[level], ret, ret);
		else
			memcpy(ret, sum->nodes[level], RECORD_HASH_BYTES);
		any = true;
	}
}

static enum err_code check_end(const struct leaf_sum *sum, const struct backup_end *end, struct err *err)
{
	uint8_t root[RECORD_HASH_BYTES];
	if (sum->count != end->records)
		return err_set(err, ERR_CORRUPT, "there are %llu records, and the journal had %llu",
			       (unsigned long long)sum->count, (unsigned long long)end->records);
	leaf_sum_root(sum, root);
	if (memcmp(root, end->root, sizeof(root)) != 0)
		return err_set(err, ERR_CORRUPT,
			       "the records are not those of the journal: their tree has another root");
	return ERR_OK;
}

/* ---- frames ----------------------------------------------------------------------------------- */

static uint32_t frame_crc(uint64_t offset, const uint8_t *head, struct span payload)
{
	uint8_t at[8];
	put_le64(at, offset);
	uint32_t crc = record_crc32c(0, span_of(at, sizeof(at)));
	crc = record_crc32c(crc, span_of(head, 5));
	return record_crc32c(crc, payload);
}

static enum err_code put_frame(struct backup_writer *w, uint8_t kind, struct span payload, struct err *err)
{
	uint8_t head[FRAME_BYTES] = {kind};
	must(payload.n <= PAYLOAD_MAX);
	put_le32(head + 1, (uint32_t)payload.n);
	put_le32(head + 5, frame_crc(w->offset, head, payload));
	enum err_code code = w->write(w->arg, span_of(head, sizeof(head)), err);
	if (!code)
		code = w->write(w->arg, payload, err);
	w->offset += code ? 0 : sizeof(head) + payload.n;
	return code;
}

static enum err_code put_message(struct backup_writer *w, uint8_t kind, const ProtobufCMessage *message,
				 struct err *err)
{
	size_t n = protobuf_c_message_get_packed_size(message);
	uint8_t *bytes = mem_xalloc(n + 1);
	protobuf_c_message_pack(message, bytes);
	enum err_code code = put_frame(w, kind, span_of(bytes, n), err);
	mem_free(bytes);
	return code;
}

static enum err_code flush(struct backup_writer *w, struct err *err)
{
	if (w->run.n == 0)
		return ERR_OK;
	enum err_code code = put_frame(w, 'R', buf_span(&w->run), err);
	buf_clear(&w->run);
	return code;
}

/* ---- writing ---------------------------------------------------------------------------------- */

void backup_writer_init(struct backup_writer *w, enum err_code (*write)(void *, struct span, struct err *), void *arg)
{
	*w = (struct backup_writer){.write = write, .arg = arg};
	buf_init(&w->run, PAYLOAD_MAX);
}

void backup_writer_release(struct backup_writer *w)
{
	buf_release(&w->run);
}

enum err_code backup_begin(struct backup_writer *w, const struct backup_head *head, struct err *err)
{
	PB(BackupHead) pb = CAIRN__JOURNAL__V1__BACKUP_HEAD__INIT;
	pb.journal_id = pb_bytes(span_of(head->journal_id, sizeof(head->journal_id)));
	pb.incarnation = head->incarnation;
	enum err_code code = w->write(w->arg, MAGIC, err);
	w->offset = MAGIC.n;
	return code ? code : put_message(w, 'H', &pb.base, err);
}

static enum err_code add_leaf(struct leaf_sum *sum, const struct record_view *record, struct err *err)
{
	uint8_t leaf[RECORD_HASH_BYTES];
	if (record->position != sum->count)
		return err_set(err, ERR_CORRUPT, "position %llu comes where %llu should",
			       (unsigned long long)record->position, (unsigned long long)sum->count);
	record_leaf(record, leaf);
	leaf_sum_add(sum, leaf);
	return ERR_OK;
}

enum err_code backup_add(struct backup_writer *w, const struct record_view *record, struct span entry, struct err *err)
{
	enum err_code code = add_leaf(&w->sum, record, err);
	if (!code && w->run.n > 0 && w->run.n + entry.n > RUN_BYTES)
		code = flush(w, err);
	if (code)
		return code;
	return buf_append_span(&w->run, entry) ? err_set(err, ERR_NOMEM, "no memory for a backup's records") : ERR_OK;
}

enum err_code backup_finish(struct backup_writer *w, const struct backup_end *end, struct err *err)
{
	PB(BackupEnd) pb = CAIRN__JOURNAL__V1__BACKUP_END__INIT;
	enum err_code code = check_end(&w->sum, end, err);
	if (!code)
		code = flush(w, err);
	if (code)
		return code;
	pb.records = end->records;
	pb.root = pb_bytes(span_of(end->root, sizeof(end->root)));
	pb.checkpoint = pb_bytes(end->checkpoint);
	return put_message(w, 'E', &pb.base, err);
}

/* ---- reading ---------------------------------------------------------------------------------- */

struct reading {
	const struct backup_reader *r;
	uint64_t offset; /* of the frame */
	bool begun, ended;
	struct leaf_sum sum;
	uint8_t *payload;
};

static enum err_code corrupt(const struct reading *g, const char *what, struct err *err)
{
	return err_set(err, ERR_CORRUPT, "at byte %llu: %s", (unsigned long long)g->offset, what);
}

static enum err_code take_head(struct reading *g, struct span payload, struct err *err)
{
	struct backup_head head = {0};
	enum err_code code = ERR_OK;
	PB(BackupHead) *pb = cairn__journal__v1__backup_head__unpack(NULL, payload.n, payload.p);
	if (g->begun || !pb || pb->journal_id.len != sizeof(head.journal_id) || pb->incarnation == 0) {
		code = corrupt(g, "this is no head of a backup", err);
	} else {
		memcpy(head.journal_id, pb->journal_id.data, sizeof(head.journal_id));
		head.incarnation = pb->incarnation;
		g->begun = true;
		code = g->r->on_head ? g->r->on_head(g->r->arg, &head, err) : ERR_OK;
	}
	if (pb)
		cairn__journal__v1__backup_head__free_unpacked(pb, NULL);
	return code;
}

static enum err_code take_run(struct reading *g, struct span payload, struct err *err)
{
	struct span run = payload, entry;
	while (run.n > 0) {
		struct record_view v;
		struct err why = {0};
		if (record_next(&run, &entry, NULL, &why) || record_decode(entry, &v, &why) ||
		    add_leaf(&g->sum, &v, &why))
			return corrupt(g, why.text, err);
	}
	return g->r->on_run ? g->r->on_run(g->r->arg, payload, err) : ERR_OK;
}

static enum err_code take_end(struct reading *g, struct span payload, struct err *err)
{
	struct backup_end end = {0};
	struct err why = {0};
	enum err_code code = ERR_OK;
	PB(BackupEnd) *pb = cairn__journal__v1__backup_end__unpack(NULL, payload.n, payload.p);
	if (!pb || pb->root.len != sizeof(end.root)) {
		code = corrupt(g, "this is no end of a backup", err);
	} else {
		end.records = pb->records;
		memcpy(end.root, pb->root.data, sizeof(end.root));
		end.checkpoint = pb_span(pb->checkpoint);
		g->ended = true;
		if (!plant("backup-not-verified") && check_end(&g->sum, &end, &why))
			code = corrupt(g, why.text, err);
		if (!code && g->r->on_end)
			code = g->r->on_end(g->r->arg, &end, err);
	}
	if (pb)
		cairn__journal__v1__backup_end__free_unpacked(pb, NULL);
	return code;
}

/* One frame; *ret_more false: the file ends before it. */
static enum err_code take_frame(struct reading *g, bool *ret_more, struct err *err)
{
	uint8_t head[FRAME_BYTES];
	size_t n;
	enum err_code code = g->r->read(g->r->read_arg, head, sizeof(head), &n, err);
	*ret_more = n > 0;
	if (code || n == 0)
		return code;
	uint32_t length = n == sizeof(head) ? get_le32(head + 1) : 0;
	if (n < sizeof(head) || g->ended)
		return corrupt(g, g->ended ? "there is more behind the end" : "the file was cut off here", err);
	if (length > PAYLOAD_MAX)
		return corrupt(g, "this is no frame of a backup", err);
	code = g->r->read(g->r->read_arg, g->payload, length, &n, err);
	if (code)
		return code;
	struct span payload = span_of(g->payload, length);
	if (n < length)
		return corrupt(g, "the file was cut off here", err);
	if (get_le32(head + 5) != frame_crc(g->offset, head, payload))
		return corrupt(g, "the bytes are not what was written: the CRC is another one", err);
	if (head[0] == 'H')
		code = take_head(g, payload, err);
	else if (head[0] == 'R' && g->begun)
		code = take_run(g, payload, err);
	else if (head[0] == 'E' && g->begun)
		code = take_end(g, payload, err);
	else
		code = corrupt(g, "a frame of this kind has no place here", err);
	g->offset += sizeof(head) + length;
	return code;
}

enum err_code backup_read(const struct backup_reader *reader, struct err *err)
{
	struct reading *g = mem_xalloc(sizeof(*g));
	uint8_t magic[16];
	size_t n;
	bool more = true;
	*g = (struct reading){.r = reader};
	enum err_code code = reader->read(reader->read_arg, magic, MAGIC.n, &n, err);
	if (!code && !span_eq(span_of(magic, n), MAGIC))
		code = corrupt(g, "this is no backup of a journal", err);
	g->offset = MAGIC.n;
	g->payload = mem_xalloc(PAYLOAD_MAX);
	while (!code && more)
		code = take_frame(g, &more, err);
	if (!code && !g->ended)
		code = corrupt(g, "the file was cut off here: it has no end", err);
	mem_free(g->payload);
	mem_free(g);
	return code;
}
