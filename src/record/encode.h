/* Private to src/record: the size of an encoding, for the form rules. */
#ifndef CAIRN_RECORD_ENCODE_H
#define CAIRN_RECORD_ENCODE_H

#include "record/record.h"

/* Of the whole record, tag and length included. Its fields are within their limits, so that sums of
 * their lengths cannot overflow. */
size_t record_encoded_bytes(const struct record_new *r);

#endif
