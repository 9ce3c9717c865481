/* What storage.h promises to readers while somebody appends, asked of every backend. */
#include <config.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#include "fixture.h"

struct follower {
	struct storage *s;
	struct storage_query q;
	uint64_t until; /* records to be seen */
	uint64_t seen;
	bool wrong;
};

static void *follow(void *arg)
{
	struct follower *it = arg;
	struct storage_reader *r;
	struct storage_page page;
	struct buf out;
	struct err err = {0};
	uint64_t last = 0;
	buf_init(&out, 4 * MIB);
	if (storage_reader_open(it->s, &r, &err))
		return NULL;
	while (it->seen < it->until && !it->wrong) {
		struct span run, entry;
		buf_clear(&out);
		if (storage_read(r, &it->q, &out, &page, &err)) {
			it->wrong = true;
			break;
		}
		run = buf_span(&out);
		while (record_next(&run, &entry, NULL, NULL) == ERR_OK) {
			struct record_view view;
			it->wrong = it->wrong || record_decode(entry, &view, NULL) != ERR_OK ||
				    (it->seen > 0 && view.position <= last) ||
				    (it->q.source == STORAGE_ALL && view.position != it->seen) ||
				    (it->q.source == STORAGE_STREAM && view.sequence != it->seen + 1);
			last = view.position;
			it->seen++;
		}
		it->q.from = page.next;
	}
	storage_reader_close(r);
	buf_release(&out);
	return NULL;
}

CONTRACT(threads, readers_follow_a_writer_without_gap_or_repetition)
{
	enum { RECORDS = 3000 };
	struct follower followers[4] = {
		{f->s, EVERYTHING, RECORDS, 0, false},
		{f->s, EVERYTHING, RECORDS / 3, 0, false},
		{f->s, EVERYTHING, RECORDS / 3, 0, false},
		{f->s, EVERYTHING, RECORDS, 0, false},
	};
	followers[1].q.source = STORAGE_STREAM;
	followers[1].q.name = SPAN("a|0");
	followers[2].q.source = STORAGE_STREAM;
	followers[2].q.name = SPAN("a|1");
	followers[2].q.max_records = 7;
	followers[3].q.source = STORAGE_CATEGORY;
	followers[3].q.name = SPAN("a");
	pthread_t threads[4];
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, follow, &followers[i]), 0);
	for (size_t i = 0; i < RECORDS; i++) {
		char name[8];
		snprintf(name, sizeof(name), "a|%zu", i % 3);
		batch_add(f, name, RECORD_EVENT, 50, 0);
		if (i % 5 == 4)
			batch_append(f);
	}
	batch_append(f);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
		pthread_join(threads[i], NULL);
		cr_assert(!followers[i].wrong, "%s: follower %zu at %llu", f->row->name, i,
			  (unsigned long long)followers[i].seen);
		cr_assert_eq(followers[i].seen, followers[i].until);
	}
}

struct lister {
	struct storage *s;
	_Atomic size_t *added; /* streams that are there for sure */
	size_t until;
	bool wrong;
};

/* Lists all streams in pages; each of those that were there before must be among them, once, in order. */
static bool list_all(struct storage_reader *r, const struct lister *it, size_t *ret_n)
{
	struct storage_stream_info info[100];
	struct err err = {0};
	struct arena a;
	size_t before = *it->added, n = 0, count = 0;
	char after[16] = "";
	bool right = true;
	do {
		arena_init(&a, MIB);
		right = storage_list(r, SPAN("s"), span_str(after), 100, &a, info, &count, &err) == ERR_OK;
		for (size_t i = 0; i < count && right; i++) {
			char name[16];
			snprintf(name, sizeof(name), "%.*s", SPAN_ARG(info[i].name));
			right = strcmp(name, after) > 0 && info[i].records == 1;
			memcpy(after, name, sizeof(after));
		}
		n += count;
		arena_release(&a);
	} while (right && count == 100);
	*ret_n = n;
	return right && n >= before;
}

static void *list_and_list(void *arg)
{
	struct lister *it = arg;
	struct storage_reader *r;
	struct err err = {0};
	size_t n = 0;
	it->wrong = storage_reader_open(it->s, &r, &err) != ERR_OK;
	if (it->wrong)
		return NULL;
	while (n < it->until && !it->wrong)
		it->wrong = !list_all(r, it, &n);
	storage_reader_close(r);
	return NULL;
}

CONTRACT(threads, lists_are_whole_while_streams_are_added)
{
	enum { STREAMS = 1500 };
	_Atomic size_t added = 0;
	struct lister listers[2] = {{f->s, &added, STREAMS, false}, {f->s, &added, STREAMS, false}};
	pthread_t threads[2];
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, list_and_list, &listers[i]), 0);
	for (size_t i = 0; i < STREAMS; i++) {
		char name[16];
		snprintf(name, sizeof(name), "s%05zu", i * 7919 % 100000);
		batch_add(f, name, RECORD_EVENT, 10, 0);
		if (i % 10 == 9) {
			batch_append(f);
			added = i + 1;
		}
	}
	for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
		pthread_join(threads[i], NULL);
		cr_assert(!listers[i].wrong, "%s: lister %zu", f->row->name, i);
	}
}
