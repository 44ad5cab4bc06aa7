/* router/arena_memory.c -- see arena_memory.h. */
#include "arena_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

/* Nothing is written here: but only through a mapping that may be written to are pages given back. */
static uint8_t *map_sealed(int fd)
{
    if (ftruncate(fd, KV_ARENA_BYTES) != 0 || fcntl(fd, F_ADD_SEALS, SEALS) != 0)
        return NULL;
    void *memory = mmap(NULL, KV_ARENA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

uint8_t *arena_memory_new(struct body_file **file)
{
    int fd = memfd_create("kv-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    uint8_t *memory = fd < 0 ? NULL : map_sealed(fd);
    if (memory != NULL)
        *file = body_file_of(fd);
    else if (fd >= 0)
        close(fd);
    return memory;
}

void arena_memory_trim(uint8_t *memory)
{
    madvise(memory, KV_ARENA_BYTES, MADV_REMOVE); /* refused is no harm */
}

void arena_memory_free(uint8_t *memory)
{
    munmap(memory, KV_ARENA_BYTES);
}
