#include <config.h>

#include "base/list.h"

#include <criterion/criterion.h>

#include "base/must.h"

struct item {
	int n;
	struct list_node node;
};

static int number(struct list_node *n)
{
	return CONTAINER_OF(n, struct item, node)->n;
}

Test(list, keeps_order_from_both_ends)
{
	struct list l;
	struct item a = {.n = 1}, b = {.n = 2}, c = {.n = 3};
	list_init(&l);
	cr_assert(list_empty(&l));
	cr_assert(list_first(&l) == NULL);
	list_push_back(&l, &b.node);
	list_push_back(&l, &c.node);
	list_push_front(&l, &a.node);
	int want = 1;
	for (struct list_node *n = list_first(&l); n; n = list_next(&l, n))
		cr_assert(number(n) == want++);
	cr_assert(want == 4);
	cr_assert(number(list_pop_front(&l)) == 1);
	cr_assert(number(list_pop_front(&l)) == 2);
	cr_assert(number(list_pop_front(&l)) == 3);
	cr_assert(list_pop_front(&l) == NULL);
}

Test(list, removal_unlinks_and_is_harmless_twice)
{
	struct list l;
	struct item a = {.n = 1}, b = {.n = 2}, c = {.n = 3};
	list_init(&l);
	list_push_back(&l, &a.node);
	list_push_back(&l, &b.node);
	list_push_back(&l, &c.node);
	cr_assert(list_linked(&b.node));
	list_remove(&b.node);
	list_remove(&b.node);
	cr_assert_not(list_linked(&b.node));
	cr_assert(list_next(&l, &a.node) == &c.node);
	list_push_front(&l, &b.node);
	cr_assert(list_first(&l) == &b.node);
}
