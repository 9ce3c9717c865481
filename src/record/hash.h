/* Private to src/record. */
#ifndef CAIRN_RECORD_HASH_H
#define CAIRN_RECORD_HASH_H

#include "record/record.h"

/* SHA-256 of the body, whether it is there or has been erased. */
void record_body_hash(const struct record_view *view, uint8_t ret[RECORD_HASH_BYTES]);

#endif
