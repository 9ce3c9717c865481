/* From names to pointers: every use of a type is resolved among all symbols of the pool, whatever files
 * they come from, and the pool's tables are filled. */
#include <config.h>

#include "pbdyn/load.h"

#include <stdlib.h>

static int compare_symbols(const void *a, const void *b)
{
	const struct symbol *x = a, *y = b;
	return span_cmp(x->name, y->name);
}

const struct symbol *symbol_find(const struct symbol *symbols, size_t count, struct span name)
{
	struct symbol key = {.name = name};
	return count ? bsearch(&key, symbols, count, sizeof(key), compare_symbols) : NULL;
}

enum err_code link_symbols(struct loader *l)
{
	size_t n = 0;
	struct symbol *all = arena_alloc(&l->scratch, (l->symbols.count + 1) * sizeof(*all));
	if (!all)
		return load_exhausted(l);
	for (const struct load_symbol *s = l->symbols.first; s; s = s->next)
		all[n++] = s->symbol;
	qsort(all, n, sizeof(*all), compare_symbols);
	for (size_t i = 1; i < n; i++) {
		if (span_eq(all[i].name, all[i - 1].name))
			return load_fail(l, all[i].file, "%.*s is defined twice, also in \"%.*s\"",
					 SPAN_ARG(all[i].name), SPAN_ARG(all[i - 1].file->name));
	}
	l->known = all;
	l->known_count = n;
	return ERR_OK;
}

/* The type or enum that a name means, seen from a scope: ".a.B" is a full name, "B" is looked for in the
 * scope and outwards. NULL with *ret_code ERR_OK when there is none. */
static const struct symbol *resolve(struct loader *l, struct span scope, struct span name,
				    enum err_code *ret_code)
{
	*ret_code = ERR_OK;
	if (name.n && name.p[0] == '.')
		return symbol_find(l->known, l->known_count, span_skip(name, 1));
	for (;;) {
		struct span full = load_join(&l->scratch, scope, name);
		if (!full.p && name.n) {
			*ret_code = load_exhausted(l);
			return NULL;
		}
		const struct symbol *s = symbol_find(l->known, l->known_count, full);
		if (s && (s->kind == SYMBOL_TYPE || s->kind == SYMBOL_ENUM))
			return s;
		if (scope.n == 0)
			return NULL;
		while (scope.n && scope.p[scope.n - 1] != '.')
			scope.n--;
		if (scope.n)
			scope.n--; /* the dot */
	}
}

static struct span without_dot(struct span name)
{
	return name.n && name.p[0] == '.' ? span_skip(name, 1) : name;
}

static enum err_code missing(struct loader *l, const struct pb_file *file, struct span user, const char *what,
			     struct span name)
{
	struct span plain = without_dot(name);
	return load_fail(l, file, "%.*s: its %s \"%.*s\" is in no file of the descriptor set", SPAN_ARG(user),
			 what, SPAN_ARG(plain));
}

/* An extension is only ever read by number: one whose type is in a missing file is no fault. */
static enum err_code link_field_type(struct loader *l, const struct load_field *pending)
{
	struct pb_field *f = pending->field;
	bool wants_type = f->kind == 0 || f->kind == PB_MESSAGE || f->kind == PB_GROUP || f->kind == PB_ENUM;
	enum err_code code;
	if (!wants_type)
		return ERR_OK;
	const struct symbol *s = resolve(l, pending->scope, pending->type_name, &code);
	if (code)
		return code;
	if (!s && f->extension) {
		f->kind = f->kind ? f->kind : PB_MESSAGE;
		return ERR_OK;
	}
	if (!s)
		return missing(l, f->file, f->full_name, "type", pending->type_name);
	if (s->kind == SYMBOL_TYPE && f->kind != PB_ENUM) {
		f->kind = f->kind ? f->kind : PB_MESSAGE;
		f->sub = s->what;
	} else if (s->kind == SYMBOL_ENUM && (f->kind == 0 || f->kind == PB_ENUM)) {
		f->kind = PB_ENUM;
		f->enum_type = s->what;
	} else {
		return load_fail(l, f->file, "%.*s: \"%.*s\" is not the kind of type it says",
				 SPAN_ARG(f->full_name), SPAN_ARG(s->name));
	}
	return ERR_OK;
}

