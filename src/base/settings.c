#include <config.h>

#include "base/settings.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/text.h"

#define HELP_COLUMNS 100
#define HELP_INDENT 30

/* Where a value comes from; the higher wins. */
enum level { LEVEL_DEFAULT, LEVEL_FILE, LEVEL_ALIAS, LEVEL_ENV, LEVEL_FLAG };

struct found {
	enum level level;
	bool is_path;	    /* text names a file that holds the value (SETTING_SECRET) */
	const char *text;   /* NULL: no value */
	const char *origin; /* for messages: "--a-b", "CAIRN_A_B", "FILE:3: a-b" */
};

union value {
	const char *text;
	bool yes;
	int64_t number;
};

/* Everything that one settings_load() allocated and its caller may see. */
struct settings {
	char **kept;
	size_t kept_count;
};

struct load {
	const char *program, *summary;
	const struct setting *rows;
	size_t row_count;
	struct settings *owner;
	struct found *found; /* one a row */
	const char *config_path, *config_origin;
	bool check_only, exit;
	struct err *err;
};

/* The flags that every program has. */
static const struct setting builtin[] = {
	{.name = "config", .value_name = "FILE", .help = "read settings from FILE, lines of `name = value`"},
	{.name = "check-config", .type = SETTING_BOOL, .help = "check all settings, print them and exit"},
	{.name = "help", .type = SETTING_BOOL, .letter = 'h', .help = "print this and exit"},
	{.name = "version", .type = SETTING_BOOL, .help = "print the version and exit"},
};

static const char *keep(struct settings *s, char *text)
{
	s->kept = mem_xrealloc(s->kept, (s->kept_count + 1) * sizeof(*s->kept));
	s->kept[s->kept_count++] = text;
	return text;
}

void settings_free(struct settings *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->kept_count; i++) {
		/* Some of it is secret, and memory is handed on. */
		explicit_bzero(s->kept[i], strlen(s->kept[i]));
		mem_free(s->kept[i]);
	}
	mem_free(s->kept);
	mem_free(s);
}

/* --- names ------------------------------------------------------------------------------------- */

/* The number of single-character edits (one of which is swapping two neighbours) from a to b. */
static size_t edit_distance(const char *a, const char *b)
{
	enum { MAX = 64 };
	size_t rows[3][MAX + 1], n = strlen(a), m = strlen(b);
	if (n > MAX || m > MAX)
		return MAX;
	for (size_t k = 0; k <= m; k++)
		rows[0][k] = k;
	for (size_t i = 1; i <= n; i++) {
		size_t *now = rows[i % 3], *before = rows[(i + 2) % 3], *earlier = rows[(i + 1) % 3];
		now[0] = i;
		for (size_t k = 1; k <= m; k++) {
			size_t best = before[k - 1] + (a[i - 1] != b[k - 1]);
			if (before[k] + 1 < best)
				best = before[k] + 1;
			if (now[k - 1] + 1 < best)
				best = now[k - 1] + 1;
			if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1] &&
			    earlier[k - 2] + 1 < best)
				best = earlier[k - 2] + 1;
			now[k] = best;
		}
	}
	return rows[n % 3][m];
}

static void nearest_of(const struct setting *rows, size_t count, const char *name, const char **best,
		       size_t *distance)
{
	for (size_t i = 0; i < count; i++) {
		size_t d = edit_distance(name, rows[i].name);
		if (d < *distance) {
			*distance = d;
			*best = rows[i].name;
		}
	}
}

/* The known name that was probably meant, or NULL. */
static const char *nearest(const struct load *l, const char *name, bool with_builtin)
{
	const char *best = NULL;
	size_t distance = strlen(name) / 3 + 2;
	nearest_of(l->rows, l->row_count, name, &best, &distance);
	if (with_builtin)
		nearest_of(builtin, ARRAY_LEN(builtin), name, &best, &distance);
	return best;
}

