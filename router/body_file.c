/* router/body_file.c -- see body_file.h. */
#include "body_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>
#include <utlist.h>

#include "kv/buf.h"
#include "kv/log.h"

enum {
    PAGE_BYTES = 4096,
    NICE = 10,
    QUICK_BYTES = 1 << 20, /* a file up to this ends within 0.1 ms */
};

struct body_file {
    int fd;
    atomic_uint holders;
    atomic_uint lent; /* pieces that a shard may be reading */
    bool in_memory;
    _Atomic uint64_t bytes; /* of the file: counted in files.memory_bytes or files.bytes */
    uint8_t *map;           /* of the whole file, or NULL */
    size_t map_bytes;
    struct body_file *prev, *next; /* in one of the lists below */
};

static struct {
    uint64_t bytes_max;
    bool named; /* the file system has no unnamed files */
    char folder[PATH_MAX];
    _Atomic uint64_t bytes;
    _Atomic uint64_t memory_bytes;
} files;

/* Of files that nobody holds any more; utlist. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_once_t once;
    struct body_file *ending;
    struct body_file *spare; /* the one of the least past first */
    uint64_t spare_bytes;
} past = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER, .once = PTHREAD_ONCE_INIT};

void body_files_init(uint64_t bytes_max)
{
    const char *folder = getenv("TMPDIR");
    if (folder == NULL || folder[0] != '/' || strlen(folder) >= sizeof(files.folder) ||
        access(folder, W_OK | X_OK) != 0)
        folder = "/tmp";
    snprintf(files.folder, sizeof(files.folder), "%s", folder);
    files.bytes_max = bytes_max;
    int unnamed = open(files.folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    files.named = unnamed < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT);
    if (unnamed >= 0)
        close(unnamed);
}

const char *body_files_folder(bool *named)
{
    *named = files.named;
    return files.folder;
}

static int open_unlinked(void)
{
    char path[PATH_MAX + 32];
    if (!files.named)
        return open(files.folder, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
    snprintf(path, sizeof(path), "%s/kv-body.XXXXXX", files.folder);
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

/* ---- the end ------------------------------------------------------------------------------------------------------ */

/* What the kernel keeps of a file goes with its last descriptor and mapping: a tenth of a second for 1 GiB. */
static void end(struct body_file *file)
{
    if (file->map != NULL)
        munmap(file->map, file->map_bytes);
    close(file->fd);
    free(file);
}

/* Ends with the process. */
static void *thread_main(void *arg)
{
    pthread_setname_np(pthread_self(), "kv-spool"); /* another's name is a file in /proc: confine.h */
    setpriority(PRIO_PROCESS, 0, NICE);             /* 0: of this thread; refused is no harm */
    pthread_mutex_lock(&past.lock);
    for (;;) {
        struct body_file *first = past.ending;
        if (first == NULL) {
            pthread_cond_wait(&past.changed, &past.lock);
            continue;
        }
        DL_DELETE(past.ending, first);
        pthread_mutex_unlock(&past.lock);
        end(first);
        pthread_mutex_lock(&past.lock);
    }
    return arg;
}

static void start_thread(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, thread_main, NULL) != 0)
        kv_fatal("cannot start the thread kv-spool");
    pthread_detach(thread);
}

/* Of the next three: with the lock held. */
static void end_soon(struct body_file *file)
{
    if (file->bytes <= QUICK_BYTES) {
        end(file);
        return;
    }
    DL_APPEND(past.ending, file);
    pthread_cond_signal(&past.changed);
}

static void leave_spare(struct body_file *file)
{
    DL_DELETE(past.spare, file);
    past.spare_bytes -= file->bytes;
}

static void trim_spare(uint64_t bytes_max)
{
    while (past.spare_bytes > bytes_max) {
        struct body_file *oldest = past.spare->prev;
        leave_spare(oldest);
        end_soon(oldest);
    }
}

/* A shard that may still read would read the next body. */
static bool may_serve_again(const struct body_file *file)
{
    return file->in_memory && file->lent == 0 && file->map != NULL && file->map_bytes == file->bytes;
}

void body_file_free(struct body_file **file)
{
    struct body_file *old = *file;
    *file = NULL;
    if (old == NULL || atomic_fetch_sub(&old->holders, 1) > 1)
        return;
    *(old->in_memory ? &files.memory_bytes : &files.bytes) -= old->bytes;
    pthread_once(&past.once, start_thread);
    pthread_mutex_lock(&past.lock);
    if (may_serve_again(old)) {
        DL_PREPEND(past.spare, old);
        past.spare_bytes += old->bytes;
        trim_spare(BODY_FILE_SPARE_SUM_MAX);
    } else {
        end_soon(old);
    }
    pthread_mutex_unlock(&past.lock);
}

void body_files_trim(void)
{
    pthread_mutex_lock(&past.lock);
    trim_spare(0);
    pthread_mutex_unlock(&past.lock);
}

/* ---- the beginning ------------------------------------------------------------------------------------------------ */

