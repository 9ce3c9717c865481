#include <config.h>

#include "base/plant.h"

#include <stdlib.h>
#include <string.h>

bool plant(const char *name)
{
	const char *picked = getenv("CAIRN_PLANT");
	return picked && strcmp(picked, name) == 0;
}
