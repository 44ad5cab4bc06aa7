/* shard/wire/pack.c -- see pack.h. Writing is msgpack-c's; reading follows the MessagePack specification
 * (github.com/msgpack/msgpack/blob/master/spec.md), one table of header bytes below. */
#include "wire/pack.h"

#include <msgpack/pack.h>

static int write_to_buf(void *data, const char *bytes, size_t count)
{
    kv_buf_append(data, kv_slice(bytes, count));
    return 0;
}

static msgpack_packer packer(struct kv_buf *buf)
{
    msgpack_packer out;
    msgpack_packer_init(&out, buf, write_to_buf);
    return out;
}

void kv_pack_array(struct kv_buf *buf, size_t count)
{
    msgpack_packer out = packer(buf);
    msgpack_pack_array(&out, count);
}

void kv_pack_map(struct kv_buf *buf, size_t count)
{
    msgpack_packer out = packer(buf);
    msgpack_pack_map(&out, count);
}

void kv_pack_uint(struct kv_buf *buf, uint64_t value)
{
    msgpack_packer out = packer(buf);
    msgpack_pack_uint64(&out, value);
}

void kv_pack_bool(struct kv_buf *buf, bool value)
{
    msgpack_packer out = packer(buf);
    if (value)
        msgpack_pack_true(&out);
    else
        msgpack_pack_false(&out);
}

void kv_pack_nil(struct kv_buf *buf)
{
    msgpack_packer out = packer(buf);
    msgpack_pack_nil(&out);
}

void kv_pack_bin_begin(struct kv_buf *buf, size_t bytes)
{
    msgpack_packer out = packer(buf);
    msgpack_pack_bin(&out, bytes);
}

void kv_pack_bin(struct kv_buf *buf, struct kv_slice bytes)
{
    msgpack_packer out = packer(buf);
    msgpack_pack_bin(&out, bytes.bytes);
    msgpack_pack_bin_body(&out, bytes.data, bytes.bytes);
}

