/* Goal: no row is in LMDB before its record is in the journal. LMDB's own flush would keep the row, but a journal that ends before what
 * LMDB holds is one that has lost records: empty, it is refused at the next start.
 * Method: shard_rig.h; the journal's writes are held back, in the place of libc's, while LMDB's flushes are counted. */
#include "shard_rig.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "check.h"

enum { SIZE = 50000, TURNS = 200 };

static atomic_bool held;
static atomic_uint writers_held, commits;

static bool is_journal_thread(void)
{
    char name[16] = "";
    pthread_getname_np(pthread_self(), name, sizeof(name));
    return strcmp(name, "kv-journal") == 0;
}

/* Ours take the place of libc's for the whole program. */
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    if (is_journal_thread() && held)
        writers_held++;
    while (is_journal_thread() && held)
        sched_yield();
    return syscall(SYS_pwritev, fd, parts, count, offset, 0);
}

int fdatasync(int fd)
{
    if (!is_journal_thread())
        commits++;
    return (int)syscall(SYS_fdatasync, fd);
}

static void turns_until(struct rig *rig, const atomic_uint *reached, unsigned count)
{
    uint64_t end = kv_clock_ms() + RIG_WAIT_MS_MAX;
    while (*reached < count) {
        cr_assert_lt(kv_clock_ms(), end);
        loop_turn(serve_loop(rig->serve), 1);
    }
}

/* Two in one turn: one alone is written by the loop. */
static void send_two_puts(struct rig *rig)
{
    struct kv_buf buf = {0};
    size_t begin = rig_begin_put(rig, &buf, KV_MSG_APPLY, kv_txn_id(1, 1), kv_shard_bit(0), 1, SIZE, 0);
    kv_frame_end(&buf, begin);
    begin = rig_begin_put(rig, &buf, KV_MSG_APPLY, kv_txn_id(1, 2), kv_shard_bit(0), 2, SIZE, 0);
    rig_send(rig, &buf, begin);
}

Test(serve_order, a_generation_waits_for_its_records)
{
    struct rig *rig = rig_new(1);
    rig->options.recover.core.overlay_bytes_max = 2 * SIZE; /* frozen at half of it: at once */
    rig_open(rig);
    rig_connect(rig, 1);
    unsigned before = commits;
    held = true;
    send_two_puts(rig);
    turns_until(rig, &writers_held, 1);
    for (unsigned i = 0; i < TURNS; i++)
        loop_turn(serve_loop(rig->serve), 1);
    cr_expect_eq(commits, before, "LMDB has what the journal has not");
    held = false;
    cr_expect_eq(rig_vote(rig), KV_OK);
    cr_expect_eq(rig_vote(rig), KV_OK);
    turns_until(rig, &commits, before + 1);
    rig_stop(rig);
    cr_expect_eq(check_stores((const char *[]){rig->db_path}, 1), 0);
    rig_free(rig);
}
