/* router/value_headers.c -- see value_headers.h. */
#include "value_headers.h"

#include "answer.h"

void value_validators(struct exchange *exchange, const struct value_text *text, bool compressed)
{
    struct kv_slice tag = kv_slice(text->tag, sizeof text->tag);
    if (compressed)
        tag = answer_format(exchange, "%.*s-zstd\"", (int)sizeof text->tag - 1, text->tag);
    answer_field(exchange, HPACK_ETAG, tag);
    answer_field(exchange, HPACK_VARY, kv_slice_text("Accept-Encoding"));
    answer_field(exchange, HPACK_LAST_MODIFIED, kv_slice(text->modified, sizeof text->modified));
}

void value_headers(struct exchange *exchange, struct kv_slice content_type, const struct value_text *text,
                   bool compressed)
{
    struct kv_slice digits = value_text_hex(text);
    answer_field(exchange, HPACK_CONTENT_TYPE, content_type);
    value_validators(exchange, text, compressed);
    answer_field(exchange, HPACK_ACCEPT_RANGES, kv_slice_text("bytes"));
    answer_field(exchange, HPACK_X_CONTENT_SHA256, digits);
    answer_field(exchange, HPACK_X_HASH, digits);
    answer_field(exchange, HPACK_X_HASH_ALGORITHM, kv_slice_text("sha256"));
    if (grant_sees_all(&exchange->grant))
        answer_field(exchange, HPACK_X_REFS, kv_slice(text->refs, text->refs_bytes));
    answer_field(exchange, HPACK_X_CREATED_AT, kv_slice(text->created, text->created_bytes));
    if (compressed)
        answer_field(exchange, HPACK_CONTENT_ENCODING, kv_slice_text("zstd"));
}
