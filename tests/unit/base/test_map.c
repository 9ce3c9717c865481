#include <config.h>

#include "base/map.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "tests/unit/scale.h"

static struct span key_of(int i, char buf[32])
{
	return span_of(buf, (size_t)snprintf(buf, 32, "stream|%d", i));
}

/* From CPython 3.11, whose hash() is SipHash-1-3 with a zero key under PYTHONHASHSEED=0. */
Test(map, hash_is_siphash_1_3)
{
	static const uint64_t zero[2] = {0, 0};
	cr_assert(hash_bytes(zero, SPAN("a")) == 0x407448d2b89b1813);
	cr_assert(hash_bytes(zero, SPAN("cairn")) == 0x04169f240b45244c);
	cr_assert(hash_bytes(zero, SPAN("01234567")) == 0xda3dcedf84ea6cc6);
	cr_assert(hash_bytes(zero, SPAN("shopping-cart|1")) == 0x9236d37418eba4fb);
	uint8_t bytes[63];
	for (uint8_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = i;
	cr_assert(hash_bytes(zero, span_of(bytes, sizeof(bytes))) == 0x385d3e39e5f37359);
	static const uint64_t seed[2] = {1, 2};
	cr_assert(hash_bytes(seed, SPAN("a")) != hash_bytes(zero, SPAN("a")));
}

Test(map, keeps_what_is_put)
{
	struct map m;
	int a, b;
	map_init(&m);
	cr_assert(map_get(&m, SPAN("a")) == NULL);
	cr_assert(map_remove(&m, SPAN("a")) == NULL);
	char key[] = "a";
	cr_assert(map_put(&m, span_str(key), &a) == NULL);
	key[0] = 'x'; /* keys are copied */
	cr_assert(map_get(&m, SPAN("a")) == &a);
	cr_assert(map_put(&m, SPAN("a"), &b) == &a);
	cr_assert(map_get(&m, SPAN("a")) == &b);
	cr_assert(m.count == 1);
	cr_assert(map_put(&m, SPAN(""), &a) == NULL);
	cr_assert(map_put(&m, SPAN("a\0b"), &a) == NULL);
	cr_assert(map_get(&m, span_of(NULL, 0)) == &a);
	cr_assert(map_remove(&m, SPAN("a")) == &b);
	cr_assert(map_get(&m, SPAN("a")) == NULL);
	cr_assert(map_get(&m, SPAN("a\0b")) == &a);
	cr_assert(m.count == 2);
	map_release(&m);
	cr_assert(map_get(&m, SPAN("")) == NULL);
}

Test(map, agrees_with_an_array_over_random_work)
{
	enum { KEYS = 500 };
	static int values[KEYS];
	bool present[KEYS] = {0};
	struct map m;
	char buf[32];
	map_init(&m);
	unsigned int random = 1;
	size_t count = 0;
	for (size_t step = 0, steps = test_scaled(100000); step < steps; step++) {
		random = random * 1664525 + 1013904223;
		int i = (int)(random >> 8) % KEYS;
		struct span key = key_of(i, buf);
		cr_assert(map_get(&m, key) == (present[i] ? &values[i] : NULL));
		if (random >> 31) {
			cr_assert(map_put(&m, key, &values[i]) == (present[i] ? &values[i] : NULL));
			count += !present[i];
			present[i] = true;
		} else {
			cr_assert(map_remove(&m, key) == (present[i] ? &values[i] : NULL));
			count -= present[i];
			present[i] = false;
		}
		cr_assert(m.count == count);
	}
	cr_assert(m.cap <= 2048, "deleted slots are swept out, they do not grow the table");
	map_release(&m);
}

struct visit {
	struct map *map;
	int seen, sum;
};

static void visit_and_remove_odd(struct span key, void *value, void *arg)
{
	struct visit *v = arg;
	int n = *(int *)value;
	v->seen++;
	v->sum += n;
	if (n % 2)
		cr_assert(map_remove(v->map, key) == value);
}

Test(map, each_visits_all_and_may_remove_the_visited)
{
	enum { KEYS = 1000 };
	static int values[KEYS];
	struct map m;
	char buf[32];
	map_init(&m);
	for (int i = 0; i < KEYS; i++) {
		values[i] = i;
		map_put(&m, key_of(i, buf), &values[i]);
	}
	struct visit v = {.map = &m};
	map_each(&m, visit_and_remove_odd, &v);
	cr_assert(v.seen == KEYS);
	cr_assert(v.sum == KEYS * (KEYS - 1) / 2);
	v = (struct visit){.map = &m};
	map_each(&m, visit_and_remove_odd, &v);
	cr_assert(v.seen == KEYS / 2);
	map_release(&m);
}