static const struct setting *row_find(const struct setting *rows, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(rows[i].name, name) == 0)
			return &rows[i];
	return NULL;
}

/* Finds a row by name, or a secret's row by "name-file"; NULL if there is none. */
static const struct setting *row_lookup(const struct load *l, const char *name, bool *ret_is_path)
{
	const struct setting *row = row_find(l->rows, l->row_count, name);
	size_t n = strlen(name);
	*ret_is_path = false;
	if (row || n <= 5 || strcmp(name + n - 5, "-file") != 0)
		return row;
	char *stem = mem_xdup(name, n - 5);
	row = row_find(l->rows, l->row_count, stem);
	mem_free(stem);
	*ret_is_path = true;
	return row && row->type == SETTING_SECRET ? row : NULL;
}

/* CAIRN_A_B of "a-b"; the caller frees it. */
static char *env_name(const char *name, const char *suffix)
{
	char *text = mem_xprintf("CAIRN_%s%s", name, suffix);
	for (char *at = text; *at; at++)
		*at = *at == '-' ? '_' : (char)toupper((unsigned char)*at);
	return text;
}

/* --- values ------------------------------------------------------------------------------------ */

struct unit {
	const char *name;
	int64_t factor;
};
static const struct unit size_units[] = {
	{"TiB", (int64_t)1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}, {NULL, 0}};
static const struct unit time_units[] = {{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000},
					 {"ms", 1},	  {"", 1},	  {NULL, 0}};

static const struct unit *units_of(enum setting_type type)
{
	return type == SETTING_SIZE ? size_units : type == SETTING_TIME ? time_units : NULL;
}

static bool unit_parse(const char *text, const struct unit *units, int64_t *ret)
{
	size_t digits = strspn(text, "0123456789");
	int64_t v;
	if (!parse_i64(span_of(text, digits), &v))
		return false;
	for (; units->name; units++)
		if (strcmp(text + digits, units->name) == 0)
			return !__builtin_mul_overflow(v, units->factor, ret);
	return false;
}

/* The number as a person would write it: with the largest unit that divides it. */
static void number_format(const struct setting *row, int64_t v, char out[32])
{
	const struct unit *u = units_of(row->type);
	while (u && u->name[0] && (v == 0 || v % u->factor))
		u++;
	int n = snprintf(out, 32, "%lld%s", (long long)(u ? v / u->factor : v), u ? u->name : "");
	must(n > 0 && n < 32);
}

static enum err_code number_parse(const struct setting *row, const struct found *f, int64_t *ret,
				  struct err *err)
{
	const struct unit *units = units_of(row->type);
	const char *kind = row->type == SETTING_SIZE   ? "a size (like 512, 64KiB, 1MiB, 2GiB)"
			   : row->type == SETTING_TIME ? "a time (like 100ms, 5s, 2m, 1h)"
						       : "a whole number";
	char low[32], high[32];
	int64_t v;
	bool ok = units ? unit_parse(f->text, units, &v) : parse_i64(span_str(f->text), &v);
	number_format(row, row->min, low);
	number_format(row, row->max, high);
	if (ok && (row->max <= 0 || (v >= row->min && v <= row->max))) {
		*ret = v;
		return ERR_OK;
	}
	if (row->max <= 0)
		return err_set(err, ERR_INVALID, "%s: \"%s\" is not %s", f->origin, f->text, kind);
	return err_set(err, ERR_INVALID, "%s: \"%s\" is not %s from %s to %s", f->origin, f->text, kind, low,
		       high);
}

static enum err_code bool_parse(const struct found *f, bool *ret, struct err *err)
{
	static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (strcmp(f->text, words[i]) == 0) {
			*ret = i % 2;
			return ERR_OK;
		}
	return err_set(err, ERR_INVALID, "%s: \"%s\" is neither true nor false", f->origin, f->text);
}

