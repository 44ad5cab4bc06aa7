/* router/base64.h -- binary values in JSON: RFC 4648, section 4, with padding, to the letter.
 * Tests:    unit/router/test_base64.c. */
#ifndef KV_ROUTER_BASE64_H
#define KV_ROUTER_BASE64_H

#include "kv/buf.h"
#include "kv/err.h"

/* How long the text of so many bytes is. */
static inline uint64_t base64_text_bytes(uint64_t bytes)
{
    return (bytes + 2) / 3 * 4;
}

/* Appends the text of `bytes`. */
void base64_encode(struct kv_slice bytes, struct kv_buf *out);
/* Appends what `text` stands for. KV_INVALID: white space, missing or misplaced padding, or bits left over that are not zero (two
 * texts would mean the same). */
enum kv_err base64_decode(struct kv_slice text, struct kv_buf *out);

#endif
