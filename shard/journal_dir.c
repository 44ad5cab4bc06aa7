/* shard/journal_dir.c -- see journal_dir.h. */
#include "journal_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "journal.h"
#include "kv/log.h"

#define MAKING "making"
#define ZEROS_BYTES (64u * 1024)

static uint64_t system_free_bytes(int fd)
{
    struct statvfs stat;
    if (fstatvfs(fd, &stat) != 0)
        return 0;
    return (uint64_t)stat.f_bavail * stat.f_frsize;
}

const struct journal_ops journal_ops_system = {pwritev, fdatasync, posix_fallocate, system_free_bytes};

enum kv_err journal_errno(int number)
{
    return number == ENOSPC || number == EDQUOT ? KV_NO_SPACE : KV_IO;
}

void journal_segment_name(uint64_t first, char name[JOURNAL_NAME_BYTES])
{
    snprintf(name, JOURNAL_NAME_BYTES, "%016llx", (unsigned long long)first);
}

static void spare_name(unsigned number, char name[JOURNAL_NAME_BYTES])
{
    snprintf(name, JOURNAL_NAME_BYTES, "spare-%08x", number);
}

static void advance(struct iovec **parts, int *count, size_t bytes)
{
    while (*count > 0 && bytes >= (*parts)->iov_len) {
        bytes -= (*parts)->iov_len;
        (*parts)++;
        (*count)--;
    }
    if (*count > 0) {
        (*parts)->iov_base = (uint8_t *)(*parts)->iov_base + bytes;
        (*parts)->iov_len -= bytes;
    }
}

