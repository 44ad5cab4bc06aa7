/* shard/wire/elements.h -- what message bodies are made of: keys, hashes, rows, objects, operations, lists of them.
 * Seen by the two files of bodies only (messages.c, messages_txn.c); everybody else includes messages.h, which has the
 * cursors over lists and the writers of single elements.
 * Fails: as kv_unpack does: `in->bad` sticks, kv_unpack_end tells.
 * Tests: unit/wire/test_messages.c, unit/wire/test_message_limits.c, fuzz/fuzz_frame.c. */
#ifndef KV_WIRE_ELEMENTS_H
#define KV_WIRE_ELEMENTS_H

#include "wire/messages.h"

#define BYTES_ANY KV_FRAME_BODY_BYTES_MAX /* bounded by the frame alone */

enum kv_element {
    KV_ELEMENT_KEY,
    KV_ELEMENT_HASH,
    KV_ELEMENT_UINT,
    KV_ELEMENT_BOOL,
    KV_ELEMENT_ROW,
    KV_ELEMENT_INTENT,
    KV_ELEMENT_ENTRY,
    KV_ELEMENT_COUNTER
};

struct kv_hash kv_read_hash(struct kv_unpack *in);
struct kv_slice kv_read_key(struct kv_unpack *in);
enum kv_err kv_read_err(struct kv_unpack *in);
/* False: nil, `out` untouched. */
bool kv_read_row(struct kv_unpack *in, struct kv_row *out);
bool kv_read_object(struct kv_unpack *in, struct kv_object *out);
void kv_put_object_or_nil(struct kv_buf *buf, const struct kv_object *object);
/* Checks every element, and leaves them encoded. */
struct kv_list kv_read_list(struct kv_unpack *in, enum kv_element element);

/* COUNTS, LOCKED and VOTE are alike: an error, then a list. */
void kv_put_err_and_list(struct kv_buf *buf, enum kv_err err, size_t count);
enum kv_err kv_get_err_and_list(struct kv_slice body, enum kv_element element, enum kv_err *err, struct kv_list *list);

#endif
