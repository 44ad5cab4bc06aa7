/* tests/system/content.h -- contents by number: the same number is the same bytes, another number other bytes.
 * 0 stands for "absent". 1 to CONTENT_SHARED are shared between all clients of a test, so that they are deduplicated; above, each number is
 * used once. Sizes follow from the number: one empty content, most small, some of 5 KB that compress, some of 120 KB that do not and are
 * staged. All bytes are printable ASCII. */
#ifndef KV_SYSTEM_CONTENT_H
#define KV_SYSTEM_CONTENT_H

#include "kv/buf.h"

#define CONTENT_SHARED 24u

/* malloc'ed; `number` is not 0. */
struct kv_buf content_make(uint64_t number);
bool content_is(uint64_t number, struct kv_slice bytes);

#endif
