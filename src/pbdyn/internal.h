/* What the files of this folder share and nobody else sees. */
#ifndef CAIRN_PBDYN_INTERNAL_H
#define CAIRN_PBDYN_INTERNAL_H

#include <stdatomic.h>

#include "base/limits.h"
#include "base/must.h"
#include "pbdyn/pbdyn.h"

/* --- pool --- */

enum symbol_kind {
	SYMBOL_TYPE, SYMBOL_ENUM, SYMBOL_SERVICE, SYMBOL_METHOD, SYMBOL_FIELD, SYMBOL_EXTENSION, SYMBOL_ONEOF
};

struct symbol {
	struct span name;
	enum symbol_kind kind;
	const void *what; /* the pb_type, pb_enum, pb_service, pb_method, pb_field or pb_oneof */
	const struct pb_file *file;
};

struct extension {
	struct span extended; /* full name of the extended type */
	const struct pb_field *field;
};

struct pb_name { /* one of the names by which a field is known in JSON */
	struct span name;
	const struct pb_field *field;
};

#define POOL_MAGIC 0x706f6f6cU
struct pb_pool {
	uint32_t magic;
	atomic_uint *refs;
	struct pb_pool *self; /* so that a const pool can be freed with its last reference */
	struct arena arena;
	uint64_t seed[2]; /* of the hash in map fields */

	const struct pb_file *const *files; /* set by set, placeholders at the end */
	size_t file_count;
	const struct pb_file *const *files_by_name;
	const struct symbol *symbols; /* sorted by name */
	size_t symbol_count;
	const struct extension *extensions; /* sorted by extended type, then number */
	const struct pb_field *const *extension_fields; /* the same order */
	size_t extension_count;
	const struct pb_service *const *services;
	size_t service_count;
};

/* The symbol of that name in a sorted table, or NULL. */
const struct symbol *symbol_find(const struct symbol *symbols, size_t count, struct span name);

/* The built-in descriptor set, made from .proto files at build time. */
extern const uint8_t pbdyn_builtin_set[];
extern const size_t pbdyn_builtin_set_bytes;

/* --- wire --- */

/* Takes a varint off *rest; false at the end or when it is longer than 64 bits. */
bool wire_take_varint(struct span *rest, uint64_t *ret);
/* Whether bytes are a sequence of whole fields. */
bool wire_valid(struct span bytes);
/* The message field of that number, its occurrences merged (in the arena if there are several):
 * ERR_NOT_FOUND with *ret empty, or ERR_LIMIT when the arena is exhausted. */
enum err_code wire_merged(struct span message, uint32_t number, struct arena *arena, struct span *ret);
size_t varint_size(uint64_t value);
uint8_t *varint_put(uint8_t *p, uint64_t value);
/* The wire type of one unpacked value of that kind. */
enum pb_wire kind_wire(enum pb_kind kind);
static inline bool kind_packable(enum pb_kind kind)
{
	return kind != PB_STRING && kind != PB_BYTES && kind != PB_MESSAGE && kind != PB_GROUP;
}
/* The value of a VARINT, FIXED_64 or FIXED_32 field as one of that kind, and back. */
union pb_value wire_to_value(enum pb_kind kind, uint64_t raw);
uint64_t wire_from_value(enum pb_kind kind, union pb_value value);

/* --- messages --- */

struct unknown {
	struct unknown *next;
	struct span raw;
};

struct pb_msg {
	const struct pb_type *type;
	struct arena *arena;
	struct unknown *unknown_first, *unknown_last;
	size_t size_bytes; /* set by msg_measure() */
	uint32_t *has;	   /* a bit a field, by index */
	uint32_t *cases;   /* a oneof's set field: index + 1, or 0 */
	union pb_value values[];
};

static inline bool msg_has_bit(const struct pb_msg *msg, uint32_t index)
{
	return msg->has[index / 32] >> (index % 32) & 1;
}

/* Whether a value is the zero of its kind, which an implicit-presence field does not write (-0.0 is not). */
bool value_is_zero(enum pb_kind kind, union pb_value value);
/* Room for more items without another allocation; false when the arena is exhausted. */
bool list_reserve(struct pb_msg *msg, const struct pb_field *field, size_t more);
/* Puts an entry into a map field; one with the same key is replaced where it stands, and *ret_replaced
 * set. A missing value message is made. */
enum err_code map_put_entry(struct pb_msg *msg, const struct pb_field *field, struct pb_msg *entry,
			    bool *ret_replaced);
/* Parses into a message that may hold something already, as protobuf merges. */
enum err_code msg_merge(struct pb_msg *msg, struct span wire, unsigned depth, struct err *err);
/* The canonical bytes in the message's arena. */
enum err_code msg_to_arena(struct pb_msg *msg, struct span *ret, struct err *err);

enum err_code arena_exhausted(struct err *err);

/* --- text --- */

/* A scalar from text as JSON has it inside or without quotes; spans are copied into the arena. */
enum err_code scalar_parse(const struct pb_field *field, struct span text, struct arena *arena,
			   union pb_value *ret, struct err *err);
/* The same for the text of a JSON number token, which bool, string and bytes fields refuse. */
bool number_is_json(struct span text);

enum err_code print_u64(struct buf *out, uint64_t value);
enum err_code print_i64(struct buf *out, int64_t value);
/* Shortest text that reads back the same; "NaN", "Infinity", "-Infinity". */
enum err_code print_double(struct buf *out, double value);
enum err_code print_float(struct buf *out, float value);

/* Timestamp and Duration as JSON text; parsing takes the text without quotes. Errors have no place in
 * them, the caller adds it. */
enum err_code timestamp_print(struct buf *out, int64_t seconds, int32_t nanos, struct err *err);
enum err_code timestamp_parse(struct span text, int64_t *ret_seconds, int32_t *ret_nanos, struct err *err);
enum err_code duration_print(struct buf *out, int64_t seconds, int32_t nanos, struct err *err);
enum err_code duration_parse(struct span text, int64_t *ret_seconds, int32_t *ret_nanos, struct err *err);
/* One path of a FieldMask: snake_case to lowerCamelCase and back. */
enum err_code mask_path_print(struct buf *out, struct span path, struct err *err);
enum err_code mask_path_parse(struct buf *out, struct span text, struct err *err);

#endif
