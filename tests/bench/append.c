/* So many appends of one event each on the Append stream, so many in flight, over 64 streams; prints one line of
 * figures: events a second and, given its process id, the CPU time that the server spent on each.
 *
 *	bench_append HOST:PORT COUNT IN_FLIGHT BYTES [PID] */
#include <config.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/must.h"
#include "base/random.h"
#include "base/text.h"
#include "grpc/grpc.h"
#include "journal/client.h"

struct bench {
	struct loop *loop;
	struct client *client;
	uint64_t count, in_flight, bytes, begun, done, failed;
	uint8_t *data;
};

static void on_appended(const struct client_appended *answer, const struct client_error *error, void *arg);

static void begin(struct bench *b)
{
	char name[32];
	struct client_record event = {.type = SPAN("Happened"), .data = span_of(b->data, b->bytes)};
	struct client_stream s = {.events = &event, .event_count = 1};
	int n = snprintf(name, sizeof(name), "bench|%llu", (unsigned long long)(b->begun++ % 64));
	s.stream = span_of(name, (size_t)n);
	uuid_v7(&clock_system, event.id);
	client_append(b->client, &(struct client_append){.streams = &s, .stream_count = 1}, 60000, on_appended, b);
}

static void on_appended(const struct client_appended *answer, const struct client_error *error, void *arg)
{
	struct bench *b = arg;
	b->done++;
	if (!answer && b->failed++ == 0)
		fprintf(stderr, "%.*s\n", SPAN_ARG(error->text));
	if (b->begun < b->count)
		begin(b);
}

/* User and system time of the process so far; 0 without one. */
static double cpu_us(const char *pid)
{
	char path[64];
	unsigned long user = 0, system = 0;
	FILE *f;
	snprintf(path, sizeof(path), "/proc/%s/stat", pid ? pid : "");
	f = pid ? fopen(path, "re") : NULL;
	if (f && fscanf(f, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
		user = system = 0;
	if (f)
		fclose(f);
	return (double)(user + system) * 1e6 / (double)sysconf(_SC_CLK_TCK);
}

int main(int argc, char *argv[])
{
	struct bench b = {0};
	if (argc < 5 || !parse_u64(span_str(argv[2]), &b.count) || !parse_u64(span_str(argv[3]), &b.in_flight) ||
	    !parse_u64(span_str(argv[4]), &b.bytes) || b.bytes > MIB || b.in_flight == 0) {
		fprintf(stderr, "usage: bench_append HOST:PORT COUNT IN_FLIGHT BYTES [PID]\n");
		return 2;
	}
	b.data = mem_xalloc(b.bytes + 1);
	random_bytes(b.data, b.bytes);
	b.loop = loop_new();
	b.client = client_new(b.loop, &(struct client_config){.target = argv[1]});
	double cpu = cpu_us(argv[5]);
	struct mono_time start = clock_mono(&clock_system);
	while (b.begun < b.count && b.begun < b.in_flight)
		begin(&b);
	while (b.done < b.count)
		loop_run_once(b.loop, true);
	double seconds = (double)mono_since_us(clock_mono(&clock_system), start) / 1e6;
	printf("%.0f events/s, %.2f us of the server's CPU an event, %llu failed\n", (double)b.count / seconds,
	       (cpu_us(argv[5]) - cpu) / (double)b.count, (unsigned long long)b.failed);
	client_free(b.client);
	loop_free(b.loop);
	mem_free(b.data);
	return b.failed ? 1 : 0;
}
