/* cairn group: what consumer groups are at, and what is done about what they parked. */
#include <config.h>

#include "cli/session.h"

#include <string.h>

#include "base/must.h"
#include "journal/client.h"
#include "journal/client_group.h"

#define NO_POSITION (-1)

struct group_options {
	struct cli_options common;
	const char *reason, *stream;
	bool yes, goes_on;
	int64_t position;
};

static const struct setting group_rows[] = {
	CLI_OPTION_ROWS,
	{.name = "stream", .type = SETTING_STRING, .offset = offsetof(struct group_options, stream), .fallback = "",
	 .value_name = "STREAM", .help = "replay, skip: only what is parked of this stream."},
	{.name = "position", .type = SETTING_INT, .offset = offsetof(struct group_options, position),
	 .fallback = "-1", .min = -1, .max = INT64_MAX, .value_name = "POSITION",
	 .help = "replay, skip: only this record. park: this record; needed."},
	{.name = "goes-on", .type = SETTING_BOOL, .offset = offsetof(struct group_options, goes_on),
	 .help = "park: its stream goes on without the record, instead of waiting behind it."},
	{.name = "reason", .type = SETTING_STRING, .offset = offsetof(struct group_options, reason), .fallback = "",
	 .value_name = "TEXT", .help = "replay, skip, park: why; recorded in the journal. Needed."},
	{.name = "yes", .type = SETTING_BOOL, .offset = offsetof(struct group_options, yes),
	 .help = "skip: do not ask. Needed where there is no terminal to ask on."},
};

struct group_run {
	struct group_options options;
	struct cli_session session;
	struct cli_out *out;
	struct span name; /* or empty: all groups, or a prefix */
	bool found;
	enum client_group_act_kind kind;
	const char *did;
};

/* ---- list, lag ------------------------------------------------------------------------------------ */

static const struct cli_column list_columns[] = {
	{"group", "GROUP", false},  {"partition", "PARTITION", true}, {"position", "POSITION", true},
	{"behind", "BEHIND", true}, {"waiting", "WAITING", true},     {"parked", "PARKED", true},
	{"consumer", "CONSUMER", false},
};

static void ask_groups(struct group_run *run, struct span page_token);

static void row_partition(struct cli_out *out, const struct client_group_partition *p)
{
	cli_field_text(out, "group", p->group);
	cli_field_u64(out, "partition", p->partition);
	cli_field_u64(out, "partitions", p->partitions);
	cli_field_u64(out, "position", p->position);
	cli_field_u64(out, "behind", p->behind);
	cli_field_u64(out, "waiting", p->waiting);
	cli_field_u64(out, "parked", p->parked);
	cli_field_text(out, "consumer", p->consumer);
	cli_row_end(out);
}

static void on_groups(const struct client_page_of_groups *page, const struct client_error *error, void *arg)
{
	struct group_run *run = arg;

	if (!page) {
		cli_finish(&run->session, cli_client_error(&run->session, error));
		return;
	}
	for (size_t i = 0; i < page->count; i++)
		row_partition(run->out, &page->partitions[i]);
	if (page->next_page_token.n)
		ask_groups(run, page->next_page_token);
	else
		cli_finish(&run->session, CLI_OK);
}

static void ask_groups(struct group_run *run, struct span page_token)
{
	client_list_groups(run->session.client, run->name, page_token, run->options.common.timeout_ms, on_groups, run);
}

static void start_list(struct group_run *run)
{
	ask_groups(run, (struct span){0});
}

static const struct cli_column lag_columns[] = {
	{"group", "GROUP", false},  {"behind", "BEHIND", true}, {"waiting", "WAITING", true},
	{"parked", "PARKED", true}, {"consumers", "PARTITIONS CONSUMED", true},
};

static void ask_lag(struct group_run *run, struct span page_token);

