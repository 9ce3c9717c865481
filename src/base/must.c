#include <config.h>

#include "base/must.h"

#include <execinfo.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

_Noreturn void must_fail(const char *what, const char *file, int line, const char *func)
{
	void *frames[64];
	dprintf(STDERR_FILENO, "cairn: bug: must(%s) failed at %s:%d in %s()\n", what, file, line, func);
	backtrace_symbols_fd(frames, backtrace(frames, 64), STDERR_FILENO);
	abort();
}

void *obj_check(void *ptr, uint32_t magic, const char *type, const char *file, int line, const char *func)
{
	/* magic is the first member of every object, so ptr is aligned for it. */
	if (!ptr || *(const uint32_t *)ptr != magic)
		must_fail(type, file, line, func);
	return ptr;
}
