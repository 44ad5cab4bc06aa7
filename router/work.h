/* router/work.h -- hashing and compressing of large contents, off the event loops.
 * Does:     one thread, `kv-codec`, at a lower priority than the loops. Jobs take turns of WORK_CHUNK_BYTES, so a small one does
 *           not wait for a huge one.
 *           A content in memory is handed over in chunks: its loop copies one, the thread works on the copy, its answer makes
 *           the loop copy the next; the stored form comes to be in memory.
 *           A content in a file (body.h) is read by the thread itself. Its frames are written back over it, since they are
 *           never longer than what was read: a value of 1 GiB needs 1 GiB of disk and a few frames of memory. Only the index
 *           is kept in memory; what is left over behind the frames goes back to the disk. It may still be arriving: then the
 *           thread follows behind, whole chunks of what work_arrived told.
 * Why:      a body in memory belongs to libh2o, which frees it (HTTP/2) before it tells us that the request is gone: no other
 *           thread may ever look at it.
 * Owns:     what waits: WORK_JOBS_MAX jobs, then KV_OVERLOADED. The sum of contents in memory from their begin until they are let
 *           go of is at most WORK_CONTENT_BYTES_MAX, so encoded bytes that wait to be stored do not pile up.
 * Promises: on_done runs exactly once per submitted job, on the asking loop, never from within work_submit. After work_cancel
 *           the content in memory is not touched any more.
 * Tests:    unit/router/test_work.c, http/test_http_large.c, http/test_http_disconnects.c. */
#ifndef KV_ROUTER_WORK_H
#define KV_ROUTER_WORK_H

#include <h2o/multithread.h>

#include "body_file.h"
#include "codec.h"
#include "kv/buf.h"
#include "kv/err.h"
#include "kv/model.h"

#define WORK_JOBS_MAX 1024u
#define WORK_CONTENT_BYTES_MAX ((uint64_t)64 << 20)
#define WORK_CHUNK_BYTES (2 * KV_CONTENT_FRAME_BYTES)

struct work;
struct digest;

/* Zeroed by its owner, who fills in the first part; freed by the owner after on_done. */
struct work_job {
    struct kv_slice content;              /* in a file: its length, no data */
    struct body_file *file;               /* the owner's, until on_done; NULL: in memory */
    uint64_t file_offset;                 /* of the content, then of the frames */
    bool arriving;                        /* in a file: nothing of it counts as there until work_arrived says so */
    h2o_multithread_receiver_t *receiver; /* registered with work_on_messages */
    void (*on_done)(struct work_job *job);
    void *arg; /* the owner's */
    /* results, valid from on_done on unless cancelled; `stored` is the owner's to free */
    enum kv_err err; /* KV_OK, KV_IO: the file cannot be read or written */
    struct kv_hash hash;
    enum kv_codec codec;
    struct kv_buf stored; /* the stored form; of a content in a file the index, the frames are in the file */
    uint64_t stored_bytes;
    /* the loop's; the thread reads it only */
    _Atomic bool cancelled;
    size_t taken;   /* bytes of content */
    size_t arrived; /* written with the lock held */
    bool parked;    /* with the lock: it waits for work_arrived, nobody has it */
    /* whoever has the job: the loop or the thread */
    struct work *work;
    uint64_t bytes_in_memory; /* of the content: what counts against WORK_CONTENT_BYTES_MAX */
    h2o_multithread_message_t message;
    struct work_job *next;
    struct digest *digest;
    struct codec_writer writer;
    struct kv_buf chunk;
};

struct work *work_new(int compression_level);
/* Ends the thread after the chunk at hand; jobs under way get no on_done. */
void work_free(struct work **work);

/* KV_OVERLOADED: too many wait, on_done will not run. */
enum kv_err work_submit(struct work *work, struct work_job *job);
/* The first `bytes` of the content of a job that was submitted `arriving` are there, more than the last time. It ends once it was
 * told of all. */
void work_arrived(struct work_job *job, size_t bytes);
/* The content is about to die. on_done will still run, with `cancelled`. */
void work_cancel(struct work_job *job);
/* Once per job whose on_done has run: its result is stored, or of no use. */
void work_let_go(struct work *work, const struct work_job *job);

/* Now: jobs submitted and not let go of, those of them not begun, and the memory that contents of the others hold. */
struct work_load {
    uint64_t jobs;
    uint64_t waiting;
    uint64_t bytes;
};
struct work_load work_load(struct work *work);

/* The callback for h2o_multithread_register_receiver. */
void work_on_messages(h2o_multithread_receiver_t *receiver, h2o_linklist_t *messages);

#endif
