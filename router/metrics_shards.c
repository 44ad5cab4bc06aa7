/* router/metrics_shards.c -- see metrics.h. This file: what the shards say, each for itself and as the contract's totals.
 * A report (shard/counters.h) is looked up by name: rows that are missing are left out, unknown ones passed over, so the two
 * processes may differ by a version for as long as a restart takes. */
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "kv/log.h"
#include "metrics_internal.h"
#include "metrics_process.h"
#include "metrics_text.h"
#include "wire/messages.h"

#define LABEL_BYTES_MAX 96

/* X(name in the report, kind, metric behind kv_storage_, decimals that the number carries, label, help). Rows of one metric
 * stand together, the first has the help; the last three are of every process. */
#define SHARD_ROWS(X)                                                                                                  \
    X(keys, GAUGE, "shard_keys", 0, "", "Keys of the shard.")                                                          \
    X(objects, GAUGE, "shard_objects", 0, "", "Unique contents of the shard.")                                         \
    X(stored_bytes, GAUGE, "shard_stored_bytes", 0, "", "Bytes of unique content on disk, compressed.")                \
    X(puts, COUNTER, "shard_ops_total", 0, ",operation=\"put\"",                                                       \
      "Rows of keys set, read and deleted: a batch sets one once, and reads what it writes.")                          \
    X(gets, COUNTER, "shard_ops_total", 0, ",operation=\"get\"", "")                                                   \
    X(deletes, COUNTER, "shard_ops_total", 0, ",operation=\"delete\"", "")                                             \
    X(dedup_hits, COUNTER, "shard_dedup_hits_total", 0, "", "References added to a content that was there.")           \
    X(commits, COUNTER, "shard_transactions_total", 0, ",outcome=\"committed\"",                                       \
      "Transactions by how they ended here. Many aborted: a shard of theirs refuses votes, its log says why.")         \
    X(aborts, COUNTER, "shard_transactions_total", 0, ",outcome=\"aborted\"", "")                                      \
    X(applies, COUNTER, "shard_transactions_total", 0, ",outcome=\"applied_alone\"", "")                               \
    X(conflicts, COUNTER, "shard_conflicts_total", 0, "",                                                              \
      "Votes refused because a row had changed; the router tries again. Many: clients write the same keys at once.")   \
    X(overlay_rows, GAUGE, "shard_overlay_rows", 0, "", "Rows that wait in memory to be carried into LMDB.")           \
    X(overlay_bytes, GAUGE, "shard_overlay_bytes", 0, "",                                                              \
      "Memory that they take. Near shard_overlay_max_bytes for long: LMDB's disk is too slow for these writes.")       \
    X(overlay_bytes_max, GAUGE, "shard_overlay_max_bytes", 0, "", "OVERLAY_BYTES: beyond it writers wait, then 429.")  \
    X(locks, GAUGE, "shard_locks", 0, "", "Keys locked now by writes under way.")                                      \
    X(lock_waits, GAUGE, "shard_waiting", 0, ",queue=\"locks\"",                                                       \
      "Requests that wait in the shard. locks: for another write of the same key. room: for memory that the applier "  \
      "sets free, see shard_apply_lag_seconds. decision: reads behind a write whose other shard is away.")             \
    X(stalled, GAUGE, "shard_waiting", 0, ",queue=\"room\"", "")                                                       \
    X(parked_reads, GAUGE, "shard_waiting", 0, ",queue=\"decision\"", "")                                              \
    X(intents, GAUGE, "shard_intents", 0, "",                                                                          \
      "Transactions voted for and undecided. For long above 0: another shard or the router is away.")                  \
    X(done, GAUGE, "shard_done", 0, "", "Transactions decided and not yet forgotten.")                                 \
    X(object_id_next, GAUGE, "shard_object_id_next", 0, "", "The next object id.")                                     \
    X(journal_flush_ns_max, GAUGE, "shard_journal_flush_max_seconds", 9, "", "Longest flush since the last scrape.")   \
    X(journal_segments, GAUGE, "shard_journal_segments", 0, "",                                                        \
      "Segment files of the journal. Growing: rows are not applied, see shard_apply_lag_seconds and shard_full.")      \
    X(journal_position, GAUGE, "shard_journal_position", 0, "", "Last record appended.")                               \
    X(journal_durable, GAUGE, "shard_journal_durable_position", 0, "",                                                 \
      "Last record on disk. Behind shard_journal_position for long: the disk hangs.")                                  \
    X(journal_applied, GAUGE, "shard_journal_applied_position", 0, "", "Last record in LMDB.")                         \
    X(journal_replayed, GAUGE, "shard_journal_replayed_records", 0, "", "Records replayed at the last start.")         \
    X(map_bytes, GAUGE, "shard_map_bytes", 0, "", "MAP_SIZE.")                                                         \
    X(map_used_bytes, GAUGE, "shard_map_used_bytes", 0, "",                                                            \
      "Bytes of the map in use. At 95 percent writes get 507: restart with a larger MAP_SIZE.")                        \
    X(map_readers_oldest, GAUGE, "shard_map_oldest_reader_transactions", 0, "",                                        \
      "Transactions that the oldest reader is behind. Growing: pages cannot be used again, the file grows; restart "   \
      "the shard.")                                                                                                    \
    X(disk_bytes, GAUGE, "shard_disk_bytes", 0, "", "Size of the file system that the shard is on.")                   \
    X(disk_free_bytes, GAUGE, "shard_disk_free_bytes", 0, "",                                                          \
      "Bytes of it that the shard may still take. At nothing writes get 507: make room, or delete keys.")              \
    X(sweep_objects, GAUGE, "shard_sweep_objects", 0, "", "Dead contents whose rows wait to be swept.")                \
    X(absent_by_filter, COUNTER, "shard_absent_lookups_total", 0, ",answered_by=\"filter\"",                           \
      "Rows looked up that are not there. filter: known in memory. lmdb: looked for in vain; most of them, once a "    \
      "store has served a while: the filter is being built.")                                                          \
    X(absent_by_lmdb, COUNTER, "shard_absent_lookups_total", 0, ",answered_by=\"lmdb\"", "")                           \
    X(apply_lag_ms, GAUGE, "shard_apply_lag_seconds", 3, "",                                                           \
      "Age of the oldest record that is not in LMDB yet; it is safe in the journal. Minutes: the applier is stuck "    \
      "or its disk too slow, and a restart replays as much.")                                                          \
    X(generation_rows, COUNTER, "shard_apply_rows_total", 0, "", "Rows applied to LMDB.")                              \
    X(generation_ns_max, GAUGE, "shard_apply_max_seconds", 9, "", "Longest apply since the last scrape.")              \
    X(generations_refused, COUNTER, "shard_applies_refused_total", 0, "",                                              \
      "Applies that met a full disk or map: make room.")                                                               \
    X(stage_groups, COUNTER, "shard_stage_groups_total", 0, "", "Transactions of staged content.")                     \
    X(stage_pieces, COUNTER, "shard_stage_pieces_total", 0, "", "Pieces of staged content.")                           \
    X(stage_bytes, COUNTER, "shard_stage_bytes_total", 0, "", "Bytes of staged content.")                              \
    X(stage_ns, COUNTER, "shard_stage_seconds_total", 9, "", "Time spent staging.")                                    \
    X(stage_queue_bytes, GAUGE, "shard_stage_queue_bytes", 0, "", "Bytes of large contents that wait for LMDB.")       \
    X(sweeps, COUNTER, "shard_sweeps_total", 0, "", "Sweeping transactions.")                                          \
    X(sweep_ns, COUNTER, "shard_sweep_seconds_total", 9, "", "Time spent sweeping.")                                   \
    X(sessions, GAUGE, "shard_sessions", 0, "", "Connections of router threads.")                                      \
    X(sessions_paused, GAUGE, "shard_sessions_paused", 0, "",                                                          \
      "Of these, not read from because answers or staged content wait. For long above 0: router or disk is stuck.")    \
    X(session_input_bytes, GAUGE, "shard_session_input_bytes", 0, "", "Bytes of requests read and not yet handled.")   \
    X(session_output_bytes, GAUGE, "shard_session_output_bytes", 0, "",                                                \
      "Bytes of answers that wait for a flush of the journal, or for the router to read them.")                        \
    X(epoch, GAUGE, "shard_epoch", 0, "", "Newest router seen. Not router_epoch: the shard follows another router.")   \
    X(full, GAUGE, "shard_full", 0, "",                                                                                \
      "1 while writes get 507, and for 10 s more: make room on the disk or in MAP_SIZE.")                              \
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

