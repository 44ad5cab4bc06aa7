/* shard/serve_touch.c -- reads that came together, looked through before the first of them is answered (touch.h). Tests:
 * unit/shard/test_touch.c, unit/shard/test_sessions.c. */
#include "serve_internal.h"
#include "touch.h"
#include "wire/frame.h"
#include "wire/messages.h"

struct group {
    struct kv_slice keys[TOUCH_ROWS_MAX];
    struct kv_hash hashes[TOUCH_ROWS_MAX];
    size_t key_count, hash_count;
};

static void add(struct group *group, const struct kv_frame *frame)
{
    struct kv_msg_read read;
    struct kv_msg_open open;
    if (frame->type == KV_MSG_READ && kv_get_read(frame->body, &read) == KV_OK)
        group->keys[group->key_count++] = read.key;
    else if (frame->type == KV_MSG_OPEN && kv_get_open(frame->body, &open) == KV_OK)
        group->hashes[group->hash_count++] = open.hash;
}

/* Groups of more than `least`. */
static size_t touch(struct store *store, struct group *group, size_t least)
{
    size_t found = 0;
    if (group->key_count > least) {
        found += store_touch_keys(store, group->keys, group->key_count);
        group->key_count = 0;
    }
    if (group->hash_count > least) {
        found += store_touch_objects(store, group->hashes, group->hash_count);
        group->hash_count = 0;
    }
    return found;
}

size_t serve_touch(struct serve *serve, struct kv_slice frames)
{
    struct group group;
    struct kv_frame frame;
    size_t used, found = 0;
    group.key_count = group.hash_count = 0;
    while (kv_frame_peek(frames, KV_ROLE_ROUTER, &frame, &used) == KV_OK) {
        add(&group, &frame);
        found += touch(serve->on.store, &group, TOUCH_ROWS_MAX - 1);
        frames = kv_slice(frames.data + used, frames.bytes - used);
    }
    return found + touch(serve->on.store, &group, 1);
}
