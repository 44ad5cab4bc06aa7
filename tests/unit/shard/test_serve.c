/* Goal: a shard keeps what it acknowledged, through crashes and orderly stops, and gives it back byte for byte.
 * Method: shard_rig.h; a crash is a child process that leaves with _exit the moment it has its answer, or the shard dropped
 * without a stop. store_check walks the files at the end of each life. Three threads work here: worth a run under tsan. */
#include "shard_rig.h"

#include "check.h"
#include "counters.h"

static uint64_t txn(uint64_t sequence)
{
    return kv_txn_id(1, sequence);
}

/* As shard/counters.h names the buckets of a histogram. */
static const char *numbered(const char *name, unsigned bucket)
{
    static char text[64];
    snprintf(text, sizeof(text), "%s_%u", name, bucket);
    return text;
}

static void expect_whole(struct rig *rig)
{
    const char *paths[] = {rig->db_path};
    cr_expect_eq(check_stores(paths, 1), 0);
}

Test(serve, a_transaction_by_hand)
{
    struct rig *rig = rig_new(1);
    struct kv_buf buf = {0};
    struct kv_list rows;
    struct kv_row row;
    enum kv_err err;
    bool present = true;
    rig_open(rig);
    rig_connect(rig, 1);
    size_t begin = rig_begin(rig, &buf, KV_MSG_LOCK);
    kv_put_lock_begin(&buf, txn(1), 1);
    kv_put_key(&buf, kv_slice_text("key-00000007"));
    rig_send(rig, &buf, begin);
    cr_assert_eq(kv_get_locked(rig_answer(rig, KV_MSG_LOCKED).body, &err, &rows), KV_OK);
    cr_expect_eq(err, KV_OK);
    cr_expect(kv_next_row(&rows, &present, &row));
    cr_expect_not(present);
    cr_expect_eq(rig_put(rig, txn(1), 7, 1000), KV_OK);
    cr_expect(rig_has(rig, 7, 1000));
    cr_expect_eq(rig_read(rig, 8, 0).err, KV_NOT_FOUND);
    cr_expect_eq(rig_put(rig, txn(2), 7, 1000), KV_CONFLICT, "it expects the key to be absent");
    rig_stop(rig);
    expect_whole(rig);
    rig_free(rig);
}

/* Runs `life` in a child that ends without any clean-up. */
static void live_and_crash(struct rig *rig, void (*life)(struct rig *rig))
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        rig_open(rig);
        rig_connect(rig, 1);
        life(rig);
        _exit(0);
    }
    int status = 0;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0, "the first life failed");
}

static void life_of_puts(struct rig *rig)
{
    for (uint64_t i = 1; i <= 50; i++)
        if (rig_put(rig, txn(i), i, 100 * (size_t)i) != KV_OK)
            _exit(1);
}

Test(serve, what_was_acknowledged_survives_a_crash)
{
    struct rig *rig = rig_new(1);
    live_and_crash(rig, life_of_puts);
    rig_open(rig);
    rig_connect(rig, 2);
    cr_expect_gt(rig_counter(rig, "journal_replayed"), 0u);
    for (uint64_t i = 1; i <= 50; i++)
        cr_expect(rig_has(rig, i, 100 * (size_t)i), "key %u is gone", (unsigned)i);
    cr_expect_eq(rig_counter(rig, "keys"), 50u);
    cr_expect_eq(rig_put(rig, txn(51), 51, 10), KV_OK);
    rig_stop(rig);
    expect_whole(rig);

    rig_open(rig);
    rig_connect(rig, 3);
    cr_expect_eq(rig_counter(rig, "journal_replayed"), 0u, "an orderly stop leaves nothing to replay");
    cr_expect(rig_has(rig, 51, 10));
    cr_expect_eq(rig_counter(rig, "objects"), 51u);
    rig_free(rig);
}

static void life_of_a_vote(struct rig *rig)
{
    rig_send_put(rig, KV_MSG_PREPARE, txn(1), kv_shard_bit(0) | kv_shard_bit(1), 1, 100, 0);
    if (rig_vote(rig) != KV_OK)
        _exit(1);
}

