/* An intrusive doubly linked list with a head. `struct list_node` is embedded; CONTAINER_OF leads back.
 * A node is on at most one list; list_remove() leaves it unlinked, and removing it twice is harmless. */
#ifndef CAIRN_BASE_LIST_H
#define CAIRN_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list_node {
	struct list_node *prev, *next; /* both NULL while on no list */
};
struct list {
	struct list_node head;
};

static inline void list_init(struct list *l)
{
	l->head.prev = l->head.next = &l->head;
}
static inline bool list_empty(const struct list *l)
{
	return l->head.next == &l->head;
}
static inline bool list_linked(const struct list_node *n)
{
	return n->next != NULL;
}
static inline void list_push_back(struct list *l, struct list_node *n)
{
	n->prev = l->head.prev;
	n->next = &l->head;
	l->head.prev->next = n;
	l->head.prev = n;
}
static inline void list_push_front(struct list *l, struct list_node *n)
{
	n->next = l->head.next;
	n->prev = &l->head;
	l->head.next->prev = n;
	l->head.next = n;
}
static inline void list_remove(struct list_node *n)
{
	if (!n->next)
		return;
	n->prev->next = n->next;
	n->next->prev = n->prev;
	n->prev = n->next = NULL;
}
static inline struct list_node *list_first(const struct list *l) /* NULL when empty */
{
	return list_empty(l) ? NULL : l->head.next;
}
static inline struct list_node *list_next(const struct list *l, const struct list_node *n)
{
	return n->next == &l->head ? NULL : n->next; /* NULL at the end */
}
static inline struct list_node *list_pop_front(struct list *l) /* NULL when empty */
{
	struct list_node *n = list_first(l);
	if (n)
		list_remove(n);
	return n;
}

#endif
