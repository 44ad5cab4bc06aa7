/* tests/system/content.c -- see content.h. */
#include "content.h"

#include <stdio.h>

#include "../sim/random.h"

#define STAGED_BYTES 120000u
#define COMPRESSIBLE_BYTES 5000u

static size_t filler_bytes(uint64_t number, struct random *random)
{
    if (number == 2 || (number > CONTENT_SHARED && random_chance(random, 25)))
        return STAGED_BYTES;
    if (number == 3 || random_chance(random, 60))
        return COMPRESSIBLE_BYTES;
    return random_below(random, 300);
}

struct kv_buf content_make(uint64_t number)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    struct kv_buf buf = {0};
    struct random random = {number};
    char title[64];
    if (number == 1)
        return buf; /* the empty content */
    snprintf(title, sizeof title, "content %llu ", (unsigned long long)number);
    kv_buf_append(&buf, kv_slice_text(title));
    size_t bytes = filler_bytes(number, &random);
    uint8_t *at = kv_buf_reserve(&buf, bytes);
    for (size_t i = 0; i < bytes; i++)
        at[i] = bytes == COMPRESSIBLE_BYTES ? (uint8_t)letters[i % 7] : (uint8_t)letters[random_next(&random) & 63];
    buf.bytes += bytes;
    return buf;
}

bool content_is(uint64_t number, struct kv_slice bytes)
{
    struct kv_buf content = content_make(number);
    bool same = kv_slice_equal(kv_buf_peek(&content), bytes);
    kv_buf_free(&content);
    return same;
}
