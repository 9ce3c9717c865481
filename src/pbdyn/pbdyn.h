/* Protobuf without generated code: a pool of descriptors linked from FileDescriptorSets, dynamic
 * messages, and proto3 JSON both ways.
 *
 *	struct pb_pool *pool;
 *	if (pb_pool_new(&set_bytes, 1, &pool, err)) ...
 *	const struct pb_method *m = pb_find_method(pool, SPAN("shop.Cart.AddItem"));
 *	struct pb_msg *msg;
 *	if (pb_json_parse(m->input, body, &arena, &msg, err) || pb_msg_write(msg, &wire, err)) ...
 *
 * Nothing here does I/O. A pool never changes once built, may be read by any thread, and is counted:
 * every descriptor pointer and name in it lives as long as the pool. Messages live in the caller's arena
 * and belong to one thread. Names are full names without a leading dot ("shop.Cart.AddItem").
 * Bytes from outside give an error that says where: ERR_INVALID (malformed, unknown field, does not
 * link), ERR_LIMIT (nesting, arena or buffer exhausted). */
#ifndef CAIRN_PBDYN_PBDYN_H
#define CAIRN_PBDYN_PBDYN_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/err.h"
#include "base/span.h"

/* --- descriptors --- */

struct pb_pool;

enum pb_kind { /* the numbers of FieldDescriptorProto.Type */
	PB_DOUBLE = 1, PB_FLOAT, PB_INT64, PB_UINT64, PB_INT32, PB_FIXED64, PB_FIXED32, PB_BOOL, PB_STRING,
	PB_GROUP, PB_MESSAGE, PB_BYTES, PB_UINT32, PB_ENUM, PB_SFIXED32, PB_SFIXED64, PB_SINT32, PB_SINT64
};

/* The types that have a JSON form of their own. PB_WKT_WRAPPER: DoubleValue ... BytesValue. */
enum pb_wkt {
	PB_WKT_NONE, PB_WKT_ANY, PB_WKT_TIMESTAMP, PB_WKT_DURATION, PB_WKT_FIELD_MASK, PB_WKT_STRUCT,
	PB_WKT_VALUE, PB_WKT_LIST_VALUE, PB_WKT_WRAPPER
};

struct pb_file {
	struct span name, package;
	struct span raw;	 /* its FileDescriptorProto; a placeholder's has the name alone */
	const struct pb_file *const *deps; /* its imports in order, placeholders included */
	size_t dep_count;
	size_t set_index;	 /* which of pb_pool_new()'s sets; the built-in one comes last */
	bool placeholder;	 /* imported by some file, but in no set */
	bool proto3;
	const struct pb_pool *pool;
};

union pb_value {
	bool b;
	int32_t i32;	  /* int32, sint32, sfixed32, enum */
	int64_t i64;	  /* int64, sint64, sfixed64 */
	uint32_t u32;
	uint64_t u64;
	float f;
	double d;
	struct span bytes; /* string and bytes; borrowed */
	struct pb_msg *msg;   /* NULL: unset */
	struct pb_list *list; /* repeated and map fields; NULL: empty */
};

struct pb_field { /* a field or an extension */
	struct span name, full_name, json_name;
	uint32_t number;
	uint32_t index;		 /* in type->fields */
	enum pb_kind kind;
	bool repeated;		 /* map fields too */
	bool map;		 /* sub is the entry type: field 1 the key, field 2 the value */
	bool packed;		 /* written packed; reading takes both forms */
	bool presence;		 /* unset differs from default: messages, oneof members, optional, proto2 */
	bool proto3_optional;
	bool extension;		 /* then parent is the extended type (NULL when that is missing) */
	const struct pb_type *parent;
	const struct pb_type *sub;	  /* PB_MESSAGE, PB_GROUP */
	const struct pb_enum *enum_type;  /* PB_ENUM */
	const struct pb_oneof *oneof;	  /* NULL: none; synthetic ones (proto3 optional) too are NULL */
	union pb_value fallback;	  /* the default of a scalar */
	struct span options;	 /* serialized FieldOptions */
	const struct pb_file *file;
};

struct pb_oneof {
	struct span name;
	uint32_t index;
	const struct pb_type *parent;
};

struct pb_type { /* a message type */
	struct span name, full_name;
	const struct pb_field *fields;		  /* in declaration order */
	const struct pb_field *const *by_number;  /* the same, in order of number */
	const struct pb_name *names;		  /* private: sorted for pb_field_by_name() */
	size_t field_count, name_count;
	const struct pb_oneof *oneofs;
	size_t oneof_count;
	bool map_entry;
	enum pb_wkt wkt;
	struct span options; /* serialized MessageOptions */
	const struct pb_file *file;
};

struct pb_enum_value {
	struct span name;
	int32_t number;
};
struct pb_enum { /* open: numbers without a name are kept as they are, proto2's included */
	struct span name, full_name;
	const struct pb_enum_value *values; /* in declaration order */
	size_t value_count;
	const struct pb_enum_value *const *by_name, *const *by_number; /* private: sorted for lookup */
	bool null_value; /* google.protobuf.NullValue */
	const struct pb_file *file;
};

