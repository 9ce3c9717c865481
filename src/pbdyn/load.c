/* From a serialized FileDescriptorSet to descriptors whose types are still names. */
#include <config.h>

#include "pbdyn/load.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { /* field numbers of descriptor.proto */
       FILE_NAME = 1,
       FILE_PACKAGE = 2,
       FILE_DEPENDENCY = 3,
       FILE_MESSAGE = 4,
       FILE_ENUM = 5,
       FILE_SERVICE = 6,
       FILE_EXTENSION = 7,
       FILE_SYNTAX = 12,
       MESSAGE_NAME = 1,
       MESSAGE_FIELD = 2,
       MESSAGE_NESTED = 3,
       MESSAGE_ENUM = 4,
       MESSAGE_EXTENSION = 6,
       MESSAGE_OPTIONS = 7,
       MESSAGE_ONEOF = 8,
       MESSAGE_OPTION_MAP_ENTRY = 7,
       FIELD_NAME = 1,
       FIELD_EXTENDEE = 2,
       FIELD_NUMBER = 3,
       FIELD_LABEL = 4,
       FIELD_TYPE = 5,
       FIELD_TYPE_NAME = 6,
       FIELD_DEFAULT = 7,
       FIELD_OPTIONS = 8,
       FIELD_ONEOF_INDEX = 9,
       FIELD_JSON_NAME = 10,
       FIELD_PROTO3_OPTIONAL = 17,
       FIELD_OPTION_PACKED = 2,
       LABEL_REPEATED = 3,
       ENUM_NAME = 1,
       ENUM_VALUE = 2,
       ENUM_VALUE_NAME = 1,
       ENUM_VALUE_NUMBER = 2,
       SERVICE_NAME = 1,
       SERVICE_METHOD = 2,
       SERVICE_OPTIONS = 3,
       METHOD_NAME = 1,
       METHOD_INPUT = 2,
       METHOD_OUTPUT = 3,
       METHOD_OPTIONS = 4,
       METHOD_CLIENT_STREAMING = 5,
       METHOD_SERVER_STREAMING = 6,
};

