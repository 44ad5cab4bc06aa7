/* supervisor/base/err.c -- the words for each outcome of include/kv/err.h.
 * Tests: unit/base/test_buf.c. */
#include "kv/err.h"

const char *kv_err_text(enum kv_err err)
{
    switch (err) {
#define X(name, number, text)                                                                                          \
    case KV_##name:                                                                                                    \
        return text;
        KV_ERR_TABLE(X)
#undef X
    case KV_ERR_COUNT:
        break;
    }
    return "unknown error";
}
