/* gzip of whole messages, both ways. */
#ifndef CAIRN_GRPC_GZIP_H
#define CAIRN_GRPC_GZIP_H

#include "base/buf.h"

/* Appends to out; its maximum is the limit of what comes out (ERR_LIMIT). ERR_INVALID: not gzip. */
enum err_code gzip_inflate(struct buf *out, struct span compressed, struct err *err);
enum err_code gzip_deflate(struct buf *out, struct span plain);

#endif
