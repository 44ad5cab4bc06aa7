/* router/metrics.h -- what the router counts, and the page of GET /metrics.
 * Does:     each router thread counts in its own slot of the counters page (kv/counters_page.h): relaxed stores, no locks, no
 *           atomic additions. A page is written from all slots, from what each shard reported, and from /proc:
 *           metrics_page.c writes what the router knows, metrics_shards.c what the shards say, metrics_text.c the lines.
 * Promises: a counter never goes back while the supervisor lives: slots are taken over from the last router, and of a shard that
 *           is down the counters reported last go on being shown. Its gauges are left out, but for the three totals of the
 *           contract, which count what it held when it last answered.
 * Tests:    unit/router/test_metrics.c, http/test_http_metrics.c (promtool), system/test_metrics.c. */
#ifndef KV_ROUTER_METRICS_H
#define KV_ROUTER_METRICS_H

#include "http_method.h"
#include "kv/buf.h"
#include "kv/counters_page.h"
#include "kv/err.h"

/* Operations whose latency is told apart. */
#define METRICS_OPERATIONS(X)                                                                                          \
    X(GET, "get")                                                                                                      \
    X(HEAD, "head")                                                                                                    \
    X(PUT, "put")                                                                                                      \
    X(DELETE, "delete")                                                                                                \
    X(BATCH, "batch")                                                                                                  \
    X(LIST, "list")                                                                                                    \
    X(OTHER, "other") /* /metrics, /-/…, and everything refused before it had an operation */

enum metrics_operation {
#define X(name, text) METRICS_##name,
    METRICS_OPERATIONS(X)
#undef X
        METRICS_OPERATION_COUNT,
};

/* Plain counters: name, metric behind kv_storage_, help. */
#define METRICS_COUNTERS(X)                                                                                            \
    X(CONNECTIONS_ACCEPTED, "connections_accepted_total", "Client connections accepted.")                              \
    X(REQUEST_BODY_BYTES, "http_request_body_bytes_total", "Bytes of request bodies received.")                        \
    X(RESPONSE_BYTES, "http_response_bytes_total", "Bytes of response bodies sent.")                                   \
    X(BATCH_OPERATIONS, "batch_operations_total", "Operations in batches that were answered with 200.")                \
    X(CONNECTIONS_REFUSED, "connections_refused_total",                                                                \
      "Closed at once: CONNECTIONS_PER_ADDRESS_MAX. One client has too many, or all come through one proxy.")          \
    X(ACCEPT_PAUSES, "accept_pauses_total",                                                                            \
      "Times that no connection was accepted for a while: CONNECTIONS_MAX, or too few open files (ulimit -n).")        \
    X(REQUESTS_CANCELLED, "requests_cancelled_total",                                                                  \
      "HTTP/2 requests that the client reset before they were answered.")                                              \
    X(CUT_CANCELS, "connections_cut_cancels_total", "Connections cut: CANCELS_MAX.")                                   \
    X(CUT_CROWD, "connections_cut_crowd_total", "Idle connections cut for others: CONNECTIONS_MAX.")                   \
    X(CUT_REQUESTS, "connections_cut_requests_total", "Connections cut: REQUESTS_PER_ADDRESS_MAX.")                    \
    X(CUT_HEADER_BYTES, "connections_cut_header_bytes_total", "Connections cut: HEADER_BYTES_PER_ADDRESS_MAX.")        \
    X(CUT_HEADERS, "connections_cut_headers_total", "Connections cut: HEADER_WAIT_MS.")                                \
    X(CUT_BODIES, "connections_cut_bodies_total", "Connections cut while they sent: BODY_RATE_MIN, CLIENT_WAIT_MS.")   \
    X(CUT_ANSWERS, "connections_cut_answers_total", "Connections cut that did not read answers: CLIENT_WAIT_MS.")      \
    X(CUT_TOKENS, "connections_cut_tokens_total", "Connections cut: too many refusals for want of a token wait.")      \
    X(REFUSALS_DELAYED, "auth_refusals_delayed_total",                                                                 \
      "Refusals for want of a valid token delayed: AUTH_FAILURES_MAX.")                                                \
    X(CUT_IDLE, "connections_cut_idle_total", "HTTP/1 connections without a request closed: CLIENT_WAIT_MS.")          \
    X(ANSWERS_DELAYED, "answers_delayed_total",                                                                        \
      "Requests that waited: ANSWER_BYTES_PER_ADDRESS_MAX, ABANDONED_PER_ADDRESS_MAX.")                                \
    X(HEADERS_REFUSED, "headers_refused_total", "Requests answered with 431.")                                         \
    X(HEADER_BLOCKS_REFUSED, "header_blocks_refused_total", "HTTP/2 header blocks that cost the connection its life.") \
    X(FRAMES_IGNORED, "http2_frames_ignored_total", "HTTP/2 frames of unknown types.")                                 \
    X(CONTINUATIONS_REFUSED, "http2_continuations_refused_total", "HTTP/2 header blocks without an end.")              \
    X(CACHE_HITS, "cache_hits_total", "GETs and HEADs answered from the router's memory (CACHE_BYTES).")               \
    X(CACHE_MISSES, "cache_misses_total", "GETs and HEADs that asked the shards.")                                     \
    X(CACHE_FRAME_HITS, "cache_frame_hits_total",                                                                      \
      "Frames (256 KiB) of values above 64 KiB sent from the router's memory (CACHE_BYTES).")                          \
    X(CACHE_FRAME_MISSES, "cache_frame_misses_total", "Frames of values above 64 KiB asked of the shards for GETs.")   \
    X(CHECKSUM_FAILURES, "checksum_failures_total",                                                                    \
      "Stored contents met whose checksum did not hold: not served, 500. Check the disk, then kv-shard --check.")

