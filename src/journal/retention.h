/* Retention: rules that say what of a stream is not needed any more. A rule is a record in "$acts"; compaction
 * (compact.h) reads them all at the beginning of a pass. Private to src/journal; acts.h has what others call. */
#ifndef CAIRN_JOURNAL_RETENTION_H
#define CAIRN_JOURNAL_RETENTION_H

#include "journal/act.h"

struct retention_rule {
	uint64_t max_count;	  /* 0: any number */
	int64_t max_age_us;	  /* 0: of any age */
	uint64_t before_sequence; /* 0: none; what is below is not needed */
};
struct retention_rules;

/* Reads the rules that are in force as of the head. */
enum err_code retention_load(struct storage_reader *reader, uint64_t head, struct retention_rules **ret,
			     struct err *err);
void retention_free(struct retention_rules *rules); /* NULL is fine */
bool retention_any(const struct retention_rules *rules);
/* The stream's own rule, else its category's; NULL if there is none. */
const struct retention_rule *retention_of(const struct retention_rules *rules, struct span stream);
/* Is the record not needed, when the newest sequence of its stream is this? */
bool retention_expired(const struct retention_rule *rule, const struct record_view *record,
		       uint64_t newest_sequence, struct wall_time now);

/* An act of one record in "$acts", whose data is ready; `data` is taken. */
enum err_code acts_record_new(const struct journal *j, uint32_t kind, struct buf *data, struct span actor,
			      struct append **ret, struct append_refusal *ret_refusal);

#endif
