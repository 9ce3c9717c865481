#include <config.h>

#include "helper.h"

static enum err_code open_uri(const char *uri, struct err *err)
{
	struct storage_config config = {.clock = &clock_system};
	struct storage *s;
	*err = (struct err){0};
	enum err_code code = storage_open(uri, &config, &s, err);
	if (!code)
		storage_close(s);
	return code;
}

Test(registry, a_bare_directory_is_an_error_that_says_so)
{
	struct err err;
	cr_assert_eq(open_uri("./cairn-data", &err), ERR_INVALID);
	cr_assert(strstr(err.text, "file:./cairn-data"), "%s", err.text);
}

Test(registry, an_unknown_backend_lists_those_there_are)
{
	struct err err;
	cr_assert_eq(open_uri("tape:/dev/st0", &err), ERR_INVALID);
	cr_assert(strstr(err.text, "memory"), "%s", err.text);
	cr_assert(strstr(err.text, "file"), "%s", err.text);
}

Test(registry, a_file_store_needs_a_directory_whose_parent_is_there)
{
	struct err err;
	cr_assert_eq(open_uri("file:", &err), ERR_INVALID);
	cr_assert(strstr(err.text, "file:DIR"), "%s", err.text);
	cr_assert_eq(open_uri("file:/nowhere/at/all", &err), ERR_IO);
	cr_assert(strstr(err.text, "/nowhere/at/all"), "%s", err.text);
}

Test(registry, closing_nothing_is_fine)
{
	storage_close(NULL);
	storage_reader_close(NULL);
}

static void shows(const char *uri, const char *expected)
{
	char text[64];
	storage_uri_show(uri, text, sizeof(text));
	cr_assert_str_eq(text, expected);
}

Test(registry, a_uri_is_shown_without_its_password)
{
	shows("memory", "memory");
	shows("file:a:b@c", "file:a:b@c");
	shows("postgres:", "postgres:");
	shows("postgres://u@h:5432/d", "postgres://u@h:5432/d");
	shows("postgres://u:secret@h:5432/d", "postgres://u:...@h:5432/d");
	shows("postgresql://u:se:c@r%40et@h/d?x=y", "postgresql://u:...@h/d?x=y");
	shows("trace:postgres://u:secret@h/d", "trace:postgres://u:...@h/d");
	shows("postgres://h/d?password=secret&user=u", "postgres://h/d?password=...&user=u");
	shows("postgres:host=h password=secret user=u", "postgres:host=h password=... user=u");
	shows("file:0123456789012345678901234567890123456789012345678901234567890123456789",
	      "file:0123456789012345678901234567890123456789012345678901234...");
}