void kv_pack_str(struct kv_buf *buf, struct kv_slice text)
{
    msgpack_packer out = packer(buf);
    msgpack_pack_str(&out, text.bytes);
    msgpack_pack_str_body(&out, text.data, text.bytes);
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

struct kv_unpack kv_unpack_start(struct kv_slice input)
{
    static const uint8_t nothing;
    const uint8_t *at = input.bytes == 0 ? &nothing : input.data;
    return (struct kv_unpack){at, at + input.bytes, false};
}

static size_t left(const struct kv_unpack *in)
{
    return (size_t)(in->end - in->at);
}

enum kv_unpack_type kv_unpack_peek(const struct kv_unpack *in)
{
    if (in->bad || in->at == in->end)
        return KV_UNPACK_BAD;
    uint8_t head = *in->at;
    if (head <= 0x7f)
        return KV_UNPACK_UINT;
    if (head <= 0x8f)
        return KV_UNPACK_MAP;
    if (head <= 0x9f)
        return KV_UNPACK_ARRAY;
    if (head <= 0xbf)
        return KV_UNPACK_STR;
    if (head >= 0xe0)
        return KV_UNPACK_INT;
    switch (head) {
    case 0xc0:
        return KV_UNPACK_NIL;
    case 0xc2:
    case 0xc3:
        return KV_UNPACK_BOOL;
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return KV_UNPACK_BIN;
    case 0xca:
    case 0xcb:
        return KV_UNPACK_FLOAT;
    case 0xcc:
    case 0xcd:
    case 0xce:
    case 0xcf:
        return KV_UNPACK_UINT;
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3: /* signed encodings: the sign bit is the top bit of the byte behind the head */
        return left(in) > 1 && (in->at[1] & 0x80) == 0 ? KV_UNPACK_UINT : KV_UNPACK_INT;
    case 0xd9:
    case 0xda:
    case 0xdb:
        return KV_UNPACK_STR;
    case 0xdc:
    case 0xdd:
        return KV_UNPACK_ARRAY;
    case 0xde:
    case 0xdf:
        return KV_UNPACK_MAP;
    default: /* 0xc1 is reserved, 0xc7 to 0xc9 and 0xd4 to 0xd8 are extensions */
        return KV_UNPACK_BAD;
    }
}

static void turn_bad(struct kv_unpack *in)
{
    in->bad = true;
    in->at = in->end;
}

/* The big-endian number in the `bytes` bytes behind the head; consumes both. */
static uint64_t take_number(struct kv_unpack *in, size_t bytes)
{
    if (left(in) < 1 + bytes) {
        turn_bad(in);
        return 0;
    }
    uint64_t number = 0;
    for (size_t i = 0; i < bytes; i++)
        number = number << 8 | in->at[1 + i];
    in->at += 1 + bytes;
    return number;
}

/* Length or count of the thing that comes next: `fix_mask` bits of the head itself when it is a short form, else 1, 2 or 4
 * bytes behind it, the first long head being `long_head` with `long_bytes` bytes. */
static uint64_t take_length(struct kv_unpack *in, bool is_short, uint8_t fix_mask, uint8_t long_head, size_t long_bytes)
{
    uint8_t head = *in->at;
    if (is_short) {
        in->at++;
        return head & fix_mask;
    }
    return take_number(in, long_bytes << (head - long_head));
}

static size_t take_count(struct kv_unpack *in, enum kv_unpack_type type, size_t max, size_t values_each)
{
    if (kv_unpack_peek(in) != type) {
        turn_bad(in);
        return 0;
    }
    uint8_t long_head = type == KV_UNPACK_ARRAY ? 0xdc : 0xde;
    uint64_t count = take_length(in, *in->at < 0xc0, 0x0f, long_head, 2);
    if (count > max || count * values_each > left(in)) { /* every value takes a byte at least */
        turn_bad(in);
        return 0;
    }
    return (size_t)count;
}

size_t kv_unpack_long_array(struct kv_unpack *in, size_t max)
{
    return take_count(in, KV_UNPACK_ARRAY, max, 1);
}

size_t kv_unpack_map(struct kv_unpack *in, size_t max)
{
    return take_count(in, KV_UNPACK_MAP, max, 2);
}

void kv_unpack_array_of(struct kv_unpack *in, size_t count)
{
    if (kv_unpack_array(in, count) != count)
        turn_bad(in);
}

uint64_t kv_unpack_long_uint(struct kv_unpack *in, uint64_t max)
{
    if (kv_unpack_peek(in) != KV_UNPACK_UINT) {
        turn_bad(in);
        return 0;
    }
    uint8_t head = *in->at;
    uint64_t value = head;
    if (head <= 0x7f)
        in->at++;
    else
        value = take_number(in, (size_t)1 << (head - (head < 0xd0 ? 0xcc : 0xd0)));
    if (value > max)
        turn_bad(in);
    return in->bad ? 0 : value;
}

bool kv_unpack_bool(struct kv_unpack *in)
{
    if (kv_unpack_peek(in) != KV_UNPACK_BOOL) {
        turn_bad(in);
        return false;
    }
    return *in->at++ == 0xc3;
}

bool kv_unpack_nil(struct kv_unpack *in)
{
    if (kv_unpack_peek(in) != KV_UNPACK_NIL)
        return false;
    in->at++;
    return true;
}

static struct kv_slice take_bytes(struct kv_unpack *in, uint64_t bytes, size_t bytes_max)
{
    if (in->bad || bytes > bytes_max || bytes > left(in)) {
        turn_bad(in);
        return kv_slice(NULL, 0);
    }
    struct kv_slice out = kv_slice(in->at, (size_t)bytes);
    in->at += bytes;
    return out;
}

struct kv_slice kv_unpack_long_bin(struct kv_unpack *in, size_t bytes_max)
{
    if (kv_unpack_peek(in) != KV_UNPACK_BIN) {
        turn_bad(in);
        return kv_slice(NULL, 0);
    }
    return take_bytes(in, take_length(in, false, 0, 0xc4, 1), bytes_max);
}

struct kv_slice kv_unpack_str(struct kv_unpack *in, size_t bytes_max)
{
    if (kv_unpack_peek(in) != KV_UNPACK_STR) {
        turn_bad(in);
        return kv_slice(NULL, 0);
    }
    return take_bytes(in, take_length(in, *in->at < 0xc0, 0x1f, 0xd9, 1), bytes_max);
}

static void skip_scalar(struct kv_unpack *in)
{
    uint8_t head = *in->at;
    if (head <= 0x7f || head >= 0xe0)
        in->at++;
    else if (head == 0xca || head == 0xcb)
        take_number(in, head == 0xca ? 4 : 8);
    else
        take_number(in, (size_t)1 << (head - (head < 0xd0 ? 0xcc : 0xd0)));
}

void kv_unpack_skip(struct kv_unpack *in, unsigned depth_max)
{
    size_t values = 0;
    switch (kv_unpack_peek(in)) {
    case KV_UNPACK_BAD:
        turn_bad(in);
        return;
    case KV_UNPACK_NIL:
    case KV_UNPACK_BOOL:
        in->at++;
        return;
    case KV_UNPACK_UINT:
    case KV_UNPACK_INT:
    case KV_UNPACK_FLOAT:
        skip_scalar(in);
        return;
    case KV_UNPACK_STR:
        kv_unpack_str(in, SIZE_MAX);
        return;
    case KV_UNPACK_BIN:
        kv_unpack_bin(in, SIZE_MAX);
        return;
    case KV_UNPACK_ARRAY:
        values = kv_unpack_array(in, SIZE_MAX);
        break;
    case KV_UNPACK_MAP:
        values = 2 * kv_unpack_map(in, SIZE_MAX / 2);
        break;
    }
    if (values > 0 && depth_max == 0)
        turn_bad(in);
    for (size_t i = 0; i < values && !in->bad; i++)
        kv_unpack_skip(in, depth_max - 1);
}

enum kv_err kv_unpack_end(const struct kv_unpack *in)
{
    return in->bad || in->at != in->end ? KV_INVALID : KV_OK;
}
