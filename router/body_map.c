/* router/body_map.c -- see body_map.h. */
#include "body_map.h"

#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utlist.h>

enum {
    PAGE_BYTES = 4096,
    GROW_BYTES_MIN = 1 << 20, /* a file grows by as much as it has, within these two */
    GROW_BYTES_MAX = 8 << 20,
    SINK_BYTES = 512 * 1024, /* what a sink is counted with: about what it has in memory */
    SINK_TURN_BYTES_MAX = 8 << 20,
    SINK_SUM_MAX = 64 << 20,
};
#define SINK_SPACE_MAX ((size_t)1 << 40) /* of address space; a client that sends more is cut off */

static _Atomic uint64_t sink_bytes; /* of all threads */

static __thread struct {
    h2o_context_t *context;
    struct body_map *list; /* utlist */
} own;

void body_map_thread_init(h2o_context_t *context)
{
    own.context = context;
}

struct body_map *body_map_of(const h2o_buffer_t *buffer)
{
    return H2O_STRUCT_FROM_MEMBER(struct body_map, buffer, (h2o_buffer_t *)(uintptr_t)buffer);
}

struct body_map *body_map_find(const char *base)
{
    struct body_map *map;
    DL_FOREACH(own.list, map)
    if (base > (char *)map && base < (char *)map + map->bytes)
        return map;
    return NULL;
}

void body_map_free(struct body_map *map)
{
    DL_DELETE(own.list, map);
    if (map->file != NULL) { /* the mapping is the file's, and this header in it */
        struct body_file *file = map->file;
        body_file_free(&file);
        return;
    }
    sink_bytes -= SINK_BYTES;
    close(map->buffer._fd);
    munmap(map, map->bytes);
}

/* Takes over what `old` says of itself; its bytes are the caller's business. */
static void adopt(struct body_map *map, size_t bytes, const h2o_buffer_t *old, int fd)
{
    map->bytes = bytes;
    map->dropped = PAGE_BYTES;
    map->buffer._prototype = old->_prototype;
    map->buffer._fd = fd;
    map->buffer.bytes = map->buffer._buf;
    map->buffer.size = old->size;
    map->buffer.capacity = bytes - offsetof(struct body_map, buffer) - offsetof(h2o_buffer_t, _buf);
    DL_APPEND(own.list, map);
}

/* Up to where nobody will look again. The decoder of a chunked HTTP/1 body comes after all reads of a turn of the loop: what
 * this turn brought stays in a sink, unless a client floods it. */
static size_t settled(struct body_map *map)
{
    size_t used = (size_t)(map->buffer.bytes + map->buffer.size - (char *)map);
    uint64_t now_ms = h2o_now(own.context->loop); /* the same all through a turn */
    if (now_ms != map->turn_ms || used > map->turn_used + SINK_TURN_BYTES_MAX) {
        map->turn_ms = now_ms;
        map->turn_used = used;
    }
    return map->file != NULL ? used : map->turn_used;
}

void body_map_drop_pages(struct body_map *map)
{
    size_t end = settled(map) / PAGE_BYTES * PAGE_BYTES;
    bool in_memory = map->file != NULL && body_file_is_in_memory(map->file);
    if (in_memory || end < map->dropped + BODY_STEP_BYTES)
        return;
    madvise((char *)map + map->dropped, end - map->dropped, MADV_DONTNEED);
    map->dropped = end;
}

/* ---- bodies that are passed over ---------------------------------------------------------------------------------- */

