/* What the records of CRDTs say in their metadata: who wrote them, what he had seen or applied, and whether it is to
 * be confirmed. Private to src/proxy; no I/O. */
#ifndef CAIRN_PROXY_CRDT_TEXT_H
#define CAIRN_PROXY_CRDT_TEXT_H

#include <stdbool.h>

#include "record/record.h"

#define CRDT_SESSION_KEY "cairn-session"
#define CRDT_OBSERVED_KEY "cairn-observed"
#define CRDT_CONFIRM_KEY "cairn-confirm" /* its value is for people: "majority", "all" */
#define CRDT_APPLIED_KEY "cairn-applied"
#define CRDT_APPLIED_TYPE "cairn.crdt.Applied"

#define CRDT_TEXT_MAX 4
struct crdt_text { /* what a record's spans point to */
	struct record_metadata metadata[CRDT_TEXT_MAX];
	size_t count;
	char session[37], number[24];
};
/* Adds the session, and a number under that key (a literal), of which there is one a record. */
void crdt_text_set(struct crdt_text *text, const uint8_t session[RECORD_ID_BYTES], const char *key, uint64_t number);
void crdt_text_add(struct crdt_text *text, const char *key, struct span value);

struct crdt_said {
	uint8_t session[RECORD_ID_BYTES];
	uint64_t observed, applied;
	bool has_observed, confirm;
};
/* False: it names no session, or a number is none. */
bool crdt_text_read(const struct record_view *record, struct crdt_said *ret);

#endif