static enum err_code link_extension(struct loader *l, const struct load_field *pending)
{
	enum err_code code;
	struct pb_field *f = pending->field;
	struct load_extension *e = LOAD_APPEND(l, &l->extensions);
	if (!e)
		return load_exhausted(l);
	const struct symbol *s = resolve(l, pending->scope, pending->extendee, &code);
	if (code)
		return code;
	if (s && s->kind == SYMBOL_TYPE)
		f->parent = s->what;
	e->extension.extended = s ? s->name : without_dot(pending->extendee);
	e->extension.field = f;
	return ERR_OK;
}

static enum err_code link_field(struct loader *l, const struct load_field *pending)
{
	struct pb_field *f = pending->field;
	enum err_code code = link_field_type(l, pending);
	if (!code && f->extension)
		code = link_extension(l, pending);
	if (code)
		return code;
	f->packed = f->packed && f->repeated && kind_packable(f->kind);
	f->presence = f->presence || (!f->repeated && (f->kind == PB_MESSAGE || f->kind == PB_GROUP));
	f->map = f->repeated && f->kind == PB_MESSAGE && f->sub && f->sub->map_entry;
	return link_fallback(l, pending);
}

static enum err_code link_method(struct loader *l, const struct load_method *pending)
{
	enum err_code code;
	struct pb_method *m = pending->method;
	const struct pb_file *file = m->service->file;
	const struct symbol *in = resolve(l, pending->scope, pending->input, &code);
	if (code)
		return code;
	const struct symbol *out = resolve(l, pending->scope, pending->output, &code);
	if (code)
		return code;
	if (!in || in->kind != SYMBOL_TYPE)
		return missing(l, file, m->full_name, "input type", pending->input);
	if (!out || out->kind != SYMBOL_TYPE)
		return missing(l, file, m->full_name, "output type", pending->output);
	m->input = in->what;
	m->output = out->what;
	return ERR_OK;
}

static int compare_file_pointers(const void *a, const void *b)
{
	return span_cmp((*(const struct pb_file *const *)a)->name, (*(const struct pb_file *const *)b)->name);
}

static struct pb_file *file_find(struct loader *l, struct span name)
{
	struct pb_file key = {.name = name}, *at = &key;
	struct pb_file **found = l->known_file_count
					 ? bsearch(&at, l->known_files, l->known_file_count,
						   sizeof(struct pb_file *), compare_file_pointers)
					 : NULL;
	return found ? *found : NULL;
}

/* A file that is imported but in no set: its bytes are a descriptor with a name and nothing else, which
 * is enough for a reflection client to link those that import it. */
static struct pb_file *placeholder_new(struct loader *l, struct span name)
{
	struct pb_file *f = arena_zalloc(&l->pool->arena, sizeof(*f));
	size_t head = 1 + varint_size(name.n);
	uint8_t *raw = arena_alloc(&l->pool->arena, head + name.n);
	if (!f || !raw)
		return NULL;
	raw[0] = 1 << 3 | PB_BYTES_FIELD;
	varint_put(raw + 1, name.n);
	if (name.n)
		memcpy(raw + head, name.p, name.n);
	f->name = span_of(raw + head, name.n);
	f->raw = span_of(raw, head + name.n);
	f->placeholder = true;
	f->pool = l->pool;
	return f;
}

static size_t count_missing_deps(struct loader *l)
{
	struct pb_wire_field f;
	size_t n = 0;
	for (const struct load_file *file = l->files.first; file; file = file->next) {
		struct span raw = file->file->raw;
		while (!file->left_out && pb_wire_next(&raw, &f) > 0)
			n += f.number == 3 && f.wire == PB_BYTES_FIELD && !file_find(l, f.bytes);
	}
	return n;
}

/* Makes a placeholder for every missing import and enters it among the known files. */
static enum err_code link_placeholders(struct loader *l)
{
	struct pb_wire_field f;
	size_t missing_count = count_missing_deps(l), n = 0, kept = 0;
	if (missing_count == 0)
		return ERR_OK;
	struct pb_file **all =
		arena_alloc(&l->scratch, (l->known_file_count + missing_count) * sizeof(struct pb_file *));
	struct pb_file **made = arena_alloc(&l->scratch, missing_count * sizeof(struct pb_file *));
	if (!all || !made)
		return load_exhausted(l);
	for (const struct load_file *file = l->files.first; file; file = file->next) {
		struct span raw = file->file->raw;
		while (!file->left_out && pb_wire_next(&raw, &f) > 0) {
			if (f.number != 3 || f.wire != PB_BYTES_FIELD || file_find(l, f.bytes))
				continue;
			if (!(made[n] = placeholder_new(l, f.bytes)))
				return load_exhausted(l);
			n++;
		}
	}
	qsort(made, n, sizeof(struct pb_file *), compare_file_pointers);
	memcpy(all, l->known_files, l->known_file_count * sizeof(struct pb_file *));
	for (size_t i = 0; i < n; i++) {
		if (i == 0 || !span_eq(made[i]->name, made[i - 1]->name))
			all[l->known_file_count + kept++] = made[i];
	}
	l->known_files = all;
	l->known_file_count += kept;
	qsort(all, l->known_file_count, sizeof(struct pb_file *), compare_file_pointers);
	return ERR_OK;
}

