/* What is served beside the function: metrics, readiness, liveness, and Knative's probe. No state of its own.
 * Private to src/proxy. */
#ifndef CAIRN_PROXY_MANAGEMENT_H
#define CAIRN_PROXY_MANAGEMENT_H

#include "grpc/grpc.h"
#include "proxy/stats.h"

struct management {
	bool (*ready)(void *arg, const char **ret_why_not);
	const struct stats *(*stats)(void *arg);
	void *arg;
};

/* MANAGEMENT_PORT: GET /ready, GET /alive. For grpc_server_set_http(), as the next one; arg is a struct
 * management. */
void management_handle(struct http_exchange *x, const struct http_request *request, void *arg);
/* METRICS_PORT: GET /metrics, /readyz, /healthz. */
void management_handle_metrics(struct http_exchange *x, const struct http_request *request, void *arg);

/* Answers a request of Knative's activator or queue-proxy (header K-Network-Probe), on any path; false: it is
 * none. */
bool management_probe(struct http_exchange *x, const struct http_request *request);

#endif
