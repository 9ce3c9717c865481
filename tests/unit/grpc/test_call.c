#include <config.h>

#include <criterion/criterion.h>
#include <stdlib.h>

#include "base/mem.h"
#include "rig.h"

TestSuite(call, .timeout = 60);

static bool got_is(const struct got *got, const char *text)
{
	return span_eq(buf_span(&got->bytes), span_str(text));
}

struct unary_got {
	unsigned done;
	enum grpc_code code;
	struct buf reply;
	bool not_sent;
};

static void on_unary(const struct grpc_result *result, struct span reply, void *arg)
{
	struct unary_got *got = arg;
	got->done++;
	got->code = result->code;
	got->not_sent = result->not_sent;
	buf_init(&got->reply, 64 * MIB);
	cr_assert_eq(buf_append_span(&got->reply, reply), ERR_OK);
}

Test(call, unary_echoes)
{
	struct rig rig;
	struct unary_got got = {0};
	rig_start(&rig);
	grpc_channel_unary(rig.channel, "/test.Echo/Unary", SPAN("hello"), 5000, false, on_unary, &got);
	cr_assert_eq(got.done, 0, "completion is never inside the call");
	RIG_UNTIL(&rig, got.done);
	cr_assert_eq(got.code, GRPC_OK);
	cr_assert(span_eq(buf_span(&got.reply), SPAN("hello")));
	buf_release(&got.reply);
	rig_stop(&rig);
}

Test(call, empty_message_is_a_message)
{
	struct rig rig;
	struct unary_got got = {0};
	rig_start(&rig);
	grpc_channel_unary(rig.channel, "/test.Echo/Unary", SPAN(""), 5000, false, on_unary, &got);
	RIG_UNTIL(&rig, got.done);
	cr_assert_eq(got.code, GRPC_OK);
	cr_assert_eq(got.reply.n, 0);
	buf_release(&got.reply);
	rig_stop(&rig);
}

Test(call, client_streaming_collects)
{
	struct rig rig;
	struct got got;
	got_init(&got);
	rig_start(&rig);
	struct grpc_call *call = rig_call(&rig, "Collect", &got);
	grpc_call_send(call, SPAN("one "));
	rig_turn(&rig);
	grpc_call_send(call, SPAN("two "));
	grpc_call_send(call, SPAN("three"));
	grpc_call_half_close(call);
	RIG_UNTIL(&rig, got.done);
	cr_assert_eq(got.code, GRPC_OK);
	cr_assert_eq(got.messages, 1);
	cr_assert(got_is(&got, "one two three"));
	RIG_UNTIL(&rig, rig.done == 1);
	cr_assert_eq(rig.last_done.code, GRPC_OK);
	got_release(&got);
	rig_stop(&rig);
}

Test(call, server_streaming_expands)
{
	struct rig rig;
	struct got got;
	got_init(&got);
	rig_start(&rig);
	struct grpc_call *call = rig_call(&rig, "Expand", &got);
	grpc_call_send(call, SPAN("abcdef"));
	grpc_call_half_close(call);
	RIG_UNTIL(&rig, got.done);
	cr_assert_eq(got.code, GRPC_OK);
	cr_assert_eq(got.messages, 6);
	cr_assert(got_is(&got, "abcdef"));
	got_release(&got);
	rig_stop(&rig);
}

Test(call, chat_answers_each_message_before_the_half_close)
{
	struct rig rig;
	struct got got;
	got_init(&got);
	rig_start(&rig);
	struct header h = {SPAN("x-ask"), SPAN("back")};
	struct headers metadata = {&h, 1};
	struct grpc_call *call =
		grpc_channel_call(rig.channel, "/test.Echo/Chat", &metadata, -1, false, &got_ops, &got);
	for (unsigned i = 0; i < 5; i++) {
		grpc_call_send(call, SPAN("x"));
		RIG_UNTIL(&rig, got.messages == i + 1);
	}
	cr_assert_str_eq(got.header, "back");
	cr_assert_eq(got.done, 0);
	grpc_call_half_close(call);
	RIG_UNTIL(&rig, got.done);
	cr_assert_eq(got.code, GRPC_OK);
	cr_assert_str_eq(got.trailer, "bye");
	got_release(&got);
	rig_stop(&rig);
}

Test(call, status_and_message_reach_the_client)
{
	struct rig rig;
	struct got got;
	got_init(&got);
	rig_start(&rig);
	struct grpc_call *call = rig_call(&rig, "Fail", &got);
	grpc_call_send(call, SPAN("100 % of \xc3\xa9\n"));
	grpc_call_half_close(call);
	RIG_UNTIL(&rig, got.done);
	cr_assert_eq(got.code, GRPC_FAILED_PRECONDITION);
	cr_assert_str_eq(got.text, "100 % of \xc3\xa9\n");
	cr_assert_not(got.reset);
	got_release(&got);
	rig_stop(&rig);
}

