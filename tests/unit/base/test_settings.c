#include <config.h>

#include "base/settings.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/text.h"

struct conf {
	const char *listen;
	bool tls, insecure;
	int64_t workers, size_bytes, wait_ms, any;
	const char *format, *token;
	int64_t guard;
};

static enum err_code check_listen(const char *text, struct err *to)
{
	if (strcmp(text, "nowhere") == 0)
		return err_set(to, ERR_INVALID, "\"%s\" is no address", text);
	return ERR_OK;
}

static const struct setting rows[] = {
	{"listen", SETTING_STRING, offsetof(struct conf, listen), .fallback = "127.0.0.1:7117",
	 .env_alias = "PORT", .value_name = "HOST:PORT", .help = "address and port to serve on",
	 .letter = 'l', .check = check_listen},
	{"tls", SETTING_BOOL, offsetof(struct conf, tls), .fallback = "true", .help = "use TLS",
	 .letter = 't'},
	{"insecure", SETTING_BOOL, offsetof(struct conf, insecure), .help = "serve everybody"},
	{"workers", SETTING_INT, offsetof(struct conf, workers), .fallback = "2", .min = 1, .max = 64,
	 .help = "threads"},
	{"max-size", SETTING_SIZE, offsetof(struct conf, size_bytes), .fallback = "1MiB", .min = 1024,
	 .max = 1 << 30, .help = "the largest thing"},
	{"wait", SETTING_TIME, offsetof(struct conf, wait_ms), .fallback = "5s", .min = 0, .max = 3600000,
	 .help = "how long to wait"},
	{"any", SETTING_INT, offsetof(struct conf, any), .help = "any number"},
	{"output", SETTING_CHOICE, offsetof(struct conf, format), .fallback = "table",
	 .choices = "table|json|jsonl", .help = "how data is printed", .letter = 'o'},
	{"token", SETTING_SECRET, offsetof(struct conf, token), .help = "what to log in with"},
};

static struct conf conf;
static struct settings *loaded;
static struct err err;
static int rest;
static bool exits;
static char dir[] = "/tmp/cairn-settings-XXXXXX";

static char *env[16];
static char *args[16];

