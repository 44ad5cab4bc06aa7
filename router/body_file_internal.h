/* router/body_file_internal.h -- what body_file.c and body_spool.c have between them; nobody else's. */
#ifndef KV_ROUTER_BODY_FILE_INTERNAL_H
#define KV_ROUTER_BODY_FILE_INTERNAL_H

#include "body_file.h"

#include <pthread.h>
#include <stdatomic.h>

struct body_file {
    int fd;
    atomic_uint holders;
    atomic_uint lent; /* pieces that a shard may be reading */
    bool in_memory;
    pthread_mutex_t extends; /* one at a time */
    _Atomic uint64_t length; /* what is below was extended */
    _Atomic uint64_t bytes;  /* less what was forgotten: counted in a sum of body_file.c */
    uint8_t *map;            /* from its begin, or NULL */
    size_t map_bytes;
    uint64_t length_wanted; /* body_spool.c: with its lock held, */
    atomic_bool grows;      /* in its list of those that grow, which holds the file; read without the lock */
    struct body_file *prev, *next;
};

/* Counts `bytes` more. KV_OVERLOADED: it would be more than may wait. */
enum kv_err body_file_claim(struct body_file *file, uint64_t bytes, bool is_new);
void body_file_disclaim(struct body_file *file, uint64_t bytes);

/* ---- body_spool.c ------------------------------------------------------------------------------------------------- */

/* Nobody holds it any more: it ends, or serves another body. */
void spool_leave(struct body_file *file);
/* One in memory of at least `bytes` that waited, or NULL. */
struct body_file *spool_take(uint64_t bytes);

#endif
