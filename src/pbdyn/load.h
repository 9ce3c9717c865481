/* How a pool is made: load.c turns bytes into descriptors and lists what is still a name, link.c turns
 * the names into pointers. The lists live in a scratch arena that goes when the pool stands. */
#ifndef CAIRN_PBDYN_LOAD_H
#define CAIRN_PBDYN_LOAD_H

#include "pbdyn/internal.h"

struct load_file {
	struct load_file *next;
	struct pb_file *file;
	const struct pb_file **deps;
	size_t order;	/* as it came, over all sets */
	bool left_out; /* an earlier one is the same */
};
struct load_type {
	struct load_type *next;
	struct pb_type *type;
	struct pb_field *fields;
};
struct load_field { /* a field or extension that names a type, an extended type or a default */
	struct load_field *next;
	struct pb_field *field;
	struct span scope, type_name, extendee, fallback;
	bool has_type, has_fallback;
};
struct load_method {
	struct load_method *next;
	struct pb_method *method;
	struct span scope, input, output;
};
struct load_service {
	struct load_service *next;
	struct pb_service *service;
};
struct load_symbol {
	struct load_symbol *next;
	struct symbol symbol;
};
struct load_extension {
	struct load_extension *next;
	struct extension extension;
};

#define LOAD_LIST(type) \
	struct { \
		struct type *first, **last_next, *added; \
		size_t count; \
	}

struct loader {
	struct pb_pool *pool;
	struct arena scratch;
	struct err *err;
	const struct pb_file *file; /* the one being loaded */
	LOAD_LIST(load_file) files;
	LOAD_LIST(load_type) types;
	LOAD_LIST(load_field) fields;
	LOAD_LIST(load_method) methods;
	LOAD_LIST(load_service) services;
	LOAD_LIST(load_symbol) symbols;
	LOAD_LIST(load_extension) extensions;
	/* symbols and files of the sets before this one */
	struct symbol *known;
	size_t known_count;
	struct pb_file **known_files;
	size_t known_file_count;
};

/* Appends a zeroed node to a list and gives it; NULL when the scratch arena is exhausted. */
#define LOAD_APPEND(l, list) \
	((list)->added = arena_zalloc(&(l)->scratch, sizeof(*(list)->first)), \
	 (list)->added ? (*(list)->last_next = (list)->added, (list)->last_next = &(list)->added->next, \
			  (list)->count++, (list)->added) \
		       : NULL)
#define LOAD_LIST_INIT(list) ((list)->first = NULL, (list)->last_next = &(list)->first, (list)->count = 0)

/* Loads one serialized FileDescriptorSet. */
enum err_code load_set(struct loader *l, struct span set, size_t set_index);
/* Resolves everything and fills the pool's tables. */
enum err_code link_pool(struct loader *l);
/* Sorts the symbols loaded so far and refuses a name that two files define. */
enum err_code link_symbols(struct loader *l);

/* link.c's helpers for one message type: JSON names, lookup tables, the shape of the well-known types. */
enum err_code link_type(struct loader *l, struct load_type *t);
/* The default that a proto2 field declares. */
enum err_code link_fallback(struct loader *l, const struct load_field *f);

enum err_code load_fail(struct loader *l, const struct pb_file *file, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
enum err_code load_exhausted(struct loader *l);
/* "scope.name" in the pool's arena, or name alone where scope is empty; p is NULL when exhausted. */
struct span load_join(struct arena *arena, struct span scope, struct span name);

#endif
