/* router/body_file.c -- see body_file.h. */
#include "body_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kv/buf.h"

enum { PAGE_BYTES = 4096 };

struct body_file {
    int fd;
    atomic_uint holders;
    bool in_memory;
    _Atomic uint64_t bytes; /* counted in files.memory_bytes or files.bytes */
};

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

static bool has_memory(uint64_t bytes)
{
    return files.memory_bytes + bytes <= BODY_FILE_MEMORY_SUM_MAX;
}

struct body_file *body_file_new(uint64_t expected)
{
    bool wants_memory = (expected == SIZE_MAX || expected <= BODY_FILE_MEMORY_MAX) && has_memory(BODY_FILE_MEMORY_MAX);
    int fd = wants_memory ? memfd_create("kv-body", MFD_CLOEXEC) : -1;
    bool in_memory = fd >= 0;
    if (!in_memory)
        fd = open_unlinked();
    if (fd < 0)
        return NULL;
    struct body_file *file = kv_alloc_zero(1, sizeof(*file));
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

static void uncount(struct body_file *file, uint64_t bytes)
{
    file->bytes -= bytes;
    *(file->in_memory ? &files.memory_bytes : &files.bytes) -= bytes;
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
    if (end <= begin ||
        fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)begin, (off_t)(end - begin)) != 0)
        return; /* a file system without holes keeps it until the file ends */
    uncount(file, end - begin);
}

void body_file_free(struct body_file **file)
{
    struct body_file *old = *file;
    *file = NULL;
    if (old == NULL || atomic_fetch_sub(&old->holders, 1) > 1)
        return;
    close(old->fd);
    uncount(old, old->bytes);
    free(old);
}

enum kv_err body_file_extend(struct body_file *file, size_t bytes, size_t more, bool is_new)
{
    _Atomic uint64_t *sum = file->in_memory ? &files.memory_bytes : &files.bytes;
    uint64_t max = file->in_memory ? UINT64_MAX : is_new ? files.bytes_max / 4 * 3 : files.bytes_max;
    if (atomic_fetch_add(sum, more) + more > max) {
        *sum -= more;
        return KV_OVERLOADED;
    }
    if (posix_fallocate(file->fd, (off_t)bytes, (off_t)more) != 0) {
        *sum -= more;
        return KV_NO_SPACE;
    }
    file->bytes += more;
    return KV_OK;
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
