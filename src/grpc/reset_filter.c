#include <config.h>

#include "grpc/reset_filter.h"

#include <string.h>

#include "base/must.h"

#define RST_STREAM 3
#define STREAM_MASK 0x7fffffffu

void reset_filter_init(struct reset_filter *filter)
{
	*filter = (struct reset_filter){.left = RESET_FILTER_PREFACE_BYTES};
}

static struct span filter_take(struct span *bytes, size_t n)
{
	struct span taken = {bytes->p, n};
	bytes->p += n;
	bytes->n -= n;
	return taken;
}

/* A whole head: how much follows it, and whether it is a reset. */
static bool filter_begin(struct reset_filter *filter, const uint8_t *head)
{
	filter->left = (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2];
	return head[3] == RST_STREAM;
}

static uint32_t filter_stream(const uint8_t *head)
{
	return ((uint32_t)head[5] << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8]) & STREAM_MASK;
}

/* A head that comes in pieces, or is a reset's: kept here until it is whole. */
static struct span filter_head(struct reset_filter *filter, struct span *bytes, uint32_t *ret_stream)
{
	size_t n = RESET_FILTER_HEAD_BYTES - filter->head_n;
	if (n > bytes->n)
		n = bytes->n;
	memcpy(filter->head + filter->head_n, bytes->p, n);
	filter_take(bytes, n);
	filter->head_n += (uint32_t)n;
	if (filter->head_n < RESET_FILTER_HEAD_BYTES)
		return (struct span){NULL, 0};
	filter->head_n = 0;
	if (filter_begin(filter, filter->head))
		*ret_stream = filter_stream(filter->head);
	return (struct span){filter->head, RESET_FILTER_HEAD_BYTES};
}

struct span reset_filter_next(struct reset_filter *filter, struct span *bytes, uint32_t *ret_stream)
{
	size_t run = 0;
	*ret_stream = 0;
	while (run < bytes->n) {
		size_t n = bytes->n - run;
		if (filter->left) {
			size_t part = filter->left < n ? filter->left : n;
			filter->left -= (uint32_t)part;
			if (filter->dropping) {
				filter->dropping = filter->left > 0;
				filter_take(bytes, part);
				return (struct span){NULL, 0};
			}
			run += part;
		} else if (filter->head_n || n < RESET_FILTER_HEAD_BYTES || bytes->p[run + 3] == RST_STREAM) {
			if (!run)
				return filter_head(filter, bytes, ret_stream);
			break;
		} else {
			filter_begin(filter, bytes->p + run);
			run += RESET_FILTER_HEAD_BYTES;
		}
	}
	return filter_take(bytes, run);
}

void reset_filter_drop(struct reset_filter *filter)
{
	must(!filter->head_n);
	filter->dropping = filter->left > 0;
}
