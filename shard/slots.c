/* shard/slots.c -- see slots.h. */
#include "slots.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>

static bool is_ours(int fd)
{
    struct stat file;
    int seals = fcntl(fd, F_GET_SEALS); /* -1: no memory, or of a kind that cannot be sealed */
    return seals >= 0 && (seals & F_SEAL_SHRINK) != 0 && fstat(fd, &file) == 0 && file.st_size == (off_t)KV_ARENA_BYTES;
}

enum kv_err slots_map(int fd, uint8_t **out)
{
    if (!is_ours(fd))
        return KV_INVALID;
    void *map = mmap(NULL, KV_ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return KV_NO_SPACE;
    *out = map;
    return KV_OK;
}

void slots_unmap(uint8_t **slots)
{
    if (*slots != NULL)
        munmap(*slots, KV_ARENA_BYTES);
    *slots = NULL;
}