static struct body_file *take_spare(uint64_t bytes)
{
    struct body_file *file, *found = NULL;
    pthread_mutex_lock(&past.lock);
    DL_FOREACH(past.spare, file)
    if (file->bytes >= bytes && (found == NULL || file->bytes < found->bytes))
        found = file;
    if (found != NULL) {
        leave_spare(found);
        found->holders = 1;
        files.memory_bytes += found->bytes;
    }
    pthread_mutex_unlock(&past.lock);
    return found;
}

static bool has_memory(uint64_t bytes)
{
    return files.memory_bytes + bytes <= BODY_FILE_MEMORY_SUM_MAX;
}

struct body_file *body_file_new(uint64_t expected, size_t bytes)
{
    bool wants_memory = (expected == SIZE_MAX || expected <= BODY_FILE_MEMORY_MAX) && has_memory(BODY_FILE_MEMORY_MAX);
    struct body_file *file = wants_memory ? take_spare(bytes) : NULL;
    if (file != NULL)
        return file;
    int fd = wants_memory ? memfd_create("kv-body", MFD_CLOEXEC) : -1;
    bool in_memory = fd >= 0;
    if (!in_memory)
        fd = open_unlinked();
    if (fd < 0)
        return NULL;
    file = kv_alloc_zero(1, sizeof(*file));
    file->fd = fd;
    file->holders = 1;
    file->in_memory = in_memory;
    return file;
}

bool body_file_fits_memory(const struct body_file *file, uint64_t bytes)
{
    return file->in_memory && bytes <= BODY_FILE_MEMORY_MAX &&
           (bytes <= file->bytes || has_memory(bytes - file->bytes));
}

bool body_file_is_in_memory(const struct body_file *file)
{
    return file->in_memory;
}

int body_file_fd(const struct body_file *file)
{
    return file->fd;
}

/* All of it, by as many calls of preadv or pwritev as it takes. */
static enum kv_err transfer(ssize_t (*call)(int fd, const struct iovec *part, int count, off_t offset),
                            const struct body_file *file, uint64_t offset, uint8_t *bytes, size_t count)
{
    for (size_t done = 0; done < count;) {
        struct iovec part = {bytes + done, count - done};
        ssize_t moved = call(file->fd, &part, 1, (off_t)(offset + done));
        if (moved > 0)
            done += (size_t)moved;
        else if (moved == 0 || errno != EINTR)
            return KV_IO;
    }
    return KV_OK;
}

enum kv_err body_file_read(const struct body_file *file, uint64_t offset, uint8_t *out, size_t bytes)
{
    return transfer(preadv, file, offset, out, bytes);
}

enum kv_err body_file_write(const struct body_file *file, uint64_t offset, const uint8_t *data, size_t bytes)
{
    return transfer(pwritev, file, offset, (uint8_t *)(uintptr_t)data, bytes);
}

void body_file_forget(struct body_file *file, uint64_t offset, uint64_t bytes)
{
    uint64_t begin = (offset + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
    uint64_t end = (offset + bytes) / PAGE_BYTES * PAGE_BYTES;
    if (file->in_memory || end <= begin ||
        fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)begin, (off_t)(end - begin)) != 0)
        return; /* a file system without holes keeps it until the file ends */
    file->bytes -= end - begin;
    files.bytes -= end - begin;
}

enum kv_err body_file_extend(struct body_file *file, size_t bytes, bool is_new)
{
    size_t before = file->bytes;
    _Atomic uint64_t *sum = file->in_memory ? &files.memory_bytes : &files.bytes;
    uint64_t max = file->in_memory ? UINT64_MAX : is_new ? files.bytes_max / 4 * 3 : files.bytes_max;
    if (bytes <= before)
        return KV_OK;
    if (atomic_fetch_add(sum, bytes - before) + (bytes - before) > max) {
        *sum -= bytes - before;
        return KV_OVERLOADED;
    }
    if (posix_fallocate(file->fd, (off_t)before, (off_t)(bytes - before)) != 0) {
        *sum -= bytes - before;
        return KV_NO_SPACE;
    }
    file->bytes = bytes;
    return KV_OK;
}

/* Pages of a file in memory are there already: map at once they cost a fraction of a fault each. (Not mremap: the thread sanitizer
 * does not know it and takes the new place for the one of another thread's earlier mapping.) */
void *body_file_map(struct body_file *file)
{
    size_t bytes = file->bytes;
    if (file->map != NULL && file->map_bytes == bytes)
        return file->map;
    int at_once = file->in_memory ? MAP_POPULATE : 0;
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | at_once, file->fd, 0);
    if (map == MAP_FAILED)
        return NULL;
    if (file->map != NULL)
        munmap(file->map, file->map_bytes);
    file->map = map;
    file->map_bytes = bytes;
    return map;
}

size_t body_file_size(const struct body_file *file)
{
    return file->bytes;
}

uint8_t *body_file_peek(const struct body_file *file, uint64_t offset, size_t bytes)
{
    bool is_there = file->in_memory && offset <= file->map_bytes && bytes <= file->map_bytes - offset;
    return is_there ? file->map + offset : NULL;
}

void body_file_lend(struct body_file *file)
{
    file->lent++;
}

void body_file_take_back(struct body_file *file)
{
    file->lent--;
}

struct body_file *body_file_hold(struct body_file *file)
{
    file->holders++;
    return file;
}

uint64_t body_file_bytes(void)
{
    return files.bytes + files.memory_bytes;
}
