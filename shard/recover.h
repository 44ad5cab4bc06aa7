/* shard/recover.h -- from files to a shard that knows its state: store, core, journal, in this order.
 * Does:     opens LMDB, reads its meta row, finishes a half applied generation, replays the journal behind it into a core, applying
 *           generations on the way when the overlay is full: a start after any crash needs no more memory than running does. Where
 *           the disk or the map has no room for one, it and all behind it stay in memory, as they were before the crash.
 * Owns:     what it opened, until recovered_close. Also provides the reading half of core_world.
 * Promises: nothing is answered, locked or appended meanwhile; a record that is replayed is on disk already, so its
 *           generation may be applied at once.
 * Fails:    `why` holds one sentence. KV_INVALID: files of another store, shard or count. KV_CORRUPT: damaged.
 * Tests:    unit/shard/test_serve.c (restart), unit/shard/test_recover.c, system/. */
#ifndef KV_SHARD_RECOVER_H
#define KV_SHARD_RECOVER_H

#include "core.h"
#include "journal.h"
#include "store.h"

struct recover_options {
    const char *path; /* the data directory */
    const struct store_identity *identity;
    uint64_t map_bytes;
    struct core_options core;
    bool read_only; /* the files are not changed, and no journal is left open: for a look at them */
    bool flush;
    uint64_t flush_interval_ms;
};

/* The first member of whatever core_world.ctx points to. */
struct recovered {
    struct store *store;
    struct core *core;
    struct journal *journal;
    bool reading; /* a snapshot is open: recovered_read began it */
    /* Not applied, or by half, for want of room, or because nothing may be changed. */
    struct core_generation *frozen;
    uint64_t records; /* replayed */
};

/* Fills in get_key … next_key. */
void recovered_world(struct core_world *world);
/* `world.ctx` is `out`, which is empty. On error nothing is left open. Reading may have begun. */
enum kv_err recover(const struct recover_options *options, const struct core_world *world, char *why, size_t why_bytes,
                    struct recovered *out);
/* Makes sure that a snapshot is open / ends it, so that the next one sees what was applied meanwhile. */
void recovered_read(struct recovered *recovered);
void recovered_read_end(struct recovered *recovered);
/* Journal first: it flushes what was submitted. */
void recovered_close(struct recovered *recovered);

/* Logs the sentence, or what could not be done and why, and leaves with the exit code that belongs to `err` (kv/child.h). */
_Noreturn void recovered_end(enum kv_err err, const char *sentence);
_Noreturn void recovered_die(enum kv_err err, const char *what);

#endif