/* X(name in the report, metric, shape, decimals, help) */
#define SHARD_HISTOGRAMS(X)                                                                                            \
    X(journal_group_records, "shard_journal_group_records", kv_histogram_counts, 0,                                    \
      "Records that were made durable together; its count is that of groups, its sum that of records.")                \
    X(journal_group_bytes, "shard_journal_group_bytes", kv_histogram_bytes, 0,                                         \
      "Bytes of such groups in the journal, padding included.")                                                        \
    X(journal_write_ns, "shard_journal_write_seconds", kv_histogram_times, 9,                                          \
      "Time to write a group to the journal, past the page cache: every write waits for it.")                          \
    X(journal_flush_ns, "shard_journal_flush_seconds", kv_histogram_times, 9,                                          \
      "Time of a flush of the journal (fdatasync): every write waits for it. Slow: look at the disk.")                 \
    X(generation_ns, "shard_apply_seconds", kv_histogram_times, 9,                                                     \
      "Time to carry a generation of rows into LMDB, in the background; its count is that of generations.")

enum shard_histogram {
#define X(name, ...) HISTOGRAM_##name,
    SHARD_HISTOGRAMS(X)
#undef X
        HISTOGRAM_COUNT
};

/* Where a number of a report stands in metrics->shard_values: first the rows, then the words of each histogram. */
enum { VALUE_COUNT = (int)ROW_COUNT + (int)HISTOGRAM_COUNT * (int)KV_HISTOGRAM_WORDS };
_Static_assert((int)VALUE_COUNT <= (int)METRICS_SHARD_VALUES, "too many rows");

