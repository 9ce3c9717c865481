/* Counts of tests, scaled: CAIRN_TEST_SCALE=0.1 runs a tenth (sanitizer builds), 100 a soak. */
#ifndef CAIRN_TESTS_SCALE_H
#define CAIRN_TESTS_SCALE_H

#include <stdlib.h>

/* count times the scale, at least 1. */
static inline size_t test_scaled(size_t count)
{
	const char *text = getenv("CAIRN_TEST_SCALE");
	double scale = text && *text ? strtod(text, NULL) : 1.0;
	double n = (double)count * (scale > 0 ? scale : 1.0);
	return n < 1 ? 1 : (size_t)n;
}

#endif
