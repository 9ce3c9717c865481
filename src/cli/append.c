/* cairn append: one event to the end of a stream, or one for each line of stdin. */
#include <config.h>

#include "cli/session.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "base/text.h"
#include "journal/client.h"

#define METADATA_MAX 64
#define LINES_AT_ONCE ((size_t)1000) /* in one append, all of it or nothing */
#define LINES_READ_BYTES (256 * KIB)

struct append_options {
	struct cli_options common;
	const char *type, *content_type, *expect, *id, *metadata;
	bool snapshot, lines;
};

static const struct setting rows[] = {
	CLI_OPTION_ROWS,
	{.name = "type", .type = SETTING_STRING, .offset = offsetof(struct append_options, type),
	 .fallback = "event", .value_name = "NAME", .help = "The event's type."},
	{.name = "content-type", .type = SETTING_STRING,
	 .offset = offsetof(struct append_options, content_type), .value_name = "TYPE",
	 .help = "The data's media type; by default what the data looks like: JSON, text or bytes."},
	{.name = "expect", .type = SETTING_STRING, .offset = offsetof(struct append_options, expect),
	 .fallback = "any", .value_name = "any|none|exists|N",
	 .help = "Append only if the stream is empty, is not, or has the newest sequence N."},
	{.name = "id", .type = SETTING_STRING, .offset = offsetof(struct append_options, id),
	 .value_name = "UUID", .help = "The event's id, to repeat an append safely; by default a new one."},
	{.name = "metadata", .type = SETTING_STRING, .offset = offsetof(struct append_options, metadata),
	 .value_name = "KEY=VALUE,...", .help = "Metadata of the event."},
	{.name = "snapshot", .type = SETTING_BOOL, .offset = offsetof(struct append_options, snapshot),
	 .help = "Append a snapshot of the stream's state instead of an event; needs --expect N."},
	{.name = "lines", .type = SETTING_BOOL, .offset = offsetof(struct append_options, lines),
	 .help = "Append each line of stdin as an event, in order, as they come; empty ones are left out."},
};

struct append_run {
	const struct cli_command *self;
	struct append_options options;
	struct cli_session session;
	struct client_record record;
	struct client_stream stream;
	struct record_metadata metadata[METADATA_MAX];
	struct buf data;
	struct cli_out *out;
	uint64_t newest; /* the stream's newest sequence, once it is known */
};

static enum cli_exit read_stdin(struct buf *data)
{
	for (;;) {
		ssize_t n;

		if (buf_reserve(data, 64 * KIB))
			break;
		n = read(STDIN_FILENO, data->p + data->n, 64 * KIB);
		if (n == 0)
			return CLI_OK;
		if (n < 0 && errno != EINTR) {
			fprintf(stderr, "cairn: reading standard input: %s\n", strerror(errno));
			return CLI_FINDING;
		}
		if (n > 0)
			data->n += (size_t)n;
	}
	fprintf(stderr, "cairn: the data on standard input is larger than a record can be, %zu bytes\n",
		LIMIT_RECORD_BYTES);
	return CLI_USAGE;
}

static const char *content_type_of(struct span data)
{
	if (cli_is_json(data))
		return "application/json";
	return utf8_valid(data) ? "text/plain; charset=utf-8" : "application/octet-stream";
}

static bool expectation_of(const char *text, struct client_stream *stream)
{
	if (strcmp(text, "any") == 0)
		stream->expect = CLIENT_ANY;
	else if (strcmp(text, "none") == 0)
		stream->expect = CLIENT_NONE;
	else if (strcmp(text, "exists") == 0)
		stream->expect = CLIENT_EXISTS;
	else if (parse_u64(span_str(text), &stream->sequence))
		stream->expect = CLIENT_EXACTLY;
	else
		return false;
	return true;
}

