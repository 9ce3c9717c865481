/* What acts withhold: for each stream that has been deleted, truncated or erased, which of its records are
 * not given any more and whose bodies are not. Made from the acts' records, in the order of the log or any
 * other; the same for every backend that keeps it in memory. Any thread. */
#ifndef CAIRN_STORAGE_MARKS_H
#define CAIRN_STORAGE_MARKS_H

#include "record/record.h"

struct marks;

struct marks *marks_new(void);
void marks_free(struct marks *m); /* NULL is fine */

/* Takes an act in; again does nothing. */
void marks_apply(struct marks *m, struct span stream, uint64_t position, const struct record_act *act);
/* Records of the stream below this position that are content are not given; 0 if all are. */
uint64_t marks_hidden_below(struct marks *m, struct span stream);
/* Position of the newest erasure of the stream as a whole; 0 if there is none. */
uint64_t marks_erased_below(struct marks *m, struct span stream);

enum mark { MARK_NONE, MARK_HIDDEN, MARK_ERASED };
/* What is to become of a record on its way out. The entry may be cut short behind its header. A removed or
 * malformed one has no mark. */
enum mark marks_look(struct marks *m, struct span entry);

#endif