Test(serve, a_vote_survives_a_crash_and_is_reported_to_the_next_router)
{
    struct rig *rig = rig_new(2);
    struct kv_buf buf = {0};
    struct kv_list intents, done;
    uint64_t txn_id = 0;
    kv_shard_set participants = 0;
    live_and_crash(rig, life_of_a_vote);
    rig_open(rig);
    rig_connect(rig, 2);
    size_t begin = rig_begin(rig, &buf, KV_MSG_RECOVER);
    kv_put_empty(&buf);
    rig_send(rig, &buf, begin);
    cr_assert_eq(kv_get_report(rig_answer(rig, KV_MSG_REPORT).body, &intents, &done), KV_OK);
    cr_assert(kv_next_report_intent(&intents, &txn_id, &participants));
    cr_expect_eq(txn_id, txn(1));
    cr_expect_eq(participants, 3u);
    cr_expect_eq(done.count, 0u);
    rig_ask_id(rig, KV_MSG_COMMIT, txn(1));
    cr_expect_eq(rig_done(rig), KV_OK);
    cr_expect_eq(rig_read(rig, 1, 0).err, KV_OK);
    rig_drop(rig);

    rig_open(rig); /* DONE was durable: the commit is there without being asked for again */
    rig_connect(rig, 3);
    cr_expect_eq(rig_read(rig, 1, 0).err, KV_OK);
    cr_expect_eq(rig_counter(rig, "intents"), 0u);
    rig_free(rig);
}

Test(serve, a_lazy_answer_does_not_hold_back_the_reads_behind_it)
{
    struct rig *rig = rig_new(2);
    rig_open(rig);
    rig_connect(rig, 1);
    rig_send_put(rig, KV_MSG_PREPARE, txn(1), 3, 1, 100, 0);
    cr_expect_eq(rig_vote(rig), KV_OK);
    rig_ask_id(rig, KV_MSG_COMMIT, txn(1));
    cr_expect_eq(rig_read(rig, 1, 0).err, KV_OK, "ROW overtakes DONE, which waits for the lazy flush");
    cr_expect_eq(rig_done(rig), KV_OK);
    rig_free(rig);
}

Test(serve, large_content_goes_through_staging)
{
    struct rig *rig = rig_new(1);
    size_t size = 5 * 1024 * 1024 + 17;
    struct kv_buf buf = {0}, content = {0};
    struct kv_msg_piece piece;
    rig_open(rig);
    rig_connect(rig, 1);
    uint64_t object_id = rig_stage(rig, 9, size);
    rig_send_put(rig, KV_MSG_APPLY, txn(1), 1, 9, size, object_id);
    cr_expect_eq(rig_vote(rig), KV_OK);
    rig_stop(rig);

    rig_open(rig);
    rig_connect(rig, 1);
    struct kv_msg_row row = rig_read(rig, 9, 1000);
    cr_assert(row.err == KV_OK && row.has_object);
    cr_expect_eq(row.object.stored_bytes, size);
    cr_expect_eq(row.object.object_id, object_id);
    cr_expect(!row.object.held && row.object.bytes.bytes == 0, "who wants them asks for them");
    cr_assert(rig_look(rig, 9, 1000, -1).object.held);
    for (uint64_t offset = 0; offset < size; offset += KV_PIECE_BYTES_MAX) {
        size_t begin = rig_begin(rig, &buf, KV_MSG_FETCH);
        uint64_t bytes = size - offset < KV_PIECE_BYTES_MAX ? size - offset : KV_PIECE_BYTES_MAX;
        kv_put_fetch(&buf, &(struct kv_msg_fetch){.object_id = object_id, .offset = offset, .bytes_max = bytes});
        rig_send(rig, &buf, begin);
        cr_assert_eq(kv_get_piece(rig_answer(rig, KV_MSG_PIECE).body, &piece), KV_OK);
        cr_assert_eq(piece.err, KV_OK);
        kv_buf_append(&content, piece.bytes);
    }
    cr_assert_eq(content.bytes, size);
    for (size_t i = 0; i < size; i++)
        cr_assert_eq(content.data[i], 9);
    kv_buf_free(&content);
    rig_stop(rig);
    expect_whole(rig);
    rig_free(rig);
}

