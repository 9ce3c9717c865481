#include <config.h>

#include "grpc/addr.h"

#include <string.h>

#include "base/text.h"
#include "grpc/grpc.h"

enum err_code addr_split(const char *text, char ret_host[ADDR_HOST_BYTES], int *ret_port, struct err *err)
{
	const char *colon = strrchr(text, ':');
	uint64_t port;
	if (!colon || !parse_u64(span_str(colon + 1), &port) || port > 65535)
		return err_set(err, ERR_INVALID,
			       "address '%s' does not end in a port: write HOST:PORT, [IPV6]:PORT or :PORT",
			       text);
	struct span host = span_of(text, (size_t)(colon - text));
	bool bracketed = host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';
	if (bracketed)
		host = span_of(host.p + 1, host.n - 2);
	else if (span_find(host, ':') < host.n)
		return err_set(err, ERR_INVALID, "address '%s': write an IPv6 host in brackets, [::1]:PORT",
			       text);
	if (host.n >= ADDR_HOST_BYTES)
		return err_set(err, ERR_INVALID, "address '%.32s...': the host's name is too long", text);
	if (host.n)
		memcpy(ret_host, host.p, host.n);
	ret_host[host.n] = 0;
	*ret_port = (int)port;
	return ERR_OK;
}

enum err_code grpc_address_check(const char *text, struct err *err)
{
	char host[ADDR_HOST_BYTES];
	int port;
	return addr_split(text, host, &port, err);
}
