/* shard/overlay_arena.c -- see overlay_arena.h.
 * Blocks of a quarter of a chunk and more get a chunk of their own, so that no chunk's rest is thrown away for them.
 * With the address sanitizer, blocks that wait for reuse are poisoned: a stale peek into a row is caught as with malloc. */
#include "overlay_arena.h"

#include <stdlib.h>

#include "kv/log.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

struct overlay_chunk {
    struct overlay_chunk *next;
    size_t bytes; /* behind this head, which keeps them aligned */
};

#define SMALL_BYTES_MAX 1024u

struct size_class {
    unsigned index;
    size_t bytes; /* what a block of the class takes */
};

static struct size_class class_of(size_t bytes)
{
    if (bytes <= SMALL_BYTES_MAX) {
        size_t units = bytes == 0 ? 1 : (bytes + OVERLAY_ARENA_UNIT - 1) / OVERLAY_ARENA_UNIT;
        return (struct size_class){(unsigned)units - 1, units * OVERLAY_ARENA_UNIT};
    }
    unsigned doubling = 63u - (unsigned)__builtin_clzll(bytes - 1); /* 2^doubling < bytes <= 2^(doubling + 1) */
    size_t step = (size_t)1 << (doubling - 3);
    size_t steps = (bytes - ((size_t)1 << doubling) + step - 1) / step; /* 1 to 8 */
    struct size_class class = {128 + (doubling - 10) * 8 + (unsigned)steps - 1, ((size_t)1 << doubling) + steps * step};
    kv_assert(class.index < OVERLAY_CLASSES);
    return class;
}

size_t overlay_arena_rounded(size_t bytes)
{
    return class_of(bytes).bytes;
}

static struct overlay_chunk *waiting_chunks; /* of OVERLAY_CHUNK_BYTES: at most what the last generations took */

static struct overlay_chunk *take_waiting(size_t bytes)
{
    struct overlay_chunk *chunk = waiting_chunks;
    if (bytes != OVERLAY_CHUNK_BYTES || chunk == NULL)
        return NULL;
    waiting_chunks = chunk->next;
    ASAN_UNPOISON_MEMORY_REGION(chunk, sizeof *chunk + bytes);
    return chunk;
}

static uint8_t *add_chunk(struct overlay_arena *arena, size_t bytes)
{
    struct overlay_chunk *chunk = take_waiting(bytes);
    if (chunk == NULL)
        chunk = kv_alloc(sizeof *chunk + bytes);
    chunk->bytes = bytes;
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    return (uint8_t *)(chunk + 1);
}

void *overlay_arena_take(struct overlay_arena *arena, size_t bytes)
{
    struct size_class class = class_of(bytes);
    void *block = arena->waiting[class.index];
    if (block) {
        memcpy(&arena->waiting[class.index], block, sizeof(void *));
        ASAN_UNPOISON_MEMORY_REGION(block, class.bytes);
        return block;
    }
    arena->bytes += class.bytes;
    if (class.bytes >= OVERLAY_CHUNK_BYTES / 4)
        return add_chunk(arena, class.bytes);
    if (class.bytes > arena->free_bytes) {
        arena->free_at = add_chunk(arena, OVERLAY_CHUNK_BYTES);
        arena->free_bytes = OVERLAY_CHUNK_BYTES;
    }
    block = arena->free_at;
    arena->free_at += class.bytes;
    arena->free_bytes -= class.bytes;
    return block;
}

void overlay_arena_give(struct overlay_arena *arena, void *block, size_t bytes)
{
    struct size_class class = class_of(bytes);
    memcpy(block, &arena->waiting[class.index], sizeof(void *));
    arena->waiting[class.index] = block;
    ASAN_POISON_MEMORY_REGION((uint8_t *)block + sizeof(void *), class.bytes - sizeof(void *));
}

void overlay_arena_free(struct overlay_arena *arena)
{
    for (struct overlay_chunk *chunk = arena->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        if (chunk->bytes != OVERLAY_CHUNK_BYTES) {
            free(chunk);
            continue;
        }
        chunk->next = waiting_chunks;
        waiting_chunks = chunk;
    }
    memset(arena, 0, sizeof *arena);
}

void overlay_arena_trim(void)
{
    if (waiting_chunks == NULL)
        return;
    for (struct overlay_chunk *next; waiting_chunks != NULL; waiting_chunks = next) {
        next = waiting_chunks->next;
        free(waiting_chunks);
    }
    kv_trim();
}
