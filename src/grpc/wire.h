/* How gRPC writes things into HTTP/2 headers: metadata with "-bin", grpc-timeout, grpc-message, and the
 * tables between our errors, HTTP's and gRPC's. Pure functions over bytes. */
#ifndef CAIRN_GRPC_WIRE_H
#define CAIRN_GRPC_WIRE_H

#include "grpc/session.h"

/* The metadata among received headers: pseudo-headers and grpc's own end-of-call headers left out, values
 * of "-bin" names decoded into the arena (padded or not, comma-joined ones split), all else as it lies in
 * `received`. ERR_INVALID: not base64. */
enum err_code wire_metadata_read(const struct headers *received, struct arena *a, struct header_list *ret);
/* Metadata as headers, "-bin" values encoded. Names that gRPC keeps for itself (":…", "grpc-…",
 * content-type, te, user-agent) and names or values that HTTP forbids are left out. */
enum err_code wire_metadata_write(const struct headers *metadata, struct arena *a, struct header_list *ret);

/* "100m" and the like; -1 if there is none or it is malformed. Rounded up to whole milliseconds. */
int64_t wire_timeout_parse(struct span text);
/* At most 8 digits and a unit; timeout_ms >= 0. */
#define WIRE_TIMEOUT_BYTES 24
void wire_timeout_format(int64_t timeout_ms, char buf[WIRE_TIMEOUT_BYTES]);

/* grpc-message: percent-encoded UTF-8, both ways; a broken escape is kept as it is. What would be longer than
 * max_bytes once encoded ends in "..." instead. p is NULL: no memory. */
struct span wire_message_encode(struct span text, size_t max_bytes, struct arena *a);
struct span wire_message_decode(struct span text, struct arena *a);

bool wire_is_grpc(
	struct span content_type); /* application/grpc, application/grpc+proto; parameters allowed */
enum grpc_code wire_code_of_status(struct span grpc_status); /* UNKNOWN for what is no number */
enum grpc_code wire_code_of_http(int http_status);           /* an answer without grpc-status */
enum grpc_code wire_code_of_reset(uint32_t http2_error);
int wire_decimal(struct span text); /* -1 if it is none (up to 9 digits) */

#endif
