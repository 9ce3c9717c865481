/* A configuration file: refused with a reason and nothing written, or every value is one that its row allows.
 * The file is one in memory, as settings_load() takes a path. */
#include <config.h>

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/must.h"
#include "base/settings.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct conf {
	const char *listen;
	const char *store;
	bool check;
	int64_t count, bytes, wait_ms;
};

/* No secret: its row would let the bytes name any file of the machine. */
static const struct setting rows[] = {
	{"listen", SETTING_STRING, offsetof(struct conf, listen), .fallback = "127.0.0.1:1", .help = "where"},
	{"store", SETTING_CHOICE, offsetof(struct conf, store), .fallback = "file", .choices = "memory|file",
	 .help = "which"},
	{"check", SETTING_BOOL, offsetof(struct conf, check), .help = "whether"},
	{"count", SETTING_INT, offsetof(struct conf, count), .fallback = "5", .min = 1, .max = 1000,
	 .help = "how many"},
	{"bytes", SETTING_SIZE, offsetof(struct conf, bytes), .fallback = "1MiB", .min = 512, .max = INT64_C(1) << 40,
	 .help = "how large"},
	{"wait", SETTING_TIME, offsetof(struct conf, wait_ms), .fallback = "5s", .min = 1, .max = 3600000,
	 .help = "how long"},
};

static void check_allowed(const struct conf *c)
{
	must(c->listen);
	must(strcmp(c->store, "memory") == 0 || strcmp(c->store, "file") == 0);
	must(c->count >= 1 && c->count <= 1000);
	must(c->bytes >= 512 && c->bytes <= INT64_C(1) << 40);
	must(c->wait_ms >= 1 && c->wait_ms <= 3600000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char program[] = "fuzz", flag[64];
	int fd = memfd_create("settings", MFD_CLOEXEC);
	must(fd >= 0);
	must(write(fd, data, size) == (ssize_t)size);
	snprintf(flag, sizeof(flag), "--config=/proc/self/fd/%d", fd);
	char *argv[] = {program, flag, NULL};
	char *env[] = {NULL};
	struct conf conf, before;
	memset(&conf, 0xa5, sizeof(conf));
	memcpy(&before, &conf, sizeof(conf));
	struct settings *settings;
	struct err err = {0};
	int rest;
	bool exits = false;
	if (settings_load("fuzz", "A configuration file.", rows, sizeof(rows) / sizeof(*rows), 2, argv, env, &conf,
			  &settings, &rest, &exits, &err)) {
		must(err.code != ERR_OK && err.text[0]);
		must(memcmp(&before, &conf, sizeof(conf)) == 0);
	} else {
		must(!exits && rest == 2);
		check_allowed(&conf);
		settings_free(settings);
	}
	close(fd);
	return 0;
}
