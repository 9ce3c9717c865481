/* Any bytes as a request to each operation of the journal's service: the first byte picks the operation. The
 * call ends, and the journal goes on; a refused append has a reason. It goes over the loopback, because a
 * call cannot be had without a connection. Server, journal and channel are kept from input to input. */
#include <config.h>

#include <stdio.h>

#include "base/must.h"
#include "grpc/grpc.h"
#include "journal/journal.h"
#include "journal/service.h"
#include "journal/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct target {
	struct loop *loop;
	struct journal *journal;
	struct grpc_server *server;
	struct journal_service *service;
	struct grpc_channel *channel;
} target;

static void target_start(struct target *t)
{
	static char name[32];

	t->loop = loop_new();
	must(!journal_open(&(struct journal_config){.storage_uri = "memory", .not_before_wait_ms = 1},
			   &t->journal, NULL));
	t->server = grpc_server_new(&(struct grpc_server_config){.listen = "127.0.0.1:0"}, &t->loop, 1);
	t->service = journal_service_new(t->journal, t->server, &t->loop, 1);
	must(!grpc_server_listen(t->server, NULL));
	snprintf(name, sizeof(name), "127.0.0.1:%d", grpc_server_port(t->server));
	t->channel = grpc_channel_new(t->loop, &(struct grpc_channel_config){.target = name}, NULL, NULL);
}

struct ended {
	bool done;
	enum grpc_code code;
};

static void on_done(struct grpc_call *call, const struct grpc_result *result, void *user)
{
	struct ended *ended = user;

	(void)call;
	must(result->code == GRPC_OK || result->message.n > 0);
	ended->done = true;
	ended->code = result->code;
}

static const struct grpc_call_ops ops = {.on_done = on_done};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const paths[] = {
		JOURNAL_METHOD("Append"), JOURNAL_METHOD("AppendStream"), JOURNAL_METHOD("Read"),
		JOURNAL_METHOD("Load"),	  JOURNAL_METHOD("Subscribe"),	  JOURNAL_METHOD("Stat"),
		JOURNAL_METHOD("ListStreams"),
	};
	static const struct headers none = {0};
	struct ended ended = {0};
	struct grpc_call *call;
	uint64_t head;

	if (!target.loop)
		target_start(&target);
	if (size == 0)
		return 0;
	head = journal_head(target.journal);
	call = grpc_channel_call(target.channel, paths[data[0] % ARRAY_LEN(paths)], &none, -1, true, &ops,
				 &ended);
	grpc_call_send(call, span_of(data + 1, size - 1));
	grpc_call_half_close(call);
	for (int turn = 0; !ended.done; turn++) {
		if (turn == 200) /* a subscription goes on for ever */
			grpc_call_cancel(call);
		journal_step(target.journal);
		loop_run_once(target.loop, false);
	}
	must(journal_head(target.journal) >= head);
	return 0;
}
