#include <config.h>

#include "grpc/header_list.h"

#include <string.h>

#define HEADERS_FIRST ((size_t)4) /* metadata and trailers are few */

enum err_code header_list_put(struct header_list *list, struct arena *a, struct span name, struct span value)
{
	if (list->h.n == list->cap) {
		size_t cap = list->cap ? list->cap * 2 : list->first ? list->first : HEADERS_FIRST;
		struct header *room = arena_alloc(a, cap * sizeof(*room));
		if (!room)
			return ERR_NOMEM;
		if (list->h.n)
			memcpy(room, list->room, list->h.n * sizeof(*room));
		list->room = room;
		list->h.items = room;
		list->cap = cap;
	}
	list->room[list->h.n++] = (struct header){name, value};
	return ERR_OK;
}

enum err_code header_list_add(struct header_list *list, struct arena *a, struct span name, struct span value)
{
	struct span name_copy = arena_dup(a, name), value_copy = arena_dup(a, value);
	if (!name_copy.p || !value_copy.p)
		return ERR_NOMEM;
	return header_list_put(list, a, name_copy, value_copy);
}
