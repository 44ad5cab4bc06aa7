/* tests/unit/flushes.h -- which files and directories the code under test has flushed: takes the place of libc's fsync in the
 * whole program. A power cut cannot be had in a unit test; a flush that is missing can be seen. */
#ifndef KV_TEST_FLUSHES_H
#define KV_TEST_FLUSHES_H

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <criterion/criterion.h>

static ino_t flushed[256];
static size_t flushed_count;

int fsync(int fd)
{
    struct stat status;
    cr_assert_eq(fstat(fd, &status), 0);
    cr_assert_lt(flushed_count, sizeof flushed / sizeof flushed[0]);
    flushed[flushed_count++] = status.st_ino;
    return (int)syscall(SYS_fsync, fd);
}

/* Whether what has this name now was flushed, under whatever name. */
static inline bool was_flushed(const char *path)
{
    struct stat status;
    bool found = false;
    cr_assert_eq(lstat(path, &status), 0, "%s", path);
    for (size_t i = 0; i < flushed_count; i++)
        found = found || flushed[i] == status.st_ino;
    return found;
}

#endif
