/* router/body_map.h -- the mappings that a large body lies in: of a file (body_file.h), or of nothing (a sink).
 * Does:     replaces libh2o's buffer by one within a mapping, of more space each time, and gives pages back that were written
 *           some time ago. A mapping is: struct body_map, in it libh2o's buffer header, then the bytes. libh2o sees its buffer
 *           only, and that the buffer has a descriptor: ours always has one, its own never, since its way to files is off.
 *           A connection that sends faster than its file grows (body_file_extend_soon) is not read from for a while, so that its
 *           loop never waits for the disk.
 * Owns:     the mappings of this thread; those of a connection end with its buffer.
 * Fails:    KV_NO_SPACE, KV_OVERLOADED: the buffer is as it was.
 * Tests:    http/test_http_bodies.c, system/test_large.c. */
#ifndef KV_ROUTER_BODY_MAP_H
#define KV_ROUTER_BODY_MAP_H

#include <h2o.h>

#include "body_file.h"
#include "body_job.h"
#include "h2o_guard.h"
#include "kv/err.h"

#define BODY_STEP_BYTES 262144u /* so much is given back at once */
/* Files grow so far ahead. Who waits now and then leaves the processors to others: with 4 MiB an upload of 1 GiB takes an eighth
 * less, and the 99th percentile of small GETs beside it twice as long (tests/bench/RESULTS.md). */
#define BODY_AHEAD_BYTES 2097152u
#define BODY_WAIT_BYTES 1048576u /* who has less before him waits: more than a turn of the loop brings (turn.h) */

struct body_map {
    size_t bytes;            /* to be used: of the mapping, and of the file */
    size_t space;            /* of the mapping: on the disk the file grows into it */
    size_t dropped;          /* up to here pages were given back */
    struct body_file *file;  /* NULL: a sink */
    struct work_job *job;    /* NULL: it is not hashed as it comes, or a handler has the job */
    struct guarded *guarded; /* the connection; NULL: it cannot wait */
    bool settled;            /* the body is complete, and may be in work: no other one comes here */
    bool waits;              /* for its file: nothing is read from it */
    uint64_t turn_ms;        /* the loop's clock when the last turn began that brought bytes, */
    size_t turn_used;        /* and how far the mapping was in use then */
    enum kv_err refused;     /* why it is a sink */
    struct body_map *prev, *next;
    h2o_buffer_t buffer;
};

/* On a loop's thread, before all others. */
void body_map_thread_init(h2o_context_t *context);
/* Of a buffer that has a descriptor. */
struct body_map *body_map_of(const h2o_buffer_t *buffer);
/* The one of this thread that `base` lies in, or NULL. */
struct body_map *body_map_find(const char *base);
void body_map_free(struct body_map *map);

/* A buffer in memory moves into a file, or one in a file in memory into one on the disk; `expected` bytes, SIZE_MAX when
 * nobody knows. */
enum kv_err body_map_file(h2o_buffer_t **inbuf, size_t min_guarantee, uint64_t expected, struct guarded *guarded);
/* What has come by now can be hashed. */
void body_map_arrived(struct body_map *map);
/* Uses what the file has grown by meanwhile, and has it grow on; who is about to overtake it waits. */
void body_map_look_ahead(struct body_map *map);
/* A file that is full grows, now. KV_OVERLOADED: or one in memory would, which is being hashed. */
enum kv_err body_map_grow(h2o_buffer_t **inbuf, size_t min_guarantee);
/* What comes from now on is read and forgotten: `why` says so in `refused`. */
enum kv_err body_map_sink(h2o_buffer_t **inbuf, size_t min_guarantee, enum kv_err why);
/* Pages that were written some time ago leave this process: those of a file are the kernel's to keep, those of a sink gone. */
void body_map_drop_pages(struct body_map *map);

#endif
