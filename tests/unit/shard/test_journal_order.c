/* Goal: a power cut finds no name without its bytes and no acknowledged record without its name: nothing that the journal
 * relies on is left to the page cache. Method: the system calls that change files or make them durable are noted per inode; the
 * order is asserted at each rename and each acknowledgement. Nothing crashes: which calls were made is what can be missing. */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "journal_internal.h"
#include "kv/clock.h"

#define SEGMENT_BYTES (64u * 1024)
#define INODES_MAX 64u

/* What only the page cache has. The journal's thread writes, too. */
static struct {
    pthread_mutex_t mutex;
    struct unflushed {
        ino_t inode;
        bool segment; /* had a segment's name when it was written to */
    } files[INODES_MAX];
    size_t count;
    ino_t folder, parent;
    bool name; /* of a segment; spares are renamed at any time */
    atomic_uint renames, folder_flushes, parent_flushes;
} cache = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static bool is_segment(const char *name)
{
    return strlen(name) == 16 && strspn(name, "0123456789abcdef") == 16;
}

static ino_t inode_of(int fd)
{
    struct stat status;
    cr_assert_eq(fstat(fd, &status), 0);
    return status.st_ino;
}

static void forget(ino_t inode)
{
    for (size_t i = 0; i < cache.count; i++)
        if (cache.files[i].inode == inode)
            cache.files[i--] = cache.files[--cache.count];
}

static void note_write(int fd)
{
    char link[64], path[256];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t bytes = readlink(link, path, sizeof path - 1);
    cr_assert_gt(bytes, 16);
    path[bytes] = '\0';
    bool segment = is_segment(path + bytes - 16);
    pthread_mutex_lock(&cache.mutex);
    forget(inode_of(fd));
    cr_assert_lt(cache.count, INODES_MAX);
    cache.files[cache.count++] = (struct unflushed){inode_of(fd), segment};
    pthread_mutex_unlock(&cache.mutex);
}

static void note_flush(int fd)
{
    pthread_mutex_lock(&cache.mutex);
    ino_t inode = inode_of(fd);
    forget(inode);
    if (inode == cache.folder)
        cache.name = false;
    cache.folder_flushes += inode == cache.folder;
    cache.parent_flushes += inode == cache.parent;
    pthread_mutex_unlock(&cache.mutex);
}

/* Ours take the place of libc's for the whole program. */
int fsync(int fd)
{
    note_flush(fd);
    return (int)syscall(SYS_fsync, fd);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    struct stat status;
    cr_assert_eq(fstatat(from_fd, from, &status, 0), 0);
    pthread_mutex_lock(&cache.mutex);
    for (size_t i = 0; i < cache.count; i++) {
        cr_expect_neq(cache.files[i].inode, status.st_ino, "%s becomes %s before its bytes are on the disk", from, to);
        cr_expect_not(cache.files[i].segment, "%s becomes %s before the segment before it is on the disk", from, to);
    }
    cache.name = cache.name || is_segment(to);
    cache.renames++;
    pthread_mutex_unlock(&cache.mutex);
    return (int)syscall(SYS_renameat, from_fd, from, to_fd, to);
}

static ssize_t noted_pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    note_write(fd);
    return pwritev(fd, parts, count, offset);
}

static int noted_fdatasync(int fd)
{
    note_flush(fd);
    return fdatasync(fd);
}

static int noted_allocate(int fd, off_t offset, off_t bytes)
{
    note_write(fd);
    return posix_fallocate(fd, offset, bytes);
}

static uint64_t endless(int fd)
{
    (void)fd;
    return UINT64_MAX / 4;
}

static const struct journal_ops noted = {noted_pwritev, noted_fdatasync, noted_allocate, endless};

/* ---- a journal ---------------------------------------------------------------------------------------------------- */

static char path[64];
static int parent_fd;
static struct journal *journal;

static enum kv_err on_record(void *ctx, uint64_t position, uint32_t type, struct kv_slice body)
{
    (void)ctx;
    (void)position;
    (void)type;
    (void)body;
    cr_expect(cache.folder_flushes > 0 && cache.parent_flushes > 0, "names are read that may not be on the disk");
    return KV_OK;
}

static void open_journal(void)
{
    char why[256], folder[80];
    struct stat status;
    struct journal_options options = {.dir_fd = parent_fd, .flush = true};
    snprintf(folder, sizeof folder, "%s/journal", path);
    mkdir(folder, 0700);
    cr_assert_eq(stat(folder, &status), 0);
    cache.folder = status.st_ino;
    cache.folder_flushes = 0;
    cache.parent_flushes = 0;
    cr_assert_eq(journal_open_with(&options, &noted, SEGMENT_BYTES, on_record, NULL, why, sizeof why, &journal), KV_OK,
                 "%s", why);
    cr_expect(cache.folder_flushes > 0 && cache.parent_flushes > 0, "names of the last run may stand in memory only");
}

static void setup(void)
{
    strcpy(path, "/tmp/kv-order-XXXXXX");
    cr_assert_not_null(mkdtemp(path));
    parent_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cache.parent = inode_of(parent_fd);
    open_journal();
}

static void teardown(void)
{
    char command[128];
    journal_close(&journal);
    close(parent_fd);
    snprintf(command, sizeof command, "rm -rf %s", path);
    cr_assert_eq(system(command), 0);
}

TestSuite(order, .init = setup, .fini = teardown, .timeout = 600);

static void expect_all_on_disk(void)
{
    pthread_mutex_lock(&cache.mutex);
    cr_expect_not(cache.name, "acknowledged before the segment's name is on the disk");
    for (size_t i = 0; i < cache.count; i++)
        cr_expect_not(cache.files[i].segment, "acknowledged before the bytes are on the disk");
    pthread_mutex_unlock(&cache.mutex);
}

static void append_durably(unsigned records, size_t bytes)
{
    static const uint8_t body[20000];
    uint64_t position = 0;
    for (unsigned i = 0; i < records; i++)
        position = journal_append(journal, 1, kv_slice(body, bytes));
    journal_submit(journal);
    while (journal_durable(journal) < position)
        usleep(200);
    expect_all_on_disk();
}

Test(order, names_follow_bytes_and_acknowledgements_follow_names)
{
    for (unsigned i = 0; i < 40; i++) {
        append_durably(1, 9000);                            /* a segment ends between groups, */
        append_durably(30, 9000);                           /* and within what is taken at once */
        journal_release(journal, journal_durable(journal)); /* the next ones are recycled */
    }
    cr_expect_gt(cache.renames, 40u);
}

/* A process that was killed between write and flush: replay finds the bytes in the page cache, and what it reports must stay. */
Test(order, what_is_replayed_is_on_the_disk)
{
    char segment[128];
    append_durably(3, 100);
    journal_close(&journal);
    snprintf(segment, sizeof segment, "%s/journal/%016x", path, 1);
    int fd = open(segment, O_RDONLY | O_CLOEXEC);
    cr_assert_geq(fd, 0);
    note_write(fd);
    close(fd);
    open_journal();
    expect_all_on_disk();
}
