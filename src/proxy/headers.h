/* Headers and metadata: what of a request's headers a function is told, and what of a reply's metadata
 * becomes headers (contract, section 2, "Metadata and headers"). The same for gRPC and HTTP. No I/O. */
#ifndef CAIRN_PROXY_HEADERS_H
#define CAIRN_PROXY_HEADERS_H

#include "base/arena.h"
#include "base/err.h"
#include "grpc/grpc.h"
#include "proxy/router.h"

enum headers_wire {
	HEADERS_GRPC, /* "-bin" values are raw bytes: the gRPC library does the base64 */
	HEADERS_HTTP  /* "-bin" values are base64 text, here and there */
};

/* A request's headers as metadata: one entry a value, order kept, without those that belong to the
 * transport. A "-bin" value that is no base64 is passed on as text. The result is a copy in the arena.
 * ERR_NOMEM: past the arena's maximum. */
enum err_code headers_to_metadata(const struct headers *headers, enum headers_wire wire, struct arena *a,
				  struct metadata *ret);

/* A reply's metadata as headers, without those that belong to the transport and without names or values
 * that are not legal there. A copy in the arena. ERR_NOMEM: past the arena's maximum. */
enum err_code headers_from_metadata(const struct metadata *metadata, enum headers_wire wire, struct arena *a,
				    struct headers *ret);

/* May it stand in a header? Visible ASCII, and inside spaces and tabs: above all no end of a line. */
bool headers_value_legal(struct span value);

#endif