static size_t page_round(size_t bytes)
{
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static struct body_map *map_sink(size_t bytes, uint64_t sum_max)
{
    struct body_map *sink = MAP_FAILED;
    if (atomic_fetch_add(&sink_bytes, SINK_BYTES) < sum_max && bytes <= SINK_SPACE_MAX)
        sink = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (sink != MAP_FAILED)
        return sink;
    sink_bytes -= SINK_BYTES;
    return NULL;
}

/* Where in its mapping the last turn began, were the buffer's bytes at the front of it. */
static size_t turn_used_of(const struct body_map *map)
{
    return map->turn_used - (size_t)(map->buffer.bytes - map->buffer._buf);
}

/* Memory without pages: what is written there is dropped again by body_map_drop_pages. The buffer it replaces may be a sink that has
 * grown full: that one counts already. */
enum kv_err body_map_sink(h2o_buffer_t **inbuf, size_t min_guarantee, enum kv_err why)
{
    h2o_buffer_t *old = *inbuf;
    const struct body_map *before = old->_fd != -1 ? body_map_of(old) : NULL;
    bool was_sink = before != NULL && before->file == NULL;
    int fd = eventfd(0, EFD_CLOEXEC); /* marks the buffer as ours; nothing is opened: confine.h */
    if (fd < 0)
        return KV_NO_SPACE;
    size_t bytes = page_round((old->size + min_guarantee) * 2 + PAGE_BYTES);
    struct body_map *sink = map_sink(bytes, was_sink ? UINT64_MAX : SINK_SUM_MAX);
    if (sink == NULL) {
        close(fd);
        return KV_NO_SPACE;
    }
    sink->refused = why;
    adopt(sink, bytes, old, fd);
    sink->turn_ms = before != NULL ? before->turn_ms : h2o_now(own.context->loop);
    sink->turn_used = before != NULL ? turn_used_of(before) : 0;
    /* the decoder of a chunked body may not have seen the last bytes yet */
    size_t tail = old->size < SINK_TURN_BYTES_MAX ? old->size : SINK_TURN_BYTES_MAX;
    memcpy(sink->buffer.bytes + old->size - tail, old->bytes + old->size - tail, tail);
    h2o_buffer__do_free(old);
    *inbuf = &sink->buffer;
    return KV_OK;
}

/* ---- bodies in files ---------------------------------------------------------------------------------------------- */

/* How long its file is at the beginning. */
static size_t first_bytes(const h2o_buffer_t *old, size_t min_guarantee, uint64_t expected)
{
    if (expected <= BODY_FILE_MEMORY_MAX && expected > old->size)
        return page_round(expected + min_guarantee + BODY_STEP_BYTES); /* all of it at once */
    return page_round(old->size + min_guarantee + (old->_fd == -1 ? GROW_BYTES_MIN : body_map_of(old)->bytes));
}

enum kv_err body_map_file(h2o_buffer_t **inbuf, size_t min_guarantee, uint64_t expected)
{
    h2o_buffer_t *old = *inbuf;
    bool is_new = old->_fd == -1; /* else it moves from memory to the disk */
    size_t bytes = first_bytes(old, min_guarantee, expected);
    struct body_file *file = body_file_new(expected, bytes);
    if (file == NULL)
        return KV_NO_SPACE;
    enum kv_err err = body_file_extend(file, bytes, is_new);
    struct body_map *map = err == KV_OK ? body_file_map(file) : NULL;
    if (map == NULL) {
        body_file_free(&file);
        return err != KV_OK ? err : KV_NO_SPACE;
    }
    *map = (struct body_map){.file = file}; /* the file may have held another body */
    adopt(map, body_file_size(file), old, body_file_fd(file));
    memcpy(map->buffer.bytes, old->bytes, old->size);
    h2o_buffer__do_free(old);
    *inbuf = &map->buffer;
    return KV_OK;
}

/* A second mapping of the same file has the same bytes, this header among them. */
enum kv_err body_map_grow(h2o_buffer_t **inbuf, size_t min_guarantee)
{
    struct body_map *old = body_map_of(*inbuf);
    struct body_file *file = old->file;
    size_t more = old->bytes < GROW_BYTES_MAX ? old->bytes : GROW_BYTES_MAX;
    size_t begin = (size_t)(old->buffer.bytes - old->buffer._buf);
    more += page_round(min_guarantee);
    if (body_file_is_in_memory(file) && !body_file_fits_memory(file, old->bytes + more))
        return body_map_file(inbuf, min_guarantee, BODY_FILE_MEMORY_MAX + 1);
    enum kv_err err = body_file_extend(file, old->bytes + more, false);
    if (err != KV_OK)
        return err;
    DL_DELETE(own.list, old); /* neighbours point to it */
    struct body_map *grown = body_file_map(file);
    if (grown == NULL) {
        DL_APPEND(own.list, old);
        return KV_NO_SPACE;
    }
    grown->buffer.bytes = grown->buffer._buf + begin;
    grown->buffer.capacity += more;
    grown->bytes += more;
    DL_APPEND(own.list, grown);
    *inbuf = &grown->buffer;
    return KV_OK;
}
