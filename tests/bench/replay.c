/* Reads everything there is as a subscriber of old things does, every record decoded and its CRC checked; prints one
 * line of figures: events a second.
 *
 *	bench_replay HOST:PORT */
#include <config.h>

#include <stdio.h>

#include "base/clock.h"
#include "base/must.h"
#include "grpc/grpc.h"
#include "journal/client.h"

struct bench {
	uint64_t records;
	bool done, failed;
};

static void on_record(struct client_read *r, const struct record_view *record, void *arg)
{
	struct bench *b = arg;
	(void)r;
	b->records += record->position != UINT64_MAX;
}

static void on_done(struct client_read *r, const struct client_error *error, void *arg)
{
	struct bench *b = arg;
	(void)r;
	b->done = true;
	b->failed = error->code != GRPC_OK;
	if (b->failed)
		fprintf(stderr, "%.*s\n", SPAN_ARG(error->text));
}

int main(int argc, char *argv[])
{
	static const struct client_read_ops ops = {.on_record = on_record, .on_done = on_done};
	struct bench b = {0};
	if (argc != 2) {
		fprintf(stderr, "usage: bench_replay HOST:PORT\n");
		return 2;
	}
	struct loop *loop = loop_new();
	struct client *client = client_new(loop, &(struct client_config){.target = argv[1]});
	struct mono_time start = clock_mono(&clock_system);
	client_read(client, &(struct client_query){.from = CLIENT_FROM_START}, &ops, &b);
	while (!b.done)
		loop_run_once(loop, true);
	double seconds = (double)mono_since_us(clock_mono(&clock_system), start) / 1e6;
	printf("%.0f events/s, %llu events\n", (double)b.records / seconds, (unsigned long long)b.records);
	client_free(client);
	loop_free(loop);
	return b.failed;
}
