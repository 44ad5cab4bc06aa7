/* shard/serve_touch.c -- messages that came together, looked through before the first of them is handled: what they will look up waits
 * for memory together (touch.h for LMDB, core_fetch for rows that are not applied yet).
 * Does:     collects the rows that will be looked up: keys that are read, with their contents; keys that are locked; of a transaction
 *           the contents that it refers to or no longer does, and keys whose rows the caller believed to know (what was locked, the
 *           lock knows; of what is believed to be new the filter knows); what a COMMIT will change.
 * Limits:   TOUCH_ROWS_MAX at a time.
 * Tests:    unit/shard/test_touch.c, unit/shard/test_sessions.c. */
#include "serve_internal.h"
#include "touch.h"
#include "wire/frame.h"
#include "wire/messages.h"

_Static_assert(TOUCH_ROWS_MAX <= CORE_FETCH_MAX, "they are touched together");

/* What waits to be looked up together. Peeks into the frames, into intents, or into `hashes`. */
struct wanted {
    enum overlay_table table;
    size_t (*touch)(struct store *store, struct kv_slice *keys, size_t count); /* NULL: LMDB is not asked */
    size_t count;
    struct kv_slice keys[TOUCH_ROWS_MAX];
};

struct group {
    struct serve *serve;
    struct wanted reads, keys, contents, voted_keys, voted_contents;
    struct kv_hash hashes[TOUCH_ROWS_MAX]; /* of `contents` */
    size_t found;
};

static void touch(struct group *group, struct wanted *wanted)
{
    size_t count = wanted->count;
    if (count > 1) /* one has nobody to wait with */
        count = core_fetch(group->serve->on.core, wanted->table, wanted->keys, count);
    if (wanted->touch != NULL)
        group->found += wanted->touch(group->serve->on.store, wanted->keys, count);
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
        want(group, &group->keys, key);
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
        else if (op.expect_txn != 0 && core_will_look_up(group->serve->on.core, op.key))
            want(group, &group->keys, op.key);
    }
}

static void add_commit(struct group *group, struct kv_slice body)
{
    uint64_t txn_id;
    if (kv_get_id(body, &txn_id) != KV_OK)
        return;
    const struct kv_ops *ops = core_voted(group->serve->on.core, txn_id);
    for (size_t i = 0; ops != NULL && i < ops->count; i++) {
        const struct kv_op *op = &ops->at[i];
        if (op->kind == KV_OP_SET || op->kind == KV_OP_CLEAR)
            want(group, &group->voted_keys, op->key);
        else if (op->kind != KV_OP_CHECK)
            want(group, &group->voted_contents, kv_hash_slice(&op->hash));
    }
}

static void add(struct group *group, const struct kv_frame *frame)
{
    static const struct {
        enum kv_msg type;
        void (*add)(struct group *group, struct kv_slice body);
    } adders[] = {
        {KV_MSG_READ, add_read},       {KV_MSG_OPEN, add_open},     {KV_MSG_LOCK, add_lock},
        {KV_MSG_PREPARE, add_prepare}, {KV_MSG_APPLY, add_prepare}, {KV_MSG_COMMIT, add_commit},
    };
    for (size_t i = 0; i < sizeof adders / sizeof *adders; i++) {
        if (adders[i].type == frame->type)
            adders[i].add(group, frame->body);
    }
}

/* The rest stays as it is: there is too much of it to clear. */
static void begin(struct wanted *wanted, enum overlay_table table,
                  size_t (*touch_store)(struct store *store, struct kv_slice *keys, size_t count))
{
    wanted->table = table;
    wanted->touch = touch_store;
    wanted->count = 0;
}

size_t serve_touch(struct serve *serve, struct kv_slice frames)
{
    struct group group;
    struct kv_frame frame;
    size_t used;
    group.serve = serve;
    group.found = 0;
    begin(&group.reads, OVERLAY_KEYS, store_touch_reads);
    begin(&group.keys, OVERLAY_KEYS, store_touch_keys);
    begin(&group.contents, OVERLAY_OBJECTS, store_touch_objects);
    begin(&group.voted_keys, OVERLAY_KEYS, NULL);
    begin(&group.voted_contents, OVERLAY_OBJECTS, NULL);
    while (kv_frame_peek(frames, KV_ROLE_ROUTER, &frame, &used) == KV_OK) {
        add(&group, &frame);
        frames = kv_slice(frames.data + used, frames.bytes - used);
    }
    touch(&group, &group.reads);
    touch(&group, &group.keys);
    touch(&group, &group.contents);
    touch(&group, &group.voted_keys);
    touch(&group, &group.voted_contents);
    return group.found;
}
