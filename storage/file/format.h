/* The files of a journal: the specification, and the functions that read and write its fixed parts.
 *
 * A directory holds:
 *	NNNNNNNNNN-PPPPPPPPPPPPPPPPPPPP.segment	segment number and first position, in decimal
 *	clean		there only between a clean stop and the next start
 *	lock		who has the directory; its text is for humans
 *	index/		LMDB, made from the segments and made again whenever it does not fit them
 *	tree/LEVEL	tiles of the Merkle tree, made from the segments and made again whenever they do not fit
 *	signing-key.pem	the key that signs checkpoints, if no other is given; the journal's, not the log's
 *	*.new		unfinished; deleted at start
 *
 * All numbers are little-endian. Segments are numbered 1, 2, 3 ... without gaps. Only the last one is
 * written, and only at its end; the others are sealed.
 *
 * Segment header, 64 bytes
 *	 0	8	magic "CAIRNSEG"
 *	 8	4	format, 1
 *	12	4	0
 *	16	16	journal id
 *	32	8	segment number
 *	40	8	first position: of the first record in it
 *	48	8	time of creation, microseconds since 1970 (for humans)
 *	56	4	0
 *	60	4	CRC-32C of bytes 0 to 59
 *
 * Frame: a header of 32 bytes and what it covers. One frame is one commit.
 *	 0	4	magic "CFrm" (its first byte is never that of a record, 0x0a)
 *	 4	4	CRC-32C of: journal id, segment number (8), offset of the frame in the file (8),
 *			and every byte of the frame from byte 8 on
 *	 8	4	n, bytes after this header
 *	12	1	kind: 1 commit, 2 seal
 *	13	3	0
 *	16	8	first position (of a seal: the next segment's first position)
 *	24	4	count: records (commit) or places (seal)
 *	28	4	0
 *	32	n	commit: `count` records as proto/cairn/journal/v1/record.proto has them, each with the
 *			tag and length that it has in a response, positions rising by one
 *			seal: `count` places of 8 bytes, then a trailer of 16 bytes
 *
 * A removed record is in its frame as an Entry of position and leaf hash, an erased one with its body's hash
 * instead of its body (record.proto). A sealed segment that records are removed from is written anew, with the same
 * header, frames of the same first positions and counts, other offsets, CRCs and seal, as NAME.new; then it
 * is synced and renamed to NAME. The last segment is never written anew.
 *
 * Place, 8 bytes: where a record begins; one for the first record and one about every 4 KiB
 *	 0	4	its position less the segment's first position
 *	 4	4	its offset in the file
 *
 * Trailer of a seal, the last 16 bytes of a sealed segment
 *	 0	8	offset of the seal frame
 *	 8	4	magic "CEnd"
 *	12	4	CRC-32C of bytes 0 to 11
 *
 * Tile, 8196 bytes at 8196 times its index in its level's file: 256 hashes, then the CRC-32C of: journal id, level
 * (1), index (8), the hashes. One whose CRC is wrong is not there.
 *
 * Clean mark, 64 bytes: the file `clean`
 *	 0	8	magic "CAIRNEND"
 *	 8	4	format, 1
 *	12	4	0
 *	16	16	journal id
 *	32	8	number of the last segment
 *	40	8	its size: the end of the log
 *	48	8	head: the position of the next record
 *	56	4	0
 *	60	4	CRC-32C of bytes 0 to 59
 *
 * A frame is valid when
 *	1. its magic is right and it ends within the file;
 *	2. its CRC is right: a frame copied from another journal, segment or offset is not valid;
 *	3. its kind is known and its first position is the position after the frame before it;
 *	4. commit: its records are whole, as many as `count`, and have the positions it says;
 *	5. seal: it is the last frame of its file, and its places and trailer fill it exactly.
 *
 * What a start does. Frames are checked from the one that holds the index's mark (or from the first, if
 * the index does not fit) to the end of the last segment. The first bytes there that are not a valid
 * frame are what a crash left of the one frame that was being written, and are cut off, provided that
 *	a. they are in the last segment, which is not sealed (a seal of which only the trailer has come does
 *	   not seal; but they do not begin before the offset that it names, for that had been synced);
 *	b. they lie behind the frame that holds the index's mark, and the clean mark is not there;
 *	c. no valid frame follows them;
 *	d. they are not more than one frame can have.
 * Otherwise the log is damaged: the start is refused and names file and byte. Then the last whole frame
 * is written again in place and synced, for it may have been in the page cache only; after a clean stop
 * this is not needed. Acknowledged records are never in the part that is cut: they were synced before.
 *
 * What is asked of the disk: a sector that is being written when the power fails has its old bytes or its
 * new ones. A frame begins in the sector that the frame before it ends in, so every append writes a sector
 * again that has acknowledged bytes. Then writing the last frame again, the same bytes over themselves,
 * changes nothing whatever part of it arrives, and a start may be cut as often as it likes.
 *
 * A frame that could not be written for want of room is cut off at once; what is left of it after a crash
 * is not a valid frame, for it was never whole.
 *
 * The index may always be deleted: it is made again. Segments can not be made again.
 * Upgrade: a program reads the formats up to its own and refuses later ones by number. */
