/* router/metrics_page.c -- see metrics.h. This file: the page that Prometheus reads, text format 0.0.4.
 * What a shard reports (shard/counters.h) is looked up by name: rows that are missing are left out, unknown ones passed over, so
 * the two processes may differ by a version for as long as a restart takes.
 * keys_total, objects_total and bytes_total are untyped: by nature they are gauges, whose names must not end in _total. */
#include "metrics_internal.h"

#include <h2o/version.h>
#include <inttypes.h>
#include <openssl/crypto.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include <xxhash.h>
#include <zstd.h>

#include "kv/log.h"
#include "metrics_process.h"
#include "wire/messages.h"

/* X(name in the report, kind, metric behind kv_storage_, decimals that the number carries, label, help). Rows of one metric
 * stand together; the last three are of every process. */
#define SHARD_ROWS(X)                                                                                                  \
    X(keys, GAUGE, "shard_keys", 0, "", "Keys of the shard.")                                                          \
    X(objects, GAUGE, "shard_objects", 0, "", "Unique contents of the shard.")                                         \
    X(stored_bytes, GAUGE, "shard_stored_bytes", 0, "", "Bytes of unique content on disk, compressed.")                \
    X(puts, COUNTER, "shard_ops_total", 0, ",operation=\"put\"", "Rows set, read and deleted.")                        \
    X(gets, COUNTER, "shard_ops_total", 0, ",operation=\"get\"", "")                                                   \
    X(deletes, COUNTER, "shard_ops_total", 0, ",operation=\"delete\"", "")                                             \
    X(dedup_hits, COUNTER, "shard_dedup_hits_total", 0, "", "References added to a content that was there.")           \
    X(commits, COUNTER, "shard_transactions_total", 0, ",outcome=\"committed\"", "Transactions by how they ended.")    \
    X(aborts, COUNTER, "shard_transactions_total", 0, ",outcome=\"aborted\"", "")                                      \
    X(applies, COUNTER, "shard_transactions_total", 0, ",outcome=\"applied_alone\"", "")                               \
    X(conflicts, COUNTER, "shard_conflicts_total", 0, "", "Votes refused because a row had changed.")                  \
    X(overlay_rows, GAUGE, "shard_overlay_rows", 0, "", "Rows that wait in memory to be applied.")                     \
    X(overlay_bytes, GAUGE, "shard_overlay_bytes", 0, "", "Memory that they take.")                                    \
    X(locks, GAUGE, "shard_locks", 0, "", "Keys locked now.")                                                          \
    X(lock_waits, GAUGE, "shard_waiting", 0, ",queue=\"locks\"", "Requests that wait in the shard.")                   \
    X(stalled, GAUGE, "shard_waiting", 0, ",queue=\"room\"", "")                                                       \
    X(parked_reads, GAUGE, "shard_waiting", 0, ",queue=\"decision\"", "")                                              \
    X(intents, GAUGE, "shard_intents", 0, "", "Transactions voted for and undecided.")                                 \
    X(done, GAUGE, "shard_done", 0, "", "Transactions decided and not yet forgotten.")                                 \
    X(object_id_next, GAUGE, "shard_object_id_next", 0, "", "The next object id.")                                     \
    X(journal_groups, COUNTER, "shard_journal_groups_total", 0, "", "Groups of records flushed to the journal.")       \
    X(journal_records, COUNTER, "shard_journal_records_total", 0, "", "Records written to the journal.")               \
    X(journal_bytes, COUNTER, "shard_journal_bytes_total", 0, "", "Bytes written to the journal.")                     \
    X(journal_flush_ns, COUNTER, "shard_journal_flush_seconds_total", 9, "", "Time spent in flushes.")                 \
    X(journal_flush_ns_max, GAUGE, "shard_journal_flush_max_seconds", 9, "", "Longest flush since the last scrape.")   \
    X(journal_segments, GAUGE, "shard_journal_segments", 0, "", "Segment files of the journal.")                       \
    X(journal_position, GAUGE, "shard_journal_position", 0, "", "Last record appended.")                               \
    X(journal_durable, GAUGE, "shard_journal_durable_position", 0, "", "Last record on disk.")                         \
    X(journal_applied, GAUGE, "shard_journal_applied_position", 0, "",                                                 \
      "Last record in LMDB: the applier's lag ends here.")                                                             \
    X(journal_replayed, GAUGE, "shard_journal_replayed_records", 0, "", "Records replayed at the last start.")         \
    X(map_bytes, GAUGE, "shard_map_bytes", 0, "", "MAP_SIZE.")                                                         \
    X(map_used_bytes, GAUGE, "shard_map_used_bytes", 0, "", "Bytes of the map in use.")                                \
    X(map_readers_oldest, GAUGE, "shard_map_oldest_reader_transactions", 0, "",                                        \
      "Transactions that the oldest reader is behind.")                                                                \
    X(disk_bytes, GAUGE, "shard_disk_bytes", 0, "", "Size of the file system that the shard is on.")                   \
    X(disk_free_bytes, GAUGE, "shard_disk_free_bytes", 0, "", "Bytes of it that the shard may still take.")            \
    X(sweep_objects, GAUGE, "shard_sweep_objects", 0, "", "Dead contents whose rows wait to be swept.")                \
    X(generations, COUNTER, "shard_applies_total", 0, "", "Generations of rows applied to LMDB.")                      \
    X(generation_rows, COUNTER, "shard_apply_rows_total", 0, "", "Rows applied to LMDB.")                              \
    X(generation_ns, COUNTER, "shard_apply_seconds_total", 9, "", "Time spent applying.")                              \
    X(generation_ns_max, GAUGE, "shard_apply_max_seconds", 9, "", "Longest apply since the last scrape.")              \
    X(generations_refused, COUNTER, "shard_applies_refused_total", 0, "", "Applies that met a full disk or map.")      \
    X(stage_groups, COUNTER, "shard_stage_groups_total", 0, "", "Transactions of staged content.")                     \
    X(stage_pieces, COUNTER, "shard_stage_pieces_total", 0, "", "Pieces of staged content.")                           \
    X(stage_bytes, COUNTER, "shard_stage_bytes_total", 0, "", "Bytes of staged content.")                              \
    X(stage_ns, COUNTER, "shard_stage_seconds_total", 9, "", "Time spent staging.")                                    \
    X(stage_queue_bytes, GAUGE, "shard_stage_queue_bytes", 0, "", "Bytes of staged pieces that wait.")                 \
    X(sweeps, COUNTER, "shard_sweeps_total", 0, "", "Sweeping transactions.")                                          \
    X(sweep_ns, COUNTER, "shard_sweep_seconds_total", 9, "", "Time spent sweeping.")                                   \
    X(sessions, GAUGE, "shard_sessions", 0, "", "Connections of router threads.")                                      \
    X(epoch, GAUGE, "shard_epoch", 0, "", "Newest router seen.")                                                       \
    X(full, GAUGE, "shard_full", 0, "", "1 while rows cannot be applied for want of space.")                           \
    X(uptime_ms, GAUGE, "shard_uptime_seconds", 3, "", "Time since the shard started.")                                \
    X(process_cpu_us, COUNTER, "process_cpu_seconds_total", 6, "", "CPU time of a process, user and system.")          \
    X(process_rss_bytes, GAUGE, "process_resident_memory_bytes", 0, "", "Resident memory of a process.")               \
    X(process_fds, GAUGE, "process_open_fds", 0, "", "Open descriptors of a process.")

