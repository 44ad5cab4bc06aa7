/* include/kv/slice.h -- a borrowed run of bytes: pointer and length, no ownership.
 * A slice is valid as long as what it points into; whoever keeps bytes copies them. */
#ifndef KV_SLICE_H
#define KV_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct kv_slice {
    const uint8_t *data; /* may be NULL when bytes is 0 */
    size_t bytes;
};

static inline struct kv_slice kv_slice(const void *data, size_t bytes)
{
    return (struct kv_slice){(const uint8_t *)data, bytes};
}

static inline struct kv_slice kv_slice_text(const char *text)
{
    return kv_slice(text, strlen(text));
}

/* Byte order as memcmp, a prefix before its extensions: the order of keys everywhere in the store. */
static inline int kv_slice_compare(struct kv_slice a, struct kv_slice b)
{
    size_t shared = a.bytes < b.bytes ? a.bytes : b.bytes;
    int order = shared == 0 ? 0 : memcmp(a.data, b.data, shared);
    if (order != 0)
        return order;
    return (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

static inline bool kv_slice_equal(struct kv_slice a, struct kv_slice b)
{
    return a.bytes == b.bytes && (a.bytes == 0 || memcmp(a.data, b.data, a.bytes) == 0);
}

static inline bool kv_slice_starts_with(struct kv_slice whole, struct kv_slice prefix)
{
    return whole.bytes >= prefix.bytes && (prefix.bytes == 0 || memcmp(whole.data, prefix.data, prefix.bytes) == 0);
}

#endif
