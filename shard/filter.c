/* shard/filter.c -- see filter.h. The upper half of a hash picks the word, four groups of six bits of the lower one its bits. */
#include "filter.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "kv/buf.h"
#include "kv/log.h"

#define BITS_OF_A_ROW 4u

struct filter {
    uint64_t capacity_rows;
    uint64_t rows; /* that changed a bit */
    uint64_t word_count;
    _Atomic uint64_t words[];
};

struct filter *filter_new(uint64_t capacity_rows)
{
    uint64_t word_count = capacity_rows * FILTER_ROW_BITS / 64 + 1;
    kv_assert(word_count <= UINT32_MAX); /* word_of */
    struct filter *filter = kv_alloc_zero(1, sizeof *filter + word_count * sizeof *filter->words);
    filter->capacity_rows = capacity_rows;
    filter->word_count = word_count;
    return filter;
}

void filter_free(struct filter **filter)
{
    free(*filter);
    *filter = NULL;
}

static uint64_t word_of(const struct filter *filter, uint64_t hash)
{
    return (hash >> 32) * filter->word_count >> 32;
}

static uint64_t bits_of(uint64_t hash)
{
    uint64_t bits = 0;
    for (unsigned i = 0; i < BITS_OF_A_ROW; i++)
        bits |= (uint64_t)1 << (hash >> 6 * i & 63);
    return bits;
}

void filter_add(struct filter *filter, uint64_t hash)
{
    _Atomic uint64_t *word = &filter->words[word_of(filter, hash)];
    uint64_t bits = bits_of(hash), before = atomic_load_explicit(word, memory_order_relaxed);
    filter->rows += (before & bits) != bits;
    atomic_store_explicit(word, before | bits, memory_order_relaxed);
}

bool filter_lacks(const struct filter *filter, uint64_t hash)
{
    uint64_t bits = bits_of(hash);
    return (atomic_load_explicit(&filter->words[word_of(filter, hash)], memory_order_relaxed) & bits) != bits;
}

void filter_fetch(const struct filter *filter, uint64_t hash)
{
    __builtin_prefetch((const void *)&filter->words[word_of(filter, hash)]);
}

bool filter_is_full(const struct filter *filter)
{
    return filter->rows > filter->capacity_rows;
}
