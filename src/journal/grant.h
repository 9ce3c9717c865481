/* Grants: which session holds which slot of a service, and fences. A grant is a record in "$grants-SERVICE";
 * each is a new epoch of its slot. Private to src/journal; acts.h has what others call. */
#ifndef CAIRN_JOURNAL_GRANT_H
#define CAIRN_JOURNAL_GRANT_H

#include "journal/act.h"
#include "journal/acts.h"

ledger_apply_fn grant_apply;

/* Is the slot to be had: never granted, released, or its session over? */
bool grant_is_free(const struct ledger *l, const struct ledger_grant *g);
/* All of the append's fences hold, or it is refused. */
bool fences_hold(const struct ledger *l, struct append *a);

#endif
