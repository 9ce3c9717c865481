/* Tiles of the Merkle tree: one file a level, "tree/LEVEL" in the journal's directory, of slots in the order of the
 * tiles: the hashes, and a CRC-32C that also covers journal id, level and index. They are never synced: what is
 * lost or torn has a wrong CRC, is not there, and is made again from the log. */
#ifdef HAVE_CONFIG_H
#include <config.h>
#endif

#include <errno.h>

#include "base/endian.h"
#include "base/mem.h"
#include "base/must.h"
#include "storage/file/file.h"

#define SLOT_BYTES (STORAGE_TILE_BYTES + 4)

static struct file_store *store_of_reader(struct storage_reader *reader)
{
	struct file_reader *r = (struct file_reader *)reader;
	must(r->magic == FILE_READER_MAGIC);
	return r->store;
}

static uint32_t tile_crc(const struct file_store *s, unsigned level, uint64_t index, const uint8_t *tile)
{
	uint8_t place[9] = {(uint8_t)level};
	put_le64(place + 1, index);
	uint32_t crc = record_crc32c(0, span_of(s->journal_id, sizeof(s->journal_id)));
	crc = record_crc32c(crc, span_of(place, sizeof(place)));
	return record_crc32c(crc, span_of(tile, STORAGE_TILE_BYTES));
}

/* A descriptor, or -errno. */
static int level_open(const struct file_store *s, unsigned level, int flags)
{
	char *path = mem_xprintf("%s/tree/%u", s->dir, level);
	int fd = s->io->open(s->io->arg, path, flags);
	if (fd == -ENOENT && (flags & FILEIO_CREATE)) {
		char *folder = mem_xprintf("%s/tree", s->dir);
		int r = s->io->make_dir(s->io->arg, folder);
		fd = r && r != -EEXIST ? r : s->io->open(s->io->arg, path, flags);
		mem_free(folder);
	}
	mem_free(path);
	return fd;
}

enum err_code file_tile_put(struct storage_reader *reader, unsigned level, uint64_t index, const uint8_t *tile,
			    struct err *err)
{
	struct file_store *s = store_of_reader(reader);
	uint8_t slot[SLOT_BYTES];
	if (s->read_only)
		return err_set(err, ERR_UNSUPPORTED, "%s is open for reading only", s->dir);
	memcpy(slot, tile, STORAGE_TILE_BYTES);
	put_le32(slot + STORAGE_TILE_BYTES, tile_crc(s, level, index, tile));
	int fd = level_open(s, level, FILEIO_WRITE | FILEIO_CREATE);
	if (fd < 0)
		return err_set_errno(err, ERR_IO, -fd, "cannot open %s/tree/%u", s->dir, level);
	int r = file_io_write_all(s->io, fd, slot, sizeof(slot), index * SLOT_BYTES);
	s->io->close(s->io->arg, fd);
	return r ? err_set_errno(err, ERR_IO, -r, "cannot write %s/tree/%u", s->dir, level) : ERR_OK;
}

enum err_code file_tile_get(struct storage_reader *reader, unsigned level, uint64_t index, uint8_t *ret,
			    struct err *err)
{
	struct file_store *s = store_of_reader(reader);
	uint8_t slot[SLOT_BYTES];
	size_t n = 0;
	int fd = level_open(s, level, FILEIO_READ);
	if (fd == -ENOENT)
		return ERR_NOT_FOUND;
	if (fd < 0)
		return err_set_errno(err, ERR_IO, -fd, "cannot open %s/tree/%u", s->dir, level);
	int r = file_io_read_all(s->io, fd, slot, sizeof(slot), index * SLOT_BYTES, &n);
	s->io->close(s->io->arg, fd);
	/* One that cannot be read, for a bad sector, is made again. */
	if (r || n < sizeof(slot) || get_le32(slot + STORAGE_TILE_BYTES) != tile_crc(s, level, index, slot))
		return ERR_NOT_FOUND;
	memcpy(ret, slot, STORAGE_TILE_BYTES);
	return ERR_OK;
}

const char *file_directory(struct storage *storage)
{
	return file_store_of(storage)->dir;
}
