/* Goal: a shard that died while it put a generation into LMDB by pieces is whole again with its next start; until then its files count as
 * whole, and where no room is left for the rest, or for what the journal has, it serves all.
 * Method: shard_rig.h; a child replays the journal and ends at the n-th flush of store_apply, which a small bound makes apply in many
 * pieces. Then the real start. */
#include "shard_rig.h"

#include <criterion/parameterized.h>
#include <sys/syscall.h>

#include "check.h"
#include "recover.h"

#define APPLIED 300u
#define PUTS 600u /* the rest is in the journal only */
#define LARGE_BYTES 500000u
#define KILLED 77
#define BOUND_BYTES (16u * 4096)
#define FIRST_PIECE 4u /* the flush behind it: redo, its name, the piece */

static unsigned flushes_left; /* 0: any number */

static void count_flush(void)
{
    if (flushes_left > 0 && --flushes_left == 0)
        _exit(KILLED);
}

int fdatasync(int fd)
{
    count_flush();
    return (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd)
{
    count_flush();
    return (int)syscall(SYS_fsync, fd);
}

static uint64_t txn(uint64_t sequence)
{
    return kv_txn_id(1, sequence);
}

static size_t size_of(uint64_t number)
{
    return number == PUTS ? LARGE_BYTES : number % 3 == 0 ? 1000 : 100;
}

static void put(struct rig *rig, uint64_t number)
{
    uint64_t object_id = number == PUTS ? rig_stage(rig, number, LARGE_BYTES) : 0;
    rig_send_put(rig, KV_MSG_APPLY, txn(number), kv_shard_bit(0), number, size_of(number), object_id);
    cr_assert_eq(rig_vote(rig), KV_OK);
}

static void failed(void *ctx, enum kv_err err, const char *what)
{
    (void)ctx;
    cr_assert_fail("%s: %s", what, kv_err_text(err));
}

/* Replays what the last life left, and applies it up to flush `at`. */
static void apply_and_die(struct rig *rig, unsigned at)
{
    struct recovered on = {0};
    struct core_world world = {.ctx = &on, .failed = failed};
    char why[256] = "";
    recovered_world(&world);
    cr_assert_eq(recover(&rig->options.recover, &world, why, sizeof(why), &on), KV_OK, "%s", why);
    journal_close(&on.journal);
    struct core_generation *generation = core_freeze(on.core);
    recovered_read_end(&on);
    store_bound(on.store, BOUND_BYTES);
    flushes_left = at;
    enum kv_err err = store_apply(on.store, generation->rows, &generation->meta, NULL, 0, 0);
    _exit(err == KV_OK ? 0 : 1);
}

/* The second half of all puts is in the journal only. */
static struct rig *rig_with_journal(void)
{
    struct rig *rig = rig_new(1);
    for (uint64_t number = 1, life = 1; life <= 2; life++) {
        rig_open(rig);
        rig_connect(rig, life);
        for (; number <= life * APPLIED; number++)
            put(rig, number);
        if (life == 1)
            rig_stop(rig);
        else
            rig_drop(rig);
    }
    return rig;
}

static struct rig *rig_with_half(unsigned at)
{
    struct rig *rig = rig_with_journal();
    int status = 0;
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0)
        apply_and_die(rig, at);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == KILLED, "%x", status);
    return rig;
}

/* A content that was counted twice would have two references. */
static void expect_all(struct rig *rig)
{
    cr_expect_eq(rig_counter(rig, "keys"), PUTS);
    cr_expect_eq(rig_counter(rig, "objects"), PUTS);
    for (uint64_t number = 1; number < PUTS; number++) {
        cr_expect(rig_has(rig, number, size_of(number)), "%lu", number);
        cr_expect_eq(rig_read(rig, number, 0).object.refs, 1u, "%lu", number);
    }
    struct kv_object large = rig_look(rig, PUTS, 1000, -1).object;
    cr_expect(large.stored_bytes == LARGE_BYTES && large.held && large.bytes.bytes == 1000);
}

static void expect_check(struct rig *rig)
{
    const char *paths[] = {rig->db_path};
    cr_expect_eq(check_stores(paths, 1), 0);
}

