/* Random bytes from the kernel, and UUIDs (RFC 9562). Any thread. */
#ifndef CAIRN_BASE_RANDOM_H
#define CAIRN_BASE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/span.h"

#define UUID_BYTES 16
#define UUID_TEXT_BYTES 37 /* 36 characters and the final 0 */

void random_bytes(void *p, size_t n); /* pooled per thread; the pool is dropped after fork() */
uint64_t random_u64(void);

void uuid_v4(uint8_t ret[UUID_BYTES]);
/* Time-ordered: ids made later by one thread compare greater. */
void uuid_v7(const struct clock *clock, uint8_t ret[UUID_BYTES]);
void uuid_format(const uint8_t uuid[UUID_BYTES], char ret[UUID_TEXT_BYTES]);
/* 36-character form, either case; 0 on success, -1 otherwise. */
int uuid_parse(struct span text, uint8_t ret[UUID_BYTES]);

#endif