static enum err_code link_files(struct loader *l)
{
	struct pb_wire_field f;
	enum err_code code = link_placeholders(l);
	if (code)
		return code;
	struct pb_pool *pool = l->pool;
	const struct pb_file **in_order = arena_alloc(&pool->arena, l->known_file_count * sizeof(*in_order));
	const struct pb_file **by_name = arena_alloc(&pool->arena, l->known_file_count * sizeof(*by_name));
	size_t n = 0;
	if (!in_order || !by_name)
		return load_exhausted(l);
	for (const struct load_file *file = l->files.first; file; file = file->next) {
		struct span raw = file->file->raw;
		size_t dep = 0;
		if (file->left_out)
			continue;
		in_order[n++] = file->file;
		while (pb_wire_next(&raw, &f) > 0) {
			if (f.number == 3 && f.wire == PB_BYTES_FIELD)
				file->deps[dep++] = file_find(l, f.bytes);
		}
	}
	for (size_t i = 0; i < l->known_file_count; i++) {
		by_name[i] = l->known_files[i];
		if (by_name[i]->placeholder) {
			l->known_files[i]->set_index = SIZE_MAX;
			in_order[n++] = by_name[i];
		}
	}
	pool->files = in_order;
	pool->files_by_name = by_name;
	pool->file_count = l->known_file_count;
	return ERR_OK;
}

static int compare_extensions(const void *a, const void *b)
{
	const struct extension *x = a, *y = b;
	int c = span_cmp(x->extended, y->extended);
	if (c)
		return c;
	if (x->field->number != y->field->number)
		return x->field->number < y->field->number ? -1 : 1;
	return (x->field->file->set_index > y->field->file->set_index) -
	       (x->field->file->set_index < y->field->file->set_index);
}

/* The table of extensions; of two with one type and number the earlier set's counts. */
static enum err_code link_extensions(struct loader *l)
{
	size_t n = 0, kept = 0;
	struct extension *all = arena_alloc(&l->pool->arena, (l->extensions.count + 1) * sizeof(*all));
	const struct pb_field **fields =
		arena_alloc(&l->pool->arena, (l->extensions.count + 1) * sizeof(const struct pb_field *));
	if (!all || !fields)
		return load_exhausted(l);
	for (const struct load_extension *e = l->extensions.first; e; e = e->next)
		all[n++] = e->extension;
	qsort(all, n, sizeof(*all), compare_extensions);
	for (size_t i = 0; i < n; i++) {
		if (kept && span_eq(all[i].extended, all[kept - 1].extended) &&
		    all[i].field->number == all[kept - 1].field->number)
			continue;
		fields[kept] = all[i].field;
		all[kept++] = all[i];
	}
	l->pool->extensions = all;
	l->pool->extension_fields = fields;
	l->pool->extension_count = kept;
	return ERR_OK;
}

static enum err_code link_tables(struct loader *l)
{
	struct pb_pool *pool = l->pool;
	struct symbol *symbols = arena_alloc(&pool->arena, (l->known_count + 1) * sizeof(*symbols));
	const struct pb_service **services =
		arena_alloc(&pool->arena, (l->services.count + 1) * sizeof(*services));
	if (!symbols || !services)
		return load_exhausted(l);
	if (l->known_count)
		memcpy(symbols, l->known, l->known_count * sizeof(*symbols));
	pool->symbols = symbols;
	pool->symbol_count = l->known_count;
	for (const struct load_service *s = l->services.first; s; s = s->next)
		services[pool->service_count++] = s->service;
	pool->services = services;
	enum err_code code = link_files(l);
	return code ? code : link_extensions(l);
}

enum err_code link_pool(struct loader *l)
{
	enum err_code code = ERR_OK;
	for (const struct load_field *f = l->fields.first; f && !code; f = f->next)
		code = link_field(l, f);
	for (const struct load_method *m = l->methods.first; m && !code; m = m->next)
		code = link_method(l, m);
	for (struct load_type *t = l->types.first; t && !code; t = t->next)
		code = link_type(l, t);
	return code ? code : link_tables(l);
}