static enum cli_exit metadata_of(struct append_run *run, struct span *items, size_t n)
{
	if (n > METADATA_MAX)
		return cli_usage(run->self, "--metadata has %zu entries, more than %d", n, METADATA_MAX);
	for (size_t i = 0; i < n; i++) {
		size_t at = span_find(items[i], '=');

		if (at == 0 || at == items[i].n)
			return cli_usage(run->self, "--metadata: \"%.*s\" is not KEY=VALUE",
					 SPAN_ARG(items[i]));
		run->metadata[i].key = span_first(items[i], at);
		run->metadata[i].value = span_skip(items[i], at + 1);
	}
	run->record.metadata = run->metadata;
	run->record.metadata_count = n;
	return CLI_OK;
}

static void append_on_done(const struct client_appended *answer, const struct client_error *error, void *arg)
{
	struct append_run *run = arg;

	if (!answer) {
		cli_finish(&run->session, cli_client_error(&run->session, error));
		return;
	}
	cli_field_text(run->out, "stream", run->stream.stream);
	cli_field_u64(run->out, "sequence", answer->sequences[0]);
	cli_field_u64(run->out, "position", answer->first_position);
	cli_field_time(run->out, "time", answer->commit_time);
	if (run->options.lines)
		cli_field_u64(run->out, "events", answer->record_count);
	else
		cli_field_uuid(run->out, "id", span_of(run->record.id, sizeof(run->record.id)));
	run->newest = answer->sequences[0];
	cli_field_bool(run->out, "repeated", answer->repeated);
	cli_row_end(run->out);
	cli_finish(&run->session, CLI_OK);
}

/* Appends what run->stream says and waits for the answer. */
static enum cli_exit append_and_wait(struct append_run *run)
{
	client_append(run->session.client,
		      &(struct client_append){.streams = &run->stream, .stream_count = 1},
		      run->options.common.timeout_ms, append_on_done, run);
	return cli_wait(&run->session);
}

/* ---- lines -------------------------------------------------------------------------------------- */

/* Appends the whole lines at the beginning of the data (at the end of the input, all of it), in appends of
 * many; *ret_used is how much that was. An expectation holds for the first append; the next expects what
 * the one before it left, so that nobody's events come between. */
static enum cli_exit lines_append(struct append_run *run, bool at_end, size_t *ret_used)
{
	struct client_record *events = mem_xalloc(LINES_AT_ONCE * sizeof(*events));
	struct span rest = buf_span(&run->data);
	enum cli_exit code = CLI_OK;
	bool more = true;

	run->stream.events = events;
	while (more && !code) {
		size_t n = 0, bytes = 0;

		while (n < LINES_AT_ONCE && bytes < LIMIT_APPEND_BYTES / 4) {
			size_t end = span_find(rest, '\n');

			more = rest.n > 0 && (end < rest.n || at_end);
			if (!more)
				break;
			if (end > 0) {
				events[n] = run->record;
				events[n].data = span_first(rest, end);
				if (!run->options.content_type)
					events[n].content_type = span_str(content_type_of(events[n].data));
				uuid_v7(&clock_system, events[n++].id);
			}
			bytes += end;
			rest = span_skip(rest, end < rest.n ? end + 1 : end);
		}
		run->stream.event_count = n;
		code = n ? append_and_wait(run) : CLI_OK;
		if (run->stream.expect != CLIENT_ANY) {
			run->stream.expect = CLIENT_EXACTLY;
			run->stream.sequence = run->newest;
		}
	}
	*ret_used = run->data.n - rest.n;
	mem_free(events);
	return code;
}

static enum cli_exit lines_send(struct append_run *run)
{
	for (;;) {
		enum cli_exit code;
		ssize_t n = -1;
		size_t used;

		if (buf_reserve(&run->data, LINES_READ_BYTES)) {
			fprintf(stderr, "cairn: a line on standard input is larger than a record can be\n");
			return CLI_USAGE;
		}
		do {
			n = read(STDIN_FILENO, run->data.p + run->data.n, LINES_READ_BYTES);
		} while (n < 0 && errno == EINTR);
		if (n < 0) {
			fprintf(stderr, "cairn: reading standard input: %s\n", strerror(errno));
			return CLI_FINDING;
		}
		run->data.n += (size_t)n;
		code = lines_append(run, n == 0, &used);
		if (code || n == 0)
			return code;
		buf_consume(&run->data, used);
		cli_out_flush(run->out);
	}
}