#ifndef CAIRN_STORAGE_FILE_FORMAT_H
#define CAIRN_STORAGE_FILE_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/limits.h"
#include "base/span.h"

#define FILE_FORMAT 1u
#define SEGMENT_HEADER_BYTES 64u
#define FRAME_HEADER_BYTES 32u
#define PLACE_BYTES 8u
#define TRAILER_BYTES 16u
#define CLEAN_BYTES 64u
#define SEGMENT_NAME_BYTES 48 /* with the final 0 */
#define PLACE_EVERY_BYTES 4096u

enum frame_kind { FRAME_COMMIT = 1, FRAME_SEAL = 2 };

struct segment_header {
	uint32_t format; /* the rest is filled in only for those that this program knows */
	uint8_t journal_id[16];
	uint64_t number, first;
	int64_t created_us;
};

struct frame_header {
	uint32_t crc, n;
	uint8_t kind;
	uint64_t first;
	uint32_t count;
};

struct place {
	uint32_t delta; /* position less the segment's first */
	uint32_t offset;
};
_Static_assert(sizeof(struct place) == PLACE_BYTES, "places are kept as they are stored");

struct clean_mark {
	uint8_t journal_id[16];
	uint64_t segment, end, head;
};

/* Where a frame is: its CRC covers this. */
struct frame_at {
	const uint8_t *journal_id;
	uint64_t segment, offset;
};

void file_segment_header_put(uint8_t p[SEGMENT_HEADER_BYTES], const struct segment_header *h);
/* NULL when it is valid, else what is wrong with it; *ret_byte is where. */
const char *file_segment_header_get(const uint8_t p[SEGMENT_HEADER_BYTES], struct segment_header *ret,
				    size_t *ret_byte);

/* Fills in the header of a frame whose content stands behind it already. */
void file_frame_put(uint8_t *frame, const struct frame_at *at, enum frame_kind kind, uint64_t first,
		    uint32_t count, size_t n);
bool file_frame_is_here(struct span bytes); /* at least 4 bytes, and they are the magic */
void file_frame_header_get(const uint8_t *frame, struct frame_header *ret);
/* Conditions 1 and 2 and the known kind: NULL or what is wrong. `bytes` goes to the end of the file or
 * beyond the frame. */
const char *file_frame_check(struct span bytes, const struct frame_at *at, struct frame_header *ret);

void file_place_put(uint8_t *p, struct place place);
struct place file_place_get(const uint8_t *p);
void file_trailer_put(uint8_t p[TRAILER_BYTES], uint64_t seal_offset);
bool file_trailer_get(const uint8_t p[TRAILER_BYTES], uint64_t *ret_seal_offset);

void file_clean_put(uint8_t p[CLEAN_BYTES], const struct clean_mark *mark);
bool file_clean_get(const uint8_t p[CLEAN_BYTES], struct clean_mark *ret);

void file_segment_name(char ret[SEGMENT_NAME_BYTES], uint64_t number, uint64_t first);
bool file_segment_name_parse(const char *name, uint64_t *ret_number, uint64_t *ret_first);

#endif
