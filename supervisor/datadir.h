/* supervisor/datadir.h -- DB_PATH: who may use it, which store it is, where shards and sockets live.
 *   store, epoch   identity.h          lock         flock of the running supervisor
 *   shard-<i>/     one shard's files   sockets/     Unix sockets, made anew at each start
 *   served         an empty file: clients may have written, so every shard must have its data.mdb */
#ifndef KV_DATADIR_H
#define KV_DATADIR_H

#include <stdbool.h>

#include "identity.h"

/* A descriptor is -1 when not open. */
struct datadir {
    const char *path;
    int fd;
    int lock_fd;
    int sockets_fd; /* O_RDONLY: handed to the router */
    bool fresh;     /* there was no store: this start makes it */
    bool made;      /* the directory itself was made by datadir_prepare */
    struct identity identity;
    uint64_t epoch;
};

/* Looks and locks, makes nothing. `path` must outlive `out`. `shards` is SHARDS, 0 when not given. Refused: a store
 * of another number of shards or another format, damage, a shard whose data is gone, a running supervisor, a directory with
 * foreign files. */
enum kv_err datadir_open(const char *path, unsigned shards, struct datadir *out, struct why *why);

/* Makes what is missing: for a new store everything, with `shards_new` shards; for every store a new sockets/.
 * On error everything that was made is removed again. */
enum kv_err datadir_prepare(struct datadir *datadir, unsigned shards_new, struct why *why);

/* The listening Unix socket sockets/shard-<i>, non-blocking. */
enum kv_err datadir_listen(const struct datadir *datadir, unsigned shard_index, int *fd, struct why *why);

/* shard-<i> itself, with an flock that lives as long as any copy of the descriptor: while a killed shard is still
 * dying its files are busy, and this is refused with KV_UNAVAILABLE. */
enum kv_err datadir_open_shard(const struct datadir *datadir, unsigned shard_index, int *fd, struct why *why);

/* Raises the epoch durably; the new one is in datadir->epoch. */
enum kv_err datadir_raise_epoch(struct datadir *datadir, struct why *why);

/* To be called once all shards are ready, that is, have files. */
enum kv_err datadir_note_served(const struct datadir *datadir, struct why *why);

/* Removes a store that this start has made and that no client has ever written to. Does nothing for an older one. */
void datadir_undo(struct datadir *datadir);
/* Removes the sockets, releases the lock. */
void datadir_close(struct datadir *datadir);

#endif