static char *path_of(const char *name)
{
	static char path[64];
	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void file_put(const char *name, struct span text)
{
	FILE *f = fopen(path_of(name), "w");
	cr_assert(f);
	cr_assert(fwrite(text.p, 1, text.n, f) == text.n);
	fclose(f);
}

static void setup(void)
{
	cr_assert(mkdtemp(dir));
}
static void teardown(void)
{
	static const char *const names[] = {"conf", "secret", "out"};
	settings_free(loaded);
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		unlink(path_of(names[i]));
	cr_assert(rmdir(dir) == 0);
}
TestSuite(settings, .init = setup, .fini = teardown);

static void words_set(char *to[16], const char *const *words, size_t count)
{
	must(count < 16);
	memset(to, 0, 16 * sizeof(*to));
	memcpy(to, words, count * sizeof(*to));
}
#define WORDS(...) ((const char *const[]){__VA_ARGS__}), ARRAY_LEN(((const char *const[]){__VA_ARGS__}))
#define ARGS(...) words_set(args, WORDS("cairnd", __VA_ARGS__))
#define ENV(...) words_set(env, WORDS(__VA_ARGS__))

static enum err_code load(void)
{
	int argc = 1;
	settings_free(loaded);
	loaded = NULL;
	err_clear(&err);
	if (!args[0])
		ARGS(NULL);
	while (args[argc])
		argc++;
	memset(&conf, 0, sizeof(conf));
	conf.guard = 42;
	rest = -1;
	exits = false;
	return settings_load("cairnd", "The journal server.", rows, ARRAY_LEN(rows), argc, args, env, &conf,
			     &loaded, &rest, &exits, &err);
}
static void fails(const char *want)
{
	cr_assert(load() != ERR_OK, "this should have failed: %s", want);
	cr_assert(strcmp(err.text, want) == 0, "\n got: %s\nwant: %s", err.text, want);
	cr_assert(loaded == NULL && rest == -1 && !exits && conf.listen == NULL, "outputs only on success");
}

Test(settings, defaults)
{
	cr_assert(load() == ERR_OK, "%s", err.text);
	cr_assert_str_eq(conf.listen, "127.0.0.1:7117");
	cr_assert(conf.tls && !conf.insecure);
	cr_assert(conf.workers == 2 && conf.size_bytes == 1 << 20 && conf.wait_ms == 5000 && conf.any == 0);
	cr_assert_str_eq(conf.format, "table");
	cr_assert(conf.token == NULL);
	cr_assert(conf.guard == 42);
	cr_assert(rest == 1 && !exits);
}

Test(settings, flag_over_environment_over_alias_over_file_over_default)
{
	file_put("conf", SPAN("listen = file\n"));
	char config[80];
	snprintf(config, sizeof(config), "CAIRN_CONFIG=%s", path_of("conf"));
	ENV(config);
	cr_assert(load() == ERR_OK, "%s", err.text);
	cr_assert_str_eq(conf.listen, "file");
	ENV(config, "PORT=alias");
	cr_assert(load() == ERR_OK);
	cr_assert_str_eq(conf.listen, "alias");
	ENV(config, "CAIRN_LISTEN=environment", "PORT=alias");
	cr_assert(load() == ERR_OK);
	cr_assert_str_eq(conf.listen, "environment");
	ARGS("--listen", "flag");
	cr_assert(load() == ERR_OK);
	cr_assert_str_eq(conf.listen, "flag");
	ARGS("--listen", "flag", "--listen=again");
	cr_assert(load() == ERR_OK);
	cr_assert_str_eq(conf.listen, "again", "the last of two flags counts");
}

Test(settings, config_flag_wins_over_its_variable)
{
	file_put("conf", SPAN("workers=7"));
	ENV("CAIRN_CONFIG=/nonexistent");
	ARGS("--config", path_of("conf"));
	cr_assert(load() == ERR_OK, "%s", err.text);
	cr_assert(conf.workers == 7);
}

Test(settings, an_empty_variable_counts_as_unset)
{
	ENV("CAIRN_WORKERS=", "CAIRN_CONFIG=", "PORT=", "CAIRN_LISTENER=x");
	cr_assert(load() == ERR_OK, "%s", err.text);
	cr_assert(conf.workers == 2);
	cr_assert_str_eq(conf.listen, "127.0.0.1:7117");
}

Test(settings, flags_in_every_form)
{
	ARGS("--workers=3", "--wait", "2m", "--no-tls", "--insecure", "-o", "json", "-lhost:1", "--any",
	     "-5");
	cr_assert(load() == ERR_OK, "%s", err.text);
	cr_assert(conf.workers == 3 && conf.wait_ms == 120000 && !conf.tls && conf.insecure &&
		  conf.any == -5);
	cr_assert_str_eq(conf.format, "json");
	cr_assert_str_eq(conf.listen, "host:1");
	ARGS("--tls=false", "--insecure=true");
	cr_assert(load() == ERR_OK);
	cr_assert(!conf.tls && conf.insecure);
	ARGS("--no-tls", "-t");
	cr_assert(load() == ERR_OK);
	cr_assert(conf.tls);
	ARGS("--listen=");
	cr_assert(load() == ERR_OK);
	cr_assert_str_eq(conf.listen, "");
}

Test(settings, stops_at_the_first_word_that_is_no_flag)
{
	ARGS("--workers", "3", "word", "--workers", "4");
	cr_assert(load() == ERR_OK);
	cr_assert(rest == 3 && conf.workers == 3);
	ARGS("--workers", "3", "--", "--workers", "4");
	cr_assert(load() == ERR_OK);
	cr_assert(rest == 3 && conf.workers == 3);
	ARGS("-", "--workers", "4");
	cr_assert(load() == ERR_OK);
	cr_assert(rest == 1);
}

Test(settings, booleans_sizes_and_times_as_people_write_them)
{
	static const struct {
		const char *env;
		int64_t bytes, ms;
	} cases[] = {
		{"CAIRN_MAX_SIZE=1024", 1024, 5000},	    {"CAIRN_MAX_SIZE=64KiB", 65536, 5000},
		{"CAIRN_MAX_SIZE=3MiB", 3 << 20, 5000},	    {"CAIRN_MAX_SIZE=1GiB", 1 << 30, 5000},
		{"CAIRN_WAIT=0", 1 << 20, 0},		    {"CAIRN_WAIT=250", 1 << 20, 250},
		{"CAIRN_WAIT=100ms", 1 << 20, 100},	    {"CAIRN_WAIT=5s", 1 << 20, 5000},
		{"CAIRN_WAIT=2m", 1 << 20, 120000},	    {"CAIRN_WAIT=1h", 1 << 20, 3600000},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		ENV(cases[i].env);
		cr_assert(load() == ERR_OK, "%s", err.text);
		cr_assert(conf.size_bytes == cases[i].bytes && conf.wait_ms == cases[i].ms, "%s",
			  cases[i].env);
	}
	ENV("CAIRN_TLS=no", "CAIRN_INSECURE=1");
	cr_assert(load() == ERR_OK);
	cr_assert(!conf.tls && conf.insecure);
}

Test(settings, file_has_comments_blanks_and_values_with_anything)
{
	file_put("conf", SPAN("# a comment\r\n\n   # another\n\tlisten\t=  host:1 # no comment = here \r\n"
			      "workers=5\nany =\t-9\noutput = jsonl"));
	ARGS("--config", path_of("conf"));
	cr_assert(load() == ERR_OK, "%s", err.text);
	cr_assert_str_eq(conf.listen, "host:1 # no comment = here");
	cr_assert(conf.workers == 5 && conf.any == -9);
	cr_assert_str_eq(conf.format, "jsonl");
	file_put("conf", SPAN(""));
	cr_assert(load() == ERR_OK);
	file_put("conf", SPAN("listen =\n"));
	cr_assert(load() == ERR_OK);
	cr_assert_str_eq(conf.listen, "");
}

Test(settings, secrets_come_from_a_file_or_directly)
{
	file_put("secret", SPAN("s3cret\r\n"));
	char flag[80], variable[90], line[90];
	snprintf(flag, sizeof(flag), "--token-file=%s", path_of("secret"));
	snprintf(variable, sizeof(variable), "CAIRN_TOKEN_FILE=%s", path_of("secret"));
	snprintf(line, sizeof(line), "token-file = %s\n", path_of("secret"));
	ARGS(flag);
	cr_assert(load() == ERR_OK, "%s", err.text);
	cr_assert_str_eq(conf.token, "s3cret");
	ARGS("--token=direct");
	ENV(variable);
	cr_assert(load() == ERR_OK);
	cr_assert_str_eq(conf.token, "direct", "a flag wins over the variable, whichever of the two it is");
	ARGS("--workers=2");
	cr_assert(load() == ERR_OK);
	cr_assert_str_eq(conf.token, "s3cret");
	file_put("conf", span_str(line));
	ARGS("--config", path_of("conf"));
	ENV("NOTHING=1");
	cr_assert(load() == ERR_OK, "%s", err.text);
	cr_assert_str_eq(conf.token, "s3cret");
}

Test(settings, a_text_of_the_wrong_form_is_refused_with_its_origin)
{
	ARGS("--listen=nowhere");
	fails("--listen: \"nowhere\" is no address");
	ARGS("--check-config");
	ENV("CAIRN_LISTEN=nowhere");
	fails("CAIRN_LISTEN: \"nowhere\" is no address");
	ARGS("--listen=host:1"); /* a weaker source's value is not looked at */
	cr_assert(load() == ERR_OK, "%s", err.text);
	file_put("conf", SPAN("listen = nowhere\n"));
	ARGS("--config", path_of("conf"));
	ENV("NOTHING=1");
	cr_assert(load() != ERR_OK);
	cr_assert(strstr(err.text, "conf:1: listen: \"nowhere\" is no address"), "%s", err.text);
}

Test(settings, wrong_flags_are_named_with_the_nearest)
{
	ARGS("--lisen", "x");
	fails("unknown flag --lisen; did you mean --listen?");
	ARGS("--wiat=5s");
	fails("unknown flag --wiat; did you mean --wait?");
	ARGS("--check-conf");
	fails("unknown flag --check-conf; did you mean --check-config?");
	ARGS("--zzzzzzzz");
	fails("unknown flag --zzzzzzzz; --help lists all");
	ARGS("-x");
	fails("unknown flag -x; --help lists all");
	ARGS("--no-listen");
	cr_assert(load() == ERR_INVALID);
	cr_assert(strncmp(err.text, "unknown flag --no-listen;", 25) == 0);
	ARGS("--listen-file=x");
	cr_assert(load() == ERR_INVALID, "only secrets come from files");
	char longest[300];
	memset(longest, 'x', sizeof(longest) - 1);
	longest[0] = longest[1] = '-';
	longest[sizeof(longest) - 1] = 0;
	ARGS(longest);
	cr_assert(load() == ERR_INVALID);
}

Test(settings, flags_without_their_value_or_with_one_too_many)
{
	ARGS("--listen");
	fails("--listen needs a value: --listen HOST:PORT");
	ARGS("-o");
	fails("-o needs a value: -o VALUE");
	ARGS("--config");
	fails("--config needs a value: --config FILE");
	ARGS("--no-tls=true");
	fails("--no-tls takes no value");
	ARGS("--help=yes");
	fails("--help takes no value");
	ARGS("-tx");
	fails("-t takes no value");
}

Test(settings, wrong_values_name_origin_value_and_what_is_allowed)
{
	ARGS("--workers=abc");
	fails("--workers: \"abc\" is not a whole number from 1 to 64");
	ARGS("--workers", "65");
	fails("--workers: \"65\" is not a whole number from 1 to 64");
	ARGS("--workers", "0");
	fails("--workers: \"0\" is not a whole number from 1 to 64");
	ARGS("--any=9223372036854775808");
	fails("--any: \"9223372036854775808\" is not a whole number");
	ARGS("--insecure=maybe");
	fails("--insecure: \"maybe\" is neither true nor false");
	ARGS("-o", "xml");
	fails("-o: \"xml\" is not one of table|json|jsonl");
	ARGS("--output=");
	fails("--output: \"\" is not one of table|json|jsonl");
	ARGS("--workers=1");
	ENV("CAIRN_MAX_SIZE=1MB");
	fails("CAIRN_MAX_SIZE: \"1MB\" is not a size (like 512, 64KiB, 1MiB, 2GiB) from 1KiB to 1GiB");
	ENV("CAIRN_MAX_SIZE=99999999999TiB");
	fails("CAIRN_MAX_SIZE: \"99999999999TiB\" is not a size (like 512, 64KiB, 1MiB, 2GiB) from 1KiB to "
	      "1GiB");
	ENV("CAIRN_WAIT=-1s");
	fails("CAIRN_WAIT: \"-1s\" is not a time (like 100ms, 5s, 2m, 1h) from 0 to 1h");
	ENV("CAIRN_WAIT=5 s");
	fails("CAIRN_WAIT: \"5 s\" is not a time (like 100ms, 5s, 2m, 1h) from 0 to 1h");
}

static void file_fails(struct span text, const char *tail)
{
	char want[200];
	file_put("conf", text);
	ARGS("--config", path_of("conf"));
	snprintf(want, sizeof(want), "%s%s", path_of("conf"), tail);
	fails(want);
}

static void file_is_no_text(struct span text, int line)
{
	char want[200];
	file_put("conf", text);
	ARGS("--config", path_of("conf"));
	snprintf(want, sizeof(want), "--config: %s:%d: this line is not UTF-8 text", path_of("conf"), line);
	fails(want);
}

Test(settings, wrong_lines_of_the_file_are_named)
{
	file_fails(SPAN("# ok\nlisten host\n"), ":2: this is no line of the form \"name = value\"");
	file_fails(SPAN("= 5\n"), ":1: this is no line of the form \"name = value\"");
	file_fails(SPAN("\n\nmaxsize = 5\n"), ":3: unknown key \"maxsize\"; did you mean \"max-size\"?");
	file_fails(SPAN("qqqqqqqq = 5\n"), ":1: unknown key \"qqqqqqqq\"; --help lists all");
	file_fails(SPAN("config = x\n"), ":1: unknown key \"config\"; --help lists all");
	file_fails(SPAN("workers = 99\n"), ":1: workers: \"99\" is not a whole number from 1 to 64");
	file_fails(SPAN("workers = 9\nworkers = 8\n"), ":2: workers is given twice: take one line out");
	/* Nothing behind a NUL is silently passed over. */
	file_is_no_text(SPAN("# ok\n\nworkers = 9\0\n"), 3);
	file_is_no_text(SPAN("# no\0 comment\nworkers = 9\n"), 1);
	file_is_no_text(SPAN("workers = 9\n\0"), 2);
	file_is_no_text(SPAN("workers = 9\n# \xc3\n"), 2);
}

Test(settings, a_config_file_that_cannot_be_read)
{
	ARGS("--config=/nonexistent/x");
	fails("--config: open /nonexistent/x: No such file or directory");
	ARGS("--workers=2");
	ENV("CAIRN_CONFIG=/");
	fails("CAIRN_CONFIG: read /: Is a directory");
	char want[200];
	file_put("conf", SPAN("listen = \xFF\n"));
	ARGS("--config", path_of("conf"));
	snprintf(want, sizeof(want), "--config: %s:1: this line is not UTF-8 text", path_of("conf"));
	fails(want);
	file_put("conf", SPAN("listen = a\0b\n"));
	fails(want);
	char *big = mem_xalloc(LIMIT_CONFIG_FILE_BYTES + 1);
	memset(big, '\n', LIMIT_CONFIG_FILE_BYTES + 1);
	file_put("conf", span_of(big, LIMIT_CONFIG_FILE_BYTES));
	cr_assert(load() == ERR_OK, "exactly the limit is allowed");
	file_put("conf", span_of(big, LIMIT_CONFIG_FILE_BYTES + 1));
	snprintf(want, sizeof(want), "--config: %s is longer than 1048576 bytes", path_of("conf"));
	settings_free(loaded);
	loaded = NULL;
	fails(want);
	mem_free(big);
	mem_test_fail_at(1);
	snprintf(want, sizeof(want), "--config: read %s: out of memory", path_of("conf"));
	fails(want);
	mem_test_fail_at(0);
}

Test(settings, a_secret_that_cannot_be_read_or_is_given_twice)
{
	ARGS("--token-file=/nonexistent");
	fails("--token-file: open /nonexistent: No such file or directory");
	ARGS("--token-file=/nonexistent", "--token=x");
	fails("--token-file and --token are both given: give one");
	ARGS("--workers=2");
	ENV("CAIRN_TOKEN=a", "CAIRN_TOKEN_FILE=b");
	fails("CAIRN_TOKEN and CAIRN_TOKEN_FILE are both given: give one");
	ENV("NOTHING=1");
	char want[200];
	file_put("conf", SPAN("token = a\ntoken-file = b\n"));
	ARGS("--config", path_of("conf"));
	snprintf(want, sizeof(want), "%s:1: token and %s:2: token-file are both given: give one", dir, dir);
	cr_assert(load() == ERR_INVALID);
	cr_assert(strstr(err.text, "conf:1: token and "), "%s", err.text);
	cr_assert(strstr(err.text, "conf:2: token-file are both given: give one"), "%s", err.text);
}

/* What load() prints on stdout. */
static const char *printed(void)
{
	static char text[10000];
	fflush(stdout);
	int saved = dup(STDOUT_FILENO);
	cr_assert(freopen(path_of("out"), "w", stdout));
	cr_assert(load() == ERR_OK, "%s", err.text);
	fflush(stdout);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	FILE *f = fopen(path_of("out"), "r");
	text[fread(text, 1, sizeof(text) - 1, f)] = 0;
	fclose(f);
	return text;
}

Test(settings, help_lists_every_flag_within_a_hundred_columns)
{
	ARGS("--help", "--what-comes-after-does-not-matter");
	const char *text = printed();
	cr_assert(exits);
	cr_assert(strstr(text, "Usage: cairnd "), "%s", text);
	cr_assert(strstr(text, "\nThe journal server.\n"));
	cr_assert(strstr(text, "  -l, --listen HOST:PORT      address and port to serve on (default "
			       "127.0.0.1:7117); also from the"), "%s", text);
	cr_assert(strstr(text, "\n  -o, --output table|json|jsonl\n                              how data"),
		  "%s", text);
	cr_assert(strstr(text, "\n      --insecure              serve everybody\n"), "%s", text);
	cr_assert(strstr(text, "CAIRN_A_B"));
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		cr_assert(strstr(text, rows[i].name));
	}
	for (const char *line = text; *line; line = strchr(line, '\n') + 1) {
		size_t n = strcspn(line, "\n"), columns = 0;
		for (size_t k = 0; k < n; k++)
			columns += ((unsigned char)line[k] & 0xC0) != 0x80;
		cr_assert(columns <= 100, "%.*s", (int)n, line);
		cr_assert(n == 0 || line[n - 1] != ' ', "trailing blank: %.*s|", (int)n, line);
	}
	ARGS("-h");
	printed();
	cr_assert(exits);
}