static enum err_code choice_check(const struct setting *row, const struct found *f, struct err *err)
{
	struct span left = span_str(row->choices);
	while (left.n) {
		size_t n = span_find(left, '|');
		if (span_eq_str(span_first(left, n), f->text))
			return ERR_OK;
		left = span_skip(left, n < left.n ? n + 1 : n);
	}
	return err_set(err, ERR_INVALID, "%s: \"%s\" is not one of %s", f->origin, f->text, row->choices);
}

/* The number of the first line that is no text, or 0. A NUL would silently end what is read. */
static size_t not_text_line(struct span s)
{
	size_t line = 1;
	while (s.n > 0) {
		uint32_t c;
		size_t n = utf8_char(s, &c);
		if (n == 0 || c == 0)
			return line;
		line += c == '\n';
		s = span_skip(s, n);
	}
	return 0;
}

/* The whole file, which is text of at most max_bytes; the caller releases *ret also on failure. */
static enum err_code file_read(const char *path, size_t max_bytes, struct buf *ret, struct err *err)
{
	buf_init(ret, max_bytes + 1);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return err_set_errno(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, errno, "open %s", path);
	enum err_code e;
	ssize_t n = 0;
	while (!(e = buf_reserve(ret, max_bytes + 1 - ret->n)) && ret->n <= max_bytes) {
		n = read(fd, ret->p + ret->n, max_bytes + 1 - ret->n);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		ret->n += (size_t)n;
	}
	int read_errno = errno;
	close(fd);
	if (e)
		return err_set(err, e, "read %s: %s", path, err_name(e));
	if (n < 0)
		return err_set_errno(err, ERR_IO, read_errno, "read %s", path);
	if (ret->n > max_bytes)
		return err_set(err, ERR_LIMIT, "%s is longer than %zu bytes", path, max_bytes);
	size_t line = not_text_line(buf_span(ret));
	return line ? err_set(err, ERR_INVALID, "%s:%zu: this line is not UTF-8 text", path, line) : ERR_OK;
}

static enum err_code secret_read(struct load *l, const struct found *f, const char **ret)
{
	struct buf b;
	enum err_code e = file_read(f->text, LIMIT_SECRET_FILE_BYTES, &b, l->err);
	if (!e) {
		while (b.n && (b.p[b.n - 1] == '\n' || b.p[b.n - 1] == '\r')) /* an editor put it there */
			b.n--;
		*ret = keep(l->owner, mem_xdup(b.p, b.n));
	} else {
		err_wrap(l->err, "%s", f->origin);
	}
	if (b.p)
		explicit_bzero(b.p, b.cap_bytes);
	buf_release(&b);
	return e;
}

static enum err_code value_parse(struct load *l, const struct setting *row, const struct found *f,
				 union value *ret)
{
	*ret = (union value){0};
	if (!f->text)
		return ERR_OK;
	switch (row->type) {
	case SETTING_BOOL: return bool_parse(f, &ret->yes, l->err);
	case SETTING_INT:
	case SETTING_SIZE:
	case SETTING_TIME: return number_parse(row, f, &ret->number, l->err);
	case SETTING_CHOICE:
		ret->text = f->text;
		return choice_check(row, f, l->err);
	case SETTING_SECRET:
		if (f->is_path)
			return secret_read(l, f, &ret->text);
		ret->text = f->text;
		return ERR_OK;
	case SETTING_STRING:
		ret->text = f->text;
		if (row->check && f->text && row->check(f->text, l->err))
			return err_wrap(l->err, "%s", f->origin);
		return ERR_OK;
	}
	unreachable_state("of a setting's type");
}

static void value_store(const struct setting *row, union value v, void *conf)
{
	void *at = (char *)conf + row->offset;
	switch (row->type) {
	case SETTING_BOOL: memcpy(at, &v.yes, sizeof(v.yes)); return;
	case SETTING_INT:
	case SETTING_SIZE:
	case SETTING_TIME: memcpy(at, &v.number, sizeof(v.number)); return;
	case SETTING_STRING:
	case SETTING_CHOICE:
	case SETTING_SECRET: memcpy(at, &v.text, sizeof(v.text)); return;
	}
	unreachable_state("of a setting's type");
}

