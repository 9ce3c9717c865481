/* Arguments of the sub-commands, on base/settings.h: flags may stand behind words, and -o is --output. */
#include <config.h>

#include "cli/session.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "base/must.h"

static const struct setting *row_of(const struct setting *rows, size_t n, const char *flag)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(rows[i].name, flag) == 0)
			return &rows[i];
	return NULL;
}

/* Does the word after this flag belong to it? */
static bool takes_value(const struct setting *rows, size_t n, const char *flag)
{
	const struct setting *row;

	if (strchr(flag, '='))
		return false;
	row = row_of(rows, n, flag + 2);
	return row && row->type != SETTING_BOOL;
}

/* Flags first, then "--" and the words, so that the settings see every flag. */
static char **argv_sorted(const struct setting *rows, size_t n, int argc, char *const argv[], int *ret_argc)
{
	char **sorted = mem_xalloc(((size_t)argc + 2) * sizeof(char *));
	char **words = mem_xalloc(((size_t)argc + 2) * sizeof(char *));
	int flag_count = 0, word_count = 0;
	bool only_words = false;

	for (int i = 0; i < argc; i++) {
		char *w = argv[i];

		if (i == 0) {
			sorted[flag_count++] = w;
		} else if (only_words || w[0] != '-' || strcmp(w, "-") == 0) {
			words[word_count++] = w;
		} else if (strcmp(w, "--") == 0) {
			only_words = true;
		} else if (strcmp(w, "-o") == 0 || strcmp(w, "-h") == 0) {
			static char output[] = "--output", help[] = "--help";

			sorted[flag_count++] = w[1] == 'o' ? output : help;
			if (w[1] == 'o' && i + 1 < argc)
				sorted[flag_count++] = argv[++i];
		} else {
			sorted[flag_count++] = w;
			if (w[1] == '-' && takes_value(rows, n, w) && i + 1 < argc)
				sorted[flag_count++] = argv[++i];
		}
	}
	static char end[] = "--";
	sorted[flag_count++] = end;
	memcpy(sorted + flag_count, words, (size_t)word_count * sizeof(char *));
	mem_free(words);
	*ret_argc = flag_count + word_count;
	return sorted;
}

bool cli_parse(const struct cli_command *self, const struct setting *rows, size_t row_count, int argc,
	       char *const argv[], void *conf, int max_words, struct cli_args *ret, enum cli_exit *ret_exit)
{
	char *program = mem_xprintf("cairn %s %s", self->name, self->words);
	struct err err = {0};
	int sorted_argc, rest = 0;
	bool exit_now = false;

	*ret = (struct cli_args){0};
	ret->argv = argv_sorted(rows, row_count, argc, argv, &sorted_argc);
	*ret_exit = CLI_OK;
	if (settings_load(program, self->summary, rows, row_count, sorted_argc, ret->argv, environ, conf,
			  &ret->settings, &rest, &exit_now, &err)) {
		*ret_exit = cli_usage(self, "%s", err.text);
		exit_now = true;
	} else if (!exit_now) {
		if (rest < sorted_argc && strcmp(ret->argv[rest], "--") == 0)
			rest++;
		ret->words = ret->argv + rest;
		ret->word_count = sorted_argc - rest;
		if (ret->word_count > max_words) {
			*ret_exit = cli_usage(self, "\"%s\" is one word too many", ret->words[max_words]);
			exit_now = true;
		}
	}
	mem_free(program);
	return !exit_now;
}

void cli_args_release(struct cli_args *args)
{
	settings_free(args->settings);
	mem_free(args->argv);
	*args = (struct cli_args){0};
}

enum cli_exit cli_usage(const struct cli_command *self, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "cairn %s: ", self->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nusage: cairn %s [flags] %s; all flags: cairn %s --help\n", self->name, self->words,
		self->name);
	return CLI_USAGE;
}

struct span *cli_split(const char *text, size_t *ret_count)
{
	struct span rest = span_str(text);
	struct span *list = mem_xalloc((rest.n + 1) * sizeof(*list));
	size_t n = 0;

	while (rest.n) {
		size_t comma = span_find(rest, ',');

		if (comma)
			list[n++] = span_first(rest, comma);
		rest = span_skip(rest, comma < rest.n ? comma + 1 : comma);
	}
	*ret_count = n;
	return list;
}

bool cli_confirmed(const struct cli_command *self, bool yes, const char *what, struct span name,
		   enum cli_exit *ret_exit)
{
	char line[16] = "";

	if (yes)
		return true;
	if (!isatty(STDIN_FILENO)) {
		*ret_exit = cli_usage(self, "there is no terminal to ask on: say --yes to %s %.*s", what,
				      SPAN_ARG(name));
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
