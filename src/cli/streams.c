/* cairn streams and cairn stat: numbers of streams, and of the journal. */
#include <config.h>

#include "cli/session.h"

#include <stdio.h>

#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "journal/client.h"

struct streams_options {
	struct cli_options common;
	bool system;
};

static const struct setting streams_rows[] = {
	CLI_OPTION_ROWS,
	{.name = "system", .type = SETTING_BOOL, .offset = offsetof(struct streams_options, system),
	 .help = "The journal's own streams too, whose names begin with $."},
};
static const struct setting stat_rows[] = {CLI_OPTION_ROWS};

struct streams_run {
	struct streams_options options;
	struct cli_session session;
	struct cli_out *out;
	struct span prefix;
};

static void row_stream(struct cli_out *out, const struct client_stream_info *info)
{
	cli_field_text(out, "stream", info->name);
	cli_field_u64(out, "sequence", info->sequence);
	cli_field_u64(out, "records", info->records);
	cli_field_u64(out, "first_position", info->first_position);
	cli_field_u64(out, "last_position", info->last_position);
	cli_row_end(out);
}

static const struct cli_column stream_columns[] = {
	{"stream", "STREAM", false},	 {"sequence", "SEQUENCE", true},
	{"records", "RECORDS", true},	 {"first_position", "FIRST POSITION", true},
	{"last_position", "LAST POSITION", true},
};

/* ---- streams ------------------------------------------------------------------------------------ */

static void streams_ask(struct streams_run *run, struct span page_token);

static void streams_on_page(const struct client_page_of_streams *page, const struct client_error *error,
			    void *arg)
{
	struct streams_run *run = arg;

	if (!page) {
		cli_finish(&run->session, cli_client_error(&run->session, error));
		return;
	}
	for (size_t i = 0; i < page->count; i++)
		row_stream(run->out, &page->streams[i]);
	if (page->next_page_token.n)
		streams_ask(run, page->next_page_token);
	else
		cli_finish(&run->session, CLI_OK);
}

static void streams_ask(struct streams_run *run, struct span page_token)
{
	client_list_streams(run->session.client, run->prefix, run->options.system, page_token, 0,
			    run->options.common.timeout_ms, streams_on_page, run);
}

static enum cli_exit streams_run(int argc, char *const argv[])
{
	struct streams_run run = {0};
	struct cli_args args;
	enum cli_exit code = CLI_OK;

	if (cli_parse(&cli_streams, streams_rows, ARRAY_LEN(streams_rows), argc, argv, &run.options, 1, &args,
		      &code)) {
		run.prefix = span_str(args.word_count ? args.words[0] : NULL);
		run.out = cli_out_new(&run.options.common, stream_columns, ARRAY_LEN(stream_columns));
		cli_session_open(&run.session, &run.options.common);
		streams_ask(&run, (struct span){0});
		code = cli_wait(&run.session);
		cli_session_close(&run.session);
		code = cli_out_end(run.out, code);
	}
	cli_args_release(&args);
	return code;
}

const struct cli_command cli_streams = {
	.name = "streams",
	.words = "[PREFIX]",
	.summary = "list the streams whose name begins with a prefix",
	.run = streams_run,
};

/* ---- stat --------------------------------------------------------------------------------------- */

/* In a table: a line each. */
static void row_fact(struct cli_out *out, const char *name, struct span value)
{
	cli_field_text(out, "name", span_str(name));
	cli_field_text(out, "value", value);
	cli_row_end(out);
}

static void row_number(struct cli_out *out, const char *name, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	row_fact(out, name, span_str(text));
}

static void rows_journal(struct cli_out *out, const struct client_stat *stat, const char *id)
{
	char time[32];

	wall_format(stat->last_commit, time);
	row_fact(out, "journal_id", span_str(id));
	row_number(out, "incarnation", stat->head.incarnation);
	row_number(out, "head", stat->head.position);
	row_fact(out, "last_commit", span_str(stat->last_commit.us ? time : ""));
	row_fact(out, "storage", stat->storage);
	row_fact(out, "version", stat->version);
	for (size_t i = 0; i < stat->feature_count; i++)
		row_fact(out, "feature", stat->features[i]);
	for (size_t i = 0; i < stat->limit_count; i++) {
		char *name = mem_xprintf("limit %.*s", SPAN_ARG(stat->limit_names[i]));

		row_number(out, name, stat->limit_values[i]);
		mem_free(name);
	}
}

/* In JSON: one object. */
static void object_journal(struct cli_out *out, const struct client_stat *stat, const char *id)
{
	cli_field_text(out, "journal_id", span_str(id));
	cli_field_u64(out, "incarnation", stat->head.incarnation);
	cli_field_u64(out, "head", stat->head.position);
	if (stat->last_commit.us)
		cli_field_time(out, "last_commit", stat->last_commit);
	cli_field_text(out, "storage", stat->storage);
	cli_field_text(out, "version", stat->version);
	cli_field_texts(out, "features", stat->features, stat->feature_count);
	cli_field_numbers(out, "limits", stat->limit_names, stat->limit_values, stat->limit_count);
	cli_row_end(out);
}

static void stat_on_done(const struct client_stat *stat, const struct client_error *error, void *arg)
{
	struct streams_run *run = arg;
	char id[UUID_TEXT_BYTES];

	if (!stat) {
		cli_finish(&run->session, cli_client_error(&run->session, error));
		return;
	}
	uuid_format(stat->head.journal_id, id);
	if (stat->has_stream)
		row_stream(run->out, &stat->stream);
	else if (cli_out_is_table(run->out))
		rows_journal(run->out, stat, id);
	else
		object_journal(run->out, stat, id);
	cli_finish(&run->session, CLI_OK);
}

static enum cli_exit stat_run(int argc, char *const argv[])
{
	static const struct cli_column columns[] = {{"name", "NAME", false}, {"value", "VALUE", false}};
	struct streams_run run = {0};
	struct cli_args args;
	enum cli_exit code = CLI_OK;

	if (cli_parse(&cli_stat, stat_rows, ARRAY_LEN(stat_rows), argc, argv, &run.options, 1, &args,
		      &code)) {
		struct span stream = span_str(args.word_count ? args.words[0] : NULL);

		run.out = cli_out_new(&run.options.common, stream.n ? stream_columns : columns,
				      stream.n ? ARRAY_LEN(stream_columns) : ARRAY_LEN(columns));
		cli_session_open(&run.session, &run.options.common);
		client_stat(run.session.client, stream, run.options.common.timeout_ms, stat_on_done, &run);
		code = cli_wait(&run.session);
		cli_session_close(&run.session);
		code = cli_out_end(run.out, code);
	}
	cli_args_release(&args);
	return code;
}

const struct cli_command cli_stat = {
	.name = "stat",
	.words = "[STREAM]",
	.summary = "print what a journal is and how far it goes, or one stream's numbers",
	.run = stat_run,
};
