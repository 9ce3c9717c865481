/* So many commands whose request has a user id as field 1, so many in flight, over so many entities and connections;
 * prints one line of figures: commands a second and the time of a command in us, median and 99th percentile.
 *
 *	bench_commands HOST:PORT SERVICE/METHOD COUNT IN_FLIGHT ENTITIES CONNECTIONS */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/text.h"
#include "grpc/grpc.h"

#define CONNECTIONS_MAX 64

struct bench {
	struct loop *loop;
	struct grpc_channel *channels[CONNECTIONS_MAX];
	char path[256];
	uint64_t count, in_flight, entities, connections;
	uint64_t begun, done, failed;
	int64_t *times_us;
};

struct one {
	struct bench *bench;
	struct mono_time begun;
};

static void begin(struct one *one);

static void on_done(const struct grpc_result *result, struct span reply, void *arg)
{
	struct one *one = arg;
	struct bench *b = one->bench;
	(void)reply;
	b->times_us[b->done++] = mono_since_us(clock_mono(&clock_system), one->begun);
	if (result->code != GRPC_OK && b->failed++ == 0)
		fprintf(stderr, "%s: %.*s\n", grpc_code_name(result->code), SPAN_ARG(result->message));
	if (b->done == b->count)
		loop_stop(b->loop);
	else if (b->begun < b->count)
		begin(one);
}

static void begin(struct one *one)
{
	struct bench *b = one->bench;
	uint64_t number = b->begun++;
	char request[32], user[24];
	int n = snprintf(user, sizeof user, "user-%llu", (unsigned long long)(number % b->entities));
	must(n > 0 && n < (int)sizeof user);
	request[0] = 0x0a;
	request[1] = (char)n;
	memcpy(request + 2, user, (size_t)n);
	one->begun = clock_mono(&clock_system);
	grpc_channel_unary(b->channels[number % b->connections], b->path, span_of(request, (size_t)n + 2), -1, true,
			   on_done, one);
}

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	struct bench b = {.loop = loop_new()};
	if (argc != 7 || !parse_u64(span_str(argv[3]), &b.count) || !parse_u64(span_str(argv[4]), &b.in_flight) ||
	    !parse_u64(span_str(argv[5]), &b.entities) || !parse_u64(span_str(argv[6]), &b.connections) ||
	    b.count == 0 || b.entities == 0 || b.connections == 0 || b.connections > CONNECTIONS_MAX) {
		fprintf(stderr, "bench_commands HOST:PORT SERVICE/METHOD COUNT IN_FLIGHT ENTITIES CONNECTIONS\n");
		return 2;
	}
	snprintf(b.path, sizeof b.path, "/%s", argv[2]);
	for (uint64_t i = 0; i < b.connections; i++)
		b.channels[i] = grpc_channel_new(b.loop, &(struct grpc_channel_config){.target = argv[1]}, NULL, NULL);
	if (b.in_flight > b.count)
		b.in_flight = b.count;
	b.times_us = mem_xalloc(b.count * sizeof *b.times_us);
	struct one *ones = mem_xalloc(b.in_flight * sizeof *ones);
	struct mono_time began = clock_mono(&clock_system);
	for (uint64_t i = 0; i < b.in_flight; i++) {
		ones[i].bench = &b;
		begin(&ones[i]);
	}
	loop_run(b.loop);
	double seconds = (double)mono_since_us(clock_mono(&clock_system), began) / 1e6;
	qsort(b.times_us, b.count, sizeof *b.times_us, compare);
	printf("%.0f commands/s, median %lld us, p99 %lld us\n", (double)b.count / seconds,
	       (long long)b.times_us[b.count / 2], (long long)b.times_us[b.count * 99 / 100]);
	for (uint64_t i = 0; i < b.connections; i++)
		grpc_channel_free(b.channels[i]);
	loop_free(b.loop);
	mem_free(ones);
	mem_free(b.times_us);
	return b.failed > 0;
}
