/* cairn delete, truncate, erase: acts that take something away. Each needs a reason, which is recorded, and is
 * confirmed: by an answer on a terminal, by --yes elsewhere. */
#include <config.h>

#include "cli/session.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/must.h"
#include "journal/client.h"

struct acts_options {
	struct cli_options common;
	const char *reason;
	bool yes;
	int64_t before, from, to; /* 0: not given */
	const char *prefix;
	bool keep_snapshots;
	const char *category;
	int64_t max_count, max_age_ms;
	bool none;
};

#define ACT_ROWS \
	{.name = "reason", .type = SETTING_STRING, .offset = offsetof(struct acts_options, reason), \
	 .fallback = "", .value_name = "TEXT", .help = "Why it is done; recorded in the journal. Needed."}, \
	{.name = "yes", .type = SETTING_BOOL, .offset = offsetof(struct acts_options, yes), \
	 .help = "Do not ask. Needed where there is no terminal to ask on."}

static const struct setting delete_rows[] = {CLI_OPTION_ROWS, ACT_ROWS};
static const struct setting truncate_rows[] = {
	CLI_OPTION_ROWS, ACT_ROWS,
	{.name = "before", .type = SETTING_INT, .offset = offsetof(struct acts_options, before),
	 .fallback = "0", .min = 0, .max = INT64_MAX, .value_name = "SEQUENCE",
	 .help = "What has a lower sequence goes. Needed."},
};
static const struct setting erase_rows[] = {
	CLI_OPTION_ROWS, ACT_ROWS,
	{.name = "prefix", .type = SETTING_STRING, .offset = offsetof(struct acts_options, prefix),
	 .fallback = "", .value_name = "TEXT", .help = "All streams whose name begins so, instead of one."},
	{.name = "from", .type = SETTING_INT, .offset = offsetof(struct acts_options, from),
	 .fallback = "0", .min = 0, .max = INT64_MAX, .value_name = "SEQUENCE",
	 .help = "Only this event of the stream, or, with --to, those from it on."},
	{.name = "to", .type = SETTING_INT, .offset = offsetof(struct acts_options, to),
	 .fallback = "0", .min = 0, .max = INT64_MAX, .value_name = "SEQUENCE",
	 .help = "The last event to erase, with --from."},
	{.name = "keep-snapshots", .type = SETTING_BOOL, .offset = offsetof(struct acts_options, keep_snapshots),
	 .help = "Snapshots stay, though they may hold what the events held."},
};

static const struct setting retention_rows[] = {
	CLI_OPTION_ROWS, ACT_ROWS,
	{.name = "category", .type = SETTING_STRING, .offset = offsetof(struct acts_options, category),
	 .fallback = "", .value_name = "NAME", .help = "Each stream of a category, instead of one stream."},
	{.name = "max-count", .type = SETTING_INT, .offset = offsetof(struct acts_options, max_count),
	 .fallback = "0", .min = 0, .max = INT64_MAX, .help = "How many of the newest events of a stream are kept."},
	{.name = "max-age", .type = SETTING_TIME, .offset = offsetof(struct acts_options, max_age_ms),
	 .fallback = "0", .min = 0, .max = INT64_MAX / 1000, .help = "How long events are kept."},
	{.name = "before", .type = SETTING_INT, .offset = offsetof(struct acts_options, before),
	 .fallback = "0", .min = 0, .max = INT64_MAX, .value_name = "SEQUENCE",
	 .help = "What has a lower sequence is not kept; of one stream."},
	{.name = "none", .type = SETTING_BOOL, .offset = offsetof(struct acts_options, none),
	 .help = "No rule any more: everything is kept, or what the category's rule says."},
};
static const struct setting compact_rows[] = {CLI_OPTION_ROWS};

struct acts_run {
	const struct cli_command *command;
	struct acts_options options;
	struct cli_session session;
	struct cli_out *out;
	struct span stream;
};

static const struct cli_column act_columns[] = {
	{"did", "DID", false},		 {"what", "WHAT", false},
	{"streams", "STREAMS", true}, {"sequence", "SEQUENCE", true},
};

/* ---- asking --------------------------------------------------------------------------------------- */

static bool confirmed(const struct cli_command *self, const struct acts_options *o, const char *what,
		      struct span name, enum cli_exit *ret_exit)
{
	if (o->reason[0])
		return cli_confirmed(self, o->yes, what, name, ret_exit);
	*ret_exit = cli_usage(self, "say why, with --reason: it is recorded");
	return false;
}

/* ---- doing ---------------------------------------------------------------------------------------- */

static struct span name_of(const struct acts_run *run)
{
	const struct acts_options *o = &run->options;

