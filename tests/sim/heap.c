/* tests/sim/heap.c -- see heap.h. */
#include "heap.h"

#include <stdint.h>
#include <string.h>

void *__real_malloc(size_t bytes);
void *__real_realloc(void *old, size_t bytes);
void __real_free(void *memory);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *old, size_t bytes);
void __wrap_free(void *memory);
struct overlay_arena;
void __real_overlay_arena_free(struct overlay_arena *arena);
void __wrap_overlay_arena_free(struct overlay_arena *arena);
void overlay_arena_trim(void);
int __wrap_malloc_trim(size_t pad);

static struct heap outside = {.blocks = {&outside.blocks, &outside.blocks, NULL, 0}};
static struct heap *current = &outside;

void heap_init(struct heap *heap)
{
    *heap = (struct heap){.blocks = {&heap->blocks, &heap->blocks, NULL, 0}};
}

struct heap *heap_enter(struct heap *heap)
{
    struct heap *before = current;
    current = heap;
    return before;
}

static void book(struct heap_block *block, struct heap *heap, size_t bytes)
{
    *block = (struct heap_block){heap->blocks.prev, &heap->blocks, heap, bytes};
    block->prev->next = block;
    block->next->prev = block;
    heap->count++;
}

static void unbook(struct heap_block *block)
{
    block->prev->next = block->next;
    block->next->prev = block->prev;
    block->heap->count--;
}

void *__wrap_malloc(size_t bytes)
{
    struct heap_block *block = __real_malloc(sizeof *block + bytes);
    if (block == NULL)
        return NULL;
    book(block, current, bytes);
    return block + 1;
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    if (bytes != 0 && count > SIZE_MAX / bytes)
        return NULL;
    void *memory = __wrap_malloc(count * bytes);
    return memory == NULL ? NULL : memset(memory, 0, count * bytes);
}

void *__wrap_realloc(void *old, size_t bytes)
{
    if (old == NULL)
        return __wrap_malloc(bytes);
    struct heap_block *block = (struct heap_block *)old - 1;
    struct heap *heap = block->heap;
    unbook(block);
    struct heap_block *moved = __real_realloc(block, sizeof *block + bytes);
    if (moved == NULL) {
        book(block, heap, block->bytes);
        return NULL;
    }
    book(moved, heap, bytes);
    return moved + 1;
}

void __wrap_free(void *memory)
{
    if (memory == NULL)
        return;
    struct heap_block *block = (struct heap_block *)memory - 1;
    unbook(block);
    __real_free(block);
}

/* Chunks that wait for the next arena of the process would wait for that of another one here. */
void __wrap_overlay_arena_free(struct overlay_arena *arena)
{
    __real_overlay_arena_free(arena);
    overlay_arena_trim();
}

/* Nothing goes back to the system: it would be asked for again at once. */
int __wrap_malloc_trim(size_t pad)
{
    (void)pad;
    return 0;
}

void heap_free_all(struct heap *heap)
{
    while (heap->blocks.next != &heap->blocks)
        __wrap_free(heap->blocks.next + 1);
}
