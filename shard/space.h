/* shard/space.h -- how much room the disk and the map have left for what is to come.
 * Does:     adds up what LMDB may come to take: rows in memory, pieces that the applier has, pieces stored since the usage was read.
 * Promises: a write that is accepted can be applied: a full disk or map would refuse a generation whose writes are acknowledged,
 *           and with it the deletes behind it. So the refusal comes early, and deletes are always accepted.
 * Fails:    a disk that tells nothing counts as one with room.
 * Tests:    unit/shard/test_serve.c, system/test_full.c. */
#ifndef KV_SHARD_SPACE_H
#define KV_SHARD_SPACE_H

#include "core.h"

struct space {
    const char *path; /* of the shard's directory */
    struct store_usage usage;
    uint64_t usage_ms; /* when it was read */
    uint64_t disk_bytes, disk_free_bytes;
    uint64_t file_bytes;    /* of LMDB's file on the disk */
    uint64_t waiting_bytes; /* that rows not yet in LMDB may come to take there */
    uint64_t redo_bytes;    /* and beside it, on the disk (store_redo.h) */
    uint64_t queued_bytes;  /* of pieces that the applier has, */
    uint64_t staged_bytes;  /* and of those it has stored since `usage` was read */
};

/* Within a read of the store. */
enum kv_err space_read(struct space *space, struct store *store, uint64_t now_ms);
void space_read_waiting(struct space *space, const struct core *core);
/* Whether `bytes` more fit. */
bool space_has_room(const struct space *space, uint64_t bytes);
/* The same, with a disk that is nearly full asked anew: it is not ours alone. */
bool space_has_room_now(struct space *space, uint64_t bytes);

#endif
