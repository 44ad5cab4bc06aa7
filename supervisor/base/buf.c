/* supervisor/base/buf.c -- the allocator that never returns NULL, and the growing buffer on top of it.
 * Does:     capacity at least doubles, so that appending is amortised constant.
 * Promises: a size that would overflow aborts like a machine without memory.
 * Fails:    never returns: one log line, then abort; the supervisor restarts the process.
 * Tests:    unit/base/test_buf.c. */
#include <malloc.h>
#include <stdlib.h>

#include "kv/buf.h"
#include "kv/log.h"

#define BUF_CAPACITY_MIN 64u

static _Noreturn void die_without_memory(size_t bytes)
{
    kv_error("out of memory: %zu bytes asked", bytes);
    abort();
}

void *kv_alloc(size_t bytes)
{
    void *memory = malloc(bytes == 0 ? 1 : bytes);
    if (memory == NULL)
        die_without_memory(bytes);
    return memory;
}

void *kv_alloc_zero(size_t count, size_t bytes)
{
    void *memory = count == 0 || bytes == 0 ? calloc(1, 1) : calloc(count, bytes);
    if (memory == NULL)
        die_without_memory(bytes);
    return memory;
}

void *kv_realloc(void *old, size_t bytes)
{
    void *memory = realloc(old, bytes == 0 ? 1 : bytes);
    if (memory == NULL)
        die_without_memory(bytes);
    return memory;
}

/* mimalloc's, where it is linked in (CMakeLists.txt). */
extern void mi_collect(bool force) __attribute__((weak));
extern void mi_option_set(int option, long value) __attribute__((weak));
#define MI_OPTION_DECOMMIT_DELAY 15 /* of its versions 2.0; mi_option_purge_delay in 2.1 */

void kv_trim_prepare(void)
{
    if (mi_option_set != NULL)
        mi_option_set(MI_OPTION_DECOMMIT_DELAY, 0); /* else it waits for a later free, and at rest there is none */
    else
        mallopt(M_ARENA_MAX, 1); /* of any other arena, malloc_trim does not give back the top */
}

void kv_trim(void)
{
    if (mi_collect != NULL)
        mi_collect(true);
    else
        malloc_trim(0);
}

uint8_t *kv_copy(struct kv_slice slice)
{
    uint8_t *copy = kv_alloc(slice.bytes);
    if (slice.bytes > 0)
        memcpy(copy, slice.data, slice.bytes);
    return copy;
}

uint8_t *kv_buf_reserve(struct kv_buf *buf, size_t more)
{
    if (more > SIZE_MAX - buf->bytes)
        die_without_memory(more);
    size_t needed = buf->bytes + more;
    if (needed > buf->capacity || buf->data == NULL) {
        size_t capacity = buf->capacity > SIZE_MAX / 2 ? SIZE_MAX : buf->capacity * 2;
        if (capacity < BUF_CAPACITY_MIN)
            capacity = BUF_CAPACITY_MIN;
        if (capacity < needed)
            capacity = needed;
        buf->data = kv_realloc(buf->data, capacity);
        buf->capacity = capacity;
    }
    return buf->data + buf->bytes;
}

void kv_buf_consume(struct kv_buf *buf, size_t bytes)
{
    kv_assert(bytes <= buf->bytes);
    if (bytes == 0)
        return;
    memmove(buf->data, buf->data + bytes, buf->bytes - bytes);
    buf->bytes -= bytes;
}

void kv_buf_free(struct kv_buf *buf)
{
    free(buf->data);
    *buf = (struct kv_buf){0};
}