enum err_code load_fail(struct loader *l, const struct pb_file *file, const char *fmt, ...)
{
	char text[ERR_TEXT_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return err_set(l->err, ERR_INVALID, "descriptor file \"%.*s\": %s", SPAN_ARG(file->name), text);
}

enum err_code load_exhausted(struct loader *l)
{
	return err_set(l->err, ERR_LIMIT, "the descriptors need more than %zu MiB of memory",
		       LIMIT_POOL_BYTES / MIB);
}

struct span load_join(struct arena *arena, struct span scope, struct span name)
{
	if (scope.n == 0)
		return name;
	uint8_t *p = arena_alloc(arena, scope.n + 1 + name.n);
	if (!p)
		return (struct span){0};
	memcpy(p, scope.p, scope.n);
	p[scope.n] = '.';
	if (name.n)
		memcpy(p + scope.n + 1, name.p, name.n);
	return span_of(p, scope.n + 1 + name.n);
}

static bool is_identifier(struct span s)
{
	for (size_t i = 0; i < s.n; i++) {
		uint8_t c = s.p[i];
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
		if (!letter && (i == 0 || c < '0' || c > '9'))
			return false;
	}
	return s.n > 0;
}

static bool is_package(struct span s)
{
	while (s.n) {
		size_t dot = span_find(s, '.');
		if (!is_identifier(span_first(s, dot)))
			return false;
		if (dot == s.n)
			return true;
		s = span_skip(s, dot + 1);
		if (s.n == 0)
			return false;
	}
	return true;
}

/* A string or bytes field: the last occurrence, or empty. Malformed messages were refused before. */
static struct span take_text(struct span message, uint32_t number)
{
	struct pb_wire_field f;
	struct span found = {0};
	while (pb_wire_next(&message, &f) > 0) {
		if (f.number == number && f.wire == PB_BYTES_FIELD)
			found = f.bytes;
	}
	return found;
}

static bool take_number(struct span message, uint32_t number, uint64_t *ret)
{
	struct pb_wire_field f;
	bool found = false;
	while (pb_wire_next(&message, &f) > 0) {
		if (f.number == number && f.wire == PB_VARINT) {
			*ret = f.value;
			found = true;
		}
	}
	return found;
}

static size_t count_of(struct span message, uint32_t number)
{
	struct pb_wire_field f;
	size_t n = 0;
	while (pb_wire_next(&message, &f) > 0)
		n += f.number == number && f.wire == PB_BYTES_FIELD;
	return n;
}

/* Room for that many of one kind of descriptor in the pool's arena; *ret NULL where there are none. */
static enum err_code take_room(struct loader *l, size_t count, size_t size_bytes, void *ret)
{
	void *p = NULL;
	if (count && !(p = arena_zalloc(&l->pool->arena, count * size_bytes)))
		return load_exhausted(l);
	memcpy(ret, &p, sizeof(p));
	return ERR_OK;
}

static enum err_code take_options(struct loader *l, struct span message, uint32_t number, struct span *ret)
{
	if (wire_merged(message, number, &l->pool->arena, ret) == ERR_LIMIT)
		return load_exhausted(l);
	if (!wire_valid(*ret))
		return load_fail(l, l->file, "malformed options");
	return ERR_OK;
}

static enum err_code add_symbol(struct loader *l, struct span name, enum symbol_kind kind, const void *what)
{
	struct load_symbol *s = LOAD_APPEND(l, &l->symbols);
	if (!s || !name.p)
		return load_exhausted(l);
	s->symbol = (struct symbol){name, kind, what, l->file};
	return ERR_OK;
}

/* The checked short and full name of something, entered among the symbols. */
static enum err_code take_name(struct loader *l, struct span message, uint32_t number, struct span scope,
			       enum symbol_kind kind, const void *what, struct span *ret_name,
			       struct span *ret_full)
{
	*ret_name = take_text(message, number);
	if (!is_identifier(*ret_name))
		return load_fail(l, l->file, "\"%.*s\" in \"%.*s\" is not a name", SPAN_ARG(*ret_name),
				 SPAN_ARG(scope));
	*ret_full = load_join(&l->pool->arena, scope, *ret_name);
	return add_symbol(l, *ret_full, kind, what);
}

static int compare_value_names(const void *a, const void *b)
{
	return span_cmp((*(const struct pb_enum_value *const *)a)->name,
			(*(const struct pb_enum_value *const *)b)->name);
}

/* By number, and of aliases the first declared first. */
static int compare_value_numbers(const void *a, const void *b)
{
	const struct pb_enum_value *x = *(const struct pb_enum_value *const *)a;
	const struct pb_enum_value *y = *(const struct pb_enum_value *const *)b;
	if (x->number != y->number)
		return x->number < y->number ? -1 : 1;
	return (x > y) - (x < y);
}

static enum err_code index_enum(struct loader *l, struct pb_enum *e)
{
	const struct pb_enum_value **by_name = NULL, **by_number = NULL;
	enum err_code code = take_room(l, e->value_count, sizeof(*by_name), &by_name);
	if (code || (code = take_room(l, e->value_count, sizeof(*by_number), &by_number)))
		return code;
	for (size_t i = 0; i < e->value_count; i++)
		by_name[i] = by_number[i] = &e->values[i];
	qsort(by_name, e->value_count, sizeof(*by_name), compare_value_names);
	qsort(by_number, e->value_count, sizeof(*by_number), compare_value_numbers);
	e->by_name = by_name;
	e->by_number = by_number;
	return ERR_OK;
}

static enum err_code load_enum(struct loader *l, struct span raw, struct span scope, struct pb_enum *e)
{
	struct pb_enum_value *values = NULL;
	struct pb_wire_field f;
	enum err_code code = take_name(l, raw, ENUM_NAME, scope, SYMBOL_ENUM, e, &e->name, &e->full_name);
	e->file = l->file;
	e->value_count = count_of(raw, ENUM_VALUE);
	if (code || (code = take_room(l, e->value_count, sizeof(*values), &values)))
		return code;
	e->values = values;
	e->null_value = span_eq_str(e->full_name, "google.protobuf.NullValue");
	while (pb_wire_next(&raw, &f) > 0) {
		if (f.number != ENUM_VALUE || f.wire != PB_BYTES_FIELD)
			continue;
		uint64_t number = 0;
		take_number(f.bytes, ENUM_VALUE_NUMBER, &number);
		values->name = take_text(f.bytes, ENUM_VALUE_NAME);
		values->number = (int32_t)(uint32_t)number;
		if (!wire_valid(f.bytes) || !is_identifier(values->name))
			return load_fail(l, l->file, "enum %.*s has a malformed value",
					 SPAN_ARG(e->full_name));
		values++;
	}
	if (e->value_count == 0)
		return load_fail(l, l->file, "enum %.*s has no value", SPAN_ARG(e->full_name));
	return index_enum(l, e);
}

/* What the field says of itself; what it says of other types waits for link.c. */
static enum err_code load_field_shape(struct loader *l, struct span raw, struct pb_field *f,
				      const struct pb_oneof *oneofs, size_t oneof_count)
{
	uint64_t number = 0, label = 0, kind = 0, optional = 0, oneof = 0, packed = 0;
	take_number(raw, FIELD_NUMBER, &number);
	take_number(raw, FIELD_LABEL, &label);
	take_number(raw, FIELD_TYPE, &kind);
	take_number(raw, FIELD_PROTO3_OPTIONAL, &optional);
	if (number < 1 || number > 536870911)
		return load_fail(l, l->file, "%.*s has the field number %lld", SPAN_ARG(f->full_name),
				 (long long)number);
	if (kind > PB_SINT64)
		return load_fail(l, l->file, "%.*s has the unknown type %llu", SPAN_ARG(f->full_name),
				 (unsigned long long)kind);
	f->number = (uint32_t)number;
	f->kind = (enum pb_kind)kind;
	f->repeated = label == LABEL_REPEATED;
	f->proto3_optional = optional != 0;
	f->json_name = take_text(raw, FIELD_JSON_NAME);
	if (take_number(raw, FIELD_ONEOF_INDEX, &oneof)) {
		if (oneof >= oneof_count || f->repeated)
			return load_fail(l, l->file, "%.*s cannot be a member of its oneof",
					 SPAN_ARG(f->full_name));
		if (!f->proto3_optional)
			f->oneof = &oneofs[oneof];
	}
	enum err_code code = take_options(l, raw, FIELD_OPTIONS, &f->options);
	if (code)
		return code;
	/* Whether it can be packed at all is known once its kind is. */
	f->packed = take_number(f->options, FIELD_OPTION_PACKED, &packed) ? packed != 0 : l->file->proto3;
	f->presence = !f->repeated && (!l->file->proto3 || f->oneof || f->proto3_optional || f->extension);
	return ERR_OK;
}

static enum err_code load_one_field(struct loader *l, struct span raw, struct span scope, struct pb_field *f,
				    const struct pb_oneof *oneofs, size_t oneof_count)
{
	if (!wire_valid(raw))
		return load_fail(l, l->file, "malformed field in \"%.*s\"", SPAN_ARG(scope));
	f->file = l->file;
	enum err_code code =
		take_name(l, raw, FIELD_NAME, scope, f->extension ? SYMBOL_EXTENSION : SYMBOL_FIELD, f,
			  &f->name, &f->full_name);
	if (code || (code = load_field_shape(l, raw, f, oneofs, oneof_count)))
		return code;
	struct load_field *pending = LOAD_APPEND(l, &l->fields);
	if (!pending)
		return load_exhausted(l);
	pending->field = f;
	pending->scope = scope;
	pending->type_name = take_text(raw, FIELD_TYPE_NAME);
	pending->extendee = take_text(raw, FIELD_EXTENDEE);
	pending->has_fallback = count_of(raw, FIELD_DEFAULT) > 0;
	pending->fallback = take_text(raw, FIELD_DEFAULT);
	if (f->kind == 0 && pending->type_name.n == 0)
		return load_fail(l, l->file, "%.*s has no type", SPAN_ARG(f->full_name));
	return ERR_OK;
}

static enum err_code load_extensions(struct loader *l, struct span raw, uint32_t number, struct span scope)
{
	struct pb_field *fields = NULL;
	struct pb_wire_field f;
	enum err_code code = take_room(l, count_of(raw, number), sizeof(*fields), &fields);
	while (!code && pb_wire_next(&raw, &f) > 0) {
		if (f.number != number || f.wire != PB_BYTES_FIELD)
			continue;
		fields->extension = true;
		code = load_one_field(l, f.bytes, scope, fields++, NULL, 0);
	}
	return code;
}

static enum err_code load_oneofs(struct loader *l, struct span raw, struct pb_type *t)
{
	struct pb_oneof *oneofs = NULL;
	struct pb_wire_field f;
	t->oneof_count = count_of(raw, MESSAGE_ONEOF);
	enum err_code code = take_room(l, t->oneof_count, sizeof(*oneofs), &oneofs);
	t->oneofs = oneofs;
	for (uint32_t i = 0; !code && pb_wire_next(&raw, &f) > 0;) {
		if (f.number != MESSAGE_ONEOF || f.wire != PB_BYTES_FIELD)
			continue;
		struct span full;
		struct pb_oneof *o = &oneofs[i];
		o->index = i++;
		o->parent = t;
		if (!wire_valid(f.bytes))
			return load_fail(l, l->file, "malformed oneof in %.*s", SPAN_ARG(t->full_name));
		code = take_name(l, f.bytes, 1, t->full_name, SYMBOL_ONEOF, o, &o->name, &full);
	}
	return code;
}

static enum err_code load_type(struct loader *l, struct span raw, struct span scope, struct pb_type *t,
			       unsigned depth);

static enum err_code load_members(struct loader *l, struct span raw, struct pb_type *t, unsigned depth)
{
	struct pb_field *fields = NULL;
	struct pb_type *nested = NULL;
	struct pb_enum *enums = NULL;
	struct pb_wire_field f;
	uint32_t index = 0;
	t->field_count = count_of(raw, MESSAGE_FIELD);
	enum err_code code = take_room(l, t->field_count, sizeof(*fields), &fields);
	if (code || (code = take_room(l, count_of(raw, MESSAGE_NESTED), sizeof(*nested), &nested)) ||
	    (code = take_room(l, count_of(raw, MESSAGE_ENUM), sizeof(*enums), &enums)))
		return code;
	t->fields = fields;
	struct load_type *pending = LOAD_APPEND(l, &l->types);
	if (!pending)
		return load_exhausted(l);
	pending->type = t;
	pending->fields = fields;
	while (!code && pb_wire_next(&raw, &f) > 0) {
		if (f.wire != PB_BYTES_FIELD)
			continue;
		if (f.number == MESSAGE_FIELD) {
			fields->parent = t;
			fields->index = index++;
			code = load_one_field(l, f.bytes, t->full_name, fields++, t->oneofs, t->oneof_count);
		} else if (f.number == MESSAGE_NESTED) {
			code = load_type(l, f.bytes, t->full_name, nested++, depth + 1);
		} else if (f.number == MESSAGE_ENUM) {
			code = wire_valid(f.bytes) ? load_enum(l, f.bytes, t->full_name, enums++)
						   : load_fail(l, l->file, "malformed enum in %.*s",
							       SPAN_ARG(t->full_name));
		}
	}
	return code;
}

static enum err_code load_type(struct loader *l, struct span raw, struct span scope, struct pb_type *t,
			       unsigned depth)
{
	if (depth > LIMIT_NESTING)
		return err_set(l->err, ERR_LIMIT,
			       "descriptor file \"%.*s\": messages nested more than %d deep",
			       SPAN_ARG(l->file->name), LIMIT_NESTING);
	if (!wire_valid(raw))
		return load_fail(l, l->file, "malformed message type in \"%.*s\"", SPAN_ARG(scope));
	uint64_t map_entry = 0;
	t->file = l->file;
	enum err_code code = take_name(l, raw, MESSAGE_NAME, scope, SYMBOL_TYPE, t, &t->name, &t->full_name);
	if (code || (code = take_options(l, raw, MESSAGE_OPTIONS, &t->options)) ||
	    (code = load_oneofs(l, raw, t)) || (code = load_members(l, raw, t, depth)))
		return code;
	take_number(t->options, MESSAGE_OPTION_MAP_ENTRY, &map_entry);
	t->map_entry = map_entry != 0;
	return load_extensions(l, raw, MESSAGE_EXTENSION, t->full_name);
}

static enum err_code load_method(struct loader *l, struct span raw, const struct pb_service *s,
				 struct pb_method *m)
{
	uint64_t client = 0, server = 0;
	if (!wire_valid(raw))
		return load_fail(l, l->file, "malformed method in %.*s", SPAN_ARG(s->full_name));
	enum err_code code =
		take_name(l, raw, METHOD_NAME, s->full_name, SYMBOL_METHOD, m, &m->name, &m->full_name);
	if (code || (code = take_options(l, raw, METHOD_OPTIONS, &m->options)))
		return code;
	take_number(raw, METHOD_CLIENT_STREAMING, &client);
	take_number(raw, METHOD_SERVER_STREAMING, &server);
	m->client_streaming = client != 0;
	m->server_streaming = server != 0;
	m->service = s;
	struct load_method *pending = LOAD_APPEND(l, &l->methods);
	if (!pending)
		return load_exhausted(l);
	*pending = (struct load_method){.method = m,
					.scope = s->full_name,
					.input = take_text(raw, METHOD_INPUT),
					.output = take_text(raw, METHOD_OUTPUT)};
	return ERR_OK;
}

static enum err_code load_service(struct loader *l, struct span raw, struct span scope, struct pb_service *s)
{
	struct pb_method *methods = NULL;
	struct pb_wire_field f;
	if (!wire_valid(raw))
		return load_fail(l, l->file, "malformed service");
	enum err_code code =
		take_name(l, raw, SERVICE_NAME, scope, SYMBOL_SERVICE, s, &s->name, &s->full_name);
	s->file = l->file;
	s->method_count = count_of(raw, SERVICE_METHOD);
	if (code || (code = take_options(l, raw, SERVICE_OPTIONS, &s->options)) ||
	    (code = take_room(l, s->method_count, sizeof(*methods), &methods)))
		return code;
	s->methods = methods;
	struct load_service *pending = LOAD_APPEND(l, &l->services);
	if (!pending)
		return load_exhausted(l);
	pending->service = s;
	while (!code && pb_wire_next(&raw, &f) > 0) {
		if (f.number == SERVICE_METHOD && f.wire == PB_BYTES_FIELD)
			code = load_method(l, f.bytes, s, methods++);
	}
	return code;
}

static enum err_code load_file_body(struct loader *l, const struct pb_file *file)
{
	struct span raw = file->raw, scope = file->package;
	struct pb_type *types = NULL;
	struct pb_enum *enums = NULL;
	struct pb_service *services = NULL;
	struct pb_wire_field f;
	l->file = file;
	enum err_code code = take_room(l, count_of(raw, FILE_MESSAGE), sizeof(*types), &types);
	if (code || (code = take_room(l, count_of(raw, FILE_ENUM), sizeof(*enums), &enums)) ||
	    (code = take_room(l, count_of(raw, FILE_SERVICE), sizeof(*services), &services)))
		return code;
	while (!code && pb_wire_next(&raw, &f) > 0) {
		if (f.wire != PB_BYTES_FIELD)
			continue;
		if (f.number == FILE_MESSAGE)
			code = load_type(l, f.bytes, scope, types++, 0);
		else if (f.number == FILE_SERVICE)
			code = load_service(l, f.bytes, scope, services++);
		else if (f.number == FILE_ENUM)
			code = wire_valid(f.bytes) ? load_enum(l, f.bytes, scope, enums++)
						   : load_fail(l, file, "malformed enum");
	}
	return code ? code : load_extensions(l, file->raw, FILE_EXTENSION, scope);
}

/* Name, package, syntax and imports of one file, entered in the list. */
static enum err_code load_file_head(struct loader *l, struct span raw, size_t set_index)
{
	struct load_file *pending = LOAD_APPEND(l, &l->files);
	struct pb_file *file = arena_zalloc(&l->pool->arena, sizeof(*file));
	if (!pending || !file)
		return load_exhausted(l);
	pending->file = file;
	pending->order = l->files.count;
	if (!wire_valid(raw))
		return err_set(l->err, ERR_INVALID, "file %zu of the descriptor set is malformed",
			       l->files.count);
	struct span syntax = take_text(raw, FILE_SYNTAX);
	*file = (struct pb_file){.name = take_text(raw, FILE_NAME),
				 .package = take_text(raw, FILE_PACKAGE),
				 .raw = raw,
				 .dep_count = count_of(raw, FILE_DEPENDENCY),
				 .set_index = set_index,
				 .proto3 = span_eq_str(syntax, "proto3"),
				 .pool = l->pool};
	if (!is_package(file->package))
		return load_fail(l, file, "\"%.*s\" is not a package name", SPAN_ARG(file->package));
	if (!file->proto3 && syntax.n && !span_eq_str(syntax, "proto2"))
		return load_fail(l, file, "its syntax is \"%.*s\"; proto2 and proto3 are understood",
				 SPAN_ARG(syntax));
	enum err_code code = take_room(l, file->dep_count, sizeof(*pending->deps), &pending->deps);
	file->deps = pending->deps;
	return code;
}

static int compare_load_files(const void *a, const void *b)
{
	const struct load_file *x = *(struct load_file *const *)a, *y = *(struct load_file *const *)b;
	int c = span_cmp(x->file->name, y->file->name);
	return c ? c : (x->order > y->order) - (x->order < y->order);
}

static int compare_file_name(const void *name, const void *file)
{
	return span_cmp(*(const struct span *)name, (*(struct pb_file *const *)file)->name);
}

/* Whether an earlier set has the file, by name or by one of its top-level symbols. */
static bool is_known(struct loader *l, const struct pb_file *file, bool *ret_exhausted)
{
	struct pb_wire_field f;
	struct span raw = file->raw;
	if (l->known_file_count && bsearch(&file->name, l->known_files, l->known_file_count,
					   sizeof(*l->known_files), compare_file_name))
		return true;
	while (l->known_count && pb_wire_next(&raw, &f) > 0) {
		if (f.wire != PB_BYTES_FIELD || f.number < FILE_MESSAGE || f.number > FILE_EXTENSION)
			continue;
		struct span name = take_text(f.bytes, 1);
		if (name.n == 0)
			continue;
		name = load_join(&l->scratch, file->package, name);
		if (!name.p) {
			*ret_exhausted = true;
			return false;
		}
		if (symbol_find(l->known, l->known_count, name))
			return true;
	}
	return false;
}

/* Drops a file that came twice; two different files of one name are refused. */
static enum err_code drop_doubles(struct loader *l, struct load_file **files, size_t count)
{
	qsort(files, count, sizeof(*files), compare_load_files);
	for (size_t i = 1; i < count; i++) {
		if (!span_eq(files[i]->file->name, files[i - 1]->file->name))
			continue;
		if (!span_eq(files[i]->file->raw, files[i - 1]->file->raw))
			return load_fail(l, files[i]->file, "two different files have this name");
		files[i]->left_out = true;
	}
	return ERR_OK;
}

static enum err_code remember_files(struct loader *l)
{
	size_t n = 0;
	struct pb_file **files = arena_alloc(&l->scratch, (l->files.count + 1) * sizeof(struct pb_file *));
	struct load_file **sorted = arena_alloc(&l->scratch, (l->files.count + 1) * sizeof(*sorted));
	if (!files || !sorted)
		return load_exhausted(l);
	for (struct load_file *f = l->files.first; f; f = f->next) {
		if (!f->left_out)
			sorted[n++] = f;
	}
	qsort(sorted, n, sizeof(struct load_file *), compare_load_files);
	for (size_t i = 0; i < n; i++)
		files[i] = sorted[i]->file;
	l->known_files = files;
	l->known_file_count = n;
	return ERR_OK;
}

enum err_code load_set(struct loader *l, struct span set, size_t set_index)
{
	struct load_file **mine, *f;
	struct pb_wire_field field;
	size_t n = 0, before = l->files.count;
	enum err_code code = ERR_OK;
	if (!wire_valid(set))
		return err_set(l->err, ERR_INVALID,
			       "the descriptor set is not a serialized FileDescriptorSet");
	struct load_file **first_of_mine = l->files.last_next;
	while (!code && pb_wire_next(&set, &field) > 0) {
		if (field.number == 1 && field.wire == PB_BYTES_FIELD)
			code = load_file_head(l, field.bytes, set_index);
	}
	mine = arena_alloc(&l->scratch, (l->files.count - before + 1) * sizeof(*mine));
	if (code || !mine)
		return code ? code : load_exhausted(l);
	for (f = *first_of_mine; f; f = f->next)
		mine[n++] = f;
	if ((code = drop_doubles(l, mine, n)))
		return code;
	bool exhausted = false;
	for (f = *first_of_mine; f && !exhausted; f = f->next)
		f->left_out = f->left_out || is_known(l, f->file, &exhausted);
	if (exhausted)
		return load_exhausted(l);
	for (f = *first_of_mine; f && !code; f = f->next)
		code = f->left_out ? ERR_OK : load_file_body(l, f->file);
	if (code || (code = link_symbols(l)))
		return code;
	return remember_files(l);
}
