/* What a disk and this machine's threads allow: so many clients, each with one record of so many bytes under way, one
 * thread that writes what waits and syncs it (group commit), and nothing else. Or, "full": that thread alone, its batch
 * always full. Prints events a second.
 *
 *	bench_limit group|full FILE CLIENTS BYTES SECONDS */
#include <config.h>

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "base/text.h"

static struct {
	pthread_mutex_t lock;
	pthread_cond_t work, done;
	uint64_t waiting, durable, asked; /* records; asked: in all */
	bool over;
	uint64_t bytes;
	int fd;
	uint8_t *data;
} bench = {.lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

static void write_batch(uint64_t records)
{
	size_t n = (size_t)(records * bench.bytes);
	for (size_t at = 0; at < n;) {
		ssize_t wrote = write(bench.fd, bench.data + at, n - at);
		must(wrote > 0);
		at += (size_t)wrote;
	}
	must(fdatasync(bench.fd) == 0);
}

static void *client(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&bench.lock);
	while (!bench.over) {
		uint64_t mine = ++bench.asked;
		bench.waiting++;
		pthread_cond_signal(&bench.work);
		while (bench.durable < mine && !bench.over)
			pthread_cond_wait(&bench.done, &bench.lock);
	}
	pthread_mutex_unlock(&bench.lock);
	return NULL;
}

/* Until the time is over; how many records were durable then. */
static uint64_t commit(struct mono_time start, int64_t us, uint64_t full)
{
	pthread_mutex_lock(&bench.lock);
	while (mono_since_us(clock_mono(&clock_system), start) < us) {
		while (!full && !bench.waiting)
			pthread_cond_wait(&bench.work, &bench.lock);
		uint64_t batch = full ? full : bench.waiting;
		bench.waiting = 0;
		pthread_mutex_unlock(&bench.lock);
		write_batch(batch);
		pthread_mutex_lock(&bench.lock);
		bench.durable += batch;
		pthread_cond_broadcast(&bench.done);
	}
	uint64_t durable = bench.durable;
	bench.over = true;
	pthread_cond_broadcast(&bench.done);
	pthread_mutex_unlock(&bench.lock);
	return durable;
}

int main(int argc, char *argv[])
{
	uint64_t clients, seconds;
	if (argc != 6 || !parse_u64(span_str(argv[3]), &clients) || !parse_u64(span_str(argv[4]), &bench.bytes) ||
	    !parse_u64(span_str(argv[5]), &seconds) || clients == 0 || clients > 1024 || bench.bytes > 65536) {
		fprintf(stderr, "usage: bench_limit group|full FILE CLIENTS BYTES SECONDS\n");
		return 2;
	}
	bool full = strcmp(argv[1], "full") == 0;
	pthread_t *threads = mem_xalloc(clients * sizeof(*threads));
	bench.data = mem_xalloc((size_t)(clients * bench.bytes) + 1);
	random_bytes(bench.data, (size_t)(clients * bench.bytes));
	bench.fd = open(argv[2], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	must(bench.fd >= 0);
	struct mono_time start = clock_mono(&clock_system);
	for (uint64_t i = 0; i < clients && !full; i++)
		must(pthread_create(&threads[i], NULL, client, NULL) == 0);
	uint64_t durable = commit(start, (int64_t)seconds * 1000000, full ? clients : 0);
	double took = (double)mono_since_us(clock_mono(&clock_system), start) / 1e6;
	for (uint64_t i = 0; i < clients && !full; i++)
		pthread_join(threads[i], NULL);
	printf("%.0f events/s\n", (double)durable / took);
	close(bench.fd);
	mem_free(threads);
	mem_free(bench.data);
	return 0;
}
