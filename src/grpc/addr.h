/* "host:port" as people write it. */
#ifndef CAIRN_GRPC_ADDR_H
#define CAIRN_GRPC_ADDR_H

#include "base/err.h"

#define ADDR_HOST_BYTES 256

/* "127.0.0.1:80", "[::1]:80", "name:80", ":80" (host is empty). The error names the text. */
enum err_code addr_split(const char *text, char ret_host[ADDR_HOST_BYTES], int *ret_port, struct err *err);

#endif
