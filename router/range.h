/* router/range.h -- one byte range of a Range header (RFC 9110, 14). Pure. Tests: unit/router/test_range.c. */
#ifndef KV_ROUTER_RANGE_H
#define KV_ROUTER_RANGE_H

#include "kv/slice.h"

enum range_kind {
    RANGE_WHOLE,         /* no range, several, another unit, or not understood: the whole value */
    RANGE_PART,          /* 206 */
    RANGE_UNSATISFIABLE, /* 416 */
};

struct range {
    uint64_t first;
    uint64_t bytes; /* at least 1 */
};

/* `value` of a Range header for a content of `size` bytes; `out` is set only for RANGE_PART. */
enum range_kind range_parse(struct kv_slice value, uint64_t size, struct range *out);

/* What lies within the range, of `content`, which begins at `at` of the whole; some of it does. */
static inline struct kv_slice range_cut(struct range range, uint64_t at, struct kv_slice content)
{
    uint64_t end = range.first + range.bytes;
    size_t cut = range.first > at ? range.first - at : 0;
    if (at + content.bytes > end)
        content.bytes = end - at;
    return kv_slice(content.data + cut, content.bytes - cut);
}

#endif