struct pb_method {
	struct span name, full_name;
	const struct pb_type *input, *output;
	bool client_streaming, server_streaming;
	struct span options; /* serialized MethodOptions */
	const struct pb_service *service;
};
struct pb_service {
	struct span name, full_name;
	const struct pb_method *methods; /* in declaration order */
	size_t method_count;
	struct span options;
	const struct pb_file *file;
};

/* --- the pool --- */

/* Links serialized FileDescriptorSets; files may come in any order. Behind the given sets stands a
 * built-in one: the files of google/protobuf, google/api (annotations, http, httpbody) and the options
 * of cloudstate. What an earlier set defines (by file name or by symbol) is left out of a later one.
 * Types are found by name anywhere in the pool, whatever file brings them; an import that is in no set
 * becomes a placeholder, and only a use of a symbol that is nowhere is an error, which names file and
 * symbol (an option's definition may miss its type or the options it extends). The bytes are
 * copied. set_count may be 0. The caller owns one reference. */
enum err_code pb_pool_new(const struct span *sets, size_t set_count, struct pb_pool **ret, struct err *err);
const struct pb_pool *pb_pool_ref(const struct pb_pool *pool);
void pb_pool_unref(const struct pb_pool *pool); /* any thread; NULL is fine; frees with the last reference */

/* Lookups by full name; NULL when there is none of that kind. */
const struct pb_type *pb_find_type(const struct pb_pool *pool, struct span full_name);
const struct pb_enum *pb_find_enum(const struct pb_pool *pool, struct span full_name);
const struct pb_service *pb_find_service(const struct pb_pool *pool, struct span full_name);
const struct pb_method *pb_find_method(const struct pb_pool *pool, struct span full_name);
/* A field ("shop.Item.name") or an extension by its own name ("cloudstate.entity_key"). */
const struct pb_field *pb_find_field(const struct pb_pool *pool, struct span full_name);

/* For reflection: a file by its name, the file that defines a symbol of any of these kinds (or a oneof),
 * the extensions of a type in order of number (NULL and 0: none; the type need not be in the pool). */
const struct pb_file *pb_find_file(const struct pb_pool *pool, struct span name);
const struct pb_file *pb_find_symbol_file(const struct pb_pool *pool, struct span full_name);
const struct pb_field *const *pb_find_extensions(const struct pb_pool *pool, struct span extended_type,
						 size_t *ret_count);
const struct pb_field *pb_find_extension(const struct pb_pool *pool, struct span extended_type,
					 uint32_t number);

/* All files and services: set by set, in file and declaration order. */
const struct pb_file *const *pb_pool_files(const struct pb_pool *pool, size_t *ret_count);
const struct pb_service *const *pb_pool_services(const struct pb_pool *pool, size_t *ret_count);

/* Members of one type or enum; NULL when there is none. */
const struct pb_field *pb_field_by_number(const struct pb_type *type, uint32_t number);
const struct pb_field *pb_field_by_name(const struct pb_type *type, struct span json_or_proto_name);
const struct pb_enum_value *pb_enum_by_number(const struct pb_enum *e, int32_t number); /* first declared */
const struct pb_enum_value *pb_enum_by_name(const struct pb_enum *e, struct span name);

/* The message type a type URL names: what follows its first '/'. NULL when it is not in the pool. */
const struct pb_type *pb_find_type_by_url(const struct pb_pool *pool, struct span type_url);

/* --- wire format, and options read by number --- */

enum pb_wire {
	PB_VARINT = 0, PB_FIXED_64 = 1, PB_BYTES_FIELD = 2, PB_GROUP_START = 3, PB_GROUP_END = 4,
	PB_FIXED_32 = 5
};

struct pb_wire_field {
	uint32_t number;
	enum pb_wire wire;
	uint64_t value;	   /* VARINT, FIXED_64, FIXED_32 */
	struct span bytes; /* BYTES_FIELD, and the inside of a group (wire is GROUP_START) */
	struct span raw;   /* tag and all */
};

/* Takes the next field off *rest: 1, 0 at the end, -1 malformed (or groups nested beyond the limit). */
int pb_wire_next(struct span *rest, struct pb_wire_field *ret);

enum err_code pb_put_varint(struct buf *out, uint64_t value);
enum err_code pb_put_tag(struct buf *out, uint32_t number, enum pb_wire wire);
enum err_code pb_put_bytes(struct buf *out, uint32_t number, struct span bytes); /* tag, length, bytes */

/* An option extension in serialized options, whatever the order of fields there. The bool: last one
 * wins, false when absent. The message: *ret_bytes is its serialized form, occurrences put together as
 * protobuf merges them (copied into the arena if more than one). Both return whether it was there;
 * malformed options are refused when the pool is built, so reading them cannot fail but for memory
 * (then the message counts as not there). */
