/* shard/wire/frame.c -- see frame.h. The header is written and read byte by byte through memcpy: x86-64 and arm64 are
 * little endian, and the one check below keeps the code honest elsewhere. */
#include "wire/frame.h"

#include "kv/limits.h"
#include "kv/log.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire and the files are little endian");

enum kv_err kv_frame_peek(struct kv_slice stream, enum kv_role from, struct kv_frame *out, size_t *used)
{
    if (stream.bytes < KV_FRAME_HEADER_BYTES) {
        *used = KV_FRAME_HEADER_BYTES;
        return KV_NOT_FOUND;
    }
    uint32_t body_bytes, type;
    uint64_t request_id;
    memcpy(&body_bytes, stream.data, sizeof body_bytes);
    memcpy(&type, stream.data + 4, sizeof type);
    memcpy(&request_id, stream.data + 8, sizeof request_id);
    if (body_bytes > KV_FRAME_BODY_BYTES_MAX || !kv_msg_from(type, from))
        return KV_INVALID;
    *used = (size_t)KV_FRAME_HEADER_BYTES + body_bytes;
    if (stream.bytes < *used)
        return KV_NOT_FOUND;
    out->type = (enum kv_msg)type;
    out->request_id = request_id;
    out->body = kv_slice(stream.data + KV_FRAME_HEADER_BYTES, body_bytes);
    return KV_OK;
}

size_t kv_frame_begin(struct kv_buf *buf, enum kv_msg type, uint64_t request_id)
{
    size_t begin = buf->bytes;
    uint32_t type_number = (uint32_t)type;
    uint8_t *header = kv_buf_reserve(buf, KV_FRAME_HEADER_BYTES);
    memset(header, 0, 4);
    memcpy(header + 4, &type_number, sizeof type_number);
    memcpy(header + 8, &request_id, sizeof request_id);
    buf->bytes += KV_FRAME_HEADER_BYTES;
    return begin;
}

void kv_frame_end(struct kv_buf *buf, size_t begin)
{
    size_t body_bytes = buf->bytes - begin - KV_FRAME_HEADER_BYTES;
    kv_assert(body_bytes <= KV_FRAME_BODY_BYTES_MAX);
    uint32_t length = (uint32_t)body_bytes;
    memcpy(buf->data + begin, &length, sizeof length);
}
