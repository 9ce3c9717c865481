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

bool withhold_is_kind(uint32_t kind); /* it withholds what was given before */
/* Does the append have an act that withholds or takes away what was given before? */
bool withhold_is_in(const struct append *a);
/* Of requests: a stream that is anybody's to delete; a reason. */
enum err_code withhold_check_stream(struct span stream, struct err *err);
enum err_code withhold_check_reason(struct span reason, struct err *err);

#endif
