/* The function's descriptors in the journal (DESIGN 5): what tools decode records by. One record in the stream
 * `$schema-[NS/]SERVICE`, SERVICE being the first by bytes of the function's services, whenever what is served
 * differs from what the newest record there says; however many proxies see it, it is one. Its data is the
 * FileDescriptorSet as the function gave it, its metadata names the categories whose records are of its types.
 *
 * No command waits for this, and nothing of it reaches the function. One thread, the loop's. Private to src/proxy. */
#ifndef CAIRN_PROXY_SCHEMA_H
#define CAIRN_PROXY_SCHEMA_H

#include "base/span.h"
#include "proxy/spec.h"

struct client;
struct loop;
struct schema;
struct schema_config {
	struct loop *loop;
	struct client *journal;
	struct span name_space; /* before every stream's name: "" or "NS/"; lives as long */
};

struct schema *schema_new(const struct schema_config *config);
void schema_free(struct schema *s); /* after the journal's client */
/* A spec has come into force: it is kept once the journal can be reached. */
void schema_keep(struct schema *s, struct spec *spec);

/* Whether two FileDescriptorSets are made of the same files, in whatever order. */
bool schema_same_files(struct span a, struct span b);

/* The record's metadata key: categories, with a line feed between them. */
#define SCHEMA_CATEGORIES_KEY "cairn-categories"

#endif
