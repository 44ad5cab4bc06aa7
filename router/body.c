/* router/body.c -- see body.h.
 * The way of a body: in memory (libh2o's own code) -> in a file (grow_file) or passed over (become_sink).
 * A file or a sink is one mapping: struct mapped, then libh2o's buffer header, then the bytes. libh2o sees its buffer only, and
 * that the buffer has a descriptor: ours always has one, its own never, since its own way to files is switched off. */
#include "body.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <h2o/http2.h>
#include <h2o/http2_internal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <utlist.h>

#include "kv/buf.h"
#include "kv/log.h"

enum {
    PAGE_BYTES = 4096,
    GROW_BYTES_MIN = 1 << 20, /* a file grows by as much as it has, within these two */
    GROW_BYTES_MAX = 8 << 20,
    SINK_BYTES = 512 * 1024, /* what a sink is counted with: about what it has in memory */
    SINK_TURN_BYTES_MAX = 8 << 20,
    STEP_BYTES = 256 * 1024,
    SINK_SUM_MAX = 64 << 20,
};
#define SINK_SPACE_MAX ((size_t)1 << 40) /* of address space; a client that sends more is cut off */

struct mapped {
    size_t bytes;           /* of the mapping */
    size_t dropped;         /* up to here pages were given back */
    struct body_file *file; /* NULL: a sink */
    uint64_t turn_ms;       /* the loop's clock when the last turn began that brought bytes, */
    size_t turn_used;       /* and how far the mapping was in use then */
    enum kv_err refused;    /* why it is a sink */
    struct mapped *prev, *next;
    h2o_buffer_t buffer;
};

static struct {
    uint64_t body_bytes_max;
    _Atomic uint64_t memory_bytes; /* of buffers in memory above their initial size */
    _Atomic uint64_t sink_bytes;
    h2o_iovec_t (*reserve)(h2o_buffer_t **inbuf, size_t min_guarantee);
    void (*free)(h2o_buffer_t *buffer);
} router_wide;

static __thread struct {
    h2o_context_t *context;
    bool (*may_send)(h2o_req_t *req);
    struct mapped *list; /* what this thread has mapped, utlist */
    uint64_t reserves;   /* how often libh2o came here */
} own;

static struct mapped *mapped_of(const h2o_buffer_t *buffer)
{
    return H2O_STRUCT_FROM_MEMBER(struct mapped, buffer, (h2o_buffer_t *)(uintptr_t)buffer);
}

static size_t space_left(const h2o_buffer_t *buffer)
{
    return (size_t)(buffer->_buf + buffer->capacity - (buffer->bytes + buffer->size));
}

/* Not all of it: after each STEP_BYTES libh2o shall come back, so that drop_pages has its turn. */
static h2o_iovec_t space_of(h2o_buffer_t *buffer, size_t min_guarantee)
{
    size_t space = space_left(buffer);
    size_t step = min_guarantee > STEP_BYTES ? min_guarantee : STEP_BYTES;
    return h2o_iovec_init(buffer->bytes + buffer->size, space < step ? space : step);
}

static const h2o_iovec_t no_space = {NULL, 0};

/* ---- mappings ----------------------------------------------------------------------------------------------------- */

static void unmap(struct mapped *mapped)
{
    DL_DELETE(own.list, mapped);
    if (mapped->file == NULL)
        router_wide.sink_bytes -= SINK_BYTES;
    if (mapped->file == NULL)
        close(mapped->buffer._fd);
    else
        body_file_free(&mapped->file);
    munmap(mapped, mapped->bytes);
}

/* Takes over what `old` says of itself; its bytes are the caller's business. */
static void adopt(struct mapped *mapped, size_t bytes, const h2o_buffer_t *old, int fd)
{
    mapped->bytes = bytes;
    mapped->dropped = PAGE_BYTES;
    mapped->buffer._prototype = old->_prototype;
    mapped->buffer._fd = fd;
    mapped->buffer.bytes = mapped->buffer._buf;
    mapped->buffer.size = old->size;
    mapped->buffer.capacity = bytes - offsetof(struct mapped, buffer) - offsetof(h2o_buffer_t, _buf);
    DL_APPEND(own.list, mapped);
}

/* Up to where nobody will look again. The decoder of a chunked HTTP/1 body comes after all reads of a turn of the loop: what
 * this turn brought stays in a sink, unless a client floods it. */
static size_t settled(struct mapped *mapped)
{
    size_t used = (size_t)(mapped->buffer.bytes + mapped->buffer.size - (char *)mapped);
    uint64_t now_ms = h2o_now(own.context->loop); /* the same all through a turn */
    if (now_ms != mapped->turn_ms || used > mapped->turn_used + SINK_TURN_BYTES_MAX) {
        mapped->turn_ms = now_ms;
        mapped->turn_used = used;
    }
    return mapped->file != NULL ? used : mapped->turn_used;
}