static void life_of_an_upload(struct rig *rig)
{
    if (rig_stage(rig, 9, 1024 * 1024) != 1)
        _exit(1);
}

/* The first life gave the upload up, and a crash came before the sweep of its rows and before any apply noted its id. */
static void give_up(struct rig *rig, uint64_t object_id)
{
    char why[256];
    struct store *store = NULL;
    cr_assert_eq(store_open(rig->path, KV_GIB, false, &rig->identity, why, sizeof(why), &store), KV_OK);
    cr_assert_eq(store_unstage(store, &object_id, 1), KV_OK);
    store_close(&store);
}

Test(serve, the_id_of_a_broken_upload_is_not_used_again_while_its_rows_are_swept)
{
    struct rig *rig = rig_new(1);
    live_and_crash(rig, life_of_an_upload);
    give_up(rig, 1);
    rig_open(rig);
    rig_connect(rig, 2);
    uint64_t object_id = rig_stage(rig, 10, 300000);
    cr_expect_gt(object_id, 1u);
    rig_send_put(rig, KV_MSG_APPLY, txn(1), 1, 10, 300000, object_id);
    cr_expect_eq(rig_vote(rig), KV_OK);
    rig_stop(rig);
    rig_open(rig);
    rig_connect(rig, 3);
    cr_expect(rig_has(rig, 10, 300000));
    rig_stop(rig);
    expect_whole(rig);
    rig_free(rig);
}

Test(serve, a_small_overlay_is_applied_again_and_again)
{
    enum { PUTS = 3000 };
    struct rig *rig = rig_new(1);
    rig->options.recover.core.overlay_bytes_max = KV_MIB;
    rig_open(rig);
    rig_connect(rig, 1);
    for (uint64_t i = 1; i <= PUTS; i++) { /* 64 at a time, as a router would */
        rig_send_put(rig, KV_MSG_APPLY, txn(i), 1, i, 1000, 0);
        enum kv_err err = i > 64 ? rig_vote(rig) : KV_OK;
        cr_assert_eq(err, KV_OK, "vote %lu: %s", i - 64, kv_err_text(err));
    }
    for (int i = 0; i < 64; i++)
        cr_assert_eq(rig_vote(rig), KV_OK);
    uint64_t generations = 0;
    for (unsigned bucket = 0; bucket <= kv_histogram_times.bound_count; bucket++)
        generations += rig_counter(rig, numbered("generation_ns", bucket));
    cr_expect_gt(generations, 3u);
    cr_expect_leq(rig_counter(rig, "overlay_bytes"), 2u * KV_MIB);
    for (uint64_t i = 1; i <= PUTS; i += 37)
        cr_expect(rig_has(rig, i, 1000));
    rig_drop(rig);
    expect_whole(rig);

    rig_open(rig); /* replays with the same small overlay */
    rig_connect(rig, 2);
    cr_expect_eq(rig_counter(rig, "keys"), PUTS);
    for (uint64_t i = 1; i <= PUTS; i += 37)
        cr_expect(rig_has(rig, i, 1000));
    rig_stop(rig);
    expect_whole(rig);
    rig_free(rig);
}

Test(serve, a_full_map_refuses_writes_and_goes_on_reading)
{
    struct rig *rig = rig_new(1);
    uint64_t stored = 0;
    rig->options.recover.map_bytes = 16 * KV_MIB;
    rig->options.recover.core.overlay_bytes_max = KV_MIB;
    rig->options.shard_wait_ms = 1000;
    rig_open(rig);
    rig_connect(rig, 1);
    enum kv_err err = KV_OK;
    while (stored < 1000 && (err = rig_put(rig, txn(stored + 1), stored + 1, 40000)) == KV_OK)
        stored++;
    cr_expect_eq(err, KV_NO_SPACE);
    cr_expect_eq(rig_counter(rig, "full"), 1u, "the operator is told, however early the refusal comes");
    cr_expect_gt(stored, 20u);
    cr_expect_lt(stored, 400u);
    for (uint64_t i = 1; i <= stored; i++)
        cr_expect(rig_has(rig, i, 40000));
    rig_stop(rig);
    expect_whole(rig);
    rig_open(rig);
    rig_connect(rig, 2);
    cr_expect_eq(rig_counter(rig, "keys"), stored);
    rig_free(rig);
}