/* --- sources ----------------------------------------------------------------------------------- */

/* Takes a value unless a stronger source gave one; origin is owned by l->owner. */
static enum err_code offer(struct load *l, const struct setting *row, enum level level, bool is_path,
			   const char *text, const char *origin)
{
	struct found *f = &l->found[row - l->rows];
	if (level < f->level)
		return ERR_OK;
	if (level == f->level && level != LEVEL_DEFAULT && f->is_path != is_path)
		return err_set(l->err, ERR_INVALID, "%s and %s are both given: give one", f->origin, origin);
	*f = (struct found){.level = level,
			    .is_path = is_path,
			    .text = keep(l->owner, mem_xstrdup(text)),
			    .origin = origin};
	return ERR_OK;
}

static enum err_code file_line(struct load *l, size_t number, char *line)
{
	const char *blank = " \t\r";
	line += strspn(line, blank);
	if (*line == 0 || *line == '#')
		return ERR_OK;
	char *equals = strchr(line, '=');
	if (!equals || equals == line)
		return err_set(l->err, ERR_INVALID, "%s:%zu: this is no line of the form \"name = value\"",
			       l->config_path, number);
	*equals = 0;
	for (char *end = equals; end > line && strchr(blank, end[-1]); end--)
		end[-1] = 0;
	char *text = equals + 1 + strspn(equals + 1, blank);
	for (char *end = text + strlen(text); end > text && strchr(blank, end[-1]); end--)
		end[-1] = 0;
	bool is_path;
	const struct setting *row = row_lookup(l, line, &is_path);
	if (!row) {
		const char *meant = nearest(l, line, false);
		return err_set(l->err, ERR_INVALID, "%s:%zu: unknown key \"%s\"%s%s%s", l->config_path,
			       number, line, meant ? "; did you mean \"" : "; --help lists all",
			       meant ? meant : "", meant ? "\"?" : "");
	}
	const char *origin = keep(l->owner, mem_xprintf("%s:%zu: %s", l->config_path, number, line));
	const struct found *f = &l->found[row - l->rows];
	if (f->level == LEVEL_FILE && f->is_path == is_path)
		return err_set(l->err, ERR_INVALID, "%s is given twice: take one line out", origin);
	return offer(l, row, LEVEL_FILE, is_path, text, origin);
}

static enum err_code load_file(struct load *l)
{
	struct buf b;
	enum err_code e = file_read(l->config_path, LIMIT_CONFIG_FILE_BYTES, &b, l->err);
	if (e) {
		buf_release(&b);
		err_wrap(l->err, "%s", l->config_origin);
		return e;
	}
	b.p[b.n] = 0; /* file_read() reserved one byte more than the limit */
	char *line = (char *)b.p;
	for (size_t number = 1; line && !e; number++) {
		char *end = strchr(line, '\n');
		if (end)
			*end++ = 0;
		e = file_line(l, number, line);
		line = end;
	}
	explicit_bzero(b.p, b.n);
	buf_release(&b);
	return e;
}

/* An empty variable counts as unset: that is how one is taken back in most shells and manifests. */
static const char *env_get(char *const env[], const char *name)
{
	size_t n = strlen(name);
	for (; env && *env; env++)
		if (strncmp(*env, name, n) == 0 && (*env)[n] == '=' && (*env)[n + 1])
			return *env + n + 1;
	return NULL;
}

static enum err_code load_env_one(struct load *l, char *const env[], const struct setting *row, bool is_path)
{
	const char *name = keep(l->owner, env_name(row->name, is_path ? "-file" : ""));
	const char *text = env_get(env, name);
	return text ? offer(l, row, LEVEL_ENV, is_path, text, name) : ERR_OK;
}

