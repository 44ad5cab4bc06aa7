/* router/json.c -- see json.h. */
#include "json.h"

#include <stdio.h>

#include "base64.h"
#include "digest.h"
#include "digits.h"
#include "key.h"

void json_raw(struct kv_buf *buf, const char *text)
{
    kv_buf_append(buf, kv_slice_text(text));
}

/* ---- strings ------------------------------------------------------------------------------------------------------ */

/* What a byte becomes: 0 it stays, 'u' \u00XX, anything else: a backslash and that. DEL is escaped for people's terminals. */
static char escape_of(uint8_t byte)
{
    switch (byte) {
    case '"':
        return '"';
    case '\\':
        return '\\';
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    default:
        return byte < 0x20 || byte == 0x7f ? 'u' : 0;
    }
}

static void escape(struct kv_buf *buf, uint8_t byte)
{
    char text[8];
    char kind = escape_of(byte);
    int bytes =
        kind == 'u' ? snprintf(text, sizeof(text), "\\u%04x", byte) : snprintf(text, sizeof(text), "\\%c", kind);
    kv_buf_append(buf, kv_slice(text, (size_t)bytes));
}

void json_text(struct kv_buf *buf, struct kv_slice text)
{
    size_t plain = 0; /* where the run of bytes that stay began */
    json_raw(buf, "\"");
    for (size_t i = 0; i < text.bytes; i++) {
        if (escape_of(text.data[i]) == 0)
            continue;
        kv_buf_append(buf, kv_slice(text.data + plain, i - plain));
        escape(buf, text.data[i]);
        plain = i + 1;
    }
    if (text.bytes > plain)
        kv_buf_append(buf, kv_slice(text.data + plain, text.bytes - plain));
    json_raw(buf, "\"");
}

uint64_t json_text_bytes(struct kv_slice text)
{
    uint64_t bytes = 2;
    for (size_t i = 0; i < text.bytes; i++) {
        char kind = escape_of(text.data[i]);
        bytes += kind == 0 ? 1 : kind == 'u' ? 6 : 2;
    }
    return bytes;
}

void json_header_to_utf8(struct kv_buf *buf, struct kv_slice text)
{
    if (key_is_utf8(text)) {
        kv_buf_append(buf, text);
        return;
    }
    for (size_t i = 0; i < text.bytes; i++) {
        uint8_t byte = text.data[i];
        uint8_t sequence[2] = {(uint8_t)(0xc0 | byte >> 6), (uint8_t)(0x80 | (byte & 0x3f))};
        kv_buf_append(buf, byte < 0x80 ? kv_slice(&byte, 1) : kv_slice(sequence, 2));
    }
}

void json_header_text(struct kv_buf *buf, struct kv_slice text)
{
    struct kv_buf utf8 = {0};
    json_header_to_utf8(&utf8, text);
    json_text(buf, kv_buf_peek(&utf8));
    kv_buf_free(&utf8);
}

/* ---- everything else ---------------------------------------------------------------------------------------------- */

void json_number(struct kv_buf *buf, uint64_t number)
{
    buf->bytes += digits_write(number, (char *)kv_buf_reserve(buf, DIGITS_DECIMAL_MAX));
}

void json_bool(struct kv_buf *buf, bool value)
{
    json_raw(buf, value ? "true" : "false");
}

void json_hash(struct kv_buf *buf, const struct kv_hash *hash)
{
    char hex[DIGEST_HEX_BYTES];
    digest_hex(hash, hex);
    json_raw(buf, "\"");
    kv_buf_append(buf, kv_slice(hex, sizeof(hex)));
    json_raw(buf, "\"");
}

void json_base64(struct kv_buf *buf, struct kv_slice bytes)
{
    json_raw(buf, "\"");
    base64_encode(bytes, buf);
    json_raw(buf, "\"");
}
