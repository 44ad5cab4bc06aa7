/* shard/counters.h -- every number a shard reports, in two tables: the body of KV_MSG_COUNTERS, what /metrics is made of.
 * Does:     reads the process's own numbers, writes the tables. A COUNTER and a histogram only grow, also over a restart (the
 *           words of kv/counters_page.h carry them); a GAUGE is what is now; a PEAK is the largest since it was last asked.
 *           A histogram is reported as `<name>_0` and so on, its buckets, and `<name>_sum`.
 * Tests:    unit/shard/test_counters.c, unit/shard/test_serve.c. */
#ifndef KV_SHARD_COUNTERS_H
#define KV_SHARD_COUNTERS_H

#include "applier.h"
#include "core.h"
#include "journal.h"
#include "kv/counters_page.h"
#include "sessions.h"
#include "store.h"

struct counters {
    struct core_stats core;
    struct journal_stats journal;
    struct store_usage store;
    struct applier_stats applier;
    uint64_t journal_position, journal_durable, journal_applied, replayed_records;
    uint64_t disk_bytes, disk_free_bytes; /* of the file system that the shard is on; 0: not known */
    struct sessions_load load;
    uint64_t apply_lag_ms, overlay_bytes_max;
    uint64_t sessions, epoch, full, uptime_ms;
    uint64_t cpu_us, rss_bytes, fds; /* counters_read_process */
};

#define COUNTERS_TABLE(X) /* name  kind  member of struct counters  help */                                            \
    X(keys, GAUGE, core.keys, "keys")                                                                                  \
    X(objects, GAUGE, core.objects, "unique contents")                                                                 \
    X(stored_bytes, GAUGE, core.stored_bytes, "bytes of unique content on disk, compressed")                           \
    X(puts, COUNTER, core.puts, "key rows set")                                                                        \
    X(gets, COUNTER, core.gets, "keys read")                                                                           \
    X(deletes, COUNTER, core.deletes, "key rows deleted")                                                              \
    X(dedup_hits, COUNTER, core.dedup_hits, "references added to a content that was here")                             \
    X(commits, COUNTER, core.commits, "transactions committed after a vote")                                           \
    X(aborts, COUNTER, core.aborts, "transactions aborted after a vote")                                               \
    X(applies, COUNTER, core.applies, "transactions of this shard alone")                                              \
    X(conflicts, COUNTER, core.conflicts, "votes refused because a row had changed")                                   \
    X(overlay_rows, GAUGE, core.overlay_rows, "rows that wait in memory")                                              \
    X(overlay_bytes, GAUGE, core.overlay_bytes, "memory they take")                                                    \
    X(overlay_bytes_max, GAUGE, overlay_bytes_max, "OVERLAY_BYTES")                                                    \
    X(locks, GAUGE, core.locks, "keys locked")                                                                         \
    X(lock_waits, GAUGE, core.lock_waits, "lock requests that wait")                                                   \
    X(intents, GAUGE, core.intents, "transactions voted for and undecided")                                            \
    X(done, GAUGE, core.done, "transactions decided and not yet forgotten")                                            \
    X(stalled, GAUGE, core.stalled, "writes that wait for room in memory")                                             \
    X(parked_reads, GAUGE, core.parked_reads, "reads that wait for a decision")                                        \
    X(object_id_next, GAUGE, core.object_id_next, "next object id")                                                    \
    X(journal_flush_ns_max, PEAK, journal.flush_ns_max, "longest flush")                                               \
    X(journal_segments, GAUGE, journal.segments, "segment files of the journal")                                       \
    X(journal_position, GAUGE, journal_position, "last record appended")                                               \
    X(journal_durable, GAUGE, journal_durable, "last record on disk")                                                  \
    X(journal_applied, GAUGE, journal_applied, "last record in LMDB")                                                  \
    X(journal_replayed, GAUGE, replayed_records, "records replayed at start")                                          \
    X(map_bytes, GAUGE, store.map_bytes, "MAP_SIZE")                                                                   \
    X(map_used_bytes, GAUGE, store.used_bytes, "bytes of it in use")                                                   \
    X(map_readers_oldest, GAUGE, store.readers_oldest, "transactions that the oldest reader is behind")                \
    X(disk_bytes, GAUGE, disk_bytes, "size of the file system")                                                        \
    X(disk_free_bytes, GAUGE, disk_free_bytes, "bytes of it that the shard may still take")                            \
    X(sweep_objects, GAUGE, store.sweep_objects, "dead contents whose rows wait to be swept")                          \
    X(absent_by_filter, COUNTER, store.absent_by_filter, "rows that are not there, as the filter said")                \
    X(absent_by_lmdb, COUNTER, store.absent_by_lmdb, "rows that are not there, as LMDB had to say")                    \
    X(apply_lag_ms, GAUGE, apply_lag_ms, "age of the oldest record not in LMDB")                                       \
    X(generation_rows, COUNTER, applier.generation_rows, "rows applied")                                               \
    X(generation_ns_max, PEAK, applier.generation_ns_max, "longest apply")                                             \
    X(generations_refused, COUNTER, applier.generations_refused, "applies that met a full disk or map")                \
    X(stage_groups, COUNTER, applier.stage_groups, "transactions of staged content")                                   \
    X(stage_pieces, COUNTER, applier.stage_pieces, "pieces of staged content")                                         \
    X(stage_bytes, COUNTER, applier.stage_bytes, "bytes of staged content")                                            \
    X(stage_ns, COUNTER, applier.stage_ns, "nanoseconds spent staging")                                                \
    X(stage_queue_bytes, GAUGE, applier.stage_queue_bytes, "bytes of pieces that wait")                                \
    X(sweeps, COUNTER, applier.sweeps, "sweeping transactions")                                                        \
    X(sweep_ns, COUNTER, applier.sweep_ns, "nanoseconds spent sweeping")                                               \
    X(sessions, GAUGE, sessions, "connections of router threads")                                                      \
    X(sessions_paused, GAUGE, load.paused, "of these, not read from until they take their answers")                    \
    X(session_input_bytes, GAUGE, load.input_bytes, "bytes of requests read and not yet handled")                      \
    X(session_output_bytes, GAUGE, load.output_bytes, "bytes of answers that wait for a flush or their reader")        \
    X(epoch, GAUGE, epoch, "newest router seen")                                                                       \
    X(full, GAUGE, full, "1 while writes are refused for want of space")                                               \
    X(uptime_ms, GAUGE, uptime_ms, "milliseconds since start")                                                         \
    X(process_cpu_us, COUNTER, cpu_us, "CPU microseconds, user and system")                                            \
    X(process_rss_bytes, GAUGE, rss_bytes, "resident memory")                                                          \
    X(process_fds, GAUGE, fds, "open descriptors")