static enum cli_exit append_send(struct append_run *run)
{
	static const struct cli_column columns[] = {
		{"stream", "STREAM", false}, {"sequence", "SEQUENCE", true}, {"position", "POSITION", true},
		{"time", "TIME", false},     {"id", "ID", false},	     {"repeated", "REPEATED", false},
	};
	static const struct cli_column lines_columns[] = {
		{"stream", "STREAM", false}, {"sequence", "SEQUENCE", true}, {"position", "POSITION", true},
		{"time", "TIME", false},     {"events", "EVENTS", true},
	};
	enum cli_exit code;

	run->out = run->options.lines
			   ? cli_out_new(&run->options.common, lines_columns, ARRAY_LEN(lines_columns))
			   : cli_out_new(&run->options.common, columns, ARRAY_LEN(columns));
	cli_session_open(&run->session, &run->options.common);
	if (run->options.lines) {
		code = lines_send(run);
	} else if (run->options.snapshot) {
		run->stream.snapshot = &run->record;
		code = append_and_wait(run);
	} else {
		run->stream.events = &run->record;
		run->stream.event_count = 1;
		code = append_and_wait(run);
	}
	cli_session_close(&run->session);
	return cli_out_end(run->out, code);
}

/* ---- arguments ---------------------------------------------------------------------------------- */

static enum cli_exit append_prepare(struct append_run *run, const struct cli_args *args,
				    struct span **ret_items)
{
	const char *data = args->word_count > 1 ? args->words[1] : "-";
	size_t n;

	if (args->word_count < 1)
		return cli_usage(run->self, "which stream?");
	run->stream.stream = span_str(args->words[0]);
	run->record.type = span_str(run->options.type);
	if (!expectation_of(run->options.expect, &run->stream))
		return cli_usage(run->self, "--expect %s: it is any, none, exists or a sequence",
				 run->options.expect);
	if (run->options.snapshot && run->stream.expect != CLIENT_EXACTLY)
		return cli_usage(run->self, "--snapshot is of a certain state: say which, --expect N");
	uuid_v7(&clock_system, run->record.id);
	if (run->options.id && uuid_parse(span_str(run->options.id), run->record.id))
		return cli_usage(run->self, "--id %s is no UUID", run->options.id);
	*ret_items = cli_split(run->options.metadata, &n);
	if (metadata_of(run, *ret_items, n))
		return CLI_USAGE;
	if (run->options.content_type)
		run->record.content_type = span_str(run->options.content_type);
	if (run->options.lines) {
		if (args->word_count > 1 || run->options.snapshot || run->options.id)
			return cli_usage(run->self, "--lines reads events from stdin: no data, --id or --snapshot");
		return CLI_OK;
	}
	if (strcmp(data, "-") == 0) {
		enum cli_exit code = read_stdin(&run->data);

		if (code)
			return code;
		run->record.data = buf_span(&run->data);
	} else {
		run->record.data = span_str(data);
	}
	if (!run->options.content_type)
		run->record.content_type = span_str(content_type_of(run->record.data));
	return CLI_OK;
}

static enum cli_exit append_run(int argc, char *const argv[])
{
	struct append_run run = {.self = &cli_append};
	struct span *items = NULL;
	struct cli_args args;
	enum cli_exit code = CLI_OK;

	buf_init(&run.data, LIMIT_RECORD_BYTES + LINES_READ_BYTES);
	if (cli_parse(&cli_append, rows, ARRAY_LEN(rows), argc, argv, &run.options, 2, &args, &code)) {
		code = append_prepare(&run, &args, &items);
		if (!code)
			code = append_send(&run);
	}
	mem_free(items);
	buf_release(&run.data);
	cli_args_release(&args);
	return code;
}

const struct cli_command cli_append = {
	.name = "append",
	.words = "STREAM [DATA | -]",
	.summary = "append events to a stream; data from the command line, or from stdin",
	.run = append_run,
};