enum shard_row {
#define X(name, ...) ROW_##name,
    SHARD_ROWS(X)
#undef X
        ROW_COUNT
};
_Static_assert((int)ROW_COUNT <= (int)METRICS_SHARD_VALUES, "too many rows");

enum kind { COUNTER, GAUGE, UNTYPED, HISTOGRAM };

static const struct row {
    const char *name;
    enum kind kind;
    const char *metric;
    unsigned decimals;
    const char *label;
    const char *help;
} rows[ROW_COUNT] = {
#define X(name, kind, metric, decimals, label, help) {#name, kind, metric, decimals, label, help},
    SHARD_ROWS(X)
#undef X
};

struct page {
    const struct metrics_view *view;
    struct kv_buf *out;
    bool up[KV_SHARDS_MAX];
    bool reported[KV_SHARDS_MAX][ROW_COUNT]; /* in the bodies at hand */
};

/* ---- lines -------------------------------------------------------------------------------------------------------- */

static void print(struct kv_buf *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void print(struct kv_buf *out, const char *format, ...)
{
    enum { LINE_BYTES_MAX = 512 };
    va_list arguments;
    char *space = (char *)kv_buf_reserve(out, LINE_BYTES_MAX);
    va_start(arguments, format);
    int bytes = vsnprintf(space, LINE_BYTES_MAX, format, arguments);
    va_end(arguments);
    kv_assert(bytes >= 0 && bytes < LINE_BYTES_MAX);
    out->bytes += (size_t)bytes;
}

static void family(struct kv_buf *out, const char *metric, enum kind kind, const char *help)
{
    static const char *const kinds[] = {
        [COUNTER] = "counter", [GAUGE] = "gauge", [UNTYPED] = "untyped", [HISTOGRAM] = "histogram"};
    print(out, "# HELP kv_storage_%s %s\n# TYPE kv_storage_%s %s\n", metric, help, metric, kinds[kind]);
}

/* `decimals` of 9 turns nanoseconds into seconds without a rounding. `labels` without braces, or empty. */
static void sample(struct kv_buf *out, const char *metric, const char *labels, uint64_t value, unsigned decimals)
{
    uint64_t unit = 1;
    for (unsigned i = 0; i < decimals; i++)
        unit *= 10;
    print(out, *labels == '\0' ? "kv_storage_%s%s " : "kv_storage_%s{%s} ", metric, labels);
    if (decimals == 0)
        print(out, "%" PRIu64 "\n", value);
    else
        print(out, "%" PRIu64 ".%0*" PRIu64 "\n", value / unit, (int)decimals, value % unit);
}

static void single(struct kv_buf *out, const char *metric, enum kind kind, const char *help, uint64_t value)
{
    family(out, metric, kind, help);
    sample(out, metric, "", value, 0);
}

/* ---- what the shards say ------------------------------------------------------------------------------------------ */

static void take_body(struct page *page, unsigned shard_index, struct kv_slice body)
{
    struct kv_list pairs;
    struct kv_slice name;
    uint64_t value;
    if (body.bytes == 0 || kv_get_counters(body, &pairs) != KV_OK)
        return;
    page->up[shard_index] = true;
    while (kv_next_counter(&pairs, &name, &value)) {
        unsigned row = 0;
        while (row < ROW_COUNT && !kv_slice_equal(name, kv_slice_text(rows[row].name)))
            row++;
        if (row == ROW_COUNT)
            continue;
        page->reported[shard_index][row] = true;
        kv_counter_set(&page->view->metrics->shard_values[shard_index][row], value);
    }
}

static uint64_t shard_value(const struct page *page, unsigned shard_index, enum shard_row row)
{
    return kv_counter_get(&page->view->metrics->shard_values[shard_index][row]);
}

static uint64_t sum_of_shards(const struct page *page, enum shard_row row)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < page->view->shard_count; i++)
        sum += shard_value(page, i, row);
    return sum;
}

