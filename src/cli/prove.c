/* cairn checkpoint, cairn prove: what the journal signs, and proofs, verified before they are printed. */
#include <config.h>

#include "cli/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/text.h"
#include "journal/client.h"
#include "journal/client_proof.h"
#include "journal/client_verify.h"

#define PROOF_FILE_BYTES (64 * KIB)
#define PROOF_FIRST_LINE "c2sp.org/tlog-proof@v1\n"

struct prove_options {
	struct cli_options common;
	const char *key, *since, *check;
	int64_t size;
};

#define KEY_ROW \
	{.name = "key", .type = SETTING_STRING, .offset = offsetof(struct prove_options, key), \
	 .fallback = "", .value_name = "NAME+ID+BASE64", \
	 .help = "The verifier key that must have signed. Without it the one that the journal names is believed."}
#define SIZE_ROW \
	{.name = "size", .type = SETTING_INT, .offset = offsetof(struct prove_options, size), \
	 .fallback = "0", .min = 0, .max = INT64_MAX, .value_name = "RECORDS", \
	 .help = "As of the journal's first so many records; 0: all of them."}

static const struct setting checkpoint_rows[] = {
	CLI_OPTION_ROWS, KEY_ROW, SIZE_ROW,
	{.name = "since", .type = SETTING_STRING, .offset = offsetof(struct prove_options, since),
	 .fallback = "", .value_name = "FILE",
	 .help = "An earlier checkpoint: verify that the journal still begins with what it was of."},
};
static const struct setting prove_rows[] = {
	CLI_OPTION_ROWS, KEY_ROW, SIZE_ROW,
	{.name = "check", .type = SETTING_STRING, .offset = offsetof(struct prove_options, check),
	 .fallback = "", .value_name = "FILE",
	 .help = "Verify a proof that was printed earlier, against the record as it is now."},
};

struct prove_run {
	const struct cli_command *command;
	struct prove_options options;
	struct cli_session session;
	struct err err;
	uint64_t position;
	/* Of what the server said last. */
	uint64_t size;
	uint8_t root[RECORD_HASH_BYTES], leaf[RECORD_HASH_BYTES];
	struct buf note, key, hashes;
	/* From the file of --since or --check. */
	struct buf file;
	struct verify_checkpoint old;
	struct buf old_hashes;
};

static void run_init(struct prove_run *run, const struct cli_command *command)
{
	*run = (struct prove_run){.command = command};
	buf_init(&run->note, MIB);
	buf_init(&run->key, MIB);
	buf_init(&run->hashes, MIB);
	buf_init(&run->file, PROOF_FILE_BYTES);
	buf_init(&run->old_hashes, PROOF_FILE_BYTES);
}

static void run_release(struct prove_run *run)
{
	buf_release(&run->note);
	buf_release(&run->key);
	buf_release(&run->hashes);
	buf_release(&run->file);
	buf_release(&run->old_hashes);
}

/* Ends the wait with what the error says. */
static void run_fail(struct prove_run *run)
{
	cli_finish(&run->session, cli_fail(run->command, &run->err));
}

/* ---- files -------------------------------------------------------------------------------------- */

static enum err_code read_file(const char *path, struct buf *ret, struct err *err)
{
	FILE *f = fopen(path, "re");
	char bytes[4096];
	size_t n;
	enum err_code code = ERR_OK;

	if (!f)
		return err_set(err, ERR_INVALID, "cannot open %s", path);
	while (!code && (n = fread(bytes, 1, sizeof(bytes), f)) > 0)
		code = buf_append(ret, bytes, n);
	if (ferror(f))
		code = ERR_INVALID;
	fclose(f);
	return code ? err_set(err, ERR_INVALID, "cannot read %s, or it is larger than %zu bytes", path,
			      PROOF_FILE_BYTES)
		    : ERR_OK;
}

/* A proof's text into its index, hashes and checkpoint. */
static enum err_code parse_proof(struct prove_run *run, struct span *ret_note)
{
	struct span rest = buf_span(&run->file), line;
	bool right = span_starts(rest, SPAN(PROOF_FIRST_LINE));

