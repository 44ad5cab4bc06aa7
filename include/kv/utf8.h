/* include/kv/utf8.h -- strict UTF-8 (RFC 3629; table 3-7 of the Unicode standard): what a key may be, and what a log line may hold.
 * Pure. Tests: unit/router/test_key.c, unit/base/test_log.c. */
#ifndef KV_UTF8_H
#define KV_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at the front of `left` >= 1 bytes; 0: none begins there. No overlong forms, no surrogates, nothing above
 * U+10FFFF. U+0000 is a character like others. */
static inline size_t kv_utf8_bytes(const uint8_t *at, size_t left)
{
    uint8_t lead = at[0];
    if (lead < 0x80)
        return 1;
    if (lead < 0xc2 || lead > 0xf4)
        return 0;
    size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (left < length)
        return 0;
    uint8_t low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;  /* no overlong forms */
    uint8_t high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf; /* no surrogates, nothing above U+10FFFF */
    if (at[1] < low || at[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

#endif
