/* router/metrics_page.c -- see metrics.h. This file: the page as a whole, and what the router itself knows. */
#include <h2o/version.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <xxhash.h>
#include <zstd.h>

#include "metrics_internal.h"
#include "metrics_text.h"

#define COUNTER METRICS_KIND_COUNTER
#define GAUGE METRICS_KIND_GAUGE

struct page {
    const struct metrics_view *view;
    struct kv_buf *out;
};

/* Of all threads; given the first one's. */
static uint64_t sum_of(const kv_counter *first)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < KV_ROUTER_THREADS_MAX; i++)
        sum +=
            kv_counter_get((const kv_counter *)(const void *)((const char *)first + i * sizeof(struct metrics_thread)));
    return sum;
}

/* ---- what the router says ----------------------------------------------------------------------------------------- */

static const char *const operations[] = {
#define X(name, text) text,
    METRICS_OPERATIONS(X)
#undef X
};

/* Of all threads; the words as in struct metrics_thread. */
static struct kv_histogram sum_of_latency(const struct metrics *metrics, unsigned operation)
{
    struct kv_histogram sum = {0};
    for (unsigned i = 0; i < KV_ROUTER_THREADS_MAX; i++) {
        const kv_counter *words = metrics->threads[i].latency[operation];
        for (unsigned bucket = 0; bucket <= KV_HISTOGRAM_BOUNDS_MAX; bucket++)
            sum.buckets[bucket] += kv_counter_get(&words[bucket]);
        sum.sum += kv_counter_get(&words[KV_HISTOGRAM_WORDS - 1]);
    }
    return sum;
}

static void write_latency(struct page *page)
{
    metrics_family(page->out, "request_duration_seconds", METRICS_KIND_HISTOGRAM,
                   "From the whole request's arrival until the client had taken the answer.");
    for (unsigned operation = 0; operation < METRICS_OPERATION_COUNT; operation++) {
        char labels[64];
        struct kv_histogram sum = sum_of_latency(page->view->metrics, operation);
        snprintf(labels, sizeof(labels), "operation=\"%s\"", operations[operation]);
        metrics_histogram(page->out, "request_duration_seconds", labels, &kv_histogram_times, 9, &sum);
    }
}

/* Only pairs that happened: the others would be hundreds of lines of zeros. */
static void write_requests(struct page *page)
{
    static const char *const methods[] = {"other", "GET", "HEAD", "PUT", "DELETE", "POST"};
    static const char *const statuses[] = {
#define X(number) #number,
        METRICS_STATUSES(X)
#undef X
            "other",
    };
    metrics_family(page->out, "requests_total", COUNTER,
                   "Requests by method and status; 0: the client left before an answer.");
    for (unsigned method = 0; method < METRICS_METHOD_COUNT; method++) {
        for (unsigned status = 0; status < METRICS_STATUS_COUNT; status++) {
            char labels[64];
            uint64_t sum = sum_of(&page->view->metrics->threads[0].requests[method][status]);
            snprintf(labels, sizeof(labels), "method=\"%s\",status=\"%s\"", methods[method], statuses[status]);
            if (sum > 0)
                metrics_sample(page->out, "requests_total", labels, sum, 0);
        }
    }
}

static const char *outcome_name(enum kv_err err)
{
    switch (err) {
    case KV_OK:
        return "done";
    case KV_PRECONDITION:
        return "precondition_failed";
    case KV_TOO_LARGE:
        return "too_large";
    case KV_OVERLOADED:
        return "overloaded";
    case KV_NO_SPACE:
        return "no_space";
    case KV_UNAVAILABLE:
        return "unavailable";
    case KV_UNCERTAIN:
        return "uncertain";
    case KV_CORRUPT:
        return "corrupt";
    default:
        return NULL;
    }
}

static void write_transactions(struct page *page)
{
    uint64_t failed = 0;
    metrics_family(page->out, "transactions_total", COUNTER, "Writes and batches by how they ended for the client.");
    for (enum kv_err err = KV_OK; err < KV_ERR_COUNT; err++) {
        const char *name = outcome_name(err);
        char labels[64];
        uint64_t sum = sum_of(&page->view->metrics->threads[0].transactions[err]);
        failed += name == NULL ? sum : 0;
        snprintf(labels, sizeof(labels), "outcome=\"%s\"", name == NULL ? "" : name);
        if (name != NULL)
            metrics_sample(page->out, "transactions_total", labels, sum, 0);
    }
    metrics_sample(page->out, "transactions_total", "outcome=\"failed\"", failed, 0);
}

