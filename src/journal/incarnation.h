/* Incarnations: each time a journal's history was cut back it has a new one, which a record in "$incarnations" says,
 * with the position of the fork. What they come to is kept here, for whoever is asked what a cursor is worth.
 * Private to src/journal; acts.h has what others call. */
#ifndef CAIRN_JOURNAL_INCARNATION_H
#define CAIRN_JOURNAL_INCARNATION_H

#include "journal/act.h"

#define INCARNATIONS_STREAM "$incarnations"

/* The cuts of a journal's history. Any thread; changed by the ledger's owner alone. */
struct cuts;
struct cuts *cuts_new(void);
void cuts_free(struct cuts *c); /* NULL is fine */
/* History was cut back to `fork` and goes on as the incarnation; one that is known is passed over. */
void cuts_add(struct cuts *c, uint64_t incarnation, uint64_t fork);
uint64_t cuts_incarnation(const struct cuts *c); /* the present one; 1 without cuts */
/* Up to which position this history and that of an earlier incarnation are the same. UINT64_MAX for the present one,
 * 0 for one that is to come. */
uint64_t cuts_fork_of(const struct cuts *c, uint64_t incarnation);

bool incarnation_apply(struct ledger *l, const struct ledger_record *record);

#endif