enum kv_err journal_write(const struct journal_ops *ops, int fd, struct iovec *parts, int count, uint64_t offset)
{
    advance(&parts, &count, 0);
    while (count > 0) {
        ssize_t written = ops->pwritev(fd, parts, count, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return journal_errno(written == 0 ? EIO : errno);
        offset += (uint64_t)written;
        advance(&parts, &count, (size_t)written);
    }
    return KV_OK;
}

/* ---- names ---------------------------------------------------------------------------------------------------- */

static struct journal_segment *add_segment(struct journal_dir *dir, uint64_t first)
{
    if (dir->segment_count == dir->segment_capacity) {
        dir->segment_capacity = dir->segment_capacity ? dir->segment_capacity * 2 : 16;
        dir->segments = kv_realloc(dir->segments, dir->segment_capacity * sizeof *dir->segments);
    }
    struct journal_segment *segment = &dir->segments[dir->segment_count++];
    *segment = (struct journal_segment){.first = first};
    return segment;
}

static void add_spare(struct journal_dir *dir, const struct journal_spare *spare)
{
    kv_assert(dir->spare_count <= JOURNAL_SPARES_MAX);
    dir->spares[dir->spare_count++] = *spare;
}

/* `text` as hexadecimal digits to its very end. */
static bool parse_hex(const char *text, size_t digits, uint64_t *out)
{
    char *end;
    if (strlen(text) != digits || strspn(text, "0123456789abcdef") != digits)
        return false;
    *out = strtoull(text, &end, 16);
    return *end == '\0';
}

/* A spare of a former run: kept when whole. How far it was zeroed is not known; a second time costs little. */
static void found_spare(struct journal_dir *dir, const char *name, uint64_t number)
{
    struct stat stat;
    if (number >= dir->spare_number_next)
        dir->spare_number_next = (unsigned)number + 1;
    if (dir->spare_count < JOURNAL_SPARES_MAX && fstatat(dir->fd, name, &stat, 0) == 0 &&
        (uint64_t)stat.st_size == dir->segment_bytes && (uint64_t)stat.st_blocks * 512 >= dir->segment_bytes)
        add_spare(dir, &(struct journal_spare){(unsigned)number, dir->segment_bytes, 0});
    else
        unlinkat(dir->fd, name, 0);
}

static void found_name(struct journal_dir *dir, const char *name)
{
    uint64_t number;
    if (parse_hex(name, 16, &number))
        add_segment(dir, number);
    else if (dir->read_only)
        return;
    else if (strncmp(name, "spare-", 6) == 0 && parse_hex(name + 6, 8, &number))
        found_spare(dir, name, number);
    else if (strcmp(name, MAKING) == 0)
        unlinkat(dir->fd, name, 0);
    else if (name[0] != '.')
        kv_warn("journal: a file that is not ours, left alone: %s", name);
}

static int compare_segments(const void *a, const void *b)
{
    uint64_t left = ((const struct journal_segment *)a)->first, right = ((const struct journal_segment *)b)->first;
    return (left > right) - (left < right);
}

static enum kv_err scan(struct journal_dir *dir)
{
    int fd = dup(dir->fd);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (!stream) {
        if (fd >= 0)
            close(fd);
        return KV_IO;
    }
    errno = 0;
    for (struct dirent *entry; (entry = readdir(stream)) != NULL; errno = 0)
        found_name(dir, entry->d_name);
    enum kv_err err = errno == 0 ? KV_OK : KV_IO;
    closedir(stream);
    if (dir->segment_count > 1)
        qsort(dir->segments, dir->segment_count, sizeof *dir->segments, compare_segments);
    return err;
}

static enum kv_err scan_opened(struct journal_dir *dir, enum kv_err err, char *why, size_t why_bytes,
                               struct journal_dir *out)
{
    if (err == KV_OK)
        err = scan(dir);
    if (err == KV_OK) {
        *out = *dir;
        return KV_OK;
    }
    snprintf(why, why_bytes, "the directory journal cannot be opened: %s", strerror(errno));
    journal_dir_close(dir);
    return err;
}

enum kv_err journal_dir_open(int parent_fd, const struct journal_ops *ops, uint64_t segment_bytes, char *why,
                             size_t why_bytes, struct journal_dir *out)
{
    struct journal_dir dir = {.fd = -1, .ops = ops, .segment_bytes = segment_bytes};
    enum kv_err err = KV_OK;
    if (mkdirat(parent_fd, "journal", 0700) != 0 && errno != EEXIST)
        err = journal_errno(errno);
    if (err == KV_OK && (dir.fd = openat(parent_fd, "journal", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        err = KV_IO;
    /* A rename of the last run may stand in memory only; what we read must be what stays. */
    if (err == KV_OK && (fsync(parent_fd) != 0 || fsync(dir.fd) != 0))
        err = KV_IO;
    return scan_opened(&dir, err, why, why_bytes, out);
}

enum kv_err journal_dir_open_to_read(int parent_fd, char *why, size_t why_bytes, struct journal_dir *out)
{
    struct journal_dir dir = {.read_only = true};
    dir.fd = openat(parent_fd, "journal", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir.fd < 0 && errno == ENOENT) {
        *out = dir;
        return KV_OK;
    }
    return scan_opened(&dir, dir.fd < 0 ? KV_IO : KV_OK, why, why_bytes, out);
}

void journal_dir_close(struct journal_dir *dir)
{
    if (dir->fd >= 0)
        close(dir->fd);
    dir->fd = -1;
    free(dir->segments);
    dir->segments = NULL;
    dir->segment_count = dir->segment_capacity = 0;
}

/* ---- spares ---------------------------------------------------------------------------------------------------- */

static enum kv_err rename_durably(struct journal_dir *dir, const char *from, const char *to)
{
    if (renameat(dir->fd, from, dir->fd, to) != 0 || fsync(dir->fd) != 0)
        return journal_errno(errno);
    return KV_OK;
}

enum kv_err journal_dir_add_spare(struct journal_dir *dir, uint64_t bytes)
{
    char name[JOURNAL_NAME_BYTES];
    int fd = openat(dir->fd, MAKING, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return journal_errno(errno);
    int number = dir->ops->allocate(fd, 0, (off_t)bytes);
    if (number == 0 && fsync(fd) != 0)
        number = errno;
    close(fd);
    struct journal_spare spare = {dir->spare_number_next, bytes, 0};
    spare_name(spare.number, name);
    enum kv_err err = number == 0 ? rename_durably(dir, MAKING, name) : journal_errno(number);
    if (err != KV_OK) {
        unlinkat(dir->fd, MAKING, 0);
        return err;
    }
    dir->spare_number_next++;
    add_spare(dir, &spare);
    return KV_OK;
}

/* Past the page cache, in which zeros would take the place of what is read; through it where a filesystem refuses that. */
static enum kv_err write_zeros(struct journal_dir *dir, int fd, struct iovec *parts, size_t count, uint64_t offset)
{
    struct iovec again[JOURNAL_ZERO_BYTES / ZEROS_BYTES];
    int flags = fcntl(fd, F_GETFL);
    memcpy(again, parts, count * sizeof *parts);
    if (fcntl(fd, F_SETFL, flags | O_DIRECT) == 0) {
        enum kv_err err = journal_write(dir->ops, fd, parts, (int)count, offset);
        if (err != KV_IO || errno != EINVAL)
            return err;
        fcntl(fd, F_SETFL, flags);
    }
    return journal_write(dir->ops, fd, again, (int)count, offset);
}

static enum kv_err zero_piece(struct journal_dir *dir, struct journal_spare *spare)
{
    static _Alignas(JOURNAL_BLOCK_BYTES) const uint8_t zeros[ZEROS_BYTES];
    struct iovec parts[JOURNAL_ZERO_BYTES / sizeof zeros];
    char name[JOURNAL_NAME_BYTES];
    uint64_t left = spare->bytes - spare->zeroed;
    size_t piece = left < JOURNAL_ZERO_BYTES ? (size_t)left : JOURNAL_ZERO_BYTES, count = 0;
    for (size_t done = 0; done < piece; done += parts[count++].iov_len)
        parts[count] =
            (struct iovec){(void *)(uintptr_t)zeros, piece - done < sizeof zeros ? piece - done : sizeof zeros};
    spare_name(spare->number, name);
    int fd = openat(dir->fd, name, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return KV_IO;
    enum kv_err err = write_zeros(dir, fd, parts, count, spare->zeroed);
    if (err == KV_OK && piece == left && dir->ops->fdatasync(fd) != 0) /* before it is called zeroed, and not before */
        err = journal_errno(errno);
    close(fd);
    if (err == KV_OK)
        spare->zeroed += piece;
    return err;
}

enum kv_err journal_dir_zero_step(struct journal_dir *dir)
{
    for (size_t i = 0; i < dir->spare_count && i < JOURNAL_SPARES_READY; i++)
        if (dir->spares[i].zeroed < dir->spares[i].bytes)
            return zero_piece(dir, &dir->spares[i]);
    return KV_NOT_FOUND;
}

enum kv_err journal_dir_take_spare(struct journal_dir *dir, uint64_t bytes, struct journal_spare *out, int *fd)
{
    struct journal_spare *best = NULL;
    for (size_t i = 0; i < dir->spare_count; i++)
        if (dir->spares[i].bytes >= bytes && (!best || dir->spares[i].zeroed > best->zeroed))
            best = &dir->spares[i];
    if (!best)
        return KV_NOT_FOUND;
    char name[JOURNAL_NAME_BYTES];
    spare_name(best->number, name);
    int opened = openat(dir->fd, name, O_WRONLY | O_CLOEXEC);
    if (opened < 0)
        return KV_IO;
    *fd = opened;
    *out = *best;
    *best = dir->spares[--dir->spare_count];
    return KV_OK;
}

enum kv_err journal_dir_name_segment(struct journal_dir *dir, const struct journal_spare *spare, uint64_t first)
{
    char from[JOURNAL_NAME_BYTES], to[JOURNAL_NAME_BYTES];
    spare_name(spare->number, from);
    journal_segment_name(first, to);
    enum kv_err err = rename_durably(dir, from, to);
    if (err == KV_OK)
        add_segment(dir, first)->bytes = spare->bytes;
    return err;
}

/* A segment of another size than usual held one very large record. */
static enum kv_err make_spare_of(struct journal_dir *dir, const struct journal_segment *segment)
{
    char name[JOURNAL_NAME_BYTES], to[JOURNAL_NAME_BYTES];
    journal_segment_name(segment->first, name);
    if (segment->bytes != dir->segment_bytes || dir->spare_count >= JOURNAL_SPARES_MAX)
        return unlinkat(dir->fd, name, 0) == 0 && fsync(dir->fd) == 0 ? KV_OK : KV_IO;
    struct journal_spare spare = {dir->spare_number_next, segment->bytes, segment->bytes};
    spare_name(spare.number, to);
    enum kv_err err = rename_durably(dir, name, to);
    if (err != KV_OK)
        return err;
    dir->spare_number_next++;
    add_spare(dir, &spare);
    return KV_OK;
}

enum kv_err journal_dir_recycle(struct journal_dir *dir, uint64_t released)
{
    if (dir->segment_count < 2 || dir->segments[0].last == 0 || dir->segments[0].last > released)
        return KV_NOT_FOUND;
    enum kv_err err = make_spare_of(dir, &dir->segments[0]);
    if (err != KV_OK)
        return err;
    dir->segment_count--;
    memmove(dir->segments, dir->segments + 1, dir->segment_count * sizeof *dir->segments);
    return KV_OK;
}
