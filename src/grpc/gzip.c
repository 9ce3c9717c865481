#include <config.h>

#include "grpc/gzip.h"

#include <limits.h>
#include <zlib.h>

#include "base/limits.h"
#include "base/mem.h"

#define GZIP_WINDOW (15 + 16)         /* zlib's way to say gzip */
#define GZIP_OR_ZLIB_WINDOW (15 + 32) /* and either of the two */
#define GZIP_STEP_BYTES (32 * KIB)

static void *gzip_alloc(void *opaque, uInt count, uInt n)
{
	(void)opaque;
	return mem_try_alloc((size_t)count * n);
}

static void gzip_free(void *opaque, void *p)
{
	(void)opaque;
	mem_free(p);
}

/* One step into whatever room out still has; ERR_LIMIT when that is none. */
static enum err_code gzip_room(struct buf *out, z_stream *z, size_t *ret_room)
{
	size_t room = out->max_bytes - out->n;
	if (room > GZIP_STEP_BYTES)
		room = GZIP_STEP_BYTES;
	if (room == 0)
		return ERR_LIMIT;
	enum err_code rc = buf_reserve(out, room);
	if (rc)
		return rc;
	z->next_out = out->p + out->n;
	z->avail_out = (uInt)room;
	*ret_room = room;
	return ERR_OK;
}

enum err_code gzip_inflate(struct buf *out, struct span compressed, struct err *err)
{
	z_stream z = {.zalloc = gzip_alloc, .zfree = gzip_free};
	if (compressed.n > UINT_MAX || inflateInit2(&z, GZIP_OR_ZLIB_WINDOW) != Z_OK)
		return err_set(err, ERR_NOMEM, "compressed message: out of memory");
	z.next_in = (Bytef *)(uintptr_t)compressed.p; /* not written to */
	z.avail_in = (uInt)compressed.n;
	enum err_code rc = ERR_OK;
	for (;;) {
		uint8_t probe;
		size_t room = 0;
		rc = gzip_room(out, &z, &room);
		if (rc == ERR_LIMIT) {
			/* Full: right if nothing more comes. */
			z.next_out = &probe;
			z.avail_out = 1;
		} else if (rc) {
			err_set(err, rc, "compressed message: %s", err_name(rc));
			break;
		}
		int r = inflate(&z, Z_NO_FLUSH);
		if (rc == ERR_OK)
			out->n += room - z.avail_out;
		else if (z.avail_out == 0) {
			err_set(err, ERR_LIMIT,
				"message is larger than the limit of %zu bytes once decompressed",
				out->max_bytes);
			break;
		}
		rc = ERR_OK;
		if (r == Z_STREAM_END && z.avail_in == 0)
			break;
		if (r != Z_OK || z.avail_in == 0) {
			if (r == Z_OK && z.avail_out == 0)
				continue; /* all read, not all written */
			rc = r == Z_MEM_ERROR ? ERR_NOMEM : ERR_INVALID;
			err_set(err, rc, "compressed message: %s",
				rc == ERR_NOMEM ? "out of memory" : "not gzip");
			break;
		}
	}
	inflateEnd(&z);
	return rc;
}

enum err_code gzip_deflate(struct buf *out, struct span plain)
{
	z_stream z = {.zalloc = gzip_alloc, .zfree = gzip_free};
	if (plain.n > UINT_MAX ||
	    deflateInit2(&z, Z_BEST_SPEED, Z_DEFLATED, GZIP_WINDOW, 8, Z_DEFAULT_STRATEGY) != Z_OK)
		return ERR_NOMEM;
	z.next_in = (Bytef *)(uintptr_t)plain.p;
	z.avail_in = (uInt)plain.n;
	enum err_code rc;
	int r;
	do {
		size_t room = 0;
		rc = gzip_room(out, &z, &room);
		if (rc)
			break;
		r = deflate(&z, Z_FINISH);
		out->n += room - z.avail_out;
	} while (r != Z_STREAM_END);
	deflateEnd(&z);
	return rc;
}
