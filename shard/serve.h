/* shard/serve.h -- the rim of a shard: the loop that joins core, journal, store, applier and sessions.
 * Does:     a turn is: what sessions sent goes through the core; what the core appended goes to the journal; answers whose records
 *           are durable leave. Freezes the overlay at half of its bound or after SERVE_IDLE_MS without a record, has it applied,
 *           lets the journal go. Answers STATS. When nobody comes any more, it gives back the memory that a load needed.
 * Owns:     all of them, and the thread it runs on. Between serve_open and the end of serve_run it waits for a disk
 *           only to flush a write that is alone in its turn, while the disk is quick (journal_write_now).
 * Promises: no answer before its record is durable; a generation is applied only when its journal position is durable, and
 *           released only after reads see it.
 * Fails:    a failed flush, a damaged or failing store: the process ends (recovered_die) and is started again. Disk or map full:
 *           writes are refused with KV_NO_SPACE, reads and deletes go on.
 * Tests:    unit/shard/test_serve.c, unit/shard/test_serve_order.c, system/. */
#ifndef KV_SHARD_SERVE_H
#define KV_SHARD_SERVE_H

#include "kv/err.h"
#include "kv/counters_page.h"
#include "recover.h"

#define SERVE_TICK_MS 100u
#define SERVE_LAZY_MS 10u           /* a record that nobody waits for is submitted this late at most */
#define SERVE_IDLE_MS 500u          /* without a record: what is in memory is applied */
#define SERVE_TRIM_MS 2000u         /* without a record: memory kept for the next generation is given back */
#define SERVE_REST_MS 10000u        /* nearly without a message: all memory that can be is given back; */
#define SERVE_REST_MESSAGES 200u    /* pings and questions for statistics are not more */
#define SERVE_REST_BYTES (4u << 20) /* written since LMDB was opened: it is opened anew for the memory it keeps */
#define SERVE_USAGE_MS 1000u        /* how old the store's usage may be */
#define SERVE_FULL_PERCENT 95u      /* of map and disk: above, only what frees space is accepted; */
#define SERVE_DISK_RESERVE_MAX (64u << 20) /* of a large disk as much is left alone */
#define SERVE_FULL_MS 10000u               /* without a refusal: the shard is no longer called full */
#define SERVE_STOP_FLUSH_MS 2000u          /* how long a stop waits for peers to take their last answers */

struct loop;
struct serve;

struct serve_options {
    struct recover_options recover;
    int listen_fd; /* stays the caller's */
    uint64_t shard_wait_ms;
    uint64_t epoch;       /* of the last router that was started: older ones are refused from the first moment */
    kv_counter *counters; /* KV_COUNTERS_SHARD_WORDS of the page; NULL: counters begin at zero */
};

/* Opens and replays. On error `why` holds one sentence and `out` is untouched. */
enum kv_err serve_open(const struct serve_options *options, char *why, size_t why_bytes, struct serve **out);
struct loop *serve_loop(struct serve *serve);
/* Turns until serve_stop is through. */
void serve_run(struct serve *serve);
/* From a callback of the loop: no more messages; what was accepted is made durable, answered and applied, then serve_run returns. */
void serve_stop(struct serve *serve);
/* Closes everything. Without serve_stop before it: like a crash, but tidy. */
void serve_close(struct serve **serve);

#endif
