/* Runs a fuzz target without a fuzzer: every file of its corpus, then mutations of each, and prints TAP.
 *
 * The target is one function, LLVMFuzzerTestOneInput(), as libFuzzer and AFL++ want it; the program is
 * named fuzz_NAME and its corpus is $CAIRN_SRCDIR/tests/fuzz/corpus/NAME unless a folder is given as
 * argument. CAIRN_SEED replays the mutations (the seed is printed), CAIRN_TEST_SCALE multiplies their
 * number (default 200 a file). A single file as argument is run once, as it is. */
#include <config.h>

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define INPUT_MAX ((size_t)1 << 20)
#define FILES_MAX 4096
#define MUTATIONS 200

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t random_state;

static uint64_t next_random(void) /* SplitMix64 */
{
	uint64_t z = random_state += 0x9e3779b97f4a7c15U;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
	return z ^ (z >> 31);
}

static size_t below(size_t n)
{
	return n ? (size_t)(next_random() % n) : 0;
}

/* The input in memory of exactly its size, so that a sanitizer sees the first byte read beyond. */
static void run(const uint8_t *data, size_t size)
{
	uint8_t *exact = malloc(size ? size : 1);
	if (!exact)
		abort();
	if (size)
		memcpy(exact, data, size);
	LLVMFuzzerTestOneInput(exact, size);
	free(exact);
}

static size_t mutate_once(uint8_t *p, size_t n)
{
	size_t at = below(n + 1), count = 1 + below(8);
	switch (below(5)) {
	case 0: /* another byte */
		if (n)
			p[below(n)] = (uint8_t)next_random();
		return n;
	case 1: /* one bit */
		if (n)
			p[below(n)] ^= (uint8_t)(1U << below(8));
		return n;
	case 2: /* cut out */
		count = count > n - at ? n - at : count;
		memmove(p + at, p + at + count, n - at - count);
		return n - count;
	case 3: /* put in what is found elsewhere */
		if (n == 0 || n + count > INPUT_MAX)
			return n;
		memmove(p + at + count, p + at, n - at);
		for (size_t i = 0; i < count; i++)
			p[at + i] = p[below(n)];
		return n + count;
	default: return at; /* cut off */
	}
}

static uint8_t *read_file(const char *path, size_t *ret_n)
{
	FILE *f = fopen(path, "rb");
	uint8_t *p = malloc(INPUT_MAX);
	if (!f || !p) {
		fprintf(stderr, "cannot read %s\n", path);
		exit(1);
	}
	*ret_n = fread(p, 1, INPUT_MAX, f);
	fclose(f);
	return p;
}

static void run_file(const char *path, unsigned mutations)
{
	size_t n, m;
	uint8_t *original = read_file(path, &n), *p = malloc(INPUT_MAX);
	if (!p)
		abort();
	run(original, n);
	for (unsigned i = 0; i < mutations; i++) {
		memcpy(p, original, n);
		m = n;
		for (size_t k = 1 + below(4); k > 0; k--)
			m = mutate_once(p, m);
		run(p, m);
	}
	free(p);
	free(original);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static size_t list_files(const char *folder, char **names)
{
	DIR *d = opendir(folder);
	size_t n = 0;
	if (!d) {
		fprintf(stderr, "no corpus folder %s\n", folder);
		exit(1);
	}
	for (struct dirent *e; (e = readdir(d)) && n < FILES_MAX;) {
		if (e->d_name[0] != '.' && !(names[n++] = strdup(e->d_name)))
			abort();
	}
	closedir(d);
	qsort(names, n, sizeof(names[0]), compare_names);
	return n;
}

int main(int argc, char **argv)
{
	static char *names[FILES_MAX];
	char folder[4096], path[8192];
	struct stat st;
	const char *base = strrchr(argv[0], '/'), *source = getenv("CAIRN_SRCDIR");
	const char *seed = getenv("CAIRN_SEED"), *scale = getenv("CAIRN_TEST_SCALE");
	unsigned mutations = (unsigned)(MUTATIONS * (scale ? strtod(scale, NULL) : 1));
	base = base ? base + 1 : argv[0];
	if (strncmp(base, "fuzz_", 5) == 0)
		base += 5;
	random_state = seed ? strtoull(seed, NULL, 10) : (uint64_t)time(NULL);
	snprintf(folder, sizeof(folder), "%s/tests/fuzz/corpus/%s", source ? source : ".", base);
	if (argc > 1)
		snprintf(folder, sizeof(folder), "%s", argv[1]);
	if (stat(folder, &st) == 0 && S_ISREG(st.st_mode)) {
		run_file(folder, 0);
		return 0;
	}
	size_t n = list_files(folder, names);
	printf("# CAIRN_SEED=%llu, %u mutations a file\n1..%zu\n", (unsigned long long)random_state,
	       mutations, n);
	for (size_t i = 0; i < n; i++) {
		snprintf(path, sizeof(path), "%s/%s", folder, names[i]);
		fflush(stdout); /* a crash must not take the last lines with it */
		run_file(path, mutations);
		printf("ok %zu - %s\n", i + 1, names[i]);
		free(names[i]);
	}
	return n == 0;
}
