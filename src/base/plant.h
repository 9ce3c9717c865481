/* Planted bugs, compiled only with --enable-plants: CAIRN_PLANT=name picks the one that is on.
 *
 *	if (!plant("fdatasync-skipped"))
 *		r = fdatasync(fd);
 *
 * A guarantee counts as tested when the suite is red under its plant (tests/plants). In normal builds
 * plant() is the constant false and leaves no trace. */
#ifndef CAIRN_BASE_PLANT_H
#define CAIRN_BASE_PLANT_H

#include <stdbool.h>

#ifdef CAIRN_PLANTS
bool plant(const char *name);
#else
#define plant(name) false
#endif

#endif
