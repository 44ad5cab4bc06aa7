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

#endif
