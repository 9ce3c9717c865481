/* Any bytes as a backup's file: it is read or refused in words that name a byte. The same bytes as records: what a
 * writer takes of them is read again just so, and not with a byte less, or another root. */
#include <config.h>

#include "base/limits.h"
#include "base/must.h"
#include "journal/backup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct file {
	struct buf bytes;
	size_t at, end;
	uint64_t runs_bytes;
};

static enum err_code file_write(void *arg, struct span bytes, struct err *err)
{
	struct file *f = arg;
	return buf_append_span(&f->bytes, bytes) ? err_set(err, ERR_NOMEM, "no memory") : ERR_OK;
}

static enum err_code file_read(void *arg, uint8_t *p, size_t n, size_t *ret_n, struct err *err)
{
	struct file *f = arg;
	(void)err;
	*ret_n = n < f->end - f->at ? n : f->end - f->at;
	if (*ret_n)
		memcpy(p, f->bytes.p + f->at, *ret_n);
	f->at += *ret_n;
	return ERR_OK;
}

static enum err_code on_run(void *arg, struct span run, struct err *err)
{
	(void)err;
	((struct file *)arg)->runs_bytes += run.n;
	return ERR_OK;
}

static enum err_code read_first(struct file *f, size_t n)
{
	struct backup_reader reader = {.read = file_read, .read_arg = f, .on_run = on_run, .arg = f};
	struct err err = {0};
	f->at = 0;
	f->end = n;
	f->runs_bytes = 0;
	enum err_code code = backup_read(&reader, &err);
	must((code != ERR_OK) == (err.text[0] != 0));
	must(!code || (code == ERR_CORRUPT && strncmp(err.text, "at byte ", 8) == 0));
	return code;
}

/* A backup of the records that the bytes begin with. */
static void write_and_read(struct span run)
{
	struct file f = {0};
	struct backup_writer w;
	struct backup_head head = {.journal_id = {1}, .incarnation = 1};
	struct backup_end end = {.checkpoint = SPAN("signed")};
	struct span entry, whole;
	uint64_t taken = 0;
	buf_init(&f.bytes, 64 * MIB);
	backup_writer_init(&w, file_write, &f);
	must(backup_begin(&w, &head, NULL) == ERR_OK);
	while (run.n > 0) {
		struct record_view v;
		if (record_next(&run, &entry, &whole, NULL) || record_decode(entry, &v, NULL) ||
		    backup_add(&w, &v, whole, NULL))
			break;
		taken += whole.n;
	}
	end.records = w.sum.count;
	leaf_sum_root(&w.sum, end.root);
	must(backup_finish(&w, &end, NULL) == ERR_OK);
	must(read_first(&f, f.bytes.n) == ERR_OK);
	must(f.runs_bytes == taken);
	must(read_first(&f, f.bytes.n - 1) == ERR_CORRUPT);
	end.root[0] ^= 1;
	must(backup_finish(&w, &end, NULL) == ERR_CORRUPT);
	backup_writer_release(&w);
	buf_release(&f.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct file f = {0};
	buf_init(&f.bytes, size + 1);
	must(buf_append(&f.bytes, data, size) == ERR_OK);
	read_first(&f, size);
	buf_release(&f.bytes);
	write_and_read(span_of(data, size));
	return 0;
}
