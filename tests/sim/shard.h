/* tests/sim/shard.h -- one shard's rim, as serve.c and sessions.c are it in the real process: a turn is what sessions sent, then
 * the journal, then the answers whose records are durable. Around the real core, with the twins of disk.h. */
#ifndef SIM_SHARD_H
#define SIM_SHARD_H

#include "core.h"
#include "disk.h"
#include "link.h"

struct stage_job {
    struct stage_job *next;
    bool unstage;
    uint64_t session, request_id, object_id, offset;
    struct body_file *file; /* read when the job is done; or NULL */
    uint64_t file_offset, file_bytes;
    size_t bytes; /* in front of the file's */
    uint8_t data[];
};

struct shard {
    struct process process; /* first */
    unsigned index;
    struct disk disk;
    struct core *core;
    uint64_t epoch;
    uint64_t session_last;
    struct outbox *answering;
    struct outbox nobody;
    bool submit, flushing, lazy;
    uint64_t flush_upto;
    uint64_t appended_us;
    struct core_generation *frozen;
    bool applying;
    bool applier_full; /* the last apply was refused */
    struct stage_job *jobs;
    bool working;           /* an event for the first job is under way */
    bool turn_is_due;       /* an event ends the turn */
    bool in_abort;          /* FAULT_LOCK_KEPT */
    struct body_file *file; /* came with the message that is under way; or NULL */
};

struct shard *shard_new(struct sim *sim, unsigned index);
void shard_start(struct shard *shard);
void shard_crash(struct shard *shard);
/* Stops it tidily; what is left on its heap then is a leak. */
void shard_close(struct shard *shard);
/* A frame, or the end of the stream (no bytes). `file` came along, or is NULL. */
void shard_receive(struct link *link, struct kv_slice bytes, struct body_file *file);
/* Nothing is under way here; else `why` names what is. */
bool shard_is_quiet(const struct shard *shard, const char **why);
void shard_is_full(struct shard *shard, unsigned level);

#endif
