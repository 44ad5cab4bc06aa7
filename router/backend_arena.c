/* router/backend_arena.c -- the arenas that shards write into, one for each link: contents and their pieces come in slots of them if there
 * are any, else inside of messages. A shard fills slots in the order of the OPENs and FETCHes that it gets, so one that was cancelled
 * does not keep its slot: the next one's bytes come after its own. */
#include "backend_internal.h"

#include "wire/messages.h"

struct new_arena {
    struct calls *calls;
    unsigned shard_index;
    struct body_file *file;
};

static void write_arena(void *arg, struct kv_buf *buf)
{
    const struct new_arena *made = arg;
    kv_put_empty(buf);
    calls_attach(made->calls, made->shard_index, made->file);
}

/* A link has one from its first use on. What an earlier link's shard may still write into is never used again. */
void backend_renew_arena(struct backend *backend, unsigned shard_index)
{
    struct arena_room *room = &backend->arena_rooms[shard_index];
    struct new_arena made = {backend->calls, shard_index, NULL};
    uint64_t generation = calls_link_generation(backend->calls, shard_index);
    if (room->generation == generation || !calls_link_is_up(backend->calls, shard_index))
        return;
    arena_free(&room->arena);
    room->arena = arena_new(&made.file);
    room->generation = generation;
    if (room->arena != NULL)
        calls_tell(backend->calls, shard_index, KV_MSG_ARENA, write_arena, &made);
    body_file_free(&made.file);
}

bool backend_take_slot(struct backend *backend, unsigned shard_index, uint64_t bytes, struct arena_slot *slot)
{
    const struct arena_room *room = &backend->arena_rooms[shard_index];
    arena_give_back(slot); /* of the last link, over which it was sent in vain */
    return room->arena != NULL && room->generation == calls_link_generation(backend->calls, shard_index) && bytes > 0 &&
           bytes <= KV_SLOT_BYTES_MAX && arena_take(room->arena, bytes, slot);
}

bool backend_take_from_slot(struct arena_slot *slot, uint64_t slot_bytes, struct kv_slice *bytes)
{
    if (slot_bytes == 0) {
        arena_give_back(slot);
        return true;
    }
    if (slot->arena == NULL || !arena_fits(slot, slot_bytes))
        return false;
    *bytes = arena_peek(slot, slot_bytes);
    return true;
}

void backend_trim_arenas(struct backend *backend)
{
    for (unsigned i = 0; i < backend->shard_count; i++)
        arena_trim(backend->arena_rooms[i].arena);
}