/* A group's partitions stand side by side; those that are told of are all of it. */
static void row_group(struct cli_out *out, const struct client_group_partition *p, size_t n)
{
	uint64_t behind = 0, waiting = 0, parked = 0, consumed = 0;

	for (size_t i = 0; i < n; i++) {
		behind = p[i].behind > behind ? p[i].behind : behind;
		waiting += p[i].waiting;
		parked += p[i].parked;
		consumed += p[i].consumer.n > 0;
	}
	cli_field_text(out, "group", p->group);
	cli_field_u64(out, "behind", behind);
	cli_field_u64(out, "waiting", waiting);
	cli_field_u64(out, "parked", parked);
	cli_field_u64(out, "partitions", p->partitions);
	cli_field_u64(out, "consumers", consumed);
	cli_row_end(out);
}

static void on_lag(const struct client_page_of_groups *page, const struct client_error *error, void *arg)
{
	struct group_run *run = arg;

	if (!page) {
		cli_finish(&run->session, cli_client_error(&run->session, error));
		return;
	}
	for (size_t i = 0; i < page->count; i += page->partitions[i].partitions) {
		if (run->name.n && !span_eq(run->name, page->partitions[i].group))
			continue;
		run->found = true;
		row_group(run->out, &page->partitions[i], page->partitions[i].partitions);
	}
	if (page->next_page_token.n) {
		ask_lag(run, page->next_page_token);
		return;
	}
	if (run->name.n && !run->found)
		cli_fail(&cli_group, &(struct err){.code = ERR_NOT_FOUND,
						   .text = "there is no such group: `cairn group list` shows all"});
	cli_finish(&run->session, run->name.n && !run->found ? CLI_FINDING : CLI_OK);
}

static void ask_lag(struct group_run *run, struct span page_token)
{
	client_list_groups(run->session.client, run->name, page_token, run->options.common.timeout_ms, on_lag, run);
}

static void start_lag(struct group_run *run)
{
	ask_lag(run, (struct span){0});
}

/* ---- parked --------------------------------------------------------------------------------------- */

static const struct cli_column marks_columns[] = {
	{"stream", "STREAM", false}, {"state", "STATE", false}, {"position", "POSITION", true},
};

static void ask_marks(struct group_run *run, uint64_t from);

static void on_marks(const struct client_page_of_marks *page, const struct client_error *error, void *arg)
{
	struct group_run *run = arg;

	if (!page) {
		cli_finish(&run->session, cli_client_error(&run->session, error));
		return;
	}
	for (size_t i = 0; i < page->count; i++) {
		const struct client_group_mark *m = &page->marks[i];

		cli_field_text(run->out, "stream", m->stream);
		cli_field_text(run->out, "state",
			       m->parked ? (m->alone ? SPAN("parked alone") : SPAN("parked")) : SPAN("waits"));
		cli_field_u64(run->out, "position", m->parked ? m->parked_at : m->position);
		cli_row_end(run->out);
	}
	if (page->next)
		ask_marks(run, page->next);
	else
		cli_finish(&run->session, CLI_OK);
}

static void ask_marks(struct group_run *run, uint64_t from)
{
	client_list_group_marks(run->session.client, run->name, from, run->options.common.timeout_ms, on_marks, run);
}

static void start_marks(struct group_run *run)
{
	ask_marks(run, 0);
}

/* ---- replay, skip, park --------------------------------------------------------------------------- */

static const struct cli_column act_columns[] = {
	{"did", "DID", false},	      {"group", "GROUP", false},
	{"records", "RECORDS", true}, {"position", "AT POSITION", true},
};

static void on_acted(const struct client_group_acted *acted, const struct client_error *error, void *arg)
{
	struct group_run *run = arg;

	if (!acted) {
		cli_finish(&run->session, cli_client_error(&run->session, error));
		return;
	}
	cli_field_text(run->out, "did", span_str(run->did));
	cli_field_text(run->out, "group", run->name);
	cli_field_u64(run->out, "records", acted->records);
	cli_field_u64(run->out, "position", acted->cursor.position);
	cli_row_end(run->out);
	cli_finish(&run->session, CLI_OK);
}