	rest = right ? span_skip(rest, strlen(PROOF_FIRST_LINE)) : rest;
	for (bool numbered = false; right; rest = span_skip(rest, line.n + 1)) {
		line = span_first(rest, span_find(rest, '\n'));
		right = line.n < rest.n;
		if (!right || (line.n == 0 && numbered))
			break;
		if (span_starts(line, SPAN("extra ")))
			continue;
		if (!numbered)
			right = numbered = span_starts(line, SPAN("index ")) &&
					   parse_u64(span_skip(line, 6), &run->position);
		else
			right = base64_decode(&run->old_hashes, line) == ERR_OK &&
				run->old_hashes.n % RECORD_HASH_BYTES == 0;
	}
	if (!right)
		return err_set(&run->err, ERR_INVALID, "%s is no proof as this command prints them",
			       run->options.check);
	*ret_note = span_skip(rest, 1);
	return ERR_OK;
}

/* ---- verifying ---------------------------------------------------------------------------------- */

/* Is the note signed by the key that is asked for, or by the one the server names? */
static enum err_code check_note(struct prove_run *run, struct span note, struct verify_checkpoint *ret)
{
	struct verify_key key;
	struct span text = run->options.key[0] ? span_str(run->options.key) : buf_span(&run->key);
	struct err *err = &run->err;

	if (text.n && verify_key_parse(text, &key, err))
		return err->code;
	return verify_checkpoint(note, text.n ? &key : NULL, ret, err);
}

static enum err_code take_answer(struct prove_run *run, const struct client_proof *answer)
{
	struct verify_checkpoint c;

	run->size = answer->size;
	memcpy(run->root, answer->root, sizeof(run->root));
	memcpy(run->leaf, answer->leaf, sizeof(run->leaf));
	buf_clear(&run->note);
	buf_clear(&run->key);
	buf_clear(&run->hashes);
	if (buf_append_span(&run->note, answer->note) || buf_append_span(&run->key, answer->verifier_key) ||
	    buf_append(&run->hashes, answer->hashes, answer->count * RECORD_HASH_BYTES))
		return err_set(&run->err, ERR_NOMEM, "no memory for the server's answer");
	if (!answer->note.n)
		return run->options.key[0] ? err_set(&run->err, ERR_CORRUPT,
						     "the journal does not sign: its server has no key")
					   : ERR_OK;
	if (check_note(run, answer->note, &c))
		return run->err.code;
	if (c.size != answer->size || memcmp(c.root, answer->root, sizeof(c.root)) != 0)
		return err_set(&run->err, ERR_CORRUPT, "what is signed is not what the journal says beside it");
	return ERR_OK;
}

/* ---- printing ----------------------------------------------------------------------------------- */

static void print_base64(const uint8_t *p, size_t n)
{
	struct buf text;

	buf_init(&text, KIB);
	if (base64_encode(&text, span_of(p, n), true) == ERR_OK)
		printf("%.*s\n", (int)text.n, (const char *)text.p);
	buf_release(&text);
}

static void field_hashes(struct cli_out *out, const char *key, struct span hashes)
{
	struct span items[256];
	struct buf text;
	size_t n = hashes.n / RECORD_HASH_BYTES, at = 0;

	buf_init(&text, MIB);
	n = n < ARRAY_LEN(items) ? n : ARRAY_LEN(items); /* a proof that was verified has at most 64 */
	must(hex_encode(&text, span_first(hashes, n * RECORD_HASH_BYTES)) == ERR_OK);
	for (size_t i = 0; i < n; i++, at += 2 * RECORD_HASH_BYTES)
		items[i] = span_of(text.p + at, 2 * RECORD_HASH_BYTES);
	cli_field_texts(out, key, items, n);
	buf_release(&text);
}

static void field_hash(struct cli_out *out, const char *key, const uint8_t hash[RECORD_HASH_BYTES])
{
	struct buf text;

	buf_init(&text, KIB);
	if (hex_encode(&text, span_of(hash, RECORD_HASH_BYTES)) == ERR_OK)
		cli_field_text(out, key, buf_span(&text));
	buf_release(&text);
}

static enum cli_exit print_object(const struct prove_run *run, bool proof)
{
	struct cli_out *out = cli_out_new(&run->options.common, NULL, 0);