Test(call, unknown_method_is_unimplemented)
{
	struct rig rig;
	struct got got;
	got_init(&got);
	rig_start(&rig);
	struct grpc_call *call = rig_call(&rig, "Nothing", &got);
	grpc_call_send(call, SPAN("x"));
	grpc_call_half_close(call);
	RIG_UNTIL(&rig, got.done);
	cr_assert_eq(got.code, GRPC_UNIMPLEMENTED);
	got_release(&got);
	rig_stop(&rig);
}

Test(call, large_messages_go_both_ways)
{
	struct rig rig;
	struct unary_got got = {0};
	rig_start(&rig);
	size_t n = 8 * MIB + 17;
	uint8_t *bytes = mem_xalloc(n);
	for (size_t i = 0; i < n; i++)
		bytes[i] = (uint8_t)(i * 7 + i / 251);
	grpc_channel_unary(rig.channel, "/test.Echo/Unary", span_of(bytes, n), -1, false, on_unary, &got);
	RIG_UNTIL(&rig, got.done);
	cr_assert_eq(got.code, GRPC_OK);
	cr_assert(span_eq(buf_span(&got.reply), span_of(bytes, n)));
	buf_release(&got.reply);
	mem_free(bytes);
	rig_stop(&rig);
}

Test(call, cancel_by_the_client_ends_both_sides)
{
	struct rig rig;
	struct got got;
	got_init(&got);
	rig_start(&rig);
	struct grpc_call *call = rig_call(&rig, "Never", &got);
	grpc_call_send(call, SPAN("x"));
	RIG_UNTIL(&rig, rig.opened == 1);
	grpc_call_cancel(call);
	cr_assert_eq(got.done, 0);
	RIG_UNTIL(&rig, got.done && rig.done == 1);
	cr_assert_eq(got.code, GRPC_CANCELLED);
	cr_assert_eq(rig.last_done.code, GRPC_CANCELLED);
	cr_assert(rig.last_done.reset);
	cr_assert_eq(rig.last_done.http2_error, 8);
	got_release(&got);
	rig_stop(&rig);
}

Test(call, cancel_by_the_server_ends_both_sides)
{
	struct rig rig;
	struct got got;
	got_init(&got);
	rig_start(&rig);
	rig_call(&rig, "Never", &got);
	RIG_UNTIL(&rig, rig.opened == 1);
	grpc_call_cancel(rig.last);
	RIG_UNTIL(&rig, got.done && rig.done == 1);
	cr_assert_eq(got.code, GRPC_CANCELLED);
	cr_assert(got.reset);
	cr_assert_eq(rig.last_done.code, GRPC_CANCELLED);
	got_release(&got);
	rig_stop(&rig);
}

Test(call, deadline_passes_on_both_sides)
{
	struct rig rig;
	struct got got;
	got_init(&got);
	rig_start(&rig);
	grpc_channel_call(rig.channel, "/test.Echo/Never", NULL, 100, false, &got_ops, &got);
	RIG_UNTIL(&rig, got.done && rig.done == 1);
	cr_assert_eq(got.code, GRPC_DEADLINE_EXCEEDED);
	cr_assert(rig.last_done.code == GRPC_DEADLINE_EXCEEDED || rig.last_done.code == GRPC_CANCELLED);
	got_release(&got);
	rig_stop(&rig);
}

Test(call, freeing_the_channel_ends_its_calls)
{
	struct rig rig;
	struct got open, waiting;
	got_init(&open);
	got_init(&waiting);
	rig_start(&rig);
	rig_call(&rig, "Never", &open);
	RIG_UNTIL(&rig, rig.opened == 1);
	struct grpc_channel_config config = {.target = "127.0.0.1:1"};
	struct grpc_channel *other = grpc_channel_new(rig.loop, &config, NULL, NULL);
	grpc_channel_call(other, "/x/Y", NULL, -1, true, &got_ops, &waiting);
	grpc_channel_free(other);
	cr_assert_eq(waiting.done, 1);
	cr_assert_eq(waiting.code, GRPC_CANCELLED);
	grpc_channel_free(rig.channel);
	rig.channel = NULL;
	cr_assert_eq(open.done, 1);
	RIG_UNTIL(&rig, rig.done == 1);
	got_release(&open);
	got_release(&waiting);
	rig_stop(&rig);
}

Test(call, refused_connection_is_unavailable_and_not_sent)
{
	struct rig rig;
	struct got got;
	got_init(&got);
	rig_start(&rig);
	struct grpc_channel_config config = {.target = "127.0.0.1:1"};
	struct grpc_channel *ch = grpc_channel_new(rig.loop, &config, NULL, NULL);
	grpc_channel_call(ch, "/x/Y", NULL, -1, false, &got_ops, &got);
	RIG_UNTIL(&rig, got.done);
	cr_assert_eq(got.code, GRPC_UNAVAILABLE);
	cr_assert(got.not_sent);
	cr_assert_eq(grpc_channel_state(ch), GRPC_CHANNEL_FAILED);
	grpc_channel_free(ch);
	got_release(&got);
	rig_stop(&rig);
}
