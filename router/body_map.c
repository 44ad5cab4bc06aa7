/* router/body_map.c -- see body_map.h. */
#include "body_map.h"

#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utlist.h>

#include "turn.h"

enum {
    PAGE_BYTES = 4096,
    GROW_BYTES_MIN = 1 << 20, /* a file grows by as much as it has, within these two */
    GROW_BYTES_MAX = 8 << 20,
    SPACE_MIN = 64 << 20,    /* of addresses, for a file on the disk */
    SINK_BYTES = 512 * 1024, /* what a sink is counted with: about what it has in memory */
    SINK_TURN_BYTES_MAX = 8 << 20,
    SINK_SUM_MAX = 64 << 20,
};
/* Addresses for one body: a sink whose client sends more is cut off, and a length that claims more is not believed. */
#define SPACE_MAX ((size_t)1 << 40)

static _Atomic uint64_t sink_bytes; /* of all threads */

static __thread struct {
    h2o_context_t *context;
    struct body_map *list; /* utlist */
    h2o_timeout_t moment;  /* between two looks at those that wait */
    h2o_timeout_entry_t look;
} own;

static void on_look(h2o_timeout_entry_t *entry);

void body_map_thread_init(h2o_context_t *context)
{
    own.context = context;
    own.look.cb = on_look;
    h2o_timeout_init(context->loop, &own.moment, 1);
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

static size_t used_bytes(struct body_map *map)
{
    return (size_t)(map->buffer.bytes + map->buffer.size - (char *)map);
}

static void use(struct body_map *map, size_t bytes)
{
    map->bytes = bytes;
    map->buffer.capacity = bytes - offsetof(struct body_map, buffer) - offsetof(h2o_buffer_t, _buf);
}

/* ---- files that grow ahead ---------------------------------------------------------------------------------------- */

/* So far of what comes next, as far as the mapping goes. */
static size_t ahead(struct body_map *map, size_t bytes)
{
    size_t used = used_bytes(map);
    return bytes < map->space - used ? used + bytes : map->space;
}

static bool is_too_fast(struct body_map *map)
{
    return body_file_grows(map->file) && body_file_length(map->file) < ahead(map, BODY_WAIT_BYTES);
}

static void stop_waiting(struct body_map *map)
{
    if (map->waits)
        h2o_guard_read_on(map->guarded);
    map->waits = false;
}

static void look_again(void)
{
    if (!h2o_timeout_is_linked(&own.look))
        h2o_timeout_link(own.context->loop, &own.moment, &own.look);
}

static void on_look(h2o_timeout_entry_t *entry)
{
    struct body_map *map;
    (void)entry;
    DL_FOREACH(own.list, map) {
        if (map->waits && !is_too_fast(map))
            stop_waiting(map);
        if (map->waits)
            look_again();
    }
}

void body_map_arrived(struct body_map *map)
{
    if (map->job != NULL)
        body_job_arrived(map->job, used_bytes(map) - map->job->file_offset);
}

void body_map_look_ahead(struct body_map *map)
{
    if (map->file == NULL || body_file_is_in_memory(map->file))
        return;
    size_t length = body_file_length(map->file);
    if (length < ahead(map, BODY_AHEAD_BYTES - BODY_STEP_BYTES))
        body_file_extend_soon(map->file, ahead(map, BODY_AHEAD_BYTES));
    use(map, length < map->space ? length : map->space);
    if (map->guarded == NULL || map->waits || !is_too_fast(map))
        return;
    map->waits = true;
    h2o_guard_pause(map->guarded);
    look_again();
}

/* ---- mappings ----------------------------------------------------------------------------------------------------- */

void body_map_free(struct body_map *map)
{
    DL_DELETE(own.list, map);
    stop_waiting(map);
    body_job_free(&map->job);
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
    map->dropped = PAGE_BYTES;
    map->buffer._prototype = old->_prototype;
    map->buffer._fd = fd;
    map->buffer.bytes = map->buffer._buf;
    map->buffer.size = old->size;
    use(map, bytes);
    DL_APPEND(own.list, map);
}

/* Up to where nobody will look again. The decoder of a chunked HTTP/1 body comes after all reads of a turn of the loop: what
 * this turn brought stays in a sink, unless a client floods it. */
static size_t settled(struct body_map *map)
{
    size_t used = used_bytes(map);
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
    if (atomic_fetch_add(&sink_bytes, SINK_BYTES) < sum_max && bytes <= SPACE_MAX)
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

/* From where on in the buffer somebody may still look: the decoder of a chunked body may not have seen the last bytes yet. A body that
 * is in work has a length instead, and until its end it is the worker's, who writes there: only what comes behind it is looked at. */
static size_t unseen_from(const h2o_buffer_t *buffer, struct body_map *map)
{
    size_t from = buffer->size - (buffer->size < SINK_TURN_BYTES_MAX ? buffer->size : SINK_TURN_BYTES_MAX);
    if (map == NULL || map->job == NULL)
        return from;
    size_t end = map->job->file_offset + map->job->content.bytes - (size_t)(buffer->bytes - (char *)map);
    return end < from ? from : end < buffer->size ? end : buffer->size;
}

/* Memory without pages: what is written there is dropped again by body_map_drop_pages. The buffer it replaces may be a sink that has
 * grown full: that one counts already. */
enum kv_err body_map_sink(h2o_buffer_t **inbuf, size_t min_guarantee, enum kv_err why)
{
    h2o_buffer_t *old = *inbuf;
    struct body_map *before = old->_fd != -1 ? body_map_of(old) : NULL;
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
    size_t from = unseen_from(old, before);
    memcpy(sink->buffer.bytes + from, old->bytes + from, old->size - from);
    h2o_buffer__do_free(old);
    *inbuf = &sink->buffer;
    return KV_OK;
}

/* ---- bodies in files ---------------------------------------------------------------------------------------------- */

/* How long its file is at the beginning. One that is hashed as it comes must not grow in memory (body_map_grow): so there is room for
 * what a turn may bring behind it. */
static size_t first_bytes(const h2o_buffer_t *old, size_t min_guarantee, uint64_t expected)
{
    if (expected <= BODY_FILE_MEMORY_MAX && expected > old->size)
        return page_round(expected + min_guarantee + 2 * TURN_BYTES); /* all of it at once */
    return page_round(old->size + min_guarantee + (old->_fd == -1 ? GROW_BYTES_MIN : body_map_of(old)->bytes));
}

/* How much is mapped of a file that is to have `bytes` now: of one on the disk as much as it will have, so that it stays where it is,
 * or, when nobody knows, twice as much each time. */
static size_t space_for(const struct body_file *file, size_t bytes, uint64_t expected)
{
    if (body_file_is_in_memory(file))
        return bytes;
    if (expected > bytes && expected < SPACE_MAX)
        return page_round(expected + 2 * BODY_STEP_BYTES);
    return bytes > SPACE_MIN / 2 ? 2 * bytes : SPACE_MIN;
}

/* Through the mapping each page of a file on the disk would cost a fault. */
static enum kv_err copy_into(struct body_map *map, const h2o_buffer_t *old)
{
    size_t offset = (size_t)(map->buffer.bytes - (char *)map);
    if (!body_file_is_in_memory(map->file))
        return body_file_write(map->file, offset, (const uint8_t *)old->bytes, old->size);
    memcpy(map->buffer.bytes, old->bytes, old->size);
    return KV_OK;
}

enum kv_err body_map_file(h2o_buffer_t **inbuf, size_t min_guarantee, uint64_t expected, struct guarded *guarded)
{
    h2o_buffer_t *old = *inbuf;
    bool is_new = old->_fd == -1; /* else it moves from memory to the disk */
    size_t bytes = first_bytes(old, min_guarantee, expected);
    struct body_file *file = body_file_new(expected, bytes);
    if (file == NULL)
        return KV_NO_SPACE;
    enum kv_err err = body_file_extend(file, bytes, is_new);
    size_t length = body_file_length(file);
    size_t space = space_for(file, length, expected);
    struct body_map *map = err == KV_OK ? body_file_map(file, space) : NULL;
    if (map == NULL) {
        body_file_free(&file);
        return err != KV_OK ? err : KV_NO_SPACE;
    }
    *map = (struct body_map){.space = space, .file = file, .guarded = guarded}; /* it may have held another body */
    adopt(map, length, old, body_file_fd(file));
    if (copy_into(map, old) != KV_OK) {
        body_map_free(map);
        return KV_NO_SPACE;
    }
    h2o_buffer__do_free(old);
    *inbuf = &map->buffer;
    return KV_OK;
}

/* A second mapping of the same file has the same bytes, this header among them. */
static struct body_map *map_more(struct body_map *old, size_t space)
{
    size_t begin = (size_t)(old->buffer.bytes - old->buffer._buf);
    DL_DELETE(own.list, old); /* neighbours point to it */
    struct body_map *map = body_file_map(old->file, space);
    if (map == NULL) {
        DL_APPEND(own.list, old);
        return NULL;
    }
    map->buffer.bytes = map->buffer._buf + begin;
    map->space = space;
    DL_APPEND(own.list, map);
    return map;
}

enum kv_err body_map_grow(h2o_buffer_t **inbuf, size_t min_guarantee)
{
    struct body_map *map = body_map_of(*inbuf);
    size_t needed = map->bytes + page_round(min_guarantee);
    size_t bytes = needed + (map->bytes < GROW_BYTES_MAX ? map->bytes : GROW_BYTES_MAX);
    if (needed <= map->space && bytes > map->space)
        bytes = map->space; /* more will hardly come */
    if (body_file_is_in_memory(map->file) && map->job != NULL)
        return KV_OVERLOADED; /* the worker reads where it lies; only a client that sends more than it said comes here */
    if (body_file_is_in_memory(map->file) && !body_file_fits_memory(map->file, bytes))
        return body_map_file(inbuf, min_guarantee, BODY_FILE_MEMORY_MAX + 1, map->guarded);
    enum kv_err err = body_file_extend(map->file, bytes, false);
    if (err != KV_OK)
        return err;
    if (bytes > map->space)
        map = map_more(map, space_for(map->file, bytes, SIZE_MAX));
    if (map == NULL)
        return KV_NO_SPACE;
    use(map, bytes);
    *inbuf = &map->buffer;
    return KV_OK;
}
