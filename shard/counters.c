/* shard/counters.c -- see counters.h. */
#include "counters.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "wire/messages.h"

static uint64_t cpu_us(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return 0;
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000u +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static uint64_t rss_bytes(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%*u %lu", &pages) != 1)
        pages = 0;
    fclose(file);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t open_fds(void)
{
    uint64_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL)
        return 0;
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count - 1; /* the directory itself was one of them */
}

void counters_read_process(struct counters *counters)
{
    counters->cpu_us = cpu_us();
    counters->rss_bytes = rss_bytes();
    counters->fds = open_fds();
}

void counters_put(const struct counters *counters, struct kv_buf *buf)
{
#define X(name, kind, member, help) +1
    kv_put_counters_begin(buf, COUNTERS_TABLE(X));
#undef X
#define X(name, kind, member, help) kv_put_counter(buf, #name, counters->member);
    COUNTERS_TABLE(X)
#undef X
}
