/* cairn read and cairn tail: the records of a stream, a category or everything; from what is there, or
 * from what comes. */
#include <config.h>

#include "cli/session.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/must.h"
#include "base/text.h"
#include "journal/client.h"

#define TAIL_AGAIN_MS 500

struct read_options {
	struct cli_options common;
	const char *category, *from, *to, *types, *prefixes, *kinds;
	int64_t limit;
	bool backward, system, decode;
};

#define SELECTION_ROWS \
	{.name = "category", .type = SETTING_STRING, .offset = offsetof(struct read_options, category), \
	 .value_name = "NAME", .help = "The streams of a category: the part of a name before the first |."}, \
	{.name = "types", .type = SETTING_STRING, .offset = offsetof(struct read_options, types), \
	 .value_name = "A,B,...", .help = "Only records of these types."}, \
	{.name = "prefixes", .type = SETTING_STRING, .offset = offsetof(struct read_options, prefixes), \
	 .value_name = "A,B,...", .help = "Only records of streams whose name begins with one of these."}, \
	{.name = "kinds", .type = SETTING_STRING, .offset = offsetof(struct read_options, kinds), \
	 .value_name = "event,snapshot", \
	 .help = "Only records of these kinds: event, snapshot, delete, truncate, erase."}, \
	{.name = "system", .type = SETTING_BOOL, .offset = offsetof(struct read_options, system), \
	 .help = "The journal's own streams too, whose names begin with $."}, \
	{.name = "decode", .type = SETTING_BOOL, .offset = offsetof(struct read_options, decode), .fallback = "true", \
	 .help = "Show protobuf data as JSON where a function has said what its types are."}

static const struct setting read_rows[] = {
	CLI_OPTION_ROWS,
	SELECTION_ROWS,
	{.name = "from", .type = SETTING_STRING, .offset = offsetof(struct read_options, from),
	 .value_name = "N", .help = "Begin here: a sequence of the stream, otherwise a position."},
	{.name = "to", .type = SETTING_STRING, .offset = offsetof(struct read_options, to), .value_name = "N",
	 .help = "End here: a sequence of the stream, otherwise a position."},
	{.name = "limit", .type = SETTING_INT, .offset = offsetof(struct read_options, limit),
	 .fallback = "0", .min = 0, .max = INT64_MAX, .help = "No more records than this; 0: all."},
	{.name = "backward", .type = SETTING_BOOL, .offset = offsetof(struct read_options, backward),
	 .help = "The newest first."},
};

static const struct setting tail_rows[] = {
	CLI_OPTION_ROWS,
	SELECTION_ROWS,
	{.name = "from", .type = SETTING_STRING, .offset = offsetof(struct read_options, from),
	 .value_name = "N",
	 .help = "Begin here instead of with what is new: a sequence of the stream, otherwise a position."},
	{.name = "limit", .type = SETTING_INT, .offset = offsetof(struct read_options, limit),
	 .fallback = "0", .min = 0, .max = INT64_MAX, .help = "End after this many records; 0: never."},
};

struct read_run {
	const struct cli_command *self;
	struct read_options options;
	struct cli_session session;
	struct client_query query;
	struct client_read *read; /* NULL while there is none */
	struct cli_out *out;
	struct cli_schemas *schemas;
	uint64_t printed;
	/* tail: */
	bool live, ended;
	struct client_cursor cursor; /* where to go on */
	struct loop_timer *again;
};

static void tail_end(void *arg);

static void read_on_record(struct client_read *r, const struct record_view *record, void *arg)
{
	struct read_run *run = arg;

	(void)r;
	if (run->ended)
		return;
	cli_row_record(run->out, record);
	run->printed++;
	if (run->live && run->options.limit && run->printed == (uint64_t)run->options.limit)
		tail_end(run);
}

static void read_on_page(struct client_read *r, const struct client_page *page, void *arg)
{
	struct read_run *run = arg;

	(void)r;
	if (page->cursor.incarnation)
		run->cursor = page->cursor;
	if (run->live)
		cli_out_flush(run->out);
}

static void read_on_done(struct client_read *r, const struct client_error *error, void *arg)
{
	struct read_run *run = arg;

	(void)r;
	run->read = NULL;
	if (run->ended || run->session.closing) {
		cli_finish(&run->session, CLI_OK);
	} else if (run->live && run->cursor.incarnation &&
		   (error->unreachable || error->code == GRPC_UNAVAILABLE)) {
		/* It was there before: it will come back. */
		fprintf(stderr, "cairn: the journal at %s went away (%.*s); waiting for it\n",
			run->session.target, SPAN_ARG(error->text));
		loop_timer_set(run->again, TAIL_AGAIN_MS);
	} else {
		cli_finish(&run->session, cli_client_error(&run->session, error));
	}
}

static const struct client_read_ops ops = {
	.on_record = read_on_record, .on_page = read_on_page, .on_done = read_on_done};

static void tail_again(void *arg)
{
	struct read_run *run = arg;

	run->query.from = CLIENT_FROM_CURSOR;
	run->query.from_cursor = run->cursor;
	run->read = client_subscribe(run->session.client, &run->query, &ops, run);
}

