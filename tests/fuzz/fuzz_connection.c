/* Any bytes as what a client says to a server, over a socket of the loopback: HTTP/1, HTTP/2, gRPC, health
 * and reflection behind one port. The server goes on serving, and nothing of the connection stays. This
 * target does I/O, for the HTTP/1 side is made for a connection; fuzz_http2 is the one without. */
#include <config.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/must.h"
#include "grpc/grpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void unary_echo(struct grpc_call *call, struct span request, void *arg)
{
	(void)arg;
	grpc_call_reply(call, request);
}

static void http_on_body(struct http_exchange *x, struct span piece, void *user)
{
	(void)user;
	http_write(x, piece);
}

static void http_on_body_end(struct http_exchange *x, void *user)
{
	(void)user;
	http_end(x);
}

static const struct http_exchange_ops http_ops = {.on_body = http_on_body, .on_body_end = http_on_body_end};

static void http_handle(struct http_exchange *x, const struct http_request *request, void *arg)
{
	(void)arg;
	if (request->target.n % 2) {
		http_respond(x, 200, &request->headers, SPAN("hello"));
		return;
	}
	http_exchange_bind(x, &http_ops, NULL);
	http_start(x, 200, &request->headers);
}

static void no_services(void *arg, void (*add)(void *to, struct span name), void *to)
{
	(void)arg;
	add(to, SPAN("x.Y"));
}

static void no_file(void *arg, struct span name, void (*add)(void *to, struct span name, struct span file),
		    void *to)
{
	(void)arg;
	add(to, name, name);
}

static void no_extension(void *arg, struct span type, int32_t number,
			 void (*add)(void *to, struct span name, struct span file), void *to)
{
	(void)number;
	no_file(arg, type, add, to);
}

static bool no_numbers(void *arg, struct span type, void (*add)(void *to, int32_t number), void *to)
{
	(void)arg;
	(void)type;
	add(to, 1);
	return true;
}

struct target {
	struct loop *loop;
	struct grpc_server *server;
	struct grpc_health *health;
};

static void target_start(struct target *t)
{
	static const struct grpc_method echo = {.path = "/x.Y/Echo", .unary = unary_echo};
	static const struct grpc_reflection_source source = {.services = no_services,
							     .file_by_name = no_file,
							     .file_by_symbol = no_file,
							     .file_by_extension = no_extension,
							     .extension_numbers = no_numbers};
	struct grpc_server_config config = {.listen = "127.0.0.1:0", .message_max_bytes = 100000};
	t->loop = loop_new();
	t->server = grpc_server_new(&config, &t->loop, 1);
	t->health = grpc_health_new(t->server);
	grpc_server_add(t->server, &echo, 1);
	grpc_server_set_http(t->server, http_handle, NULL);
	grpc_reflection_add(t->server, &source);
	must(grpc_server_listen(t->server, NULL) == ERR_OK);
}

static void target_stop(struct target *t)
{
	grpc_server_free(t->server);
	grpc_health_free(t->health);
	loop_free(t->loop);
}

/* Takes what has come; false once the server has closed. */
static bool drain(int fd)
{
	char bytes[65536];
	ssize_t n;
	while ((n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
		;
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct target t;
	target_start(&t);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_port = htons((uint16_t)grpc_server_port(t.server))};
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	must(connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 || errno == EINPROGRESS);
	bool open = true;
	for (int turn = 0; open && turn < 1000; turn++) {
		if (size) {
			ssize_t n = send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
			if (n > 0) {
				data += n;
				size -= (size_t)n;
			}
			if (size == 0)
				shutdown(fd, SHUT_WR);
		} else if (turn == 0) {
			shutdown(fd, SHUT_WR);
		}
		loop_run_once(t.loop, false);
		open = drain(fd);
	}
	close(fd);
	target_stop(&t);
	return 0;
}
