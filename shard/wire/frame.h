/* shard/wire/frame.h -- frames: 16 bytes of header, little endian, then the MessagePack body.
 * A stream is cut into frames in place, without copying; lengths are checked before anything is kept.
 * Fails: KV_INVALID for an unknown type, a wrong direction or a body above KV_FRAME_BODY_BYTES_MAX: close the link.
 * Tests: unit/wire/test_frame.c, fuzz/fuzz_frame.c. */
#ifndef KV_WIRE_FRAME_H
#define KV_WIRE_FRAME_H

#include "kv/buf.h"
#include "kv/err.h"
#include "kv/msg.h"

#define KV_FRAME_HEADER_BYTES 16u /* u32 body bytes, u32 type, u64 request id */

struct kv_frame {
    enum kv_msg type;
    uint64_t request_id; /* chosen by the asker, echoed in the answer */
    struct kv_slice body;
};

/* Cuts the first frame off `stream`. KV_OK: `out` set (borrows from stream), `used` = its whole length.
 * KV_NOT_FOUND: incomplete, `used` = bytes needed in all (at least stream.bytes + 1).
 * KV_INVALID: hopeless. `from` is the role of the peer that sent it. */
enum kv_err kv_frame_peek(struct kv_slice stream, enum kv_role from, struct kv_frame *out, size_t *used);

/* Writes a header with a length to come and returns its offset in `buf`; the body is appended behind it. */
size_t kv_frame_begin(struct kv_buf *buf, enum kv_msg type, uint64_t request_id);
/* Fills in the length. Asserts that the body is within KV_FRAME_BODY_BYTES_MAX. */
void kv_frame_end(struct kv_buf *buf, size_t begin);

#endif