	return run->stream.n ? run->stream : span_str(o->category && o->category[0] ? o->category : o->prefix);
}

static void on_acted(const struct client_withheld *acted, const struct client_error *error, void *arg)
{
	struct acts_run *run = arg;
	static const struct {
		const char *name, *did;
	} dids[] = {{"delete", "deleted"}, {"truncate", "truncated"}, {"erase", "erased"},
		  {"retention", "rule set"}};
	const char *did = "";

	if (!acted) {
		cli_finish(&run->session, cli_client_error(&run->session, error));
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(dids); i++)
		if (!strcmp(run->command->name, dids[i].name))
			did = dids[i].did;
	cli_field_text(run->out, "did", acted->nothing ? SPAN("nothing: it was so already") : span_str(did));
	cli_field_text(run->out, "what", name_of(run));
	cli_field_u64(run->out, "streams", acted->stream_count);
	if (acted->sequence)
		cli_field_u64(run->out, "sequence", acted->sequence);
	cli_field_u64(run->out, "position", acted->cursor.position);
	cli_row_end(run->out);
	cli_finish(&run->session, CLI_OK);
}

/* Opens the session, starts the act, waits, prints. */
static enum cli_exit act(struct acts_run *run, void (*start)(struct acts_run *run))
{
	run->out = cli_out_new(&run->options.common, act_columns, ARRAY_LEN(act_columns));
	cli_session_open(&run->session, &run->options.common);
	start(run);
	enum cli_exit code = cli_wait(&run->session);
	cli_session_close(&run->session);
	return cli_out_end(run->out, code);
}

static void start_delete(struct acts_run *run)
{
	client_delete(run->session.client, run->stream, span_str(run->options.reason),
		      run->options.common.timeout_ms, on_acted, run);
}

static void start_truncate(struct acts_run *run)
{
	client_truncate(run->session.client, run->stream, (uint64_t)run->options.before,
			span_str(run->options.reason), run->options.common.timeout_ms, on_acted, run);
}

static void start_erase(struct acts_run *run)
{
	struct client_erasure e = {
		.stream = run->stream,
		.prefix = span_str(run->options.prefix),
		.reason = span_str(run->options.reason),
		.from_sequence = (uint64_t)run->options.from,
		.to_sequence = (uint64_t)run->options.to,
		.keep_snapshots = run->options.keep_snapshots,
	};

	client_erase(run->session.client, &e, run->options.common.timeout_ms, on_acted, run);
}

/* ---- commands ------------------------------------------------------------------------------------- */

static enum cli_exit delete_run(int argc, char *const argv[])
{
	struct acts_run run = {.command = &cli_delete};
	struct cli_args args;
	enum cli_exit code = CLI_OK;

	if (cli_parse(&cli_delete, delete_rows, ARRAY_LEN(delete_rows), argc, argv, &run.options, 1, &args,
		      &code)) {
		run.stream = span_str(args.word_count ? args.words[0] : NULL);
		if (!run.stream.n)
			code = cli_usage(&cli_delete, "name the stream to delete");
		else if (confirmed(&cli_delete, &run.options, "delete", run.stream, &code))
			code = act(&run, start_delete);
	}
	cli_args_release(&args);
	return code;
}

const struct cli_command cli_delete = {
	.name = "delete",
	.words = "STREAM",
	.summary = "delete all that is in a stream; it goes on counting",
	.run = delete_run,
};

static enum cli_exit truncate_run(int argc, char *const argv[])
{
	struct acts_run run = {.command = &cli_truncate};
	struct cli_args args;
	enum cli_exit code = CLI_OK;

	if (cli_parse(&cli_truncate, truncate_rows, ARRAY_LEN(truncate_rows), argc, argv, &run.options, 1, &args,
		      &code)) {
		run.stream = span_str(args.word_count ? args.words[0] : NULL);
		if (!run.stream.n)
			code = cli_usage(&cli_truncate, "name the stream to truncate");
		else if (!run.options.before)
			code = cli_usage(&cli_truncate, "say what is to go, with --before SEQUENCE");
		else if (confirmed(&cli_truncate, &run.options, "truncate", run.stream, &code))
			code = act(&run, start_truncate);
	}
	cli_args_release(&args);
	return code;
}

const struct cli_command cli_truncate = {
	.name = "truncate",
	.words = "STREAM --before SEQUENCE",
	.summary = "delete what a stream has below a sequence",
	.run = truncate_run,
};

static enum cli_exit erase_run(int argc, char *const argv[])
{
	struct acts_run run = {.command = &cli_erase};
	struct cli_args args;
	enum cli_exit code = CLI_OK;

