/* router/content_type.c -- see content_type.h. */
#include "content_type.h"

#include "kv/limits.h"

enum kv_err content_type_check(struct kv_slice given, struct kv_slice *out)
{
    if (given.bytes > KV_CONTENT_TYPE_BYTES_MAX)
        return KV_INVALID;
    for (size_t i = 0; i < given.bytes; i++)
        if ((given.data[i] < ' ' && given.data[i] != '\t') || given.data[i] == 0x7f)
            return KV_INVALID;
    *out = given.bytes == 0 ? kv_slice_text("application/octet-stream") : given;
    return KV_OK;
}
