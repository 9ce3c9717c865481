#include <config.h>

#include "base/random.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>

#include "base/must.h"
#include "base/text.h"

/* A pool a thread, so that a 16-byte id does not cost a system call. Bytes are wiped as they are
 * handed out; a child process must not hand out its parent's, so fork() makes every pool stale. */
#define POOL_BYTES 512

static _Thread_local struct {
	uint8_t bytes[POOL_BYTES];
	size_t left;
	unsigned int generation;
} pool;

static atomic_uint fork_generation;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void fork_child(void)
{
	atomic_fetch_add(&fork_generation, 1);
}

static void fork_watch(void)
{
	int r = pthread_atfork(NULL, NULL, fork_child);
	must(r == 0);
}

static void kernel_bytes(uint8_t *p, size_t n)
{
	while (n) {
		ssize_t got = getrandom(p, n, 0);
		if (got < 0 && errno == EINTR)
			continue;
		must(got > 0);
		p += got;
		n -= (size_t)got;
	}
}

void random_bytes(void *p, size_t n)
{
	if (n > POOL_BYTES / 4) {
		kernel_bytes(p, n);
		return;
	}
	pthread_once(&fork_once, fork_watch);
	unsigned int generation = atomic_load_explicit(&fork_generation, memory_order_relaxed);
	if (pool.left < n || pool.generation != generation) {
		kernel_bytes(pool.bytes, POOL_BYTES);
		pool.left = POOL_BYTES;
		pool.generation = generation;
	}
	pool.left -= n;
	memcpy(p, pool.bytes + pool.left, n);
	memset(pool.bytes + pool.left, 0, n);
}

uint64_t random_u64(void)
{
	uint64_t v;
	random_bytes(&v, sizeof(v));
	return v;
}

static void uuid_mark(uint8_t uuid[UUID_BYTES], unsigned int version)
{
	uuid[6] = (uint8_t)((uuid[6] & 0x0F) | version << 4);
	uuid[8] = (uint8_t)((uuid[8] & 0x3F) | 0x80);
}

void uuid_v4(uint8_t ret[UUID_BYTES])
{
	random_bytes(ret, UUID_BYTES);
	uuid_mark(ret, 4);
}

void uuid_v7(const struct clock *clock, uint8_t ret[UUID_BYTES])
{
	/* 48 bits of milliseconds and 12 bits of their fraction are one number that only rises. */
	static _Thread_local uint64_t last;
	int64_t us = clock_wall(clock).us;
	uint64_t t = us < 0 ? 0 : (uint64_t)us;
	uint64_t now = (t / 1000) << 12 | (t % 1000) * 4096 / 1000;
	if (now <= last)
		now = last + 1;
	last = now;
	random_bytes(ret + 8, UUID_BYTES - 8);
	for (int i = 0; i < 6; i++)
		ret[i] = (uint8_t)(now >> (52 - 8 * i));
	ret[6] = (uint8_t)(now >> 8 & 0x0F);
	ret[7] = (uint8_t)now;
	uuid_mark(ret, 7);
}

void uuid_format(const uint8_t uuid[UUID_BYTES], char ret[UUID_TEXT_BYTES])
{
	static const char digits[] = "0123456789abcdef";
	char *at = ret;
	for (int i = 0; i < UUID_BYTES; i++) {
		if (i == 4 || i == 6 || i == 8 || i == 10)
			*at++ = '-';
		*at++ = digits[uuid[i] >> 4];
		*at++ = digits[uuid[i] & 15];
	}
	*at = 0;
}

int uuid_parse(struct span text, uint8_t ret[UUID_BYTES])
{
	uint8_t uuid[UUID_BYTES];
	if (text.n != UUID_TEXT_BYTES - 1)
		return -1;
	size_t at = 0;
	for (int i = 0; i < UUID_BYTES; i++, at += 2) {
		if ((i == 4 || i == 6 || i == 8 || i == 10) && text.p[at++] != '-')
			return -1;
		int high = hex_value(text.p[at]), low = hex_value(text.p[at + 1]);
		if (high < 0 || low < 0)
			return -1;
		uuid[i] = (uint8_t)(high << 4 | low);
	}
	memcpy(ret, uuid, UUID_BYTES);
	return 0;
}
