/* tests/system/storm.h -- clients that write their own keys under fire and know what must be there.
 * Does:     STORM_CLIENTS threads, each with an h2c connection and STORM_KEYS keys over all shards: PUT, GET, DELETE, replace by
 *           If-Match, create by If-None-Match, batches of 2 to 40 operations, listings of /keys, reads of others' keys. Each answer is
 *           compared with the model at once; a write without an answer is settled by reading: whole or not at all, and then
 *           it stays. Contents are partly shared, so that references come and go over all shards.
 * Owns:     its threads between storm_start and storm_stop.
 * Fails:    the first thing that must not be is kept in storm.failure, and every client ends.
 * Main thread: storm_start, storm_stop, storm_verify, storm_delete_all; those two fail the test (CHECK). */
#ifndef KV_SYSTEM_STORM_H
#define KV_SYSTEM_STORM_H

#include <pthread.h>
#include <stdatomic.h>

#include "../sim/random.h"
#include "fate.h"
#include "model.h"

#define STORM_CLIENTS 12u
#define STORM_KEYS 40u /* of one client */

enum storm_op { STORM_PUT, STORM_GET, STORM_DELETE, STORM_REPLACE, STORM_CREATE, STORM_BATCH, STORM_LIST, STORM_PEEK };
#define STORM_OPS 8u

struct storm;
struct storm_client {
    struct storm *storm;
    unsigned index;
    struct random random;
    struct client *http;
    uint64_t written; /* unique contents made so far */
    uint64_t slowest_ms;
    uint64_t asked[STORM_OPS];
    uint64_t fates[FATE_COUNT];
    uint64_t landed; /* uncertain writes that turned out to be done */
    pthread_t thread;
};

struct storm {
    struct server *server;
    bool no_errors; /* only shards are killed: clients must not notice */
    struct model model;
    struct storm_client clients[STORM_CLIENTS];
    atomic_ulong acknowledged; /* operations answered as they should be */
    atomic_bool stop;
    atomic_bool failed;
    pthread_mutex_t mutex;
    char failure[1024];
};

void storm_init(struct storm *storm, struct server *server, uint64_t seed, bool no_errors);
void storm_start(struct storm *storm);
/* Joins the clients; unsettled writes are settled first, so the store must be up. */
void storm_stop(struct storm *storm);
/* Every key, its content and its number of references. */
void storm_verify(struct storm *storm);
void storm_delete_all(struct storm *storm);
/* Name of key number 0 to STORM_CLIENTS * STORM_KEYS - 1, without the slash in front; one in ten is longer than LMDB's keys may be. */
#define STORM_KEY_BYTES 768u
void storm_key(size_t key, char out[STORM_KEY_BYTES]);

/* ---- beneath: storm_ops.c --------------------------------------------------------------------------------------- */

/* One operation of this client, chosen by its seed. */
void storm_operate(struct storm_client *client);
/* Keeps the first failure and ends all clients. */
void storm_fail(struct storm_client *client, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
