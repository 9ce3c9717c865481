/* cairn backup, restore, accept-loss: a journal into a file, while it serves; a file into an empty store; and going on
 * with a database that came back without all of its history. */
#include <config.h>

#include "cli/session.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "journal/backup.h"
#include "journal/client.h"
#include "journal/client_proof.h"
#include "journal/client_verify.h"
#include "journal/restore.h"

#define PROGRESS_EVERY 10000

/* ---- what both say ----------------------------------------------------------------------------- */

/* One line that is written over, on a terminal. */
static void show_progress(const char *what, uint64_t records, bool *is_shown)
{
	if (!isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\r%s: %llu records", what, (unsigned long long)records);
	*is_shown = true;
}

static void end_progress(bool is_shown)
{
	if (is_shown)
		fputc('\n', stderr);
}

static enum err_code write_all(void *arg, struct span bytes, struct err *err)
{
	int fd = *(const int *)arg;
	while (bytes.n > 0) {
		ssize_t n = write(fd, bytes.p, bytes.n);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set_errno(err, ERR_IO, errno, "cannot write the backup");
		bytes = span_skip(bytes, (size_t)n);
	}
	return ERR_OK;
}

static enum err_code read_all(void *arg, uint8_t *p, size_t n, size_t *ret_n, struct err *err)
{
	int fd = *(const int *)arg;
	*ret_n = 0;
	while (*ret_n < n) {
		ssize_t got = read(fd, p + *ret_n, n - *ret_n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_set_errno(err, ERR_IO, errno, "cannot read the backup");
		if (got == 0)
			break;
		*ret_n += (size_t)got;
	}
	return ERR_OK;
}

/* Is the checkpoint of these records, and signed by the key (empty: by whomever)? */
static enum err_code check_note(struct span note, const char *key_text, const uint8_t root[RECORD_HASH_BYTES],
				uint64_t records, struct err *err)
{
	struct verify_key key;
	struct verify_checkpoint checkpoint;
	bool named = key_text[0] != '\0';
	if (named && verify_key_parse(span_str(key_text), &key, err))
		return err->code;
	if (note.n == 0)
		return named ? err_set(err, ERR_CORRUPT, "the journal signed nothing, and a key is named") : ERR_OK;
	if (verify_checkpoint(note, named ? &key : NULL, &checkpoint, err))
		return err_set(err, ERR_CORRUPT, "%s", err->text);
	if (checkpoint.size != records || memcmp(checkpoint.root, root, RECORD_HASH_BYTES) != 0)
		return err_set(err, ERR_CORRUPT, "the signed checkpoint is of other records");
	return ERR_OK;
}

/* ---- backup ------------------------------------------------------------------------------------ */

struct backup_options {
	struct cli_options common;
	const char *key;
};

#define KEY_ROW(type_) \
	{.name = "key", .type = SETTING_STRING, .offset = offsetof(type_, key), .fallback = "", \
	 .value_name = "NAME+ID+BASE64", .help = "The verifier key that must have signed what the records come to."}

static const struct setting backup_rows[] = {
	CLI_OPTION_ROWS,
	KEY_ROW(struct backup_options),
};

struct backup_run {
	const struct cli_command *command;
	struct backup_options options;
	struct cli_session session;
	struct err err;
	struct backup_writer writer;
	int fd;
	const char *path;
	char *part; /* where it is written until it is whole; NULL: stdout */
	bool progress_shown;
};

static void backup_fail(struct backup_run *run)
{
	cli_finish(&run->session, cli_fail(run->command, &run->err));
}

static void backup_on_entry(struct client_read *r, const struct record_view *record, struct span entry, void *arg)
{
	struct backup_run *run = arg;
	if (run->err.code)
		return;
	if (backup_add(&run->writer, record, entry, &run->err))
		client_read_cancel(r);
	else if (run->writer.sum.count % PROGRESS_EVERY == 0)
		show_progress("backup", run->writer.sum.count, &run->progress_shown);
}

static void backup_on_checkpoint(const struct client_proof *answer, const struct client_error *error, void *arg)
{
	struct backup_run *run = arg;
	if (!answer) {
		cli_finish(&run->session, cli_client_error(&run->session, error));
		return;
	}
	struct backup_end end = {.records = answer->size, .checkpoint = answer->note};
	memcpy(end.root, answer->root, sizeof(end.root));
	/* The end makes a whole backup of it, on standard output, too: nothing is found wrong after that. */
	if (check_note(answer->note, run->options.key, answer->root, answer->size, &run->err) ||
	    backup_finish(&run->writer, &end, &run->err)) {
		backup_fail(run);
		return;
	}
	cli_finish(&run->session, CLI_OK);
}

static void backup_on_done(struct client_read *r, const struct client_error *error, void *arg)
{
	struct backup_run *run = arg;
	(void)r;
	if (run->err.code)
		backup_fail(run);
	else if (error->code)
		cli_finish(&run->session, cli_client_error(&run->session, error));
	else if (run->writer.sum.count == 0)
		cli_finish(&run->session,
			   (err_set(&run->err, ERR_NOT_FOUND, "the journal is empty: there is nothing to back up"),
			    cli_fail(run->command, &run->err)));
	else
		client_checkpoint(run->session.client, run->writer.sum.count, run->options.common.timeout_ms,
				  backup_on_checkpoint, run);
}

/* Which journal it is, first. */
static void backup_on_stat(const struct client_stat *answer, const struct client_error *error, void *arg)
{
	static const struct client_read_ops ops = {.on_entry = backup_on_entry, .on_done = backup_on_done};
	struct backup_run *run = arg;
	if (!answer) {
		cli_finish(&run->session, cli_client_error(&run->session, error));
		return;
	}
	struct backup_head head = {.incarnation = answer->head.incarnation};
	memcpy(head.journal_id, answer->head.journal_id, sizeof(head.journal_id));
	if (backup_begin(&run->writer, &head, &run->err))
		backup_fail(run);
	else
		client_backup(run->session.client, &ops, run);
}

/* To a file of another name, which gets its own when it is whole and durable. */
static enum err_code backup_open(struct backup_run *run)
{
	run->fd = STDOUT_FILENO;
	if (!strcmp(run->path, "-"))
		return isatty(STDOUT_FILENO) ? err_set(&run->err, ERR_INVALID, "a backup is nothing for a terminal")
					     : ERR_OK;
	run->part = mem_xprintf("%s.part", run->path);
	run->fd = open(run->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	return run->fd < 0 ? err_set_errno(&run->err, ERR_INVALID, errno, "cannot write %s", run->part) : ERR_OK;
}

/* The file's new name is durable. 0, or -1 and errno. */
static int sync_directory_of(const char *path)
{
	char *copy = mem_xstrdup(path);
	int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int failed = fd < 0 ? -1 : fsync(fd);
	int why = errno;
	if (fd >= 0)
		close(fd);
	mem_free(copy);
	errno = why;
	return failed;
}

static enum err_code backup_close(struct backup_run *run, bool whole)
{
	enum err_code code = ERR_OK;
	if (!run->part)
		return ERR_OK;
	if (whole && (fdatasync(run->fd) || rename(run->part, run->path) || sync_directory_of(run->path)))
		code = err_set_errno(&run->err, ERR_IO, errno, "cannot keep %s", run->path);
	if (!whole || code)
		unlink(run->part);
	close(run->fd);
	mem_free(run->part);
	return code;
}

static enum cli_exit backup_run(int argc, char *const argv[])
{
	struct backup_run run = {.command = &cli_backup};
	struct cli_args args;
	enum cli_exit exit;

	if (!cli_parse(run.command, backup_rows, ARRAY_LEN(backup_rows), argc, argv, &run.options, 1, &args, &exit)) {
		cli_args_release(&args);
		return exit;
	}
	run.path = args.word_count ? args.words[0] : "";
	if (!args.word_count) {
		exit = cli_usage(run.command, "which file? (- is standard output)");
	} else if (backup_open(&run)) {
		exit = cli_fail(run.command, &run.err);
		mem_free(run.part);
	} else {
		backup_writer_init(&run.writer, write_all, &run.fd);
		cli_session_open(&run.session, &run.options.common);
		client_stat(run.session.client, SPAN(""), run.options.common.timeout_ms, backup_on_stat, &run);
		exit = cli_wait(&run.session);
		cli_session_close(&run.session);
		end_progress(run.progress_shown);
		if (backup_close(&run, exit == CLI_OK))
			exit = cli_fail(run.command, &run.err);
		if (exit == CLI_OK)
			fprintf(stderr, "backed up: %llu records, %llu bytes\n",
				(unsigned long long)run.writer.sum.count, (unsigned long long)run.writer.offset);
		backup_writer_release(&run.writer);
	}
	cli_args_release(&args);
	return exit;
}

const struct cli_command cli_backup = {
	.name = "backup",
	.summary = "write a journal to a file, while it serves",
	.run = backup_run,
	.words = "FILE|-",
};

/* ---- restore ----------------------------------------------------------------------------------- */

struct restore_options {
	const char *storage, *key, *reason;
};

static const struct setting restore_rows[] = {
	{.name = "storage", .type = SETTING_STRING, .offset = offsetof(struct restore_options, storage),
	 .fallback = "file:./cairn-data", .value_name = "URI",
	 .help = "The empty store to restore into: file:DIR or postgres://..."},
	{.name = "reason", .type = SETTING_STRING, .offset = offsetof(struct restore_options, reason),
	 .fallback = "", .value_name = "TEXT", .help = "Why; it is recorded."},
	KEY_ROW(struct restore_options),
};

struct restore_run {
	const struct restore_options *options;
	bool progress_shown;
};

static enum err_code restore_on_end(void *arg, const struct backup_end *end, struct err *err)
{
	const struct restore_run *run = arg;
	return check_note(end->checkpoint, run->options->key, end->root, end->records, err);
}

static void restore_progress(void *arg, uint64_t records)
{
	struct restore_run *run = arg;
	show_progress("restore", records, &run->progress_shown);
}

/* First all of it is verified, so that a broken file leaves the store as it was. */
static enum err_code restore_file(const struct restore_options *options, int fd, struct journal_restored *ret,
				  struct err *err)
{
	struct restore_run run = {.options = options};
	struct backup_reader reader = {.read = read_all, .read_arg = &fd, .on_end = restore_on_end, .arg = &run};
	struct journal_restore request = {.storage_uri = options->storage,
					  .read = read_all,
					  .read_arg = &fd,
					  .reason = span_str(options->reason),
					  .actor = SPAN("cairn restore"),
					  .progress = restore_progress,
					  .arg = &run};
	if (backup_read(&reader, err))
		return err->code;
	if (lseek(fd, 0, SEEK_SET) < 0)
		return err_set_errno(err, ERR_INVALID, errno, "the backup is read twice: it must be a file");
	enum err_code code = journal_restore(&request, ret, err);
	end_progress(run.progress_shown);
	return code;
}

static enum cli_exit restore_run(int argc, char *const argv[])
{
	struct restore_options options = {0};
	struct journal_restored done;
	struct err err = {0};
	struct cli_args args;
	enum cli_exit exit;

	if (!cli_parse(&cli_restore, restore_rows, ARRAY_LEN(restore_rows), argc, argv, &options, 1, &args, &exit)) {
		cli_args_release(&args);
		return exit;
	}
	int fd = args.word_count ? open(args.words[0], O_RDONLY | O_CLOEXEC) : -1;
	if (!args.word_count) {
		exit = cli_usage(&cli_restore, "which file?");
	} else if (options.reason[0] == '\0') {
		exit = cli_usage(&cli_restore, "why? It is recorded: --reason TEXT");
	} else if (fd < 0) {
		err_set_errno(&err, ERR_INVALID, errno, "cannot open %s", args.words[0]);
		exit = cli_fail(&cli_restore, &err);
	} else if (restore_file(&options, fd, &done, &err)) {
		exit = cli_fail(&cli_restore, &err);
	} else {
		char id[UUID_TEXT_BYTES];
		uuid_format(done.journal_id, id);
		fprintf(stderr, "restored: journal %s, %llu records, incarnation %llu\n", id,
			(unsigned long long)done.records, (unsigned long long)done.incarnation);
		exit = CLI_OK;
	}
	if (fd >= 0)
		close(fd);
	cli_args_release(&args);
	return exit;
}

const struct cli_command cli_restore = {
	.name = "restore",
	.summary = "put a backup into an empty store",
	.run = restore_run,
	.words = "FILE",
};

/* ---- accept-loss ------------------------------------------------------------------------------- */

struct accept_loss_options {
	const char *storage, *reason;
	bool yes;
};

static const struct setting accept_loss_rows[] = {
	{.name = "storage", .type = SETTING_STRING, .offset = offsetof(struct accept_loss_options, storage),
	 .fallback = "", .value_name = "URI", .help = "The database that has lost acknowledged history. Needed."},
	{.name = "reason", .type = SETTING_STRING, .offset = offsetof(struct accept_loss_options, reason),
	 .fallback = "", .value_name = "TEXT", .help = "Why; it is recorded. Needed."},
	{.name = "yes", .type = SETTING_BOOL, .offset = offsetof(struct accept_loss_options, yes),
	 .help = "Do not ask. Needed where there is no terminal to ask on."},
};

static enum cli_exit accept_loss(const struct accept_loss_options *options)
{
	struct journal_restored done;
	struct err err = {0};

	if (journal_accept_loss(options->storage, span_str(options->reason), SPAN("cairn accept-loss"), &done, &err))
		return cli_fail(&cli_accept_loss, &err);
	fprintf(stderr,
		"accepted: incarnation %llu; what lies below position %llu is the same as before. "
		"Start cairnd again.\n",
		(unsigned long long)done.incarnation, (unsigned long long)done.records);
	return CLI_OK;
}

static enum cli_exit accept_loss_run(int argc, char *const argv[])
{
	struct accept_loss_options options = {0};
	struct cli_args args;
	enum cli_exit exit;

	if (!cli_parse(&cli_accept_loss, accept_loss_rows, ARRAY_LEN(accept_loss_rows), argc, argv, &options, 0, &args,
		       &exit)) {
		cli_args_release(&args);
		return exit;
	}
	if (options.storage[0] == '\0' || options.reason[0] == '\0') {
		exit = cli_usage(&cli_accept_loss, "which database, and why? --storage URI --reason TEXT");
	} else if (cli_confirmed(&cli_accept_loss, options.yes, "go on without the acknowledged history that",
				 SPAN("this database has lost"), &exit)) {
		exit = accept_loss(&options);
	}
	cli_args_release(&args);
	return exit;
}

const struct cli_command cli_accept_loss = {
	.name = "accept-loss",
	.summary = "go on with a database that has lost acknowledged history",
	.run = accept_loss_run,
};