static enum err_code load_env(struct load *l, char *const env[])
{
	enum err_code e = ERR_OK;
	for (const struct setting *row = l->rows; row < l->rows + l->row_count && !e; row++) {
		const char *alias = row->env_alias ? env_get(env, row->env_alias) : NULL;
		if (alias)
			e = offer(l, row, LEVEL_ALIAS, false, alias, row->env_alias);
		if (!e)
			e = load_env_one(l, env, row, false);
		if (!e && row->type == SETTING_SECRET)
			e = load_env_one(l, env, row, true);
	}
	if (!l->config_path) {
		l->config_path = env_get(env, "CAIRN_CONFIG");
		l->config_origin = "CAIRN_CONFIG";
	}
	return e;
}

/* One word of the command line, taken apart. */
struct flag {
	const struct setting *row;
	bool is_builtin, is_path, negated;
	const char *text;   /* after "=" or behind a letter; or NULL */
	const char *origin; /* "--name" or "-x" */
};

static const struct setting *row_by_letter(const struct setting *rows, size_t count, char letter)
{
	for (size_t i = 0; i < count; i++)
		if (rows[i].letter && rows[i].letter == letter)
			return &rows[i];
	return NULL;
}

static void flag_lookup_long(const struct load *l, struct flag *flag, const char *name)
{
	flag->row = row_lookup(l, name, &flag->is_path);
	if (!flag->row) {
		flag->row = row_find(builtin, ARRAY_LEN(builtin), name);
		flag->is_builtin = flag->row != NULL;
	}
	if (!flag->row && strncmp(name, "no-", 3) == 0) {
		const struct setting *row = row_find(l->rows, l->row_count, name + 3);
		flag->negated = row && row->type == SETTING_BOOL;
		flag->row = flag->negated ? row : NULL;
	}
}

static enum err_code flag_parse(struct load *l, const char *word, struct flag *ret)
{
	struct flag flag = {0};
	bool is_long = word[1] == '-';
	if (is_long) {
		const char *equals = strchr(word, '=');
		char *name = mem_xdup(word, equals ? (size_t)(equals - word) : strlen(word));
		flag.origin = keep(l->owner, name);
		flag.text = equals ? equals + 1 : NULL;
		flag_lookup_long(l, &flag, flag.origin + 2);
	} else {
		flag.origin = keep(l->owner, mem_xdup(word, 2));
		flag.text = word[2] ? word + 2 : NULL;
		flag.row = row_by_letter(l->rows, l->row_count, word[1]);
		if (!flag.row) {
			flag.row = row_by_letter(builtin, ARRAY_LEN(builtin), word[1]);
			flag.is_builtin = flag.row != NULL;
		}
	}
	if (!flag.row) {
		const char *meant = is_long ? nearest(l, flag.origin + 2, true) : NULL;
		return err_set(l->err, ERR_INVALID, "unknown flag %s; %s%s%s", flag.origin,
			       meant ? "did you mean --" : "--help lists all", meant ? meant : "",
			       meant ? "?" : "");
	}
	if (flag.text && (flag.negated || (flag.row->type == SETTING_BOOL && (flag.is_builtin || !is_long))))
		return err_set(l->err, ERR_INVALID, "%s takes no value", flag.origin);
	*ret = flag;
	return ERR_OK;
}

static void print_help(const struct load *l);

static void builtin_act(struct load *l, const struct flag *flag)
{
	switch (flag->row - builtin) {
	case 0:
		l->config_path = flag->text;
		l->config_origin = flag->origin;
		return;
	case 1: l->check_only = true; return;
	case 2: print_help(l); break;
	default: printf("%s %s\n", l->program, PACKAGE_VERSION); break;
	}
	l->exit = true;
}

