/* tests/bench/kv_flush.c -- kv-flush: what bounds durable writes on this disk. Appends groups, padded to 4 KiB, to a file that
 * was written with zeros before, each group with one write and one fdatasync, as the journal does.
 *   kv-flush FOLDER RECORD_BYTES RECORDS_PER_GROUP SECONDS
 * Prints one line of name=value pairs. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "histogram.h"
#include "kv/clock.h"

enum { BLOCK_BYTES = 4096, FILE_BYTES = 64 * 1024 * 1024 };

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "kv-flush: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Zeros first: a flush of blocks that were never written would have to write the file's extents, too. */
static int open_zeroed(const char *folder)
{
    char path[4096];
    static uint8_t zeros[1 << 20];
    snprintf(path, sizeof path, "%s/kv-flush.%d", folder, (int)getpid());
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || unlink(path) != 0)
        die(path);
    for (off_t at = 0; at < FILE_BYTES; at += (off_t)sizeof zeros)
        if (pwrite(fd, zeros, sizeof zeros, at) != (ssize_t)sizeof zeros)
            die("write");
    if (fsync(fd) != 0)
        die("fsync");
    return fd;
}

static void measure(int fd, size_t group_bytes, uint64_t duration_ns, struct histogram *latency)
{
    uint8_t *group = malloc(group_bytes);
    if (group == NULL)
        die("memory");
    memset(group, 0x5a, group_bytes);
    uint64_t end_ns = kv_clock_ns() + duration_ns, now_ns = kv_clock_ns();
    for (off_t at = 0; now_ns < end_ns; at += (off_t)group_bytes) {
        if (at + (off_t)group_bytes > FILE_BYTES)
            at = 0;
        uint64_t begun_ns = now_ns;
        if (pwrite(fd, group, group_bytes, at) != (ssize_t)group_bytes || fdatasync(fd) != 0)
            die("write");
        now_ns = kv_clock_ns();
        histogram_add(latency, now_ns - begun_ns);
    }
    free(group);
}

int main(int argc, char **argv)
{
    static struct histogram latency;
    size_t record_bytes = argc == 5 ? strtoul(argv[2], NULL, 10) : 0,
           records = argc == 5 ? strtoul(argv[3], NULL, 10) : 0;
    double seconds = argc == 5 ? strtod(argv[4], NULL) : 0;
    if (record_bytes == 0 || records == 0 || seconds <= 0 || record_bytes > FILE_BYTES / 2 / records) {
        fprintf(stderr, "usage: kv-flush FOLDER RECORD_BYTES RECORDS_PER_GROUP SECONDS\n");
        return 2;
    }
    size_t group_bytes = (record_bytes * records + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    int fd = open_zeroed(argv[1]);
    measure(fd, group_bytes, (uint64_t)(seconds * 1e9), &latency);
    close(fd);
    printf("kind=flush record_bytes=%zu records=%zu groups=%lu errors=0 seconds=%.3f per_s=%.0f ops_per_s=%.0f "
           "p50_us=%.1f "
           "p99_us=%.1f max_us=%.1f\n",
           record_bytes, records, latency.count, seconds, (double)latency.count / seconds,
           (double)latency.count * (double)records / seconds, (double)histogram_at(&latency, 0.5) / 1e3,
           (double)histogram_at(&latency, 0.99) / 1e3, (double)latency.max_ns / 1e3);
    return 0;
}
