/* router/printable.h -- what a client sent, quoted in a sentence for it or for the log. */
#ifndef KV_ROUTER_PRINTABLE_H
#define KV_ROUTER_PRINTABLE_H

#include "kv/slice.h"

#define PRINTABLE_NAME_BYTES 41u /* names of 40 bytes tell which one was meant */

/* As much of `text` as fits, zero-terminated, with '?' for everything but printable ASCII: nobody's terminal is written to. */
static inline void printable_copy(struct kv_slice text, char *out, size_t out_bytes)
{
    size_t bytes = text.bytes < out_bytes - 1 ? text.bytes : out_bytes - 1;
    for (size_t i = 0; i < bytes; i++)
        out[i] = text.data[i] >= ' ' && text.data[i] < 0x7f ? (char)text.data[i] : '?';
    out[bytes] = '\0';
}

#endif