#define COUNTERS_HISTOGRAMS(X) /* name  member of struct counters  shape */                                            \
    X(journal_group_records, journal.group_records, kv_histogram_counts)                                               \
    X(journal_group_bytes, journal.group_bytes, kv_histogram_bytes)                                                    \
    X(journal_write_ns, journal.write_ns, kv_histogram_times)                                                          \
    X(journal_flush_ns, journal.flush_ns, kv_histogram_times)                                                          \
    X(generation_ns, applier.generation_ns, kv_histogram_times)

enum {
#define X(...) +1
    COUNTERS_COUNT = COUNTERS_TABLE(X),
    COUNTERS_HISTOGRAM_COUNT = COUNTERS_HISTOGRAMS(X),
#undef X
    COUNTERS_CARRIED = COUNTERS_COUNT + COUNTERS_HISTOGRAM_COUNT * KV_HISTOGRAM_WORDS,
};

/* Fills in cpu_us, rss_bytes and fds; 0 what the system does not tell. */
void counters_read_process(struct counters *counters);
/* What the processes before this one had counted: one shard's words of kv/counters_page.h. */
struct counters_carry {
    kv_counter *words;                 /* NULL: nothing is carried */
    uint64_t before[COUNTERS_CARRIED]; /* gauges as zeros, then the histograms */
};

/* Takes over what the words hold, unless a process with another table wrote them. */
struct counters_carry counters_carry_open(kv_counter *words);
/* Adds what was counted before to every COUNTER, and leaves the sums for the next process. Whatever was told to anybody was
 * left first, so a counter never goes back; what is counted between the last call and a crash is lost. */
void counters_carry(const struct counters_carry *carry, struct counters *counters);
/* Appends the body of KV_MSG_COUNTERS. */
void counters_put(const struct counters *counters, struct kv_buf *buf);

#endif
