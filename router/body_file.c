/* router/body_file.c -- see body_file.h. */
#include "body_file_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kv/buf.h"
#include "kv/log.h"

enum { PAGE_BYTES = 4096 };

static struct {
    uint64_t bytes_max;
    bool named; /* the file system has no unnamed files */
    char folder[PATH_MAX];
    _Atomic uint64_t bytes;
    _Atomic uint64_t memory_bytes;
} files;

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

/* ---- the beginning ------------------------------------------------------------------------------------------------ */

static bool has_memory(uint64_t bytes)
{
    return files.memory_bytes + bytes <= BODY_FILE_MEMORY_SUM_MAX;
}

struct body_file *body_file_of(int fd)
{
    struct body_file *file = kv_alloc_zero(1, sizeof(*file));
    file->fd = fd;
    file->holders = 1;
    file->in_memory = true;
    pthread_mutex_init(&file->extends, NULL);
    return file;
}

struct body_file *body_file_new(uint64_t expected, size_t bytes)
{
    bool wants_memory = (expected == SIZE_MAX || expected <= BODY_FILE_MEMORY_MAX) && has_memory(BODY_FILE_MEMORY_MAX);
    struct body_file *file = wants_memory ? spool_take(bytes) : NULL;
    if (file != NULL) {
        file->holders = 1;
        files.memory_bytes += file->bytes;
        return file;
    }
    int fd = wants_memory ? memfd_create("kv-body", MFD_CLOEXEC) : -1;
    bool in_memory = fd >= 0;
    if (!in_memory)
        fd = open_unlinked();
    if (fd < 0)
        return NULL;
    file = body_file_of(fd);
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
    body_file_disclaim(file, end - begin);
}

static _Atomic uint64_t *sum_of(const struct body_file *file)
{
    return file->in_memory ? &files.memory_bytes : &files.bytes;
}

enum kv_err body_file_claim(struct body_file *file, uint64_t bytes, bool is_new)
{
    uint64_t max = file->in_memory ? UINT64_MAX : is_new ? files.bytes_max / 4 * 3 : files.bytes_max;
    if (atomic_fetch_add(sum_of(file), bytes) + bytes > max) {
        *sum_of(file) -= bytes;
        return KV_OVERLOADED;
    }
    file->bytes += bytes;
    return KV_OK;
}

void body_file_disclaim(struct body_file *file, uint64_t bytes)
{
    file->bytes -= bytes;
    *sum_of(file) -= bytes;
}

enum kv_err body_file_extend(struct body_file *file, size_t bytes, bool is_new)
{
    pthread_mutex_lock(&file->extends);
    uint64_t before = file->length;
    enum kv_err err = bytes <= before ? KV_OK : body_file_claim(file, bytes - before, is_new);
    if (err == KV_OK && bytes > before) {
        if (posix_fallocate(file->fd, (off_t)before, (off_t)(bytes - before)) == 0) {
            file->length = bytes;
        } else {
            body_file_disclaim(file, bytes - before);
            err = KV_NO_SPACE;
        }
    }
    pthread_mutex_unlock(&file->extends);
    return err;
}

/* Pages of a file in memory are there already: map at once they cost a fraction of a fault each. (Not mremap: the thread sanitizer
 * does not know it and takes the new place for the one of another thread's earlier mapping.) */
void *body_file_map(struct body_file *file, size_t bytes)
{
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

size_t body_file_length(const struct body_file *file)
{
    return file->length;
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

void body_file_free(struct body_file **file)
{
    struct body_file *old = *file;
    *file = NULL;
    if (old == NULL || atomic_fetch_sub(&old->holders, 1) > 1)
        return;
    *sum_of(old) -= old->bytes;
    spool_leave(old);
}

uint64_t body_file_bytes(void)
{
    return files.bytes + files.memory_bytes;
}