/* Interrupted, or enough was printed. */
static void tail_end(void *arg)
{
	struct read_run *run = arg;

	if (run->ended)
		return;
	run->ended = true;
	loop_timer_cancel(run->again);
	if (run->read)
		client_read_cancel(run->read);
	else
		cli_finish(&run->session, CLI_OK);
}

/* ---- arguments ---------------------------------------------------------------------------------- */

static bool kinds_of(const char *text, uint32_t *ret)
{
	size_t n;
	struct span *items = cli_split(text, &n);
	bool ok = true;

	for (size_t i = 0; i < n; i++) {
		uint32_t kind = RECORD_EVENT;

		while (kind < 32 && !span_eq_str(items[i], record_kind_name(kind)))
			kind++;
		ok = ok && kind < 32;
		if (kind < 32)
			*ret |= 1u << kind;
	}
	mem_free(items);
	return ok;
}

static enum cli_exit query_of(struct read_run *run, const struct cli_args *args)
{
	struct client_query *q = &run->query;
	const struct read_options *o = &run->options;
	size_t n;

	q->stream = span_str(args->word_count ? args->words[0] : NULL);
	q->category = span_str(o->category);
	if (q->stream.n && q->category.n)
		return cli_usage(run->self, "either a stream or --category, not both");
	if (args->word_count && !q->stream.n)
		return cli_usage(run->self, "the stream's name is empty");
	q->include_system = o->system;
	q->backward = o->backward;
	q->max_records = run->live ? 0 : (uint64_t)o->limit;
	if (o->from) {
		q->from = q->stream.n ? CLIENT_FROM_SEQUENCE : CLIENT_FROM_POSITION;
		if (!parse_u64(span_str(o->from), &q->from_value))
			return cli_usage(run->self, "--from %s is no number", o->from);
	} else if (run->live) {
		q->from = CLIENT_FROM_END;
	}
	if (o->to) {
		q->to = q->stream.n ? CLIENT_TO_SEQUENCE : CLIENT_TO_POSITION;
		if (!parse_u64(span_str(o->to), &q->to_value))
			return cli_usage(run->self, "--to %s is no number", o->to);
	}
	if (!kinds_of(o->kinds, &q->kinds))
		return cli_usage(run->self,
				 "--kinds %s: they are event, snapshot, delete, truncate and erase", o->kinds);
	q->types = cli_split(o->types, &n);
	q->type_count = n;
	q->stream_prefixes = cli_split(o->prefixes, &n);
	q->stream_prefix_count = n;
	return CLI_OK;
}

static void read_begin(void *arg)
{
	struct read_run *run = arg;

	if (run->ended || run->session.closing)
		return;
	run->read = run->live ? client_subscribe(run->session.client, &run->query, &ops, run)
			      : client_read(run->session.client, &run->query, &ops, run);
}

static enum cli_exit read_go(struct read_run *run)
{
	enum cli_exit code = CLI_OK;

	run->out = cli_out_new(&run->options.common, cli_record_columns, cli_record_column_count);
	run->schemas = cli_schemas_new();
	cli_session_open(&run->session, &run->options.common);
	run->again = loop_timer_new(run->session.loop, tail_again, run);
	if (run->live)
		cli_session_catch(&run->session, tail_end, run);
	if (run->options.decode) {
		cli_out_decode(run->out, run->schemas);
		cli_schemas_load(run->schemas, run->session.client, run->options.common.timeout_ms, read_begin, run);
	} else {
		read_begin(run);
	}
	code = cli_wait(&run->session);
	loop_timer_free(run->again);
	cli_session_close(&run->session);
	cli_schemas_free(run->schemas);
	return cli_out_end(run->out, code);
}

static enum cli_exit read_run(const struct cli_command *self, const struct setting *rows, size_t row_count,
			      bool live, int argc, char *const argv[])
{
	struct read_run run = {.self = self, .live = live};
	struct cli_args args;
	enum cli_exit code = CLI_OK;

	if (cli_parse(self, rows, row_count, argc, argv, &run.options, 1, &args, &code)) {
		code = query_of(&run, &args);
		if (!code)
			code = read_go(&run);
	}
	mem_free((void *)(uintptr_t)run.query.types);
	mem_free((void *)(uintptr_t)run.query.stream_prefixes);
	cli_args_release(&args);
	return code;
}

static enum cli_exit read_run_read(int argc, char *const argv[])
{
	return read_run(&cli_read, read_rows, ARRAY_LEN(read_rows), false, argc, argv);
}

const struct cli_command cli_read = {
	.name = "read",
	.words = "[STREAM]",
	.summary = "print the records of a stream, a category or the whole journal",
	.run = read_run_read,
};

static enum cli_exit read_run_tail(int argc, char *const argv[])
{
	return read_run(&cli_tail, tail_rows, ARRAY_LEN(tail_rows), true, argc, argv);
}

const struct cli_command cli_tail = {
	.name = "tail",
	.words = "[STREAM]",
	.summary = "print new records as they are committed, until interrupted",
	.run = read_run_tail,
};
