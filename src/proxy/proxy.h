/* The proxy: a function's sidecar. It discovers what the function serves, serves it to the world by gRPC and
 * HTTP/JSON, drives the function's entities and keeps their events in a journal. What this is not: it knows
 * no storage, and reads no configuration.
 *
 * One thread, the loop's: front, function, journal and entities share it, so that a command is never handed
 * from thread to thread.
 *
 *	struct proxy *p = proxy_new(loop, &config);
 *	if (proxy_start(p, &err)) ...	// metrics, management; then it looks for the function
 *	loop_run(loop);			// until proxy_drain() has called back
 *	proxy_free(p); */
#ifndef CAIRN_PROXY_H
#define CAIRN_PROXY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct loop;
struct proxy;

struct proxy_config {
	const char *listen;     /* of the front: ":9000" */
	const char *function;   /* "127.0.0.1:8080" */
	const char *journal;    /* "127.0.0.1:7117" */
	const char *name_space; /* before every journal stream, with a '/' between; NULL or "": none */
	const char *metrics;    /* ":9090"; NULL: no metrics are served */
	const char *management; /* ":8558"; NULL: no management port */
	const char *cors_origins; /* of pages that may call by gRPC-Web, with commas; "*": any; NULL or "": none */
	bool check_protocol;    /* refuse functions of another protocol version */
	int64_t passivation_ms, command_timeout_ms, load_timeout_ms, append_timeout_ms, close_grace_ms;
	int64_t event_retry_ms; /* after a first failed delivery of a log's event */
	bool event_failure_is_done;
	int64_t session_ttl_ms; /* of the journal's belief that this process lives, where there are CRDTs */
	int64_t entity_memory_bytes, max_waiting, function_message_max_bytes;
	/* The front's port could not be bound: there is no point in going on. */
	void (*failed)(void *arg, const struct err *err);
	void *arg;
};

struct proxy *proxy_new(struct loop *loop, const struct proxy_config *config);
/* Serves metrics and management, connects to the journal, looks for the function. The front's port is bound
 * once discovery has succeeded. */
enum err_code proxy_start(struct proxy *p, struct err *err);
/* The front's port; 0 while it is not bound. */
int proxy_port(const struct proxy *p);
/* Takes no new calls, lets those under way end and entities passivate, then done(arg); at the latest after
 * grace_ms. */
void proxy_drain(struct proxy *p, int64_t grace_ms, void (*done)(void *arg, bool clean), void *arg);
/* After a clean drain, with the loop stopped; NULL is fine. */
void proxy_free(struct proxy *p);

#endif
