/* router/base64.c -- see base64.h. */
#include "base64.h"

#include <openssl/evp.h>

#define STEP_BYTES (3u * (1u << 20)) /* encoded at once: EVP counts in int */

void base64_encode(struct kv_slice bytes, struct kv_buf *out)
{
    for (size_t at = 0; at < bytes.bytes; at += STEP_BYTES) {
        size_t left = bytes.bytes - at;
        size_t step = left < STEP_BYTES ? left : STEP_BYTES;
        uint8_t *space = kv_buf_reserve(out, base64_text_bytes(step) + 1); /* EVP ends it with a zero */
        out->bytes += (size_t)EVP_EncodeBlock(space, bytes.data + at, (int)step);
    }
}

static bool is_digit(uint8_t byte)
{
    return (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') ||
           byte == '+' || byte == '/';
}

/* EVP_DecodeBlock would trim white space and take padding anywhere, so all of it is looked at first. */
enum kv_err base64_decode(struct kv_slice text, struct kv_buf *out)
{
    size_t digits = text.bytes;
    if (text.bytes % 4 != 0)
        return KV_INVALID;
    while (digits > 0 && text.bytes - digits < 2 && text.data[digits - 1] == '=')
        digits--;
    for (size_t i = 0; i < digits; i++)
        if (!is_digit(text.data[i]))
            return KV_INVALID;
    size_t padding = text.bytes - digits;
    uint8_t *space = kv_buf_reserve(out, text.bytes / 4 * 3);
    int decoded = text.bytes == 0 ? 0 : EVP_DecodeBlock(space, text.data, (int)text.bytes);
    if (decoded < 0 || (size_t)decoded != text.bytes / 4 * 3)
        return KV_INVALID;
    for (size_t i = 1; i <= padding; i++) /* bits behind the last byte */
        if (space[(size_t)decoded - i] != 0)
            return KV_INVALID;
    out->bytes += (size_t)decoded - padding;
    return KV_OK;
}
