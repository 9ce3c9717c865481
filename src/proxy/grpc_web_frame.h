/* What gRPC-Web puts into a body: frames of a flag byte, a length of four bytes (big-endian) and as many bytes, as in
 * gRPC over HTTP/2, the last of an answer with the status in it; in "-text" bodies all of it in base64. Pure functions
 * over bytes; any thread. Format: PROTOCOL-WEB of the gRPC project. */
#ifndef CAIRN_PROXY_GRPC_WEB_FRAME_H
#define CAIRN_PROXY_GRPC_WEB_FRAME_H

#include "base/buf.h"
#include "grpc/grpc.h"

#define GRPC_WEB_TRAILERS 0x80 /* the flag of the last frame */

/* Appends what base64 in pieces, each padded by itself, stands for. ERR_INVALID: it is none; ERR_LIMIT, ERR_NOMEM as of
 * the buffer. */
enum err_code grpc_web_decode_text(struct span text, struct buf *out);
/* Takes the next message off a request's body. False: none; then *ret_code is GRPC_OK at the end of the body,
 * INVALID_ARGUMENT inside a message, UNIMPLEMENTED before one that is compressed, or is none. */
bool grpc_web_next_message(struct span *body, struct span *ret, enum grpc_code *ret_code);
/* Appends one frame, at most 4 GiB, in base64 where it is text. */
enum err_code grpc_web_put_frame(struct buf *out, uint8_t flags, struct span bytes, bool text);

#endif
