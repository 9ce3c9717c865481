/* A queue of output bytes: copied ones in blocks, large ones by reference, handed to writev() as they are.
 *
 * A stream's queue holds what waits for the peer's window; a connection's what waits for the socket.
 * outq_move() takes bytes from the one to the other, sharing references instead of copying. Functions
 * that allocate answer ERR_NOMEM and leave the queue as it was. One thread. */
#ifndef CAIRN_GRPC_OUTQ_H
#define CAIRN_GRPC_OUTQ_H

#include <sys/uio.h>

#include "base/err.h"
#include "base/span.h"

struct out_seg;
struct outq {
	struct out_seg *first, *last;
	size_t n;              /* bytes in sum */
	size_t block_bytes;    /* size of a block that collects small pieces */
	struct out_seg *spare; /* one emptied block, kept */
};

void outq_init(struct outq *q, size_t block_bytes);
void outq_release(struct outq *q); /* gives all references back; the queue is empty and usable */

enum err_code outq_append(struct outq *q, const void *p, size_t n); /* copies */
/* By reference: free_fn(free_arg) is called once, when the last byte has left the queue it has got to;
 * at once if this fails or piece is empty. */
enum err_code outq_append_ref(struct outq *q, struct span piece, void (*free_fn)(void *arg), void *free_arg);
/* The first n bytes of src (n <= src->n) go to the end of dst. */
enum err_code outq_move(struct outq *dst, struct outq *src, size_t n);

/* Describes the first bytes in at most max pieces; returns how many. Valid until the next change. */
int outq_iov(const struct outq *q, struct iovec *iov, int max);
void outq_consume(struct outq *q, size_t n); /* n <= q->n */

#endif
