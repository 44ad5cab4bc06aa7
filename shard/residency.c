/* shard/residency.c -- see residency.h. */
#include "residency.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

/* A fault on a page of a file maps the neighbours that are in the cache, within a window of this size. */
#define FAULT_WINDOW_BYTES 65536u

struct residency residency_find(const void *within)
{
    struct residency found = {.begin = NULL};
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");
    uintptr_t wanted = (uintptr_t)within;
    while (maps != NULL && found.begin == NULL && fgets(line, sizeof line, maps) != NULL) {
        unsigned long begin, end, inode;
        if (sscanf(line, "%lx-%lx %*s %*s %*s %lu", &begin, &end, &inode) == 3 && begin <= wanted && wanted < end &&
            inode != 0)
            found = (struct residency){.begin = (const uint8_t *)begin, .bytes = end - begin};
    }
    if (maps != NULL)
        fclose(maps);
    return found;
}

/* MADV_DONTNEED on memory that is not a shared file's would lose what is in it: so nothing beyond the mapping that was found. */
void residency_leave(const struct residency *residency, const void *data, size_t bytes)
{
    uintptr_t map = (uintptr_t)residency->begin, map_end = map + residency->bytes;
    uintptr_t begin = (uintptr_t)data, end = begin + bytes;
    if (!atomic_load_explicit(&residency->crowded, memory_order_relaxed))
        return;
    if (map == 0 || begin < map || end > map_end)
        return;
    begin = begin / FAULT_WINDOW_BYTES * FAULT_WINDOW_BYTES;
    end = (end + FAULT_WINDOW_BYTES - 1) / FAULT_WINDOW_BYTES * FAULT_WINDOW_BYTES;
    begin = begin < map ? map : begin;
    end = end > map_end ? map_end : end;
    madvise((void *)begin, end - begin, MADV_DONTNEED);
}

static uint64_t file_bytes_in_memory(void)
{
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "re");
    if (statm == NULL)
        return 0;
    if (fscanf(statm, "%*u %*u %lu", &pages) != 1)
        pages = 0;
    fclose(statm);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

void residency_trim(struct residency *residency, uint64_t bytes_max)
{
    uint64_t bytes = file_bytes_in_memory();
    atomic_store_explicit(&residency->crowded, bytes > bytes_max / 2, memory_order_relaxed);
    if (residency->begin != NULL && bytes > bytes_max)
        madvise((void *)(uintptr_t)residency->begin, residency->bytes, MADV_DONTNEED);
}