static const struct row {
    const char *name;
    enum metrics_kind kind;
    const char *metric;
    unsigned decimals;
    const char *label;
    const char *help;
} rows[ROW_COUNT] = {
#define X(name, kind, metric, decimals, label, help) {#name, METRICS_KIND_##kind, metric, decimals, label, help},
    SHARD_ROWS(X)
#undef X
};

static const struct histogram {
    const char *name;
    const char *metric;
    const struct kv_histogram_shape *shape;
    unsigned decimals;
    const char *help;
} histograms[HISTOGRAM_COUNT] = {
#define X(name, metric, shape, decimals, help) {#name, metric, &shape, decimals, help},
    SHARD_HISTOGRAMS(X)
#undef X
};

struct shards {
    const struct metrics_view *view;
    struct kv_buf *out;
    bool up[KV_SHARDS_MAX];
    bool reported[KV_SHARDS_MAX][VALUE_COUNT]; /* in the bodies at hand */
};

uint64_t metrics_shards_layout(void)
{
    static const char names[] =
#define X(name, ...) #name " "
        SHARD_ROWS(X) SHARD_HISTOGRAMS(X)
#undef X
        ;
    return XXH3_64bits(names, sizeof(names));
}

/* ---- reports ------------------------------------------------------------------------------------------------------ */

/* `<name>_<bucket>` or `<name>_sum` */
static unsigned find_in_histogram(unsigned histogram, struct kv_slice name)
{
    char digits[4] = "";
    size_t name_bytes = strlen(histograms[histogram].name) + 1;
    unsigned first = (unsigned)ROW_COUNT + histogram * KV_HISTOGRAM_WORDS;
    struct kv_slice rest = kv_slice(name.data + name_bytes, name.bytes - name_bytes);
    if (kv_slice_equal(rest, kv_slice_text("sum")))
        return first + KV_HISTOGRAM_WORDS - 1;
    if (rest.bytes == 0 || rest.bytes >= sizeof(digits))
        return VALUE_COUNT;
    memcpy(digits, rest.data, rest.bytes);
    char *end;
    unsigned long bucket = strtoul(digits, &end, 10);
    return *end == '\0' && bucket <= histograms[histogram].shape->bound_count ? first + (unsigned)bucket : VALUE_COUNT;
}

/* VALUE_COUNT: nobody knows the name. */
static unsigned find_value(struct kv_slice name)
{
    for (unsigned row = 0; row < ROW_COUNT; row++)
        if (kv_slice_equal(name, kv_slice_text(rows[row].name)))
            return row;
    for (unsigned i = 0; i < HISTOGRAM_COUNT; i++) {
        size_t bytes = strlen(histograms[i].name);
        if (name.bytes > bytes && name.data[bytes] == '_' &&
            kv_slice_starts_with(name, kv_slice_text(histograms[i].name)))
            return find_in_histogram(i, name);
    }
    return VALUE_COUNT;
}

static void take_body(struct shards *shards, unsigned shard_index, struct kv_slice body)
{
    struct kv_list pairs;
    struct kv_slice name;
    uint64_t value;
    if (body.bytes == 0 || kv_get_counters(body, &pairs) != KV_OK)
        return;
    shards->up[shard_index] = true;
    while (kv_next_counter(&pairs, &name, &value)) {
        unsigned at = find_value(name);
        if (at == VALUE_COUNT)
            continue;
        shards->reported[shard_index][at] = true;
        kv_counter_set(&shards->view->metrics->shard_values[shard_index][at], value);
    }
}

static uint64_t shard_value(const struct shards *shards, unsigned shard_index, unsigned at)
{
    return kv_counter_get(&shards->view->metrics->shard_values[shard_index][at]);
}

static uint64_t sum_of_shards(const struct shards *shards, enum shard_row row)
{
    uint64_t sum = 0;
    for (unsigned i = 0; i < shards->view->shard_count; i++)
        sum += shard_value(shards, i, row);
    return sum;
}

/* ---- the contract's totals ---------------------------------------------------------------------------------------- */