static void start_act(struct group_run *run)
{
	const struct group_options *o = &run->options;
	struct client_group_act act = {.kind = run->kind,
				       .group = run->name,
				       .stream = span_str(o->stream),
				       .reason = span_str(o->reason),
				       .by_position = o->position != NO_POSITION,
				       .position = (uint64_t)o->position,
				       .goes_on = o->goes_on};

	client_act_on_group(run->session.client, &act, o->common.timeout_ms, on_acted, run);
}

/* ---- the command ---------------------------------------------------------------------------------- */

static const struct group_word {
	const char *name;
	bool needs_group, acts;
	enum client_group_act_kind kind;
	const char *did;
	const struct cli_column *columns;
	size_t column_count;
	void (*start)(struct group_run *run);
} words[] = {
	{"list", false, false, 0, NULL, list_columns, ARRAY_LEN(list_columns), start_list},
	{"lag", false, false, 0, NULL, lag_columns, ARRAY_LEN(lag_columns), start_lag},
	{"parked", true, false, 0, NULL, marks_columns, ARRAY_LEN(marks_columns), start_marks},
	{"replay", true, true, CLIENT_GROUP_REPLAY, "replayed", act_columns, ARRAY_LEN(act_columns), start_act},
	{"skip", true, true, CLIENT_GROUP_SKIP, "skipped", act_columns, ARRAY_LEN(act_columns), start_act},
	{"park", true, true, CLIENT_GROUP_PARK, "parked", act_columns, ARRAY_LEN(act_columns), start_act},
};

static const struct group_word *word_of(const struct cli_args *args)
{
	for (size_t i = 0; args->word_count && i < ARRAY_LEN(words); i++)
		if (!strcmp(args->words[0], words[i].name))
			return &words[i];
	return NULL;
}

/* False: *ret_exit says how it ends. */
static bool group_check(const struct group_run *run, const struct group_word *word, enum cli_exit *ret_exit)
{
	const struct group_options *o = &run->options;

	*ret_exit = CLI_USAGE;
	if (!word)
		cli_usage(&cli_group, "say what: list, lag, parked, replay, skip or park");
	else if (word->needs_group && !run->name.n)
		cli_usage(&cli_group, "name the group: cairn group %s GROUP", word->name);
	else if (word->acts && !o->reason[0])
		cli_usage(&cli_group, "say why, with --reason: it is recorded");
	else if (word->acts && word->kind == CLIENT_GROUP_PARK && o->position == NO_POSITION)
		cli_usage(&cli_group, "say which record is to be parked, with --position");
	else if (!word->acts || word->kind != CLIENT_GROUP_SKIP)
		return true;
	else
		return cli_confirmed(&cli_group, o->yes, "pass over what is parked in group", run->name, ret_exit);
	return false;
}

static enum cli_exit group_run(int argc, char *const argv[])
{
	struct group_run run = {0};
	struct cli_args args;
	enum cli_exit code = CLI_OK;

	if (cli_parse(&cli_group, group_rows, ARRAY_LEN(group_rows), argc, argv, &run.options, 2, &args, &code)) {
		const struct group_word *word = word_of(&args);

		run.name = span_str(args.word_count > 1 ? args.words[1] : NULL);
		if (group_check(&run, word, &code)) {
			run.kind = word->kind;
			run.did = word->did;
			run.out = cli_out_new(&run.options.common, word->columns, word->column_count);
			cli_session_open(&run.session, &run.options.common);
			word->start(&run);
			code = cli_wait(&run.session);
			cli_session_close(&run.session);
			code = cli_out_end(run.out, code);
		}
	}
	cli_args_release(&args);
	return code;
}

const struct cli_command cli_group = {
	.name = "group",
	.words = "list [PREFIX] | lag [GROUP] | parked GROUP | replay GROUP | skip GROUP | park GROUP --position N",
	.summary = "show what consumer groups are at, and replay or skip what they parked",
	.run = group_run,
};