	if (cli_parse(&cli_erase, erase_rows, ARRAY_LEN(erase_rows), argc, argv, &run.options, 1, &args, &code)) {
		const struct acts_options *o = &run.options;

		run.stream = span_str(args.word_count ? args.words[0] : NULL);
		if (!run.stream.n == !o->prefix[0])
			code = cli_usage(&cli_erase, "name a stream, or a --prefix of streams");
		else if (o->to && !o->from)
			code = cli_usage(&cli_erase, "--to needs --from");
		else if (confirmed(&cli_erase, o, run.stream.n ? "erase" : "erase all streams that begin with",
				   run.stream.n ? run.stream : span_str(o->prefix), &code))
			code = act(&run, start_erase);
	}
	cli_args_release(&args);
	return code;
}

const struct cli_command cli_erase = {
	.name = "erase",
	.words = "STREAM | --prefix TEXT",
	.summary = "erase the content of a stream, of one event, or of all streams with a prefix",
	.run = erase_run,
};

/* ---- retention, compact --------------------------------------------------------------------------- */

static void start_retention(struct acts_run *run)
{
	const struct acts_options *o = &run->options;
	struct client_retention rule = {
		.stream = run->stream,
		.category = span_str(o->category),
		.reason = span_str(o->reason),
		.max_count = (uint64_t)o->max_count,
		.max_age_ms = (uint64_t)o->max_age_ms,
		.before_sequence = (uint64_t)o->before,
	};

	client_set_retention(run->session.client, &rule, o->common.timeout_ms, on_acted, run);
}

static enum cli_exit retention_run(int argc, char *const argv[])
{
	struct acts_run run = {.command = &cli_retention};
	struct cli_args args;
	enum cli_exit code = CLI_OK;

	if (cli_parse(&cli_retention, retention_rows, ARRAY_LEN(retention_rows), argc, argv, &run.options, 1,
		      &args, &code)) {
		const struct acts_options *o = &run.options;
		bool bound = o->max_count || o->max_age_ms || o->before;

		run.stream = span_str(args.word_count ? args.words[0] : NULL);
		if (!run.stream.n == !o->category[0])
			code = cli_usage(&cli_retention, "name a stream, or a --category of streams");
		else if (bound == o->none)
			code = cli_usage(&cli_retention,
					 "say what is kept: --max-count, --max-age, --before, or --none");
		else if (confirmed(&cli_retention, o, "let compaction take from", name_of(&run), &code))
			code = act(&run, start_retention);
	}
	cli_args_release(&args);
	return code;
}

const struct cli_command cli_retention = {
	.name = "retention",
	.words = "STREAM | --category NAME",
	.summary = "say how much of a stream, or of a category's streams, is kept",
	.run = retention_run,
};

static void on_compacted(const struct client_compacted *result, const struct client_error *error, void *arg)
{
	struct acts_run *run = arg;

	if (!result) {
		cli_finish(&run->session, cli_client_error(&run->session, error));
		return;
	}
	cli_field_u64(run->out, "segments", result->units);
	cli_field_u64(run->out, "rewritten", result->rewritten);
	cli_field_u64(run->out, "removed", result->removed);
	cli_field_u64(run->out, "erased", result->erased);
	cli_field_u64(run->out, "bytes_before", result->bytes_before);
	cli_field_u64(run->out, "bytes_after", result->bytes_after);
	cli_row_end(run->out);
	cli_finish(&run->session, CLI_OK);
}

static enum cli_exit compact_run(int argc, char *const argv[])
{
	static const struct cli_column columns[] = {
		{"segments", "SEGMENTS", true},		{"rewritten", "REWRITTEN", true},
		{"removed", "RECORDS REMOVED", true},	{"erased", "BODIES ERASED", true},
		{"bytes_before", "BYTES BEFORE", true}, {"bytes_after", "BYTES AFTER", true},
	};
	struct acts_run run = {.command = &cli_compact};
	struct cli_args args;
	enum cli_exit code = CLI_OK;

	if (cli_parse(&cli_compact, compact_rows, ARRAY_LEN(compact_rows), argc, argv, &run.options.common, 0, &args,
		      &code)) {
		run.out = cli_out_new(&run.options.common, columns, ARRAY_LEN(columns));
		cli_session_open(&run.session, &run.options.common);
		client_compact(run.session.client, 0, on_compacted, &run);
		code = cli_wait(&run.session);
		cli_session_close(&run.session);
		code = cli_out_end(run.out, code);
	}
	cli_args_release(&args);
	return code;
}

const struct cli_command cli_compact = {
	.name = "compact",
	.words = "",
	.summary = "take off the disk what was deleted, truncated or erased, and what no rule keeps",
	.run = compact_run,
};
