/* shard/residency.h -- how much of LMDB's map is in this process' memory.
 * Why:      reading maps pages, also neighbours that nobody asked for, and nothing ever unmaps them: one large value that is read makes
 *           the process as large as the value, and every limit on its memory meaningless. The kernel's cache keeps what leaves.
 * Does:     once the map has taken half of what it may, lets the pages of large contents go as soon as they were copied; and all of
 *           the map when it grew beyond the bound. What is small enough stays: mapping it again costs a tenth of a large GET.
 * Fails:    never: without /proc, or on another kernel, pages stay.
 * Tests:    unit/shard/test_residency.c, system/test_large.c. */
#ifndef KV_SHARD_RESIDENCY_H
#define KV_SHARD_RESIDENCY_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct residency {
    const uint8_t *begin; /* of the mapping; NULL: not known, nothing is done */
    size_t bytes;
    atomic_bool crowded; /* as residency_trim saw it last */
};

/* The file mapping that holds this address. */
struct residency residency_find(const void *within);
/* Bytes [data, data + bytes) were copied and are not wanted soon: they leave if it is crowded. Whatever lies outside of the map is
 * left alone. */
void residency_leave(const struct residency *residency, const void *data, size_t bytes);
/* To be called now and then, from any thread. Everything leaves, if more than `bytes_max` of files are in memory. */
void residency_trim(struct residency *residency, uint64_t bytes_max);

#endif