enum metrics_counter {
#define X(name, metric, help) METRICS_##name,
    METRICS_COUNTERS(X)
#undef X
        METRICS_COUNTER_COUNT,
};

/* What was done to keys, alone or in batches, one by one: a put is done, a get looked for its key, a delete found it. */
#define METRICS_OPS(X)                                                                                                 \
    X(PUT, "put")                                                                                                      \
    X(GET, "get") /* and head */                                                                                       \
    X(DELETE, "delete")

enum metrics_op {
#define X(name, text) METRICS_OP_##name,
    METRICS_OPS(X)
#undef X
        METRICS_OP_COUNT,
};

/* Requests refused for their token. */
#define METRICS_AUTH_FAILURES(X)                                                                                       \
    X(MISSING, "missing")     /* no Authorization */                                                                   \
    X(SCHEME, "scheme")       /* not Bearer, or malformed */                                                           \
    X(UNKNOWN, "unknown")     /* no such token */                                                                      \
    X(FORBIDDEN, "forbidden") /* 403: a good token without the right */

enum metrics_auth_failure {
#define X(name, text) METRICS_AUTH_##name,
    METRICS_AUTH_FAILURES(X)
#undef X
        METRICS_AUTH_FAILURE_COUNT,
};

/* What is now; zero when a router starts. All but CONNECTIONS and REQUESTS are sampled by gauges.c. */
#define METRICS_GAUGES(X)                                                                                              \
    X(CONNECTIONS, "connections_open", "Client connections open now.")                                                 \
    X(CACHE_BYTES, "cache_bytes", "What answers kept in the router's memory take: at most half of CACHE_BYTES.")       \
    X(CACHE_ENTRIES, "cache_entries", "Answers kept in the router's memory.")                                          \
    X(CACHE_FRAME_BYTES, "cache_frame_bytes",                                                                          \
      "What frames kept in the router's memory take: at most half of CACHE_BYTES.")                                    \
    X(CACHE_FRAMES, "cache_frames", "Frames of large values kept in the router's memory.")                             \
    X(REQUESTS, "requests_in_flight", "Requests received whole whose answer the client does not have yet.")            \
    X(REQUESTS_SHARDS, "requests_waiting_for_shards",                                                                  \
      "Of these, requests that wait for a shard. Many: see shard_calls and shard_waiting for which and why.")          \
    X(REQUESTS_CLIENTS, "requests_waiting_for_clients",                                                                \
      "Of these, answers that the client does not read on; CLIENT_WAIT_MS ends that.")                                 \
    X(TRANSACTIONS, "transactions_open",                                                                               \
      "Writes begun and not ended at every shard, answered or not. For long above 0: a shard is away.")

enum metrics_gauge {
#define X(name, metric, help) METRICS_GAUGE_##name,
    METRICS_GAUGES(X)
#undef X
        METRICS_GAUGE_COUNT,
};

struct metrics;        /* the router's region of the page */
struct metrics_thread; /* one thread's slot */

/* Takes the region over from the last router; another layout's is zeroed. Gauges begin at zero. */
struct metrics *metrics_open(struct kv_counters_page *page);
struct metrics_thread *metrics_of_thread(struct metrics *metrics, unsigned thread_index);

/* ---- counting: only by the thread that has the slot --------------------------------------------------------------- */

/* `status` 0: the client left before an answer. */
void metrics_request(struct metrics_thread *slot, enum http_method method, enum metrics_operation operation, int status,
                     uint64_t took_ns);
void metrics_add(struct metrics_thread *slot, enum metrics_counter counter, uint64_t more);
void metrics_set(struct metrics_thread *slot, enum metrics_gauge gauge, uint64_t value);
/* What this thread has asked a shard and not been answered; `answers`: the shard is there. */
void metrics_set_calls(struct metrics_thread *slot, unsigned shard_index, uint64_t calls, bool answers);
void metrics_auth_failure(struct metrics_thread *slot, enum metrics_auth_failure reason);
void metrics_op(struct metrics_thread *slot, enum metrics_op op, uint64_t more);
/* How a write or a batch ended. */
void metrics_transaction(struct metrics_thread *slot, enum kv_err err);

/* ---- telling ------------------------------------------------------------------------------------------------------ */

/* What waits in the router outside of its loops, and how much may. */
struct metrics_queues {
    uint64_t content_waiting, content_jobs, content_bytes; /* work.h */
    uint64_t batch_jobs, batch_bytes;                      /* task.h */
    uint64_t upload_file_bytes, upload_file_bytes_max;     /* body.h */
    uint64_t upload_memory_bytes;
    uint64_t connections_max, fds_max;
};

struct metrics_view {
    struct kv_counters_page *page;
    struct metrics *metrics;
    const struct kv_slice *bodies; /* of KV_MSG_COUNTERS, empty for a shard that did not answer */
    unsigned shard_count;
    bool ready;
    uint64_t epoch;
    uint64_t started_s;             /* Unix seconds, of this router */
    uint64_t certificate_expires_s; /* 0: no TLS */
    bool durable;                   /* DURABILITY=sync */
    struct metrics_queues queues;
};

/* Appends the page, text format 0.0.4. Remembers what the shards reported. */
void metrics_write(const struct metrics_view *view, struct kv_buf *out);

#endif
