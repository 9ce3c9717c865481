/* Configuration from one table: flag over environment over file over default.
 *
 * A program lists its settings once, as rows that point into its own struct; parsing, --help, the
 * environment names (every flag --a-b is also CAIRN_A_B), --check-config and the tables of the manual
 * come from the same rows. Unknown flags and unknown keys of the file are errors that name the nearest
 * known one. Strings are owned by the settings object and live until settings_free().
 *
 *	static const struct setting rows[] = {
 *		{"listen", SETTING_STRING, offsetof(struct conf, listen), .fallback = "127.0.0.1:7117",
 *		 .help = "address and port to serve on"},
 *	};
 */
#ifndef CAIRN_BASE_SETTINGS_H
#define CAIRN_BASE_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

enum setting_type {
	SETTING_STRING, /* const char * */
	SETTING_BOOL,	/* bool: --x, --no-x, --x=true|false */
	SETTING_INT,	/* int64_t, with min and max */
	SETTING_SIZE,	/* int64_t bytes: 512, 64KiB, 1MiB, 2GiB */
	SETTING_TIME,	/* int64_t milliseconds: 100ms, 5s, 2m, 1h (a bare number is ms) */
	SETTING_CHOICE,	/* const char *, one of `choices` ("a|b|c") */
	SETTING_SECRET	/* const char *, also as --x-file / CAIRN_X_FILE; never printed */
};

struct setting {
	const char *name; /* "a-b": flag --a-b, environment CAIRN_A_B, file key a-b */
	enum setting_type type;
	size_t offset;		/* where the value goes in the program's struct */
	const char *fallback;	/* the default as text; NULL: NULL, 0, false */
	int64_t min, max;	/* INT, SIZE, TIME: allowed range when max > 0 */
	const char *choices;	/* CHOICE */
	const char *env_alias;	/* another environment name, weaker than CAIRN_A_B; or NULL */
	const char *value_name; /* shown in --help: --listen HOST:PORT; or NULL */
	const char *help;	/* one sentence; required */
	char letter;		/* 'o': also -o VALUE (a bool: -o); or 0 */
	enum err_code (*check)(const char *text, struct err *err); /* STRING: its form; or NULL */
};

struct settings;

/* Reads everything into *conf (the program's struct), or nothing on failure. argv[0] is skipped; parsing
 * stops at "--" or at the first word that is no flag: *ret_rest is the index of that word (of the "--"
 * itself), argc if there is none. --help, --version print to stdout and set *ret_exit; --check-config
 * does so after everything was read and found right. Of a flag given twice the last counts. env is
 * environ-like; an empty variable counts as unset. The file that --config or CAIRN_CONFIG names has lines
 * `name = value`; a line that begins with `#` is a comment. A wrong value's error names flag, variable or
 * file line, the value, and what is allowed. */
enum err_code settings_load(const char *program, const char *summary, const struct setting *rows,
			    size_t row_count, int argc, char *const argv[], char *const env[],
			    void *conf, struct settings **ret, int *ret_rest, bool *ret_exit,
			    struct err *err);
void settings_free(struct settings *s); /* NULL is fine */

/* The table for a manual: name, environment, default, help. */
void settings_print_table(const struct setting *rows, size_t row_count, FILE *out);

#endif
