/* Text forms of bytes and numbers: UTF-8 validity, hex, base64, checked decimal. Any thread. */
#ifndef CAIRN_BASE_TEXT_H
#define CAIRN_BASE_TEXT_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/span.h"

/* The first character of s (which is not empty): returns its length in bytes and its code point; 0 where the
 * bytes are not well-formed UTF-8. */
size_t utf8_char(struct span s, uint32_t *ret);
/* Well-formed UTF-8 (Unicode 15, table 3-7: no overlong forms, no surrogates). */
bool utf8_valid(struct span s);
/* The same, and no C0 control, DEL or C1 control character. */
bool utf8_valid_no_controls(struct span s);

int hex_value(uint8_t digit); /* 0 to 15, either case; -1 for any other byte */
enum err_code hex_encode(struct buf *out, struct span s);
/* Standard alphabet (RFC 4648, section 4); pad: with "=". */
enum err_code base64_encode(struct buf *out, struct span s, bool pad);
/* Takes the standard and the URL-safe alphabet, padded or not; ERR_INVALID otherwise. */
enum err_code base64_decode(struct buf *out, struct span s);
/* %XX decoding of a URL part ('+' stays '+'); ERR_INVALID for a broken escape. */
enum err_code percent_decode(struct buf *out, struct span s);

/* The whole span as a decimal number without sign or spaces; false when it is none or too large. */
bool parse_u64(struct span s, uint64_t *ret);
bool parse_i64(struct span s, int64_t *ret); /* an optional '-' first */

#endif
