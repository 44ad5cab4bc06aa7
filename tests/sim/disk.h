/* tests/sim/disk.h -- the twins of journal and store: what of a shard outlives its process.
 * Does:     keeps every record ever appended, with the durable prefix; keeps applied rows as store.h promises: an apply is all of
 *           a generation, or half of it with the whole kept beside, or nothing; ids of dead contents go to `sweep` and lose their bytes
 *           later, unless held.
 * Promises: a crash loses what was not durable, or keeps a random prefix of it.
 * Owns:     its heap: no process's death frees it. */
#ifndef SIM_DISK_H
#define SIM_DISK_H

#include "core.h"
#include "heap.h"
#include "random.h"

/* Positions count from 1: record p is records[p - 1]. */
struct disk_record {
    uint32_t type;
    size_t offset, bytes;
    uint64_t stamp; /* when it was appended, hence folded */
};

struct disk {
    struct heap heap;
    struct kv_buf bytes;
    struct disk_record *records;
    uint64_t count, capacity;
    uint64_t durable;
    struct overlay *rows;     /* applied */
    uint64_t *staged, *sweep; /* ids, in no order */
    size_t staged_count, sweep_count, staged_capacity, sweep_capacity;
    struct store_meta meta;
    struct kv_buf intents;
    struct store_redo redo; /* half applied; rows NULL: nothing is */
    size_t staged_left;     /* give-ups that met a full disk: the next start does them */
    unsigned full;          /* 1: only what frees is accepted; 2: nothing reaches the disk */
};

void disk_init(struct disk *disk);
void disk_free(struct disk *disk);

uint64_t disk_append(struct disk *disk, uint32_t type, struct kv_slice body, uint64_t stamp);
struct kv_slice disk_body(const struct disk *disk, uint64_t position);
void disk_cut(struct disk *disk, struct random *random);

void disk_apply(struct disk *disk, const struct core_generation *generation);
/* Some of its rows. */
void disk_apply_half(struct disk *disk, const struct core_generation *generation, struct random *random);
/* As store_get_redo: a copy for the process. */
bool disk_get_redo(const struct disk *disk, struct store_redo *out);
void disk_stage(struct disk *disk, const struct store_piece *piece);
void disk_unstage(struct disk *disk, uint64_t object_id);
/* Deletes the bytes of up to `count` swept ids that are not among `held`. */
void disk_sweep(struct disk *disk, const uint64_t *held, size_t held_count, size_t count);
/* As store_get_meta. */
struct store_meta disk_meta(const struct disk *disk);

/* The reads of core_world. */
enum kv_err disk_get_key(const struct disk *disk, struct kv_slice key, struct kv_slice *row);
enum kv_err disk_get_object(const struct disk *disk, const struct kv_hash *hash, struct kv_slice *row);
enum kv_err disk_get_blob(const struct disk *disk, uint64_t object_id, uint64_t offset, uint64_t bytes,
                          struct kv_buf *out);
/* The first key >= `from`, or > `from` when `behind`. */
enum kv_err disk_seek_key(const struct disk *disk, struct kv_slice from, bool behind, struct kv_buf *key,
                          struct kv_slice *row);

#endif
