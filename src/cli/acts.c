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

/* True: go on. What is to be done is said in the question. */
static bool confirmed(const struct cli_command *self, const struct acts_options *o, const char *what,
		      struct span name, enum cli_exit *ret_exit)
{
	char line[16] = "";

	*ret_exit = CLI_USAGE;
	if (!o->reason[0]) {
		cli_usage(self, "say why, with --reason: it is recorded");
		return false;
	}
	if (o->yes)
		return true;
	if (!isatty(STDIN_FILENO)) {
		cli_usage(self, "there is no terminal to ask on: say --yes to %s %.*s", what, SPAN_ARG(name));
		return false;
	}
	fprintf(stderr, "%s %.*s? This cannot be undone. Type yes: ", what, SPAN_ARG(name));
	fflush(stderr);
	if (fgets(line, sizeof(line), stdin) && strcmp(line, "yes\n") == 0)
		return true;
	fprintf(stderr, "nothing was done\n");
	*ret_exit = CLI_FINDING;
	return false;
}

/* ---- doing ---------------------------------------------------------------------------------------- */

static void on_acted(const struct client_withheld *acted, const struct client_error *error, void *arg)
{
	struct acts_run *run = arg;
	static const struct {
		const char *name, *did;
	} dids[] = {{"delete", "deleted"}, {"truncate", "truncated"}, {"erase", "erased"}};
	const char *did = "";

	if (!acted) {
		cli_finish(&run->session, cli_client_error(&run->session, error));
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(dids); i++)
		if (!strcmp(run->command->name, dids[i].name))
			did = dids[i].did;
	cli_field_text(run->out, "did", acted->nothing ? SPAN("nothing: it was so already") : span_str(did));
	cli_field_text(run->out, "what", run->stream.n ? run->stream : span_str(run->options.prefix));
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