Test(settings, version)
{
	ARGS("--version");
	cr_assert_str_eq(printed(), "cairnd " PACKAGE_VERSION "\n");
	cr_assert(exits);
}

Test(settings, check_config_prints_what_is_in_force_but_no_secret)
{
	ARGS("--check-config", "--workers=3", "--token=s3cret", "--no-tls");
	ENV("CAIRN_OUTPUT=json");
	cr_assert_str_eq(printed(), "# listen = 127.0.0.1:7117\ntls = false\n# insecure = false\nworkers = 3\n"
				    "# max-size = 1MiB\n# wait = 5s\n# any = \noutput = json\n"
				    "# token is set by --token\n");
	cr_assert(exits);
	ENV("CAIRN_OUTPUT=xml");
	fails("CAIRN_OUTPUT: \"xml\" is not one of table|json|jsonl");
}

Test(settings, what_check_config_prints_is_a_config_file)
{
	ARGS("--check-config", "--workers=3", "--listen=host:1");
	const char *text = printed();
	file_put("conf", span_str(text));
	ARGS("--config", path_of("conf"));
	cr_assert(load() == ERR_OK, "%s", err.text);
	cr_assert(conf.workers == 3);
	cr_assert_str_eq(conf.listen, "host:1");
}

Test(settings, table_for_the_manual)
{
	char text[4000] = "";
	FILE *f = fmemopen(text, sizeof(text), "w");
	settings_print_table(rows, ARRAY_LEN(rows), f);
	fclose(f);
	cr_assert(strstr(
		text, "| `--listen` | `CAIRN_LISTEN` | `127.0.0.1:7117` | address and port to serve on |\n"));
	cr_assert(strstr(text, "| `--max-size` | `CAIRN_MAX_SIZE` | `1MiB` | the largest thing |\n"));
	cr_assert(strstr(text, "| `--token-file` | `CAIRN_TOKEN_FILE` |  | what to log in with |\n"), "%s",
		  text);
}

Test(settings, the_error_may_be_of_no_interest)
{
	ARGS("--nope");
	cr_assert(settings_load("x", "s", rows, ARRAY_LEN(rows), 2, args, NULL, &conf, &loaded, &rest, &exits,
				NULL) == ERR_INVALID);
	settings_free(NULL);
}

Test(settings, a_wrong_default_is_our_bug, .signal = SIGABRT)
{
	static const struct setting wrong[] = {
		{"n", SETTING_INT, 0, .fallback = "x", .help = "a number"},
	};
	int64_t n;
	ARGS(NULL);
	settings_load("x", "s", wrong, 1, 1, args, NULL, &n, &loaded, &rest, &exits, &err);
}