	if (proof) {
		cli_field_u64(out, "position", run->position);
		field_hash(out, "leaf", run->leaf);
		field_hashes(out, "hashes", buf_span(&run->hashes));
	}
	cli_field_u64(out, "size", run->size);
	field_hash(out, "root", run->root);
	cli_field_text(out, "note", buf_span(&run->note));
	cli_field_text(out, "verifier_key", buf_span(&run->key));
	cli_row_end(out);
	return cli_out_close(out);
}

/* The checkpoint or the proof, as others read it. */
static enum cli_exit print_answer(struct prove_run *run, bool proof)
{
	if (strcmp(run->options.common.output, "table") != 0)
		return print_object(run, proof);
	if (!run->note.n) {
		err_set(&run->err, ERR_NOT_FOUND, "the journal does not sign: give its server a key "
			"(cairnd --signing-key-file), or take what is not signed with -o json");
		return cli_fail(run->command, &run->err);
	}
	if (proof) {
		printf("%sindex %llu\n", PROOF_FIRST_LINE, (unsigned long long)run->position);
		for (size_t i = 0; i < run->hashes.n; i += RECORD_HASH_BYTES)
			print_base64(run->hashes.p + i, RECORD_HASH_BYTES);
		printf("\n");
	}
	fwrite(run->note.p, 1, run->note.n, stdout);
	if (!run->options.key[0])
		fprintf(stderr, "verifier key: %.*s\n", (int)run->key.n, (const char *)run->key.p);
	return fflush(stdout) || ferror(stdout) ? CLI_UNREACHABLE : CLI_OK;
}

/* ---- cairn checkpoint --------------------------------------------------------------------------- */

static void on_consistent(const struct client_proof *answer, const struct client_error *error, void *arg)
{
	struct prove_run *run = arg;

	if (!answer) {
		cli_finish(&run->session, cli_client_error(&run->session, error));
		return;
	}
	if (answer->size != run->size || memcmp(answer->root, run->root, sizeof(run->root)) != 0)
		err_set(&run->err, ERR_CORRUPT, "the journal gave two roots for %llu records",
			(unsigned long long)run->size);
	else
		verify_consistency(run->old.size, run->old.root, run->size, run->root, answer->hashes,
				   answer->count, &run->err);
	if (run->err.code) {
		run_fail(run);
		return;
	}
	fprintf(stderr, "verified: the journal's %llu records begin with the %llu of %s\n",
		(unsigned long long)run->size, (unsigned long long)run->old.size, run->options.since);
	cli_finish(&run->session, print_answer(run, false));
}

static void on_checkpoint(const struct client_proof *answer, const struct client_error *error, void *arg)
{
	struct prove_run *run = arg;

	if (!answer) {
		cli_finish(&run->session, cli_client_error(&run->session, error));
		return;
	}
	if (!take_answer(run, answer) && run->options.since[0] &&
	    !check_note(run, buf_span(&run->file), &run->old) && run->old.size > run->size)
		err_set(&run->err, ERR_CORRUPT, "%s is of %llu records, the journal has only %llu: history is missing",
			run->options.since, (unsigned long long)run->old.size, (unsigned long long)run->size);
	if (run->err.code)
		run_fail(run);
	else if (run->options.since[0])
		client_consistency_proof(run->session.client, run->old.size, run->size,
					 run->options.common.timeout_ms, on_consistent, run);
	else
		cli_finish(&run->session, print_answer(run, false));
}

static enum cli_exit checkpoint_run(int argc, char *const argv[])
{
	struct prove_run run;
	struct cli_args args;
	enum cli_exit code = CLI_OK;

	run_init(&run, &cli_checkpoint);
	if (cli_parse(&cli_checkpoint, checkpoint_rows, ARRAY_LEN(checkpoint_rows), argc, argv, &run.options, 0,
		      &args, &code)) {
		if (run.options.since[0] && read_file(run.options.since, &run.file, &run.err)) {
			code = cli_fail(&cli_checkpoint, &run.err);
		} else {
			cli_session_open(&run.session, &run.options.common);
			client_checkpoint(run.session.client, (uint64_t)run.options.size,
					  run.options.common.timeout_ms, on_checkpoint, &run);
			code = cli_wait(&run.session);
			cli_session_close(&run.session);
		}
	}
	cli_args_release(&args);
	run_release(&run);
	return code;
}

