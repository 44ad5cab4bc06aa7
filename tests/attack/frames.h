/* tests/attack/frames.h -- HTTP/2 frames that no library would send. Whoever includes it has defined TOKEN.
 * Everything is static: one test file makes one executable. */
#ifndef KV_ATTACK_FRAMES_H
#define KV_ATTACK_FRAMES_H

#include "kv/buf.h"

#define UNUSED_IS_FINE __attribute__((unused))

#define H2_PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
enum { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION };
enum { END_STREAM = 1, END_HEADERS = 4 };

static struct kv_slice raw(const void *data, size_t bytes)
{
    return kv_slice(data, bytes);
}

static void put32(uint8_t *out, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (24 - 8 * i));
}

static void frame(struct kv_buf *out, unsigned type, unsigned flags, uint32_t stream, struct kv_slice payload)
{
    uint8_t head[9] = {(uint8_t)(payload.bytes >> 16), (uint8_t)(payload.bytes >> 8), (uint8_t)payload.bytes,
                       (uint8_t)type, (uint8_t)flags};
    put32(head + 5, stream);
    kv_buf_append(out, raw(head, sizeof(head)));
    kv_buf_append(out, payload);
}

UNUSED_IS_FINE static void frame32(struct kv_buf *out, unsigned type, uint32_t stream, uint32_t value)
{
    uint8_t payload[4];
    put32(payload, value);
    frame(out, type, 0, stream, raw(payload, 4));
}

UNUSED_IS_FINE static void window_setting(struct kv_buf *out, uint32_t bytes)
{
    uint8_t payload[6] = {0, 4};
    put32(payload + 2, bytes);
    frame(out, SETTINGS, 0, 0, raw(payload, 6));
}

/* Prior knowledge, and no wishes. */
UNUSED_IS_FINE static void hello(struct kv_buf *out)
{
    kv_buf_append(out, kv_slice_text(H2_PREFACE));
    frame(out, SETTINGS, 0, 0, raw(NULL, 0));
}

static void short_string(struct kv_buf *out, const char *text)
{
    uint8_t length = (uint8_t)strlen(text);
    kv_buf_append(out, raw(&length, 1));
    kv_buf_append(out, kv_slice_text(text));
}

/* Method, scheme, authority, path and the token, none of it in a table. Each is shorter than 127 bytes. */
static struct kv_buf fields(const char *method, const char *path)
{
    struct kv_buf block = {0};
    kv_buf_append(&block, raw("\x02", 1));
    short_string(&block, method);
    kv_buf_append(&block, raw("\x86\x01\x01x\x04", 5));
    short_string(&block, path);
    kv_buf_append(&block, raw("\x0f\x08", 2));
    short_string(&block, "Bearer " TOKEN);
    return block;
}

UNUSED_IS_FINE static void request(struct kv_buf *out, const char *method, const char *path, unsigned flags,
                                   uint32_t stream)
{
    struct kv_buf block = fields(method, path);
    frame(out, HEADERS, flags, stream, kv_buf_peek(&block));
    kv_buf_free(&block);
}

#endif