static void write_totals(struct shards *shards)
{
    struct kv_buf *out = shards->out;
    metrics_single(out, "keys_total", METRICS_KIND_UNTYPED, "Keys of the store.", sum_of_shards(shards, ROW_keys));
    metrics_single(out, "objects_total", METRICS_KIND_UNTYPED, "Unique contents of the store.",
                   sum_of_shards(shards, ROW_objects));
    metrics_single(out, "bytes_total", METRICS_KIND_UNTYPED, "Bytes of unique content on disk, compressed.",
                   sum_of_shards(shards, ROW_stored_bytes));
    metrics_single(out, "dedup_hits_total", METRICS_KIND_COUNTER,
                   "References added to a content that was in the store already.",
                   sum_of_shards(shards, ROW_dedup_hits));
}

/* ---- each shard --------------------------------------------------------------------------------------------------- */

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
static void write_own_processes(struct shards *shards, enum shard_row row)
{
    struct metrics *metrics = shards->view->metrics;
    struct metrics_process router = metrics_process_own();
    struct metrics_process supervisor = metrics_process_supervisor();
    supervisor.fds = kv_counter_get(&shards->view->page->supervisor_fds);
    router.cpu_us += kv_counter_get(&metrics->cpu_us_before);
    kv_counter_set(&metrics->cpu_us_told, router.cpu_us);
    metrics_sample(shards->out, rows[row].metric, "process=\"router\",shard=\"\"", process_value(&router, row),
                   rows[row].decimals);
    metrics_sample(shards->out, rows[row].metric, "process=\"supervisor\",shard=\"\"", process_value(&supervisor, row),
                   rows[row].decimals);
}

/* A counter is shown as it was reported last; a gauge only of a shard that answered. */
static bool is_shown(const struct shards *shards, unsigned shard_index, unsigned at, bool is_counter)
{
    return shards->reported[shard_index][at] || (is_counter && !shards->up[shard_index]);
}

static void write_row(struct shards *shards, enum shard_row row)
{
    const struct row *at = &rows[row];
    for (unsigned i = 0; i < shards->view->shard_count; i++) {
        char labels[LABEL_BYTES_MAX];
        if (!is_shown(shards, i, row, at->kind == METRICS_KIND_COUNTER))
            continue;
        snprintf(labels, sizeof(labels), "%sshard=\"%u\"%s", is_of_processes(row) ? "process=\"shard\"," : "", i,
                 at->label);
        metrics_sample(shards->out, at->metric, labels, shard_value(shards, i, row), at->decimals);
    }
}

static void write_histogram(struct shards *shards, unsigned histogram)
{
    const struct histogram *at = &histograms[histogram];
    unsigned first = (unsigned)ROW_COUNT + histogram * KV_HISTOGRAM_WORDS;
    metrics_family(shards->out, at->metric, METRICS_KIND_HISTOGRAM, at->help);
    for (unsigned i = 0; i < shards->view->shard_count; i++) {
        struct kv_histogram values;
        char labels[LABEL_BYTES_MAX];
        if (!is_shown(shards, i, first, true))
            continue;
        for (unsigned bucket = 0; bucket <= KV_HISTOGRAM_BOUNDS_MAX; bucket++)
            values.buckets[bucket] = shard_value(shards, i, first + bucket);
        values.sum = shard_value(shards, i, first + KV_HISTOGRAM_WORDS - 1);
        snprintf(labels, sizeof(labels), "shard=\"%u\"", i);
        metrics_histogram(shards->out, at->metric, labels, at->shape, at->decimals, &values);
    }
}

static void write_up(struct shards *shards)
{
    metrics_family(shards->out, "shard_up", METRICS_KIND_GAUGE,
                   "Whether the shard answered just now. 0: its log and restarts_total say why; its keys get 503.");
    for (unsigned i = 0; i < shards->view->shard_count; i++) {
        char labels[LABEL_BYTES_MAX];
        snprintf(labels, sizeof(labels), "shard=\"%u\"", i);
        metrics_sample(shards->out, "shard_up", labels, shards->up[i], 0);
    }
}

void metrics_write_shards(const struct metrics_view *view, struct kv_buf *out)
{
    struct shards shards = {.view = view, .out = out};
    for (unsigned i = 0; i < view->shard_count; i++)
        take_body(&shards, i, view->bodies[i]);
    write_totals(&shards);
    write_up(&shards);
    for (enum shard_row row = 0; row < ROW_COUNT; row++) {
        if (*rows[row].help != '\0')
            metrics_family(out, rows[row].metric, rows[row].kind, rows[row].help);
        if (is_of_processes(row))
            write_own_processes(&shards, row);
        write_row(&shards, row);
    }
    for (unsigned i = 0; i < HISTOGRAM_COUNT; i++)
        write_histogram(&shards, i);
}