static bool is_of_processes(enum shard_row row)
{
    return row >= ROW_process_cpu_us;
}

static uint64_t process_value(const struct metrics_process *process, enum shard_row row)
{
    if (row == ROW_process_cpu_us)
        return process->cpu_us;
    return row == ROW_process_rss_bytes ? process->rss_bytes : process->fds;
}

/* The CPU time of the router is that of all routers since the supervisor started, as it is with shards. */
static void write_own_processes(struct page *page, enum shard_row row)
{
    struct metrics *metrics = page->view->metrics;
    struct metrics_process router = metrics_process_own();
    struct metrics_process supervisor = metrics_process_supervisor();
    supervisor.fds = kv_counter_get(&page->view->page->supervisor_fds);
    router.cpu_us += kv_counter_get(&metrics->cpu_us_before);
    kv_counter_set(&metrics->cpu_us_told, router.cpu_us);
    sample(page->out, rows[row].metric, "process=\"router\",shard=\"\"", process_value(&router, row),
           rows[row].decimals);
    sample(page->out, rows[row].metric, "process=\"supervisor\",shard=\"\"", process_value(&supervisor, row),
           rows[row].decimals);
}

/* A counter is shown as it was reported last; a gauge only of a shard that answered. */
static void write_shard_row(struct page *page, enum shard_row row)
{
    const struct row *at = &rows[row];
    for (unsigned i = 0; i < page->view->shard_count; i++) {
        char labels[96];
        if (!page->reported[i][row] && (at->kind != COUNTER || page->up[i]))
            continue;
        snprintf(labels, sizeof(labels), "%sshard=\"%u\"%s", is_of_processes(row) ? "process=\"shard\"," : "", i,
                 at->label);
        sample(page->out, at->metric, labels, shard_value(page, i, row), at->decimals);
    }
}

