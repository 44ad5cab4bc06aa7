/* router/marks.c -- see marks.h. A word: the count of ends above, the writers below. */
#include "marks.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <xxhash.h>

#include "huge.h"
#include "kv/buf.h"
#include "kv/log.h"

#define WRITERS_BITS 20u
#define WRITERS_MASK ((uint64_t)MARKS_WRITERS_MAX)

struct marks {
    _Atomic uint64_t *words; /* in huge pages of their own, which they fill */
    uint64_t seed;
    uint32_t slot_mask;
    _Atomic uint64_t forgotten; /* what was asked for before this count of ends */
    uint8_t apart[64];          /* what never changes shares no cache line with what always does */
    _Atomic uint64_t ends;      /* of all slots */
    uint8_t apart_too[64];
};

struct marks *marks_new(uint64_t slots, uint64_t seed)
{
    uint64_t count = 1;
    if (slots == 0)
        return NULL;
    while (count < slots && count < (uint64_t)1 << 31)
        count *= 2;
    struct marks *marks = kv_alloc_zero(1, sizeof *marks);
    marks->words = huge_map(count * sizeof *marks->words);
    if (marks->words == NULL)
        kv_fatal("no memory for %llu marks", (unsigned long long)count);
    marks->slot_mask = (uint32_t)(count - 1);
    marks->seed = seed;
    return marks;
}

void marks_free(struct marks **marks)
{
    if (*marks != NULL)
        huge_unmap((*marks)->words, ((size_t)(*marks)->slot_mask + 1) * sizeof *(*marks)->words);
    free(*marks);
    *marks = NULL;
}

uint64_t marks_hash(const struct marks *marks, struct kv_slice bytes)
{
    return XXH3_64bits_withSeed(bytes.data, bytes.bytes, marks->seed);
}

uint32_t marks_slot(const struct marks *marks, uint64_t hash)
{
    return (uint32_t)(hash >> 32) & marks->slot_mask;
}

void marks_fetch_ahead(const struct marks *marks, uint32_t slot)
{
    __builtin_prefetch(&marks->words[slot]);
}

uint64_t marks_begin(struct marks *marks, uint32_t slot)
{
    uint64_t word = atomic_load(&marks->words[slot]);
    do {
        if ((word & WRITERS_MASK) == MARKS_WRITERS_MAX)
            return word;
    } while (!atomic_compare_exchange_weak(&marks->words[slot], &word, word + 1));
    return word;
}

/* Who came and went in between has left a later end; who is still there counts. */
uint64_t marks_end(struct marks *marks, uint32_t slot, uint64_t begun)
{
    uint64_t word = atomic_load(&marks->words[slot]), next;
    uint64_t end = atomic_fetch_add(&marks->ends, 1) + 1;
    if (end > MARKS_ENDS_MAX)
        kv_fatal("the count of writes is used up: starting anew");
    do {
        uint64_t writers = word & WRITERS_MASK, last = word >> WRITERS_BITS;
        if (writers == MARKS_WRITERS_MAX)
            return 0;
        kv_assert(writers > 0);
        next = (last > end ? last : end) << WRITERS_BITS | (writers - 1); /* ends may overtake one another */
    } while (!atomic_compare_exchange_weak(&marks->words[slot], &word, next));
    return (begun & WRITERS_MASK) == 0 && word == begun + 1 ? next : 0;
}

/* A slot's first write is a normal one: 0 is no word behind an end. */
uint64_t marks_end_traceless(struct marks *marks, uint32_t slot, uint64_t begun)
{
    uint64_t word = begun + 1;
    bool was_quiet = begun != 0 && (begun & WRITERS_MASK) == 0;
    if (was_quiet && atomic_compare_exchange_strong(&marks->words[slot], &word, begun))
        return begun;
    return marks_end(marks, slot, begun);
}

/* An end of nothing: who asks from now on has a later count. Of two threads that forget at once, the later count stays. */
void marks_forget(struct marks *marks)
{
    uint64_t end = atomic_fetch_add(&marks->ends, 1) + 1, last = atomic_load(&marks->forgotten);
    while (last < end && !atomic_compare_exchange_weak(&marks->forgotten, &last, end))
        ;
}

bool marks_remembers(const struct marks *marks, uint64_t since)
{
    return since >= atomic_load_explicit(&marks->forgotten, memory_order_acquire);
}

uint64_t marks_now(const struct marks *marks)
{
    return atomic_load(&marks->ends);
}

bool marks_quiet(const struct marks *marks, uint32_t slot, uint64_t since, uint64_t *word)
{
    uint64_t now = atomic_load(&marks->words[slot]);
    if ((now & WRITERS_MASK) != 0 || now >> WRITERS_BITS > since)
        return false;
    *word = now;
    return true;
}

bool marks_unchanged(const struct marks *marks, uint32_t slot, uint64_t word)
{
    return atomic_load_explicit(&marks->words[slot], memory_order_acquire) == word;
}
