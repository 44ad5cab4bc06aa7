/* shard/wire/pack.h -- MessagePack onto kv_buf (msgpack-c's packer) and a bounded, copy-free reader.
 * The reader is ours because msgpack_unpack_next allocates as many objects as the peer claims before it has seen
 * them; this one allocates nothing and returns slices of its input. Errors stick: read everything, then ask
 * kv_unpack_end once. Tests: unit/wire/test_pack.c (against msgpack-c's own unpacker), fuzz/fuzz_frame.c. */
#ifndef KV_WIRE_PACK_H
#define KV_WIRE_PACK_H

#include "kv/buf.h"
#include "kv/err.h"

void kv_pack_array(struct kv_buf *buf, size_t count);
void kv_pack_map(struct kv_buf *buf, size_t count);
void kv_pack_uint(struct kv_buf *buf, uint64_t value);
void kv_pack_bool(struct kv_buf *buf, bool value);
void kv_pack_nil(struct kv_buf *buf);
void kv_pack_bin(struct kv_buf *buf, struct kv_slice bytes);
void kv_pack_bin_begin(struct kv_buf *buf, size_t bytes); /* so many are to be appended */
void kv_pack_str(struct kv_buf *buf, struct kv_slice text);

struct kv_unpack {
    const uint8_t *at;
    const uint8_t *end;
    bool bad; /* set by the first thing that did not fit; every later read gives zero or empty */
};

enum kv_unpack_type {
    KV_UNPACK_BAD, /* end of input, an extension type or a reserved byte */
    KV_UNPACK_NIL,
    KV_UNPACK_BOOL,
    KV_UNPACK_UINT, /* not negative, whatever its encoding */
    KV_UNPACK_INT,  /* negative */
    KV_UNPACK_FLOAT,
    KV_UNPACK_STR,
    KV_UNPACK_BIN,
    KV_UNPACK_ARRAY,
    KV_UNPACK_MAP,
};

struct kv_unpack kv_unpack_start(struct kv_slice input);
/* The type of what comes next, nothing consumed. */
enum kv_unpack_type kv_unpack_peek(const struct kv_unpack *in);
/* Element count; bad when above `max` or above the bytes that are left (a map's pair counts as two). */
size_t kv_unpack_long_array(struct kv_unpack *in, size_t max);
size_t kv_unpack_map(struct kv_unpack *in, size_t max);

/* The short forms are read where they are asked for: operations consist of little else. */
static inline size_t kv_unpack_array(struct kv_unpack *in, size_t max)
{
    size_t left = (size_t)(in->end - in->at);
    if (in->bad || left == 0 || (*in->at & 0xf0) != 0x90)
        return kv_unpack_long_array(in, max);
    size_t count = *in->at & 0x0f;
    if (count > max || count >= left)
        return kv_unpack_long_array(in, max);
    in->at++;
    return count;
}
/* An array that must have exactly `count` elements. */
void kv_unpack_array_of(struct kv_unpack *in, size_t count);
uint64_t kv_unpack_long_uint(struct kv_unpack *in, uint64_t max);

static inline uint64_t kv_unpack_uint(struct kv_unpack *in, uint64_t max)
{
    if (in->bad || in->at == in->end || *in->at > 0x7f || *in->at > max)
        return kv_unpack_long_uint(in, max);
    return *in->at++;
}
bool kv_unpack_bool(struct kv_unpack *in);
/* Consumes a nil if one comes next and says so. */
bool kv_unpack_nil(struct kv_unpack *in);
struct kv_slice kv_unpack_long_bin(struct kv_unpack *in, size_t bytes_max);

static inline struct kv_slice kv_unpack_bin(struct kv_unpack *in, size_t bytes_max)
{
    size_t left = (size_t)(in->end - in->at);
    if (in->bad || left < 2 || in->at[0] != 0xc4 || in->at[1] > left - 2 || in->at[1] > bytes_max)
        return kv_unpack_long_bin(in, bytes_max);
    struct kv_slice out = kv_slice(in->at + 2, in->at[1]);
    in->at += 2 + out.bytes;
    return out;
}
struct kv_slice kv_unpack_str(struct kv_unpack *in, size_t bytes_max);
/* Skips one value of any type with all that is in it, at most `depth_max` deep. */
void kv_unpack_skip(struct kv_unpack *in, unsigned depth_max);
/* KV_OK when nothing was bad and nothing is left over, else KV_INVALID. */
enum kv_err kv_unpack_end(const struct kv_unpack *in);

#endif
