/* router/arena.c -- see arena.h. */
#include "arena.h"

#include <stdlib.h>

#include "arena_memory.h"
#include "kv/buf.h"
#include "kv/log.h"

struct arena {
    uint8_t *memory;
    bool given_up; /* ends with its last slot */
    unsigned idle_count;
    unsigned idle[KV_ARENA_SLOTS]; /* the one used last is taken first: caches know it */
};

struct arena *arena_new(struct body_file **file)
{
    uint8_t *memory = arena_memory_new(file);
    if (memory == NULL)
        return NULL;
    struct arena *arena = kv_alloc_zero(1, sizeof(*arena));
    arena->memory = memory;
    for (unsigned number = KV_ARENA_SLOTS; number-- > 0;)
        arena->idle[arena->idle_count++] = number;
    return arena;
}

static void end_if_unused(struct arena *arena)
{
    if (!arena->given_up || arena->idle_count < KV_ARENA_SLOTS)
        return;
    arena_memory_free(arena->memory);
    free(arena);
}

void arena_free(struct arena **arena)
{
    struct arena *old = *arena;
    *arena = NULL;
    if (old == NULL)
        return;
    old->given_up = true;
    end_if_unused(old);
}

bool arena_take(struct arena *arena, struct arena_slot *out)
{
    if (arena->idle_count == 0)
        return false;
    *out = (struct arena_slot){arena, arena->idle[--arena->idle_count]};
    return true;
}

struct kv_slice arena_peek(const struct arena_slot *slot, size_t bytes)
{
    kv_assert(slot->arena != NULL && bytes <= KV_ARENA_SLOT_BYTES);
    return kv_slice(slot->arena->memory + (size_t)slot->number * KV_ARENA_SLOT_BYTES, bytes);
}

static struct arena_slot move(struct arena_slot *slot)
{
    struct arena_slot moved = *slot;
    *slot = (struct arena_slot){0};
    return moved;
}

bool arena_lend(struct arena_slot *slot, struct arena_slot *out)
{
    if (slot->arena == NULL || slot->arena->idle_count < ARENA_SPARE_SLOTS)
        return false;
    *out = move(slot);
    return true;
}

void arena_give_back(struct arena_slot *slot)
{
    struct arena_slot old = move(slot);
    if (old.arena == NULL)
        return;
    kv_assert(old.arena->idle_count < KV_ARENA_SLOTS);
    old.arena->idle[old.arena->idle_count++] = old.number;
    end_if_unused(old.arena);
}

void arena_trim(struct arena *arena)
{
    if (arena != NULL && arena->idle_count == KV_ARENA_SLOTS)
        arena_memory_trim(arena->memory);
}
