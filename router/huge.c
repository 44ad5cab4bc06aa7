/* router/huge.c -- see huge.h. */
#include "huge.h"

#include <stdint.h>
#include <sys/mman.h>

#define SMALL_PAGE_BYTES ((size_t)4096)

static size_t whole_pages(size_t bytes)
{
    const size_t unit = bytes >= HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : SMALL_PAGE_BYTES;
    return (bytes + unit - 1) / unit * unit;
}

void *huge_map(size_t bytes)
{
    const int protection = PROT_READ | PROT_WRITE, flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    size_t whole = whole_pages(bytes), spare = bytes >= HUGE_PAGE_BYTES ? HUGE_PAGE_BYTES : 0;
    uint8_t *memory = mmap(NULL, whole + spare, protection, flags, -1, 0);
    if (memory == MAP_FAILED)
        return NULL;
    if (spare == 0)
        return memory;
    size_t before = (HUGE_PAGE_BYTES - (uintptr_t)memory % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
    if (before > 0)
        munmap(memory, before);
    munmap(memory + before + whole, spare - before);
    madvise(memory + before, whole, MADV_HUGEPAGE); /* a wish */
    return memory + before;
}

void huge_leave(void *memory, size_t bytes)
{
    uintptr_t begin = ((uintptr_t)memory + SMALL_PAGE_BYTES - 1) / SMALL_PAGE_BYTES * SMALL_PAGE_BYTES;
    uintptr_t end = ((uintptr_t)memory + bytes) / SMALL_PAGE_BYTES * SMALL_PAGE_BYTES;
    if (begin < end)
        madvise((void *)begin, end - begin, MADV_DONTNEED);
}

void huge_unmap(void *memory, size_t bytes)
{
    if (memory != NULL)
        munmap(memory, whole_pages(bytes));
}
