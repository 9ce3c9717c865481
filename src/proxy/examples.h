/* Example calls of a function's methods, as a person would type them: one `curl` and one `grpcurl` line that
 * work as they stand. No I/O. */
#ifndef CAIRN_PROXY_EXAMPLES_H
#define CAIRN_PROXY_EXAMPLES_H

#include "base/buf.h"
#include "proxy/spec.h"

/* Appends "curl ..." for the method's first binding against 127.0.0.1:port. */
enum err_code example_curl(const struct spec_method *method, int port, struct buf *out);
/* Appends "grpcurl ..." (it finds the types by reflection). */
enum err_code example_grpcurl(const struct spec_method *method, int port, struct buf *out);
/* The method to show of a service: one without side effects as far as its name and binding tell (GET, or
 * a name that begins with "Get", "List" or "Read"), else the first. */
const struct spec_method *example_method(const struct spec_service *service);

#endif