/* Of a life that serves all, with room or without: its applier finds that out by and by. */
static void expect_end(struct rig *rig, bool full)
{
    uint64_t end = kv_clock_ms() + RIG_WAIT_MS_MAX;
    expect_all(rig);
    while (rig_counter(rig, "full") != full && kv_clock_ms() < end)
        continue;
    cr_expect_eq(rig_counter(rig, "full"), full ? 1u : 0u);
    rig_stop(rig);
    expect_check(rig);
}

TestSuite(recover, .timeout = 600);

ParameterizedTestParameters(recover, a_start_finishes_what_is_half_applied)
{
    static unsigned ends[] = {1, 2, 3, FIRST_PIECE, 5, 12, 30};
    return cr_make_param_array(unsigned, ends, sizeof ends / sizeof *ends);
}

ParameterizedTest(unsigned *at, recover, a_start_finishes_what_is_half_applied)
{
    struct rig *rig = rig_with_half(*at);
    expect_check(rig);
    rig_open(rig);
    rig_connect(rig, 3);
    cr_expect_eq(rig_counter(rig, "journal_replayed"), *at < FIRST_PIECE ? PUTS - APPLIED : 0u);
    expect_all(rig);
    rig_stop(rig);
    expect_check(rig);
    rig_free(rig);
}

/* The map takes not one page more: the rest stays in memory and in `redo`. */
Test(recover, without_room_for_the_rest_it_serves_all)
{
    struct rig *rig = rig_with_half(FIRST_PIECE);
    char path[96];
    struct stat status;
    rig->options.recover.map_bytes = 1;
    for (uint64_t life = 3; life <= 4; life++) {
        rig_open(rig);
        rig_connect(rig, life);
        expect_end(rig, true);
    }
    snprintf(path, sizeof(path), "%s/redo", rig->path);
    cr_expect_eq(stat(path, &status), 0);
    rig->options.recover.map_bytes = KV_GIB;
    rig_open(rig);
    rig_connect(rig, 5);
    expect_end(rig, false);
    cr_expect_neq(stat(path, &status), 0);
    rig_free(rig);
}

/* The journal has more than fits into one generation, and the first one finds no room. */
Test(recover, without_room_for_what_is_replayed_it_serves_all)
{
    struct rig *rig = rig_with_journal();
    rig->options.recover.core.overlay_bytes_max = 64 << 10;
    rig->options.recover.map_bytes = 1;
    for (uint64_t life = 3; life <= 4; life++) {
        rig_open(rig);
        rig_connect(rig, life);
        cr_expect_eq(rig_counter(rig, "journal_replayed"), PUTS - APPLIED);
        expect_end(rig, true);
    }
    rig->options.recover.map_bytes = KV_GIB;
    rig_open(rig);
    rig_connect(rig, 5);
    expect_end(rig, false);
    rig_free(rig);
}

static void expect_refused(struct rig *rig, const char *commands, const char *words)
{
    char command[256], why[256] = "";
    const char *paths[] = {rig->db_path};
    snprintf(command, sizeof(command), "cd %s && %s", rig->path, commands);
    cr_assert_eq(system(command), 0);
    cr_expect_eq(check_stores(paths, 1), 1);
    cr_expect_eq(serve_open(&rig->options, why, sizeof(why), &rig->serve), KV_CORRUPT);
    cr_expect_not_null(strstr(why, words), "%s", why);
}

Test(recover, a_redo_that_is_missing_or_damaged_is_refused)
{
    struct rig *rig = rig_with_half(FIRST_PIECE);
    expect_refused(rig, "cp redo whole && printf x | dd of=redo bs=1 seek=5000 conv=notrunc status=none", "damaged");
    expect_refused(rig, "head -c 3000 whole >redo", "damaged");
    expect_refused(rig, "rm redo", "missing");
    char command[256];
    snprintf(command, sizeof(command), "mv %s/whole %s/redo", rig->path, rig->path);
    cr_assert_eq(system(command), 0);
    rig_open(rig);
    rig_connect(rig, 3);
    expect_all(rig);
    rig_free(rig);
}
