/* router/body.c -- see body.h.
 * The way of a body: in memory (libh2o's own code) -> in a file, or passed over (body_map.h). */
#include "body.h"

#include <dlfcn.h>
#include <h2o/http2.h>
#include <h2o/http2_internal.h>
#include <stdatomic.h>

#include "body_map.h"
#include "h2o_guard.h"
#include "kv/log.h"
#include "turn.h"

static struct {
    uint64_t body_bytes_max;
    _Atomic uint64_t memory_bytes; /* of buffers in memory above their initial size */
    h2o_iovec_t (*reserve)(h2o_buffer_t **inbuf, size_t min_guarantee);
    void (*free)(h2o_buffer_t *buffer);
} router_wide;

static __thread struct {
    h2o_context_t *context;
    bool (*may_send)(h2o_req_t *req);
    uint64_t reserves; /* how often libh2o came here */
} own;

static size_t space_left(const h2o_buffer_t *buffer)
{
    return (size_t)(buffer->_buf + buffer->capacity - (buffer->bytes + buffer->size));
}

static h2o_iovec_t space_of(h2o_buffer_t *buffer)
{
    return h2o_iovec_init(buffer->bytes + buffer->size, space_left(buffer));
}

static const h2o_iovec_t no_space = {NULL, 0};

/* ---- whose buffer is it ------------------------------------------------------------------------------------------- */

struct search {
    h2o_buffer_t **inbuf;
    h2o_req_t *found;
    uint64_t expected; /* of the whole body, in HTTP/1 with its head; SIZE_MAX when unknown */
    size_t head_bytes; /* of these */
};

static int match_h1(h2o_req_t *req, void *arg)
{
    struct search *search = arg;
    const h2o_socket_t *socket = req->conn->callbacks->get_socket(req->conn);
    if (req->version < 0x100 || &socket->input != search->inbuf)
        return 0;
    search->found = req;
    search->expected = h2o_guard_h1_bytes((*search->inbuf)->bytes, (*search->inbuf)->size, &search->head_bytes);
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
    return space_of(fresh);
}

static h2o_iovec_t reserve_mapped(h2o_buffer_t **inbuf, size_t min_guarantee)
{
    struct body_map *map = body_map_of(*inbuf);
    enum kv_err err = KV_OK;
    if (map->settled)
        return return_to_memory(inbuf, min_guarantee);
    body_map_arrived(map);
    body_map_drop_pages(map);
    body_map_look_ahead(map);
    if (space_left(*inbuf) >= min_guarantee)
        return space_of(*inbuf);
    if ((*inbuf)->size + min_guarantee <= BODY_MEMORY_BYTES_SCARCE)
        return return_to_memory(inbuf, min_guarantee);
    if (map->file == NULL)
        err = body_map_sink(inbuf, min_guarantee, map->refused);
    else if ((*inbuf)->size > router_wide.body_bytes_max)
        err = body_map_sink(inbuf, min_guarantee, KV_TOO_LARGE);
    else if ((err = body_map_grow(inbuf, min_guarantee)) != KV_OK)
        err = body_map_sink(inbuf, min_guarantee, err);
    return err == KV_OK ? space_of(*inbuf) : no_space;
}

/* A value of known length, just moved into a file in memory, is hashed as it comes. From then on only the worker may look at it: short
 * ones, which the loop hashes, are left to it. Of larger ones, on the disk, the worker would be one busy thread more for a second, and
 * small requests beside them would wait more than three times as long as alone (system/test_large). */
static void begin_job(struct body_map *map, const struct search *search)
{
    const h2o_iovec_t *method = &search->found->input.method;
    uint64_t offset = (uint64_t)(map->buffer.bytes - (char *)map) + search->head_bytes;
    size_t bytes = search->expected - search->head_bytes;
    if (search->expected != SIZE_MAX && bytes > BODY_MEMORY_BYTES_SCARCE && body_file_is_in_memory(map->file) &&
        h2o_memis(method->base, method->len, H2O_STRLIT("PUT")))
        map->job = body_job_new(map->file, offset, bytes);
}

/* A body that outgrew memory. */
static h2o_iovec_t reserve_large(h2o_buffer_t **inbuf, size_t min_guarantee)
{
    struct search search;
    if (!find_request(inbuf, &search))
        return reserve_in_memory(inbuf, min_guarantee);
    enum kv_err err = search.expected != SIZE_MAX && search.expected > router_wide.body_bytes_max ? KV_TOO_LARGE
                      : !own.may_send(search.found)
                          ? KV_CANCELLED
                          : body_map_file(inbuf, min_guarantee, search.expected, h2o_guard_of(search.found));
    if (err == KV_OK)
        begin_job(body_map_of(*inbuf), &search);
    else
        err = body_map_sink(inbuf, min_guarantee, err);
    return err == KV_OK ? space_of(*inbuf) : no_space;
}

static h2o_iovec_t reserve(h2o_buffer_t **inbuf, size_t min_guarantee)
{
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

h2o_iovec_t h2o_buffer_reserve(h2o_buffer_t **inbuf, size_t min_guarantee)
{
    bool reads = min_guarantee == TURN_READ_GUARANTEE && (*inbuf)->_prototype == &h2o_socket_buffer_prototype;
    own.reserves++;
    if (reads && turn_is_over(inbuf))
        return h2o_iovec_init((*inbuf)->bytes + (*inbuf)->size, 0);
    h2o_iovec_t space = reserve(inbuf, min_guarantee);
    if (reads && space.base != NULL)
        space.len = turn_give(inbuf, space.len);
    return space;
}

void h2o_buffer__do_free(h2o_buffer_t *buffer)
{
    if (is_ours(buffer)) {
        body_map_free(body_map_of(buffer));
        return;
    }
    router_wide.memory_bytes -= counted_bytes(buffer);
    router_wide.free(buffer);
}

/* ---- what the router asks ----------------------------------------------------------------------------------------- */

enum kv_err body_settle(const h2o_req_t *req)
{
    struct body_map *map = body_map_find(req->entity.base);
    if (map == NULL)
        return KV_OK;
    map->settled = true;
    return map->file != NULL ? KV_OK : map->refused;
}

struct body_file *body_take_file(const h2o_req_t *req, uint64_t *offset)
{
    struct body_map *map = body_map_find(req->entity.base);
    if (map == NULL || map->file == NULL)
        return NULL;
    *offset = (uint64_t)(req->entity.base - (char *)map);
    return body_file_hold(map->file);
}

struct work_job *body_take_job(const h2o_req_t *req)
{
    struct body_map *map = body_map_find(req->entity.base);
    struct work_job *job = map != NULL ? map->job : NULL;
    if (job == NULL)
        return NULL;
    /* libh2o gives no body of another length than was declared to a handler */
    kv_assert(job->content.bytes == req->entity.len);
    kv_assert(job->file_offset == (uint64_t)(req->entity.base - (char *)map));
    map->job = NULL;
    return job;
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

void body_thread_init(h2o_context_t *context, bool (*may_send)(h2o_req_t *req), struct work *work,
                      h2o_multithread_receiver_t *worked)
{
    own.context = context;
    body_map_thread_init(context);
    body_job_thread_init(work, worked);
    own.may_send = may_send;
}
