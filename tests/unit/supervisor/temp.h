/* tests/unit/supervisor/temp.h -- a temporary directory, small files in it, and its removal. */
#ifndef KV_TEST_TEMP_H
#define KV_TEST_TEMP_H

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

static char temp[64];

static inline int temp_remove_one(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

static inline void temp_setup(void)
{
    strcpy(temp, "/tmp/kv-unit-XXXXXX");
    cr_assert_not_null(mkdtemp(temp));
}

static inline void temp_teardown(void)
{
    nftw(temp, temp_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* temp/name; valid until the eighth next call. */
static inline const char *temp_path(const char *name)
{
    static char paths[8][4200];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof(paths[0]), "%s/%s", temp, name);
    return path;
}

static inline const char *temp_file(const char *name, const char *text, mode_t mode)
{
    const char *path = temp_path(name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0, "%s", path);
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    fchmod(fd, mode);
    close(fd);
    return path;
}

/* The whole file as text; valid until the next call. */
static inline const char *temp_read(const char *name)
{
    static char text[16384];
    int fd = open(temp_path(name), O_RDONLY | O_CLOEXEC);
    ssize_t bytes = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0)
        close(fd);
    text[bytes > 0 ? bytes : 0] = '\0';
    return text;
}

static inline bool temp_exists(const char *name)
{
    return access(temp_path(name), F_OK) == 0;
}

#endif
