/* shard/counters.c -- see counters.h. */
#include "counters.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>
#include <xxhash.h>

#include "kv/log.h"
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

/* ---- over a restart ----------------------------------------------------------------------------------------------- */

_Static_assert((int)COUNTERS_CARRIED < (int)KV_COUNTERS_SHARD_WORDS, "the shard's region of the page is full");

enum { CARRY_GAUGE, CARRY_PEAK, CARRY_COUNTER };

/* The first word: tells another table's numbers from ours. */
static uint64_t layout(void)
{
    static const char names[] =
#define X(name, kind, member, help) #name "=" #kind ";"
        COUNTERS_TABLE(X)
#undef X
#define X(name, member, shape) #name "=" #shape ";"
            COUNTERS_HISTOGRAMS(X);
#undef X
    return XXH3_64bits(names, sizeof(names));
}

struct counters_carry counters_carry_open(kv_counter *words)
{
    struct counters_carry carry = {.words = words};
    bool ours = words != NULL && kv_counter_get(&words[0]) == layout();
    for (unsigned i = 0; ours && i < COUNTERS_CARRIED; i++)
        carry.before[i] = kv_counter_get(&words[1 + i]);
    for (unsigned i = 0; words != NULL && !ours && i < COUNTERS_CARRIED; i++)
        kv_counter_set(&words[1 + i], 0);
    if (words != NULL)
        kv_counter_set(&words[0], layout());
    return carry;
}

static void carry_one(const struct counters_carry *carry, unsigned row, uint64_t *value)
{
    *value += carry->before[row];
    if (carry->words != NULL)
        kv_counter_set(&carry->words[1 + row], *value);
}

static void carry_histogram(const struct counters_carry *carry, unsigned row, struct kv_histogram *histogram)
{
    for (unsigned i = 0; i <= KV_HISTOGRAM_BOUNDS_MAX; i++)
        carry_one(carry, row + i, &histogram->buckets[i]);
    carry_one(carry, row + KV_HISTOGRAM_WORDS - 1, &histogram->sum);
}

void counters_carry(const struct counters_carry *carry, struct counters *counters)
{
    unsigned row = 0;
#define X(name, kind, member, help)                                                                                    \
    if (CARRY_##kind == CARRY_COUNTER)                                                                                 \
        carry_one(carry, row, &counters->member);                                                                      \
    row++;
    COUNTERS_TABLE(X)
#undef X
#define X(name, member, shape)                                                                                         \
    carry_histogram(carry, row, &counters->member);                                                                    \
    row += KV_HISTOGRAM_WORDS;
    COUNTERS_HISTOGRAMS(X)
#undef X
    kv_assert(row == COUNTERS_CARRIED);
}

/* ---- the message -------------------------------------------------------------------------------------------------- */

static unsigned pair_count(void)
{
    unsigned count = COUNTERS_COUNT;
#define X(name, member, shape) count += shape.bound_count + 2;
    COUNTERS_HISTOGRAMS(X)
#undef X
    return count;
}

static void put_histogram(const char *name, const struct kv_histogram_shape *shape,
                          const struct kv_histogram *histogram, struct kv_buf *buf)
{
    char text[64];
    for (unsigned i = 0; i <= shape->bound_count; i++) {
        snprintf(text, sizeof(text), "%s_%u", name, i);
        kv_put_counter(buf, text, histogram->buckets[i]);
    }
    snprintf(text, sizeof(text), "%s_sum", name);
    kv_put_counter(buf, text, histogram->sum);
}

void counters_put(const struct counters *counters, struct kv_buf *buf)
{
    kv_put_counters_begin(buf, pair_count());
#define X(name, kind, member, help) kv_put_counter(buf, #name, counters->member);
    COUNTERS_TABLE(X)
#undef X
#define X(name, member, shape) put_histogram(#name, &shape, &counters->member, buf);
    COUNTERS_HISTOGRAMS(X)
#undef X
}
