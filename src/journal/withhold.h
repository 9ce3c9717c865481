/* Acts upon streams: deleting, truncating, erasing. What they do to reads is storage's (storage/storage.h); here it
 * is decided whether they are written, and what their records say. Private to src/journal; acts.h has what others
 * call. */
#ifndef CAIRN_JOURNAL_WITHHOLD_H
#define CAIRN_JOURNAL_WITHHOLD_H

#include "journal/act.h"

#define ACTS_STREAM "$acts"

/* For act.c's table: what they do to the live records of their stream. */
void withhold_touch_delete(struct storage_stream_fact *fact);
void withhold_touch_other(struct storage_stream_fact *fact);

/* Does the append have an act that withholds what was given before? */
bool withhold_is_in(const struct append *a);

#endif
