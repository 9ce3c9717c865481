#!/bin/sh
# Writes the C source that holds the migrations: embed.sh FILE.sql ... Their numbers are how their names begin.
set -eu
cat <<'END'
/* Generated from sql/. */
#include <config.h>

#include "storage/postgres/postgres.h"

const struct pg_migration pg_migrations[] = {
END
for file; do
	base=${file##*/}
	number=$(printf '%s\n' "${base%%_*}" | sed 's/^0*//')
	printf '\t{%s, "%s",\n' "$number" "$base"
	sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/	/\\t/g' -e 's/^/\t "/' -e 's/$/\\n"/' "$file"
	printf '\t},\n'
done
cat <<'END'
};
const size_t pg_migration_count = sizeof(pg_migrations) / sizeof(pg_migrations[0]);
END