static void write_shards(struct page *page)
{
    family(page->out, "shard_up", GAUGE, "Whether the shard answered just now.");
    for (unsigned i = 0; i < page->view->shard_count; i++) {
        char labels[32];
        snprintf(labels, sizeof(labels), "shard=\"%u\"", i);
        sample(page->out, "shard_up", labels, page->up[i], 0);
    }
    for (enum shard_row row = 0; row < ROW_COUNT; row++) {
        if (*rows[row].help != '\0')
            family(page->out, rows[row].metric, rows[row].kind, rows[row].help);
        if (is_of_processes(row))
            write_own_processes(page, row);
        write_shard_row(page, row);
    }
}

/* ---- the contract's totals ---------------------------------------------------------------------------------------- */

static uint64_t sum_of_counter(const struct metrics *metrics, enum metrics_counter counter)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < METRICS_THREADS_MAX; i++)
        sum += kv_counter_get(&metrics->threads[i].counters[counter]);
    return sum;
}

static void write_totals(struct page *page)
{
    struct kv_buf *out = page->out;
    uint64_t gets = sum_of_shards(page, ROW_gets) + sum_of_counter(page->view->metrics, METRICS_BATCH_READS);
    single(out, "keys_total", UNTYPED, "Keys of the store.", sum_of_shards(page, ROW_keys));
    single(out, "objects_total", UNTYPED, "Unique contents of the store.", sum_of_shards(page, ROW_objects));
    single(out, "bytes_total", UNTYPED, "Bytes of unique content on disk, compressed.",
           sum_of_shards(page, ROW_stored_bytes));
    family(out, "ops_total", COUNTER, "Keys put, read and deleted, alone or in batches.");
    sample(out, "ops_total", "operation=\"put\"", sum_of_shards(page, ROW_puts), 0);
    sample(out, "ops_total", "operation=\"get\"", gets, 0);
    sample(out, "ops_total", "operation=\"delete\"", sum_of_shards(page, ROW_deletes), 0);
    single(out, "dedup_hits_total", COUNTER, "References added to a content that was in the store already.",
           sum_of_shards(page, ROW_dedup_hits));
}

/* ---- what the router says ----------------------------------------------------------------------------------------- */

static const char *const operations[] = {
#define X(name, text) text,
    METRICS_OPERATIONS(X)
#undef X
};

static uint64_t sum_of_bucket(const struct metrics *metrics, unsigned operation, unsigned bucket)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < METRICS_THREADS_MAX; i++)
        sum += kv_counter_get(&metrics->threads[i].buckets[operation][bucket]);
    return sum;
}

static void write_histogram(struct page *page, unsigned operation)
{
    static const char *const labels[] = {
#define X(ns, label) label,
        METRICS_BUCKETS(X)
#undef X
            "+Inf",
    };
    const struct metrics *metrics = page->view->metrics;
    const char *metric = "request_duration_seconds";
    uint64_t count = 0, took_ns = 0;
    char text[96];
    for (unsigned bucket = 0; bucket < METRICS_BUCKET_COUNT; bucket++) {
        count += sum_of_bucket(metrics, operation, bucket);
        print(page->out, "kv_storage_%s_bucket{operation=\"%s\",le=\"%s\"} %" PRIu64 "\n", metric,
              operations[operation], labels[bucket], count);
    }
    for (unsigned i = 0; i < METRICS_THREADS_MAX; i++)
        took_ns += kv_counter_get(&metrics->threads[i].took_ns[operation]);
    snprintf(text, sizeof(text), "operation=\"%s\"", operations[operation]);
    sample(page->out, "request_duration_seconds_sum", text, took_ns, 9);
    sample(page->out, "request_duration_seconds_count", text, count, 0);
}

