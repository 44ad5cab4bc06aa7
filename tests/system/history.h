/* tests/system/history.h -- who asked what, when, and what came back: the evidence for checker.h.
 * Does:     keeps operations of many threads. An operation is a list of steps on keys (one, or the operations of a batch), taking effect
 *           at one instant between `invoked` and `returned`, all steps or none.
 * Values are small numbers: 0 = absent, every write of a test another one, so that a read names its write.
 * Owns:     the steps given to history_add. Threads: history_add locks. */
#ifndef KV_SYSTEM_HISTORY_H
#define KV_SYSTEM_HISTORY_H

#include <pthread.h>

#include "kv/buf.h"

#define HISTORY_KEYS_MAX 64u
#define HISTORY_OPEN UINT64_MAX

enum history_step_kind { STEP_GET, STEP_WRITE };
enum history_match { HISTORY_ALWAYS, HISTORY_PRESENT, HISTORY_ABSENT, HISTORY_HOLDS };

struct history_step {
    enum history_step_kind kind;
    unsigned key;
    uint32_t value;           /* GET: seen; WRITE: written, 0 deletes */
    bool existed;             /* WRITE, when done: the key was there before this step, says the answer */
    enum history_match match; /* WRITE */
    uint32_t match_value;     /* HISTORY_HOLDS */
};

enum history_outcome {
    HISTORY_DONE,
    HISTORY_PRECONDITION, /* refused at step `refused_at`: the conditions before it held, this one did not, nothing was done */
    HISTORY_UNCERTAIN, /* may have taken effect at any time after `invoked`, or not at all */
};

struct history_op {
    uint64_t invoked, returned; /* of one clock; HISTORY_UNCERTAIN: HISTORY_OPEN */
    enum history_outcome outcome;
    struct history_step *steps;
    size_t step_count;
    size_t refused_at;
};

struct history {
    pthread_mutex_t mutex;
    struct history_op *ops;
    size_t count, capacity;
};

void history_init(struct history *history);
void history_free(struct history *history);
/* Copies the operation and its steps. */
void history_add(struct history *history, const struct history_op *op);
/* One operation as a line of text, for failures. */
void history_print(const struct history_op *op, char *out, size_t out_bytes);

#endif
