#include <config.h>

#include "base/plant.h"

#include <criterion/criterion.h>
#include <stdlib.h>

Test(plant, is_on_only_where_it_is_compiled_in_and_picked)
{
	setenv("CAIRN_PLANT", "fdatasync-skipped", 1);
#ifdef CAIRN_PLANTS
	cr_assert(plant("fdatasync-skipped"));
#else
	cr_assert_not(plant("fdatasync-skipped"));
#endif
	cr_assert_not(plant("fdatasync"));
	unsetenv("CAIRN_PLANT");
	cr_assert_not(plant("fdatasync-skipped"));
}
