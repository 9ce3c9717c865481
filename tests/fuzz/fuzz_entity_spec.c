/* An EntitySpec, as a function answers discover: refused with a reason, or every method is usable. */
#include <config.h>

#include <stdint.h>
#include <stdio.h>

#include "base/limits.h"
#include "base/log.h"
#include "base/must.h"
#include "proxy/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_method(const struct spec *spec, const struct spec_method *m)
{
	struct buf id;
	struct err err = {0};
	must(m->service->spec == spec);
	must(m->key_count > 0);
	must(m->input_url.n > 0 && m->output_url.n > 0);
	buf_init(&id, MIB);
	must(pb_key_print(m->keys, m->key_count, SPAN(""), &id, &err) == ERR_OK);
	buf_release(&id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct spec_rules rules = {.check_protocol = size & 1, .passivation_ms = 30000};
	struct spec *spec;
	struct err err = {0};
	if (spec_build(span_of(data, size), &rules, &spec, &err)) {
		must(err.code != ERR_OK && err.text[0]);
		return 0;
	}
	must(spec->service_count > 0);
	for (size_t i = 0; i < spec->service_count; i++) {
		const struct spec_service *s = &spec->services[i];
		must(spec_find_service(spec, s->name) == s);
		must(s->passivation_ms > 0);
		for (size_t k = 0; k < s->method_count; k++)
			check_method(spec, &s->methods[k]);
	}
	spec_unref(spec);
	return 0;
}
