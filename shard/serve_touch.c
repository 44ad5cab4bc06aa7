/* shard/serve_touch.c -- messages that came together, looked through before the first of them is handled (touch.h).
 * Does:     collects the rows that will be looked up: keys that are read, with their contents; keys that are locked; contents that a
 *           transaction refers to or no longer does. The keys of a PREPARE are left out: they were locked, and the lock knows
 *           their rows (locks.h), or they are believed to be new, which the filter knows.
 * Limits:   TOUCH_ROWS_MAX at a time.
 * Tests:    unit/shard/test_touch.c, unit/shard/test_sessions.c. */
#include "serve_internal.h"
#include "touch.h"
#include "wire/frame.h"
#include "wire/messages.h"

/* What waits to be looked up together. Peeks into the frames. */
struct wanted {
    size_t (*touch)(struct store *store, struct kv_slice *keys, size_t count);
    size_t count;
    struct kv_slice keys[TOUCH_ROWS_MAX];
};

struct group {
    struct serve *serve;
    struct wanted reads, locks, contents;
    struct kv_hash hashes[TOUCH_ROWS_MAX]; /* of `contents` */
    size_t found;
};

static void touch(struct group *group, struct wanted *wanted)
{
    group->found += wanted->touch(group->serve->on.store, wanted->keys, wanted->count);
    wanted->count = 0;
}

static void want(struct group *group, struct wanted *wanted, struct kv_slice key)
{
    wanted->keys[wanted->count++] = key;
    if (wanted->count == TOUCH_ROWS_MAX)
        touch(group, wanted);
}

static void want_content(struct group *group, const struct kv_hash *hash)
{
    struct kv_hash *kept = &group->hashes[group->contents.count];
    *kept = *hash;
    want(group, &group->contents, kv_hash_slice(kept));
}

static void add_read(struct group *group, struct kv_slice body)
{
    struct kv_msg_read read;
    if (kv_get_read(body, &read) == KV_OK)
        want(group, &group->reads, read.key);
}

static void add_open(struct group *group, struct kv_slice body)
{
    struct kv_msg_open open;
    if (kv_get_open(body, &open) == KV_OK)
        want_content(group, &open.hash);
}

static void add_lock(struct group *group, struct kv_slice body)
{
    uint64_t txn_id;
    struct kv_list keys;
    struct kv_slice key;
    if (kv_get_lock(body, &txn_id, &keys) != KV_OK)
        return;
    while (kv_next_key(&keys, &key))
        want(group, &group->locks, key);
}

static void add_prepare(struct group *group, struct kv_slice body)
{
    struct kv_list ops;
    struct kv_op op;
    if (kv_peek_prepare_ops(body, &ops) != KV_OK)
        return;
    while (kv_next_op(&ops, &op)) {
        if (!kv_op_is_on_key(&op))
            want_content(group, &op.hash);
    }
}

static void add(struct group *group, const struct kv_frame *frame)
{
    static const struct {
        enum kv_msg type;
        void (*add)(struct group *group, struct kv_slice body);
    } adders[] = {
        {KV_MSG_READ, add_read},       {KV_MSG_OPEN, add_open},     {KV_MSG_LOCK, add_lock},
        {KV_MSG_PREPARE, add_prepare}, {KV_MSG_APPLY, add_prepare},
    };
    for (size_t i = 0; i < sizeof adders / sizeof *adders; i++) {
        if (adders[i].type == frame->type)
            adders[i].add(group, frame->body);
    }
}

size_t serve_touch(struct serve *serve, struct kv_slice frames)
{
    struct group group;
    struct kv_frame frame;
    size_t used;
    group.serve = serve;
    group.found = 0;
    group.reads.touch = store_touch_reads;
    group.locks.touch = store_touch_keys;
    group.contents.touch = store_touch_objects;
    group.reads.count = group.locks.count = group.contents.count = 0;
    while (kv_frame_peek(frames, KV_ROLE_ROUTER, &frame, &used) == KV_OK) {
        add(&group, &frame);
        frames = kv_slice(frames.data + used, frames.bytes - used);
    }
    touch(&group, &group.reads);
    touch(&group, &group.locks);
    touch(&group, &group.contents);
    return group.found;
}