Test(serve, idle_rows_are_applied_and_the_journal_let_go)
{
    struct rig *rig = rig_new(1);
    rig_open(rig);
    rig_connect(rig, 1);
    cr_expect_eq(rig_put(rig, txn(1), 1, 100), KV_OK);
    uint64_t end = kv_clock_ms() + RIG_WAIT_MS_MAX;
    while (rig_counter(rig, "overlay_rows") > 0 && kv_clock_ms() < end)
        loop_turn(serve_loop(rig->serve), 20);
    cr_expect_eq(rig_counter(rig, "overlay_rows"), 0u);
    rig_drop(rig);
    rig_open(rig);
    rig_connect(rig, 2);
    cr_expect_eq(rig_counter(rig, "journal_replayed"), 0u);
    rig_free(rig);
}

Test(serve, counters_name_every_row_of_the_table_once)
{
    struct rig *rig = rig_new(1);
    rig_open(rig);
    rig_connect(rig, 4);
    cr_expect_eq(rig_put(rig, txn(1), 1, 100), KV_OK);
#define X(name, kind, member, help) rig_counter(rig, #name);
    COUNTERS_TABLE(X)
#undef X
#define X(name, member, shape)                                                                                         \
    for (unsigned i = 0; i <= shape.bound_count; i++)                                                                  \
        rig_counter(rig, numbered(#name, i));                                                                          \
    rig_counter(rig, #name "_sum");
    COUNTERS_HISTOGRAMS(X)
#undef X
    cr_expect_eq(rig_counter(rig, "keys"), 1u);
    cr_expect_eq(rig_counter(rig, "puts"), 1u);
    cr_expect_eq(rig_counter(rig, "applies"), 1u);
    cr_expect_eq(rig_counter(rig, "sessions"), 1u);
    cr_expect_eq(rig_counter(rig, "epoch"), 4u);
    cr_expect_geq(rig_counter(rig, "journal_durable"), 1u);
    cr_expect_gt(rig_counter(rig, "process_rss_bytes"), 1000000u);
    cr_expect_gt(rig_counter(rig, "process_fds"), 5u);
    cr_expect_geq(rig_counter(rig, "journal_group_records_sum"), 1u);
    cr_expect_geq(rig_counter(rig, "journal_group_bytes_sum"), 4096u);
    cr_expect_gt(rig_counter(rig, "journal_write_ns_sum"), 0u);
    rig_free(rig);
}

Test(serve, the_age_of_what_is_not_applied)
{
    struct rig *rig = rig_new(1);
    uint64_t lag_ms = 0, end = kv_clock_ms() + RIG_WAIT_MS_MAX;
    rig_open(rig);
    rig_connect(rig, 4);
    for (uint64_t i = 1; lag_ms == 0 && kv_clock_ms() < end; i++) {
        cr_expect_eq(rig_put(rig, txn(i), i, 100), KV_OK); /* so it is never idle for long */
        lag_ms = rig_counter(rig, "apply_lag_ms");
    }
    cr_expect(lag_ms > 0 && lag_ms <= RIG_WAIT_MS_MAX, "%lu", lag_ms);
    while (rig_counter(rig, "overlay_rows") > 0 && kv_clock_ms() < end)
        continue;
    cr_expect_eq(rig_counter(rig, "apply_lag_ms"), 0u);
    cr_expect_eq(rig_counter(rig, "journal_applied"), rig_counter(rig, "journal_position"));
    rig_free(rig);
}

Test(serve, files_of_another_shard_are_refused_in_one_sentence)
{
    struct rig *rig = rig_new(4);
    char why[256] = "";
    rig_open(rig);
    rig_stop(rig);
    rig->identity.shard_count = 3;
    cr_expect_eq(serve_open(&rig->options, why, sizeof(why), &rig->serve), KV_INVALID);
    cr_expect_null(rig->serve);
    cr_expect_not_null(strchr(why, '4'), "%s", why);
    rig->identity.shard_count = 4;
    rig_open(rig);
    rig_free(rig);
}