static uint64_t sum_of_requests(const struct metrics *metrics, unsigned method, unsigned status)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < METRICS_THREADS_MAX; i++)
        sum += kv_counter_get(&metrics->threads[i].requests[method][status]);
    return sum;
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
    family(page->out, "requests_total", COUNTER, "Requests by method and status; 0: the client left before an answer.");
    for (unsigned method = 0; method < METRICS_METHOD_COUNT; method++) {
        for (unsigned status = 0; status < METRICS_STATUS_COUNT; status++) {
            char labels[64];
            uint64_t sum = sum_of_requests(page->view->metrics, method, status);
            snprintf(labels, sizeof(labels), "method=\"%s\",status=\"%s\"", methods[method], statuses[status]);
            if (sum > 0)
                sample(page->out, "requests_total", labels, sum, 0);
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
    family(page->out, "transactions_total", COUNTER, "Writes and batches by how they ended for the client.");
    for (enum kv_err err = KV_OK; err < KV_ERR_COUNT; err++) {
        const char *name = outcome_name(err);
        char labels[64];
        uint64_t sum = 0;
        for (unsigned i = 0; i < METRICS_THREADS_MAX; i++)
            sum += kv_counter_get(&page->view->metrics->threads[i].transactions[err]);
        failed += name == NULL ? sum : 0;
        snprintf(labels, sizeof(labels), "outcome=\"%s\"", name == NULL ? "" : name);
        if (name != NULL)
            sample(page->out, "transactions_total", labels, sum, 0);
    }
    sample(page->out, "transactions_total", "outcome=\"failed\"", failed, 0);
}

static void write_counters(struct page *page)
{
#define X(name, metric, help)                                                                                          \
    single(page->out, metric, COUNTER, help, sum_of_counter(page->view->metrics, METRICS_##name));
    METRICS_COUNTERS(X)
#undef X
}

static void write_gauges(struct page *page)
{
    const struct metrics *metrics = page->view->metrics;
    uint64_t sums[METRICS_GAUGE_COUNT] = {0};
    for (unsigned i = 0; i < METRICS_THREADS_MAX; i++)
        for (unsigned gauge = 0; gauge < METRICS_GAUGE_COUNT; gauge++)
            sums[gauge] += kv_counter_get(&metrics->threads[i].gauges[gauge]);
#define X(name, metric, help) single(page->out, metric, GAUGE, help, sums[METRICS_GAUGE_##name]);
    METRICS_GAUGES(X)
#undef X
}

/* ---- the rest ----------------------------------------------------------------------------------------------------- */

static void write_restarts(struct page *page)
{
    const struct kv_counters_page *counters = page->view->page;
    family(page->out, "restarts_total", COUNTER, "How often the supervisor started a process again.");
    sample(page->out, "restarts_total", "process=\"router\",shard=\"\"", kv_counter_get(&counters->router_restarts), 0);
    for (unsigned i = 0; i < page->view->shard_count; i++) {
        char labels[48];
        snprintf(labels, sizeof(labels), "process=\"shard\",shard=\"%u\"", i);
        sample(page->out, "restarts_total", labels, kv_counter_get(&counters->shard_restarts[i]), 0);
    }
}

static void write_build(struct page *page)
{
    const struct metrics_view *view = page->view;
    char labels[160];
    snprintf(labels, sizeof(labels), "version=\"%s\",h2o=\"%d.%d\",openssl=\"%s\",zstd=\"%s\"", KV_VERSION,
             H2O_LIBRARY_VERSION_MAJOR, H2O_LIBRARY_VERSION_MINOR, OpenSSL_version(OPENSSL_VERSION_STRING),
             ZSTD_versionString());
    family(page->out, "build_info", GAUGE, "What is running; always 1.");
    sample(page->out, "build_info", labels, 1, 0);
    single(page->out, "ready", GAUGE, "Whether every shard answers and nothing is in doubt.", view->ready);
    single(page->out, "shards", GAUGE, "Shards of the store.", view->shard_count);
    single(page->out, "router_epoch", GAUGE, "Starts of a router over the life of the store.", view->epoch);
    single(page->out, "start_time_seconds", GAUGE, "When the router started, Unix time.", view->started_s);
}

void metrics_write(const struct metrics_view *view, struct kv_buf *out)
{
    struct page page = {.view = view, .out = out};
    for (unsigned i = 0; i < view->shard_count; i++)
        take_body(&page, i, view->bodies[i]);
    write_totals(&page);
    write_shards(&page);
    write_requests(&page);
    family(out, "request_duration_seconds", HISTOGRAM,
           "From the whole request's arrival until the client had taken the answer.");
    for (unsigned operation = 0; operation < METRICS_OPERATION_COUNT; operation++)
        write_histogram(&page, operation);
    write_transactions(&page);
    write_counters(&page);
    write_gauges(&page);
    write_restarts(&page);
    write_build(&page);
}

uint64_t metrics_layout(void)
{
    static const char names[] =
#define X(name, ...) #name " "
        SHARD_ROWS(X) METRICS_OPERATIONS(X) METRICS_COUNTERS(X) METRICS_GAUGES(X)
#undef X
        ;
    return XXH3_64bits(names, sizeof(names)) ^ sizeof(struct metrics) ^ METRICS_STATUS_COUNT;
}
