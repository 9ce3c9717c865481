/* A growing list of headers in an arena. One thread. */
#ifndef CAIRN_GRPC_HEADER_LIST_H
#define CAIRN_GRPC_HEADER_LIST_H

#include "base/arena.h"
#include "grpc/grpc.h"

struct header_list {
	struct headers h;
	struct header *room; /* h.items, writable */
	size_t cap, first; /* first: of the first array, 0 for a few */
};
/* An empty list whose first headers need no room in the arena: it must not outlive the array. */
#define HEADER_LIST_ON(array)                                                     \
	{                                                                         \
		.h = {.items = (array)}, .room = (array), .cap = ARRAY_LEN(array) \
	}
/* Copies name and value into the arena, or (put) keeps the spans as they are. */
enum err_code header_list_add(struct header_list *list, struct arena *a, struct span name, struct span value);
enum err_code header_list_put(struct header_list *list, struct arena *a, struct span name,
			      struct span value);

#endif