static void write_auth_failures(struct page *page)
{
    static const char *const labels[] = {
#define X(name, text) "reason=\"" text "\"",
        METRICS_AUTH_FAILURES(X)
#undef X
    };
    metrics_family(page->out, "auth_failures_total", COUNTER, "Requests answered with 401 or 403, by what was wrong.");
    for (unsigned reason = 0; reason < METRICS_AUTH_FAILURE_COUNT; reason++)
        metrics_sample(page->out, "auth_failures_total", labels[reason],
                       sum_of(&page->view->metrics->threads[0].auth_failures[reason]), 0);
}

static void write_ops(struct page *page)
{
    static const char *const labels[] = {
#define X(name, text) "operation=\"" text "\"",
        METRICS_OPS(X)
#undef X
    };
    metrics_family(page->out, "ops_total", COUNTER,
                   "Keys put, looked for (GET, HEAD), deleted, alone or in batches, as far as clients were told.");
    for (unsigned op = 0; op < METRICS_OP_COUNT; op++)
        metrics_sample(page->out, "ops_total", labels[op], sum_of(&page->view->metrics->threads[0].ops[op]), 0);
}

static void write_counters(struct page *page)
{
#define X(name, metric, help)                                                                                          \
    metrics_single(page->out, metric, COUNTER, help, sum_of(&page->view->metrics->threads[0].counters[METRICS_##name]));
    METRICS_COUNTERS(X)
#undef X
}

static void write_gauges(struct page *page)
{
    const struct metrics *metrics = page->view->metrics;
    uint64_t sums[METRICS_GAUGE_COUNT] = {0};
    for (unsigned i = 0; i < KV_ROUTER_THREADS_MAX; i++)
        for (unsigned gauge = 0; gauge < METRICS_GAUGE_COUNT; gauge++)
            sums[gauge] += kv_counter_get(&metrics->threads[i].gauges[gauge]);
#define X(name, metric, help) metrics_single(page->out, metric, GAUGE, help, sums[METRICS_GAUGE_##name]);
    METRICS_GAUGES(X)
#undef X
}

static uint64_t sum_of_calls(const struct metrics *metrics, unsigned shard_index, bool sent)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < KV_ROUTER_THREADS_MAX; i++) {
        const struct metrics_thread *thread = &metrics->threads[i];
        sum += kv_counter_get(sent ? &thread->calls_sent[shard_index] : &thread->calls_waiting[shard_index]);
    }
    return sum;
}

static void write_calls(struct page *page)
{
    metrics_family(
        page->out, "shard_calls", GAUGE,
        "Calls of the router to a shard. sent: not answered yet; always many: the shard is what limits. waiting: "
        "the shard does not answer, they go on when it is back or end with 503 after SHARD_WAIT_MS.");
    for (unsigned i = 0; i < page->view->shard_count; i++) {
        for (unsigned sent = 0; sent < 2; sent++) {
            char labels[64];
            snprintf(labels, sizeof(labels), "shard=\"%u\",state=\"%s\"", i, sent ? "sent" : "waiting");
            metrics_sample(page->out, "shard_calls", labels, sum_of_calls(page->view->metrics, i, sent), 0);
        }
    }
}

static void write_queues(struct page *page)
{
    const struct metrics_queues *queues = &page->view->queues;
    struct kv_buf *out = page->out;
    metrics_family(
        out, "worker_jobs", GAUGE,
        "Contents above 64 KiB (content: hashed and compressed) and large batches (batch: read and written) off "
        "the loops. waiting: not begun; always many: the router has too little CPU.");
    metrics_sample(out, "worker_jobs", "worker=\"content\",state=\"waiting\"", queues->content_waiting, 0);
    metrics_sample(out, "worker_jobs", "worker=\"content\",state=\"begun\"",
                   queues->content_jobs - queues->content_waiting, 0);
    metrics_sample(out, "worker_jobs", "worker=\"batch\",state=\"begun\"", queues->batch_jobs, 0);
    metrics_family(out, "worker_bytes", GAUGE, "Memory that these jobs hold.");
    metrics_sample(out, "worker_bytes", "worker=\"content\"", queues->content_bytes, 0);
    metrics_sample(out, "worker_bytes", "worker=\"batch\"", queues->batch_bytes, 0);
    metrics_family(out, "upload_bytes", GAUGE,
                   "Request bodies under way, in memory and in files of $TMPDIR or /tmp. Files near upload_max_bytes: "
                   "uploads get 429.");
    metrics_sample(out, "upload_bytes", "where=\"memory\"", queues->upload_memory_bytes, 0);
    metrics_sample(out, "upload_bytes", "where=\"files\"", queues->upload_file_bytes, 0);
}

/* ---- the rest ----------------------------------------------------------------------------------------------------- */

static void write_restarts(struct page *page)
{
    const struct kv_counters_page *counters = page->view->page;
    metrics_family(page->out, "restarts_total", COUNTER,
                   "How often the supervisor started a process again; its log says how each one ended.");
    metrics_sample(page->out, "restarts_total", "process=\"router\",shard=\"\"",
                   kv_counter_get(&counters->router_restarts), 0);
    for (unsigned i = 0; i < page->view->shard_count; i++) {
        char labels[48];
        snprintf(labels, sizeof(labels), "process=\"shard\",shard=\"%u\"", i);
        metrics_sample(page->out, "restarts_total", labels, kv_counter_get(&counters->shard_restarts[i]), 0);
    }
}

static void write_limits(struct page *page)
{
    metrics_single(page->out, "connections_max", GAUGE, "Open connections that are served; more wait to be accepted.",
                   page->view->queues.connections_max);
    metrics_single(page->out, "upload_max_bytes", GAUGE, "UPLOAD_BYTES_MAX.", page->view->queues.upload_file_bytes_max);
    metrics_single(page->out, "router_max_fds", GAUGE, "Descriptors that the router may open (ulimit -n).",
                   page->view->queues.fds_max);
    metrics_single(page->out, "tls_certificate_expires_seconds", GAUGE,
                   "When the certificate in TLS_CERT ends, Unix time; 0: no TLS. Renew it before, then SIGHUP.",
                   page->view->certificate_expires_s);
}

static void write_build(struct page *page)
{
    const struct metrics_view *view = page->view;
    char labels[160];
    snprintf(labels, sizeof(labels), "version=\"%s\",h2o=\"%d.%d\",openssl=\"%s\",zstd=\"%s\"", KV_VERSION,
             H2O_LIBRARY_VERSION_MAJOR, H2O_LIBRARY_VERSION_MINOR, OpenSSL_version(OPENSSL_VERSION_STRING),
             ZSTD_versionString());
    metrics_family(page->out, "build_info", GAUGE, "What is running; always 1.");
    metrics_sample(page->out, "build_info", labels, 1, 0);
    metrics_single(page->out, "ready", GAUGE,
                   "Whether every shard answers and nothing is in doubt; /-/ready says what is missing.", view->ready);
    metrics_single(page->out, "durable", GAUGE, "1: acknowledged means on disk; 0: DURABILITY=interval.",
                   view->durable);
    metrics_single(page->out, "shards", GAUGE, "Shards of the store.", view->shard_count);
    metrics_single(page->out, "router_epoch", GAUGE, "Starts of a router over the life of the store.", view->epoch);
    metrics_single(page->out, "start_time_seconds", GAUGE, "When the router started, Unix time.", view->started_s);
}

void metrics_write(const struct metrics_view *view, struct kv_buf *out)
{
    struct page page = {.view = view, .out = out};
    metrics_write_shards(view, out);
    write_calls(&page);
    write_requests(&page);
    write_latency(&page);
    write_ops(&page);
    write_transactions(&page);
    write_counters(&page);
    write_auth_failures(&page);
    write_gauges(&page);
    write_queues(&page);
    write_restarts(&page);
    write_limits(&page);
    write_build(&page);
}

uint64_t metrics_layout(void)
{
    static const char names[] =
#define X(name, ...) #name " "
        METRICS_OPERATIONS(X) METRICS_COUNTERS(X) METRICS_OPS(X) METRICS_GAUGES(X)
#undef X
        ;
    return XXH3_64bits(names, sizeof(names)) ^ metrics_shards_layout() ^ sizeof(struct metrics) ^ METRICS_STATUS_COUNT;
}
