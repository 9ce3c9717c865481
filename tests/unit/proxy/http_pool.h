/* The pool of http_test.proto, made by protoc at build time, for the tests of this folder. */
#ifndef CAIRN_TESTS_HTTP_POOL_H
#define CAIRN_TESTS_HTTP_POOL_H

#include "pbdyn/pbdyn.h"
#include "proxy/http_binding.h"

struct pb_pool *http_pool_load(void);
struct http_bindings *http_pool_bindings(const struct pb_pool *pool); /* of the service Things */

#endif