/* Pages that were written some time ago leave this process: those of a file are the kernel's to keep, those of a sink gone. */
static void drop_pages(struct mapped *mapped)
{
    size_t end = settled(mapped) / PAGE_BYTES * PAGE_BYTES;
    bool in_memory = mapped->file != NULL && body_file_is_in_memory(mapped->file);
    if (in_memory || end < mapped->dropped + STEP_BYTES)
        return;
    madvise((char *)mapped + mapped->dropped, end - mapped->dropped, MADV_DONTNEED);
    mapped->dropped = end;
}

/* ---- bodies that are passed over ---------------------------------------------------------------------------------- */

static size_t page_round(size_t bytes)
{
    return (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
}

static struct mapped *map_sink(size_t bytes, uint64_t sum_max)
{
    struct mapped *sink = MAP_FAILED;
    if (atomic_fetch_add(&router_wide.sink_bytes, SINK_BYTES) < sum_max && bytes <= SINK_SPACE_MAX)
        sink = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (sink != MAP_FAILED)
        return sink;
    router_wide.sink_bytes -= SINK_BYTES;
    return NULL;
}

/* Where in its mapping the last turn began, were the buffer's bytes at the front of it. */
static size_t turn_used_of(const struct mapped *mapped)
{
    return mapped->turn_used - (size_t)(mapped->buffer.bytes - mapped->buffer._buf);
}

/* Memory without pages: what is written there is dropped again by drop_pages. The buffer it replaces may be a sink that has
 * grown full: that one counts already. */
static enum kv_err become_sink(h2o_buffer_t **inbuf, size_t min_guarantee, enum kv_err why)
{
    h2o_buffer_t *old = *inbuf;
    const struct mapped *before = old->_fd != -1 ? mapped_of(old) : NULL;
    bool was_sink = before != NULL && before->file == NULL;
    int fd = eventfd(0, EFD_CLOEXEC); /* marks the buffer as ours; nothing is opened: confine.h */
    if (fd < 0)
        return KV_NO_SPACE;
    size_t bytes = page_round((old->size + min_guarantee) * 2 + PAGE_BYTES);
    struct mapped *sink = map_sink(bytes, was_sink ? UINT64_MAX : SINK_SUM_MAX);
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

/* Pages of a file in memory are there already: mapped at once they cost a fraction of a fault each. */
static struct mapped *map_file(const struct body_file *file, size_t bytes)
{
    int at_once = body_file_is_in_memory(file) ? MAP_POPULATE : 0;
    struct mapped *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | at_once, body_file_fd(file), 0);
    return mapped == MAP_FAILED ? NULL : mapped;
}

static enum kv_err become_file(h2o_buffer_t **inbuf, size_t min_guarantee, uint64_t expected)
{
    h2o_buffer_t *old = *inbuf;
    bool is_new = old->_fd == -1; /* else it moves from memory to the disk */
    size_t bytes = page_round(old->size + min_guarantee + (is_new ? GROW_BYTES_MIN : mapped_of(old)->bytes));
    struct body_file *file = body_file_new(expected);
    if (file == NULL)
        return KV_NO_SPACE;
    if (body_file_is_in_memory(file) && expected <= BODY_FILE_MEMORY_MAX && expected > old->size)
        bytes = page_round(expected + min_guarantee + STEP_BYTES); /* all of it at once */
    enum kv_err err = body_file_extend(file, 0, bytes, is_new);
    struct mapped *mapped = err == KV_OK ? map_file(file, bytes) : NULL;
    if (mapped == NULL) {
        body_file_free(&file);
        return err != KV_OK ? err : KV_NO_SPACE;
    }
    mapped->file = file;
    adopt(mapped, bytes, old, body_file_fd(file));
    memcpy(mapped->buffer.bytes, old->bytes, old->size);
    h2o_buffer__do_free(old);
    *inbuf = &mapped->buffer;
    return KV_OK;
}

/* A second mapping of the same file has the same bytes, this header among them. (Not mremap: the thread sanitizer does not
 * know it and takes the new place for the one of another thread's earlier mapping.) */
static enum kv_err grow_file(h2o_buffer_t **inbuf, size_t min_guarantee)
{
    struct mapped *old = mapped_of(*inbuf);
    size_t more = old->bytes < GROW_BYTES_MAX ? old->bytes : GROW_BYTES_MAX;
    more += page_round(min_guarantee);
    if (body_file_is_in_memory(old->file) && !body_file_fits_memory(old->file, old->bytes + more))
        return become_file(inbuf, min_guarantee, BODY_FILE_MEMORY_MAX + 1);
    enum kv_err err = body_file_extend(old->file, old->bytes, more, false);
    if (err != KV_OK)
        return err;
    struct mapped *grown = map_file(old->file, old->bytes + more);
    if (grown == NULL)
        return KV_NO_SPACE;
    DL_DELETE(own.list, old); /* neighbours point to it */
    grown->buffer.bytes = grown->buffer._buf + (old->buffer.bytes - old->buffer._buf);
    grown->buffer.capacity += more;
    munmap(old, old->bytes);
    grown->bytes += more;
    DL_APPEND(own.list, grown);
    *inbuf = &grown->buffer;
    return KV_OK;
}

/* ---- whose buffer is it ------------------------------------------------------------------------------------------- */

struct search {
    h2o_buffer_t **inbuf;
    h2o_req_t *found;
    uint64_t expected; /* Content-Length, SIZE_MAX when unknown */
};

static int match_h1(h2o_req_t *req, void *arg)
{
    struct search *search = arg;
    if (req->version < 0x100 || &req->conn->callbacks->get_socket(req->conn)->input != search->inbuf)
        return 0;
    search->found = req;
    return 1;
}

static int match_h2(h2o_req_t *req, void *arg)
{
    struct search *search = arg;
    h2o_http2_stream_t *stream = H2O_STRUCT_FROM_MEMBER(h2o_http2_stream_t, req, req);
    if (&stream->_req_body != search->inbuf)
        return 0;
    search->found = req;
    search->expected = stream->_expected_content_length;
    return 1;
}

/* False: no request's body, but headers, frames or TLS records. Walks all requests of the loop: asked only when a buffer has
 * grown large. */
static bool find_request(h2o_buffer_t **inbuf, struct search *out)
{
    *out = (struct search){.inbuf = inbuf, .expected = SIZE_MAX};
    if (own.context == NULL)
        return false;
    own.context->globalconf->http2.callbacks.foreach_request(own.context, match_h2, out);
    if (out->found == NULL)
        own.context->globalconf->http1.callbacks.foreach_request(own.context, match_h1, out);
    return out->found != NULL;
}

/* ---- what libh2o calls -------------------------------------------------------------------------------------------- */

static bool is_ours(const h2o_buffer_t *buffer)
{
    return buffer->bytes != NULL && buffer->_fd != -1;
}

static uint64_t counted_bytes(const h2o_buffer_t *buffer)
{
    bool counts = buffer->bytes != NULL && buffer->_fd == -1 && buffer->_prototype == &h2o_socket_buffer_prototype &&
                  buffer->capacity > h2o_socket_buffer_prototype._initial_buf.capacity;
    return counts ? buffer->capacity : 0;
}

/* A buffer that is replaced comes by h2o_buffer__do_free, which takes it off the sum. */
static h2o_iovec_t reserve_in_memory(h2o_buffer_t **inbuf, size_t min_guarantee)
{
    const h2o_buffer_t *before = *inbuf;
    h2o_iovec_t space = router_wide.reserve(inbuf, min_guarantee);
    if (*inbuf != before)
        router_wide.memory_bytes += counted_bytes(*inbuf);
    return space;
}

/* The body was answered; what a pipelining client sent behind it does not need a file. */
static h2o_iovec_t return_to_memory(h2o_buffer_t **inbuf, size_t min_guarantee)
{
    h2o_buffer_t *old = *inbuf;
    h2o_buffer_t *fresh = &old->_prototype->_initial_buf;
    h2o_iovec_t space = reserve_in_memory(&fresh, old->size + min_guarantee);
    memcpy(space.base, old->bytes, old->size);
    fresh->size = old->size;
    *inbuf = fresh;
    h2o_buffer__do_free(old);
    return space_of(fresh, min_guarantee);
}

static h2o_iovec_t reserve_mapped(h2o_buffer_t **inbuf, size_t min_guarantee)
{
    struct mapped *mapped = mapped_of(*inbuf);
    enum kv_err err = KV_OK;
    drop_pages(mapped);
    if (space_left(*inbuf) >= min_guarantee)
        return space_of(*inbuf, min_guarantee);
    if ((*inbuf)->size + min_guarantee <= BODY_MEMORY_BYTES_SCARCE)
        return return_to_memory(inbuf, min_guarantee);
    if (mapped->file == NULL)
        err = become_sink(inbuf, min_guarantee, mapped->refused);
    else if ((*inbuf)->size > router_wide.body_bytes_max)
        err = become_sink(inbuf, min_guarantee, KV_TOO_LARGE);
    else if ((err = grow_file(inbuf, min_guarantee)) != KV_OK)
        err = become_sink(inbuf, min_guarantee, err);
    return err == KV_OK ? space_of(*inbuf, min_guarantee) : no_space;
}

/* A body that outgrew memory. */
static h2o_iovec_t reserve_large(h2o_buffer_t **inbuf, size_t min_guarantee)
{
    struct search search;
    if (!find_request(inbuf, &search))
        return reserve_in_memory(inbuf, min_guarantee);
    enum kv_err err = search.expected != SIZE_MAX && search.expected > router_wide.body_bytes_max ? KV_TOO_LARGE
                      : !own.may_send(search.found)                                               ? KV_CANCELLED
                                                    : become_file(inbuf, min_guarantee, search.expected);
    if (err != KV_OK)
        err = become_sink(inbuf, min_guarantee, err);
    return err == KV_OK ? space_of(*inbuf, min_guarantee) : no_space;
}

h2o_iovec_t h2o_buffer_reserve(h2o_buffer_t **inbuf, size_t min_guarantee)
{
    own.reserves++;
    h2o_buffer_t *buffer = *inbuf;
    if (is_ours(buffer))
        return reserve_mapped(inbuf, min_guarantee);
    if (buffer->bytes == NULL || space_left(buffer) >= min_guarantee ||
        buffer->_prototype != &h2o_socket_buffer_prototype)
        return reserve_in_memory(inbuf, min_guarantee);
    uint64_t sum = router_wide.memory_bytes;
    uint64_t bytes_max = sum < BODY_MEMORY_SUM_SCARCE ? BODY_MEMORY_BYTES_MAX : BODY_MEMORY_BYTES_SCARCE;
    if (sum > BODY_MEMORY_SUM_MAX)
        return no_space;
    return buffer->size + min_guarantee > bytes_max ? reserve_large(inbuf, min_guarantee)
                                                    : reserve_in_memory(inbuf, min_guarantee);
}

void h2o_buffer__do_free(h2o_buffer_t *buffer)
{
    if (is_ours(buffer)) {
        unmap(mapped_of(buffer));
        return;
    }
    router_wide.memory_bytes -= counted_bytes(buffer);
    router_wide.free(buffer);
}

/* ---- what the router asks ----------------------------------------------------------------------------------------- */

static struct mapped *find_mapped(const h2o_req_t *req)
{
    const char *base = req->entity.base;
    struct mapped *mapped;
    if (base == NULL)
        return NULL;
    DL_FOREACH(own.list, mapped)
    if (base > (char *)mapped && base < (char *)mapped + mapped->bytes)
        return mapped;
    return NULL;
}

enum kv_err body_state(const h2o_req_t *req)
{
    const struct mapped *mapped = find_mapped(req);
    return mapped == NULL || mapped->file != NULL ? KV_OK : mapped->refused;
}

struct body_file *body_take_file(const h2o_req_t *req, uint64_t *offset)
{
    struct mapped *mapped = find_mapped(req);
    if (mapped == NULL || mapped->file == NULL)
        return NULL;
    *offset = (uint64_t)(req->entity.base - (char *)mapped);
    return body_file_hold(mapped->file);
}

uint64_t body_memory_bytes(void)
{
    return router_wide.memory_bytes;
}

/* ---- beginning ---------------------------------------------------------------------------------------------------- */

__attribute__((constructor)) static void find_originals(void)
{
    router_wide.reserve = (h2o_iovec_t(*)(h2o_buffer_t **, size_t))dlsym(RTLD_NEXT, "h2o_buffer_reserve");
    router_wide.free = (void (*)(h2o_buffer_t *))dlsym(RTLD_NEXT, "h2o_buffer__do_free");
    if (router_wide.reserve == NULL || router_wide.free == NULL)
        kv_fatal("libh2o has no buffers as this program knows them");
}

/* libh2o encodes a frame into a buffer: it must come here for the space. */
static bool is_in_place(void)
{
    static h2o_buffer_prototype_t prototype = {.allocator = {.max = 1}, ._initial_buf = {.capacity = 64}};
    h2o_buffer_t *buffer;
    uint8_t ping[8] = {0};
    uint64_t before = own.reserves;
    h2o_buffer_init(&buffer, &prototype);
    h2o_http2_encode_ping_frame(&buffer, 0, ping);
    h2o_buffer_dispose(&buffer);
    return own.reserves > before;
}

enum kv_err body_init(const struct kv_settings *settings)
{
    uint64_t value_bytes_max = settings->value_bytes_max;
    uint64_t batch_bytes_max = settings->batch_bytes_max;
    router_wide.body_bytes_max = (value_bytes_max > batch_bytes_max ? value_bytes_max : batch_bytes_max) +
                                 H2O_MAX_REQLEN; /* HTTP/1: with headers */
    h2o_socket_buffer_mmap_settings.threshold = SIZE_MAX;
    body_files_init(settings->upload_bytes_max);
    return is_in_place() ? KV_OK : KV_INVALID;
}

void body_thread_init(h2o_context_t *context, bool (*may_send)(h2o_req_t *req))
{
    own.context = context;
    own.may_send = may_send;
}