const struct cli_command cli_checkpoint = {
	.name = "checkpoint",
	.words = "",
	.summary = "print what the journal signs: how many records it has, and their root hash",
	.run = checkpoint_run,
};

/* ---- cairn prove -------------------------------------------------------------------------------- */

static void prove_on_record(struct client_read *r, const struct record_view *record, void *arg)
{
	struct prove_run *run = arg;
	uint8_t leaf[RECORD_HASH_BYTES];

	(void)r;
	if (record->position != run->position)
		return; /* that one is not given to readers any more: its leaf is all there is */
	record_leaf(record, leaf);
	if (memcmp(leaf, run->leaf, sizeof(leaf)) != 0)
		err_set(&run->err, ERR_CORRUPT, "the record at position %llu is not the one that is in the tree",
			(unsigned long long)run->position);
}

static void prove_on_read(struct client_read *r, const struct client_error *error, void *arg)
{
	struct prove_run *run = arg;

	(void)r;
	if (error->code != GRPC_OK) {
		cli_finish(&run->session, cli_client_error(&run->session, error));
		return;
	}
	if (run->err.code) {
		run_fail(run);
	} else if (run->options.check[0]) {
		fprintf(stderr, "verified: the record at position %llu is in the log of %llu records\n",
			(unsigned long long)run->position, (unsigned long long)run->old.size);
		cli_finish(&run->session, CLI_OK);
	} else {
		cli_finish(&run->session, print_answer(run, true));
	}
}

static void on_included(const struct client_proof *answer, const struct client_error *error, void *arg)
{
	static const struct client_read_ops ops = {.on_record = prove_on_record, .on_done = prove_on_read};
	struct prove_run *run = arg;
	struct span note;

	if (!answer) {
		cli_finish(&run->session, cli_client_error(&run->session, error));
		return;
	}
	if (!take_answer(run, answer))
		verify_inclusion(run->position, run->size, run->leaf, run->hashes.p,
				 run->hashes.n / RECORD_HASH_BYTES, run->root, &run->err);
	if (!run->err.code && run->options.check[0]) {
		buf_clear(&run->old_hashes);
		if (!parse_proof(run, &note) && !check_note(run, note, &run->old))
			verify_inclusion(run->position, run->old.size, run->leaf, run->old_hashes.p,
					 run->old_hashes.n / RECORD_HASH_BYTES, run->old.root, &run->err);
	}
	if (run->err.code) {
		run_fail(run);
		return;
	}
	client_read(run->session.client,
		    &(struct client_query){.include_system = true,
					   .from = CLIENT_FROM_POSITION,
					   .from_value = run->position,
					   .max_records = 1,
					   .deadline_ms = run->options.common.timeout_ms},
		    &ops, run);
}

static enum cli_exit prove_run(int argc, char *const argv[])
{
	struct prove_run run;
	struct cli_args args;
	struct span note;
	enum cli_exit code = CLI_OK;

	run_init(&run, &cli_prove);
	if (cli_parse(&cli_prove, prove_rows, ARRAY_LEN(prove_rows), argc, argv, &run.options, 1, &args, &code)) {
		struct span word = span_str(args.word_count ? args.words[0] : NULL);

		if (!word.n == !run.options.check[0]) {
			code = cli_usage(&cli_prove, "name the position of a record, or a proof to --check");
		} else if (word.n && !parse_u64(word, &run.position)) {
			code = cli_usage(&cli_prove, "\"%s\" is no position: they are 0, 1, 2 ...", args.words[0]);
		} else if (!word.n && (read_file(run.options.check, &run.file, &run.err) ||
				       parse_proof(&run, &note))) {
			code = cli_fail(&cli_prove, &run.err);
		} else {
			cli_session_open(&run.session, &run.options.common);
			client_inclusion_proof(run.session.client, run.position, (uint64_t)run.options.size,
					       run.options.common.timeout_ms, on_included, &run);
			code = cli_wait(&run.session);
			cli_session_close(&run.session);
		}
	}
	cli_args_release(&args);
	run_release(&run);
	return code;
}

const struct cli_command cli_prove = {
	.name = "prove",
	.words = "POSITION | --check FILE",
	.summary = "prove that a record is in the journal, or check such a proof",
	.run = prove_run,
};
