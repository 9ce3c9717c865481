/* A sub-command's connection to a journal: its own event loop and a client on it. */
#include <config.h>

#include "cli/session.h"

#include <signal.h>
#include <stdio.h>

#include "base/must.h"
#include "grpc/grpc.h"
#include "journal/client.h"

static enum cli_exit unreachable(const struct cli_session *s, struct span why)
{
	fprintf(stderr, "cairn: the journal at %s cannot be reached: %.*s\n"
		"cairn: start one with `cairnd`, or name another with --journal HOST:PORT\n",
		s->target, SPAN_ARG(why));
	return CLI_UNREACHABLE;
}

static void session_on_state(struct client *c, enum grpc_channel_state state, const struct err *why,
			     void *arg)
{
	struct cli_session *s = arg;

	(void)c;
	if (state == GRPC_CHANNEL_READY)
		s->connected = true;
	else if (state == GRPC_CHANNEL_FAILED && !s->connected && !s->finished)
		cli_finish(s, unreachable(s, span_str(why ? why->text : "no connection")));
}

void cli_session_open(struct cli_session *s, const struct cli_options *options)
{
	*s = (struct cli_session){.target = options->journal};
	s->loop = loop_new();
	s->client = client_new(s->loop, &(struct client_config){
						.target = options->journal,
						.on_state = session_on_state,
						.arg = s,
					});
}

void cli_session_close(struct cli_session *s)
{
	s->closing = true;
	client_free(s->client);
	loop_free(s->loop);
	*s = (struct cli_session){0};
}

static void session_on_signal(int signo, void *arg)
{
	struct cli_session *s = arg;

	(void)signo;
	s->interrupted = true;
	s->on_interrupt(s->arg);
}

void cli_session_catch(struct cli_session *s, void (*fn)(void *arg), void *arg)
{
	s->on_interrupt = fn;
	s->arg = arg;
	loop_on_signal(s->loop, SIGINT, session_on_signal, s);
	loop_on_signal(s->loop, SIGTERM, session_on_signal, s);
}

enum cli_exit cli_wait(struct cli_session *s)
{
	while (!s->finished)
		loop_run_once(s->loop, true);
	s->finished = false;
	return s->exit;
}

void cli_finish(struct cli_session *s, enum cli_exit exit)
{
	if (s->finished)
		return;
	s->finished = true;
	s->exit = exit;
}

enum cli_exit cli_client_error(struct cli_session *s, const struct client_error *error)
{
	if (error->code == GRPC_OK)
		return CLI_OK;
	if (s->closing || (s->finished && error->unreachable))
		return s->exit; /* what it was has been said */
	if (error->unreachable)
		return unreachable(s, error->text);
	fprintf(stderr, "cairn: %s: %.*s\n", grpc_code_name(error->code), SPAN_ARG(error->text));
	return cli_exit_of(client_error_to_err(error, NULL));
}
