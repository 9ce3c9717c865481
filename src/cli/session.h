/* What the sub-commands on a journal share: arguments, the connection, output.
 *
 * A sub-command parses its arguments with cli_parse(), opens a session, starts what it wants of the
 * client (journal/client.h), calls cli_wait() until a callback has called cli_finish(), and returns an
 * exit code. One thread. */
#ifndef CAIRN_CLI_SESSION_H
#define CAIRN_CLI_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/settings.h"
#include "base/span.h"
#include "cli/cli.h"
#include "record/record.h"

struct client;
struct client_error;
struct loop;

/* ---- arguments ------------------------------------------------------------------------------------ */

/* Options that every command on a journal has; the first member of its own options. */
struct cli_options {
	const char *journal;
	const char *output;
	int64_t timeout_ms;
};
#define CLI_OPTION_ROWS \
	{.name = "journal", .type = SETTING_STRING, .offset = offsetof(struct cli_options, journal), \
	 .fallback = "127.0.0.1:7117", .value_name = "HOST:PORT", .help = "The journal to talk to."}, \
	{.name = "output", .type = SETTING_CHOICE, .offset = offsetof(struct cli_options, output), \
	 .fallback = "table", .choices = "table|json|jsonl", \
	 .help = "How data is printed, also -o: a table, one JSON array, or one JSON object a line."}, \
	{.name = "timeout", .type = SETTING_TIME, .offset = offsetof(struct cli_options, timeout_ms), \
	 .fallback = "10s", .min = 1, .max = 86400000, \
	 .help = "How long to wait for the journal's answer."}

struct cli_args {
	struct settings *settings;
	char **argv;  /* flags first */
	char **words; /* what is no flag */
	int word_count;
};
/* argv[0] is the command's name. Flags may stand anywhere before "--". True: go on; false: return *ret_exit.
 * cli_args_release() in either case. */
bool cli_parse(const struct cli_command *self, const struct setting *rows, size_t row_count, int argc,
	       char *const argv[], void *conf, int max_words, struct cli_args *ret, enum cli_exit *ret_exit);
void cli_args_release(struct cli_args *args);
/* Prints "cairn COMMAND: ..." and where to find help; returns CLI_USAGE. */
enum cli_exit cli_usage(const struct cli_command *self, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));
/* Before something that cannot be undone, which is said in the question: an answer on a terminal, --yes elsewhere.
 * False: nothing is to be done, and *ret_exit says how it ends. */
bool cli_confirmed(const struct cli_command *self, bool yes, const char *what, struct span name,
		   enum cli_exit *ret_exit);
/* "a,b,c" as spans of text; mem_free() them. */
struct span *cli_split(const char *text, size_t *ret_count);

/* ---- session ---------------------------------------------------------------------------------------- */

struct cli_session {
	struct loop *loop;
	struct client *client;
	const char *target;
	bool finished, closing;
	bool connected; /* it has been */
	bool interrupted; /* by SIGINT or SIGTERM */
	enum cli_exit exit;
	void (*on_interrupt)(void *arg); /* NULL: the process ends by the signal as usual */
	void *arg;
};
/* A journal that refuses the first connection ends the wait at once, with CLI_UNREACHABLE. */
void cli_session_open(struct cli_session *s, const struct cli_options *options);
void cli_session_close(struct cli_session *s);
/* SIGINT and SIGTERM call fn instead of ending the process. */
void cli_session_catch(struct cli_session *s, void (*fn)(void *arg), void *arg);
/* Runs the loop until cli_finish(); returns the exit code that it was given. */
enum cli_exit cli_wait(struct cli_session *s);
void cli_finish(struct cli_session *s, enum cli_exit exit); /* the first one counts */
/* Says what the client's error was; returns the exit code. */
enum cli_exit cli_client_error(struct cli_session *s, const struct client_error *error);

/* ---- output ----------------------------------------------------------------------------------------- */

struct cli_column {
	const char *key, *title;
	bool right; /* numbers */
};

struct cli_out;
/* Columns: those of the table, by the keys of the rows; JSON has every field. */
struct cli_out *cli_out_new(const struct cli_options *options, const struct cli_column *columns, size_t n);
/* Fields of the row that comes next, in order. */
void cli_field_text(struct cli_out *out, const char *key, struct span text);
void cli_field_u64(struct cli_out *out, const char *key, uint64_t value);
void cli_field_bool(struct cli_out *out, const char *key, bool value);
void cli_field_time(struct cli_out *out, const char *key, struct wall_time time);
void cli_field_uuid(struct cli_out *out, const char *key, struct span id);
/* data as JSON if it is JSON, as `data_text` if it is text, else as `data_base64`. */
void cli_field_data(struct cli_out *out, struct span data, struct span content_type);
void cli_field_metadata(struct cli_out *out, const struct record_view *record);
void cli_field_texts(struct cli_out *out, const char *key, const struct span *items, size_t n);
/* An object of numbers. */
void cli_field_numbers(struct cli_out *out, const char *key, const struct span *names,
		       const uint64_t *values, size_t n);
void cli_row_end(struct cli_out *out);
bool cli_out_is_table(const struct cli_out *out);
/* All of a record. */
void cli_row_record(struct cli_out *out, const struct record_view *record);
void cli_out_flush(struct cli_out *out); /* tables wait for rows to measure: no longer */
/* Ends the output and frees; CLI_OK, or what to return when stdout could not be written. */
enum cli_exit cli_out_close(struct cli_out *out);
/* The same after something that may have failed with `code`, which wins: then nothing is printed but the
 * rows there were. */
enum cli_exit cli_out_end(struct cli_out *out, enum cli_exit code);
extern const struct cli_column cli_record_columns[];
extern const size_t cli_record_column_count;

/* ---- what functions have said their records are --------------------------------------------------- */

struct cli_schemas;
struct cli_schemas *cli_schemas_new(void);
void cli_schemas_free(struct cli_schemas *s); /* NULL is fine; not while they are loaded */
/* Once; done(arg) follows, whatever could be had. */
void cli_schemas_load(struct cli_schemas *s, struct client *client, int64_t timeout_ms, void (*done)(void *arg),
		      void *arg);
/* The record's data as JSON in *out (cleared first); false: its type is not known, or its data is none of it. */
bool cli_schemas_print(const struct cli_schemas *s, const struct record_view *record, struct buf *out);
/* From now on records are shown so; borrowed, NULL: as they are. */
void cli_out_decode(struct cli_out *out, const struct cli_schemas *s);

/* Is it JSON as a whole? Checked strictly. */
bool cli_is_json(struct span text);

#endif
