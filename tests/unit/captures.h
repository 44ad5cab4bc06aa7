/* tests/unit/captures.h -- what is written to standard error meanwhile, as long as a pipe has room for it. */
#ifndef KV_TEST_CAPTURES_H
#define KV_TEST_CAPTURES_H

#include <unistd.h>

#include <criterion/criterion.h>

static char line[65536]; /* what capture_end read, zero-terminated */

static inline void capture_begin(int *saved, int *reader)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    *saved = dup(STDERR_FILENO);
    dup2(ends[1], STDERR_FILENO);
    close(ends[1]);
    *reader = ends[0];
}

static inline size_t capture_end(int saved, int reader)
{
    dup2(saved, STDERR_FILENO);
    close(saved);
    size_t bytes = 0;
    for (ssize_t got; (got = read(reader, line + bytes, sizeof(line) - 1 - bytes)) > 0;)
        bytes += (size_t)got;
    close(reader);
    line[bytes] = '\0';
    return bytes;
}

#endif
