/* The pool of the unit tests' .proto files, made once; the first byte of an input chooses a type. */
#ifndef CAIRN_TESTS_FUZZ_PBDYN_TYPES_H
#define CAIRN_TESTS_FUZZ_PBDYN_TYPES_H

#include "base/limits.h"
#include "base/must.h"
#include "pbdyn/pbdyn.h"

extern const uint8_t pbdyn_test_set[];
extern const size_t pbdyn_test_set_bytes;

static inline const struct pb_type *fuzz_type(uint8_t choice)
{
	static struct pb_pool *pool;
	static const char *const names[] = {
		"kinds.All",	 "kinds.Scalars",	"kinds.Maps",		 "kinds.Choices",
		"kinds.Known",	 "kinds.KnownLists",	"kinds2.Old",		 "google.protobuf.Any",
		"kinds.Lists",	 "kinds.Optionals",	"google.protobuf.Value", "shop.Item",
	};
	if (!pool) {
		struct span set = span_of(pbdyn_test_set, pbdyn_test_set_bytes);
		must(pb_pool_new(&set, 1, &pool, NULL) == ERR_OK);
	}
	const struct pb_type *type = pb_find_type(pool, span_str(names[choice % ARRAY_LEN(names)]));
	must(type);
	return type;
}

#endif
