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
    bool taken[KV_ARENA_UNITS];
};

struct arena *arena_new(struct body_file **file)
{
    uint8_t *memory = arena_memory_new(file);
    if (memory == NULL)
        return NULL;
    struct arena *arena = kv_alloc_zero(1, sizeof(*arena));
    arena->memory = memory;
    arena->idle_count = KV_ARENA_UNITS;
    return arena;
}

static void end_if_unused(struct arena *arena)
{
    if (!arena->given_up || arena->idle_count < KV_ARENA_UNITS)
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

static void mark(struct arena *arena, const struct arena_slot *slot, bool taken)
{
    for (unsigned unit = slot->first; unit < slot->first + slot->count; unit++) {
        kv_assert(arena->taken[unit] != taken);
        arena->taken[unit] = taken;
    }
    arena->idle_count += taken ? 0 - slot->count : slot->count;
}

/* The first run that is long enough: memory that was used of late is in the processor's caches. */
bool arena_take(struct arena *arena, size_t bytes, struct arena_slot *out)
{
    unsigned count = (unsigned)((bytes + KV_ARENA_UNIT_BYTES - 1) / KV_ARENA_UNIT_BYTES), idle = 0;
    kv_assert(bytes > 0 && bytes <= KV_SLOT_BYTES_MAX);
    for (unsigned unit = 0; unit < KV_ARENA_UNITS; unit++) {
        idle = arena->taken[unit] ? 0 : idle + 1;
        if (idle < count)
            continue;
        *out = (struct arena_slot){arena, unit + 1 - count, count};
        mark(arena, out, true);
        return true;
    }
    return false;
}

struct kv_slice arena_peek(const struct arena_slot *slot, size_t bytes)
{
    kv_assert(slot->arena != NULL && arena_fits(slot, bytes));
    return kv_slice(slot->arena->memory + (size_t)slot->first * KV_ARENA_UNIT_BYTES, bytes);
}

static struct arena_slot move(struct arena_slot *slot)
{
    struct arena_slot moved = *slot;
    *slot = (struct arena_slot){0};
    return moved;
}

bool arena_lend(struct arena_slot *slot, struct arena_slot *out)
{
    if (slot->arena == NULL || slot->arena->idle_count < ARENA_SPARE_UNITS)
        return false;
    *out = move(slot);
    return true;
}

void arena_give_back(struct arena_slot *slot)
{
    struct arena_slot old = move(slot);
    if (old.arena == NULL)
        return;
    mark(old.arena, &old, false);
    end_if_unused(old.arena);
}

void arena_trim(struct arena *arena)
{
    if (arena != NULL && arena->idle_count == KV_ARENA_UNITS)
        arena_memory_trim(arena->memory);
}