static enum err_code load_flags(struct load *l, int argc, char *const argv[], int *ret_rest)
{
	int i = 1;
	for (; i < argc && !l->exit; i++) {
		struct flag flag;
		if (argv[i][0] != '-' || argv[i][1] == 0 || strcmp(argv[i], "--") == 0)
			break;
		enum err_code e = flag_parse(l, argv[i], &flag);
		if (e)
			return e;
		if (!flag.text && flag.row->type == SETTING_BOOL)
			flag.text = flag.negated ? "false" : "true";
		if (!flag.text && i + 1 >= argc)
			return err_set(l->err, ERR_INVALID, "%s needs a value: %s %s", flag.origin,
				       flag.origin, flag.row->value_name ? flag.row->value_name : "VALUE");
		if (!flag.text)
			flag.text = argv[++i];
		if (flag.is_builtin)
			builtin_act(l, &flag);
		else if ((e = offer(l, flag.row, LEVEL_FLAG, flag.is_path, flag.text, flag.origin)))
			return e;
	}
	*ret_rest = i;
	return ERR_OK;
}

/* --- what is printed --------------------------------------------------------------------------- */

/* Words of text, broken at HELP_COLUMNS, from column `at` on; later lines are indented. */
static void print_wrapped(const char *text, size_t at, size_t indent)
{
	while (*text) {
		size_t n = strcspn(text, " ");
		if (at + n > HELP_COLUMNS && at > indent) {
			printf("\n%*s", (int)indent, "");
			at = indent;
		}
		printf("%.*s", (int)n, text);
		at += n;
		text += n;
		while (*text == ' ') {
			text++;
			if (*text && *text != ' ' && at + 1 + strcspn(text, " ") <= HELP_COLUMNS) {
				putchar(' ');
				at++;
			} else if (*text && *text != ' ') {
				at = HELP_COLUMNS + 1;
			}
		}
	}
	putchar('\n');
}

static const char *value_name_of(const struct setting *row)
{
	static const char *const names[] = {"TEXT", "", "N", "SIZE", "TIME", NULL, "TEXT"};
	if (row->value_name)
		return row->value_name;
	return row->type == SETTING_CHOICE ? row->choices : names[row->type];
}

static void print_help_row(const struct setting *row)
{
	char left[HELP_COLUMNS], letter[8] = "    ";
	const char *value = value_name_of(row);
	if (row->letter)
		snprintf(letter, sizeof(letter), "-%c, ", row->letter);
	int n = snprintf(left, sizeof(left), "  %s--%s%s%s", letter, row->name, value[0] ? " " : "", value);
	must(n > 0 && n < HELP_COLUMNS);
	bool own_line = n + 2 > HELP_INDENT;
	printf("%s%*s", left, own_line ? 0 : HELP_INDENT - n, "");
	if (own_line)
		printf("\n%*s", HELP_INDENT, "");
	bool shown = row->fallback && row->fallback[0] && row->type != SETTING_SECRET &&
		     !(row->type == SETTING_BOOL && strcmp(row->fallback, "false") == 0);
	char *text =
		mem_xprintf("%s%s%s%s%s%s", row->help, shown ? " (default " : "", shown ? row->fallback : "",
			    shown ? ")" : "", row->env_alias ? "; also from the variable " : "",
			    row->env_alias ? row->env_alias : "");
	print_wrapped(text, HELP_INDENT, HELP_INDENT);
	mem_free(text);
}

static void print_help(const struct load *l)
{
	printf("Usage: %s [FLAG…]\n\n", l->program);
	print_wrapped(l->summary, 0, 0);
	putchar('\n');
	for (size_t i = 0; i < l->row_count; i++)
		print_help_row(&l->rows[i]);
	for (size_t i = 0; i < ARRAY_LEN(builtin); i++)
		print_help_row(&builtin[i]);
	putchar('\n');
	print_wrapped("Every flag --a-b is also the environment variable CAIRN_A_B and the line "
		      "`a-b = value` of the file that --config or CAIRN_CONFIG names. A flag wins over the "
		      "environment, that over the file, that over the default.",
		      0, 0);
	for (size_t i = 0; i < l->row_count; i++)
		if (l->rows[i].type == SETTING_SECRET) {
			print_wrapped("A secret --x is better given as --x-file FILE or CAIRN_X_FILE.", 0, 0);
			break;
		}
}