bool pb_option_bool(struct span options, uint32_t number, bool *ret_value);
bool pb_option_message(struct span options, uint32_t number, struct arena *arena, struct span *ret_bytes);

/* --- dynamic messages --- */

struct pb_list {
	union pb_value *items; /* a map's items are entry messages, in insertion order */
	size_t count, cap;
	struct pb_map_index *index; /* private */
};

struct pb_msg; /* lives in an arena; never freed by itself */

/* An empty message; NULL when the arena is exhausted. */
struct pb_msg *pb_msg_new(const struct pb_type *type, struct arena *arena);

/* Parses wire bytes; unknown fields are kept. Strings, bytes and unknown fields borrow from wire, which
 * must live as long as the message. proto3 strings must be UTF-8. */
enum err_code pb_msg_parse(const struct pb_type *type, struct span wire, struct arena *arena,
			   struct pb_msg **ret, struct err *err);

/* Appends the canonical bytes: fields by number, packed where the field says so, implicit-presence scalars
 * left out at their default, everything with presence written once set, map entries in insertion order
 * and always with key and value, unknown fields last as they came. */
enum err_code pb_msg_write(struct pb_msg *msg, struct buf *out, struct err *err);

const struct pb_type *pb_msg_type(const struct pb_msg *msg);
bool pb_msg_has(const struct pb_msg *msg, const struct pb_field *field); /* repeated: not empty */
const struct pb_field *pb_msg_which(const struct pb_msg *msg, const struct pb_oneof *oneof); /* or NULL */
/* The value, or the field's default; repeated: .list (NULL when empty); unset message: .msg NULL. */
union pb_value pb_msg_get(const struct pb_msg *msg, const struct pb_field *field);
/* Sets a singular field (a span is borrowed; .msg of the field's type) and clears its oneof's others. */
void pb_msg_set(struct pb_msg *msg, const struct pb_field *field, union pb_value value);
void pb_msg_clear(struct pb_msg *msg, const struct pb_field *field);
/* The singular sub-message, made if unset; NULL when the arena is exhausted. */
struct pb_msg *pb_msg_sub(struct pb_msg *msg, const struct pb_field *field);
/* Appends to a repeated field that is no map. */
enum err_code pb_msg_add(struct pb_msg *msg, const struct pb_field *field, union pb_value value);

/* --- scalars as text, paths, entity keys --- */

/* The JSON of a scalar without its quotes: bytes as base64, enums by name. ERR_INVALID for a message. */
enum err_code pb_scalar_print(const struct pb_field *field, union pb_value value, struct buf *out,
			      struct err *err);

/* A field path like "item.address.city": the inner ones singular messages; the last may be anything. */
#define PB_PATH_MAX 16
struct pb_path {
	size_t n;
	const struct pb_field *at[PB_PATH_MAX];
};
enum err_code pb_path_find(const struct pb_type *type, struct span dotted, struct pb_path *ret,
			   struct err *err);

/* Sets the path's last field, a scalar, from text as its JSON would read without quotes (enums by name or
 * number); a repeated one gets it appended; sub-messages on the way are made. The text is copied. */
enum err_code pb_path_set_text(struct pb_msg *msg, const struct pb_path *path, struct span text,
			       struct err *err);

/* Appends the text of the given singular scalar fields of one type, joined with '-', straight from a
 * message's wire bytes: the last occurrence wins, defaults where absent. */
enum err_code pb_key_print(const struct pb_field *const *keys, size_t key_count, struct span wire,
			   struct buf *out, struct err *err);

/* --- proto3 JSON --- */

/* Parses one JSON text into a message. The result owns nothing of json (strings are copied into the arena).
 * Errors name the place: "line 1, column 17, at items[2].name: ...". */
enum err_code pb_json_parse(const struct pb_type *type, struct span json, struct arena *arena,
			    struct pb_msg **ret, struct err *err);
/* The same for the JSON of one field (of any kind) of msg; null leaves it unset. */
enum err_code pb_json_parse_field(struct pb_msg *msg, const struct pb_field *field, struct span json,
				  struct err *err);

/* Appends the message as compact JSON: lowerCamelCase, in order of number, defaults printed (proto2's
 * declared ones too), unset messages, oneof members and proto3 optional fields left out. An Any whose
 * type is not in the pool: {"@type":...,"value":base64}. Anys are parsed in the message's arena. On an
 * error out keeps what was written so far. */
enum err_code pb_json_print(const struct pb_msg *msg, struct buf *out, struct err *err);
/* The JSON of one field: its default, [] or {} if unset; null for an unset message. */
enum err_code pb_json_print_field(const struct pb_msg *msg, const struct pb_field *field, struct buf *out,
				  struct err *err);
/* Appends text (UTF-8) as a JSON string with its quotes. */
enum err_code pb_json_quote(struct buf *out, struct span text);

#endif