/* What is in force, as a file that --config would take: defaults are commented out, secrets not shown. */
static void print_config(const struct load *l)
{
	for (size_t i = 0; i < l->row_count; i++) {
		const struct setting *row = &l->rows[i];
		const struct found *f = &l->found[i];
		if (row->type == SETTING_SECRET)
			printf("# %s is %s%s\n", row->name, f->text ? "set by " : "not set",
			       f->text ? f->origin : "");
		else if (f->level == LEVEL_DEFAULT)
			printf("# %s = %s\n", row->name,
			       f->text ? f->text : row->type == SETTING_BOOL ? "false" : "");
		else
			printf("%s = %s\n", row->name, f->text);
	}
}

void settings_print_table(const struct setting *rows, size_t row_count, FILE *out)
{
	fputs("| flag | environment | default | what it is |\n|---|---|---|---|\n", out);
	for (size_t i = 0; i < row_count; i++) {
		const struct setting *row = &rows[i];
		const char *suffix = row->type == SETTING_SECRET ? "-file" : "";
		const char *quote = row->fallback ? "`" : "";
		char *name = env_name(row->name, suffix);
		fprintf(out, "| `--%s%s` | `%s` | %s%s%s | %s |\n", row->name, suffix, name, quote,
			row->fallback ? row->fallback : "", quote, row->help);
		mem_free(name);
	}
}

/* --- all of it --------------------------------------------------------------------------------- */

static void rows_check(const struct load *l)
{
	for (size_t i = 0; i < l->row_count; i++) {
		const struct setting *row = &l->rows[i];
		must(row->name && row->help);
		must(row->type != SETTING_CHOICE || row->choices);
		must(!row_find(builtin, ARRAY_LEN(builtin), row->name));
		must(row_find(l->rows, i, row->name) == NULL);
	}
}

static enum err_code load_all(struct load *l, int argc, char *const argv[], char *const env[], void *conf,
			      int *ret_rest)
{
	enum err_code e = load_flags(l, argc, argv, ret_rest);
	if (e || l->exit)
		return e;
	e = load_env(l, env);
	if (!e && l->config_path)
		e = load_file(l);
	union value *values = mem_xalloc(l->row_count * sizeof(*values));
	for (size_t i = 0; i < l->row_count && !e; i++) {
		e = value_parse(l, &l->rows[i], &l->found[i], &values[i]);
		must(!e || l->found[i].level != LEVEL_DEFAULT);
	}
	for (size_t i = 0; i < l->row_count && !e; i++)
		value_store(&l->rows[i], values[i], conf);
	mem_free(values);
	if (!e && l->check_only) {
		print_config(l);
		l->exit = true;
	}
	return e;
}

enum err_code settings_load(const char *program, const char *summary, const struct setting *rows,
			    size_t row_count, int argc, char *const argv[], char *const env[], void *conf,
			    struct settings **ret, int *ret_rest, bool *ret_exit, struct err *err)
{
	struct err unread = {0};
	struct load l = {.program = program,
			 .summary = summary,
			 .rows = rows,
			 .row_count = row_count,
			 .owner = mem_xalloc(sizeof(struct settings)),
			 .found = mem_xalloc(row_count * sizeof(struct found)),
			 .err = err ? err : &unread};
	int rest = argc;
	rows_check(&l);
	for (size_t i = 0; i < row_count; i++)
		l.found[i] = (struct found){.text = rows[i].fallback, .origin = "the default"};
	enum err_code e = load_all(&l, argc, argv, env, conf, &rest);
	mem_free(l.found);
	if (e) {
		settings_free(l.owner);
		return e;
	}
	*ret = l.owner;
	*ret_rest = rest;
	*ret_exit = l.exit;
	return ERR_OK;
}
