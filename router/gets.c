/* router/gets.c -- see gets.h. */
#include "gets.h"

#include <h2o/http2.h>
#include <h2o/http2_internal.h>

#include "api.h"
#include "thread.h"

static struct router_thread *thread_of(struct gets *gets)
{
    return H2O_STRUCT_FROM_MEMBER(struct router_thread, gets, gets);
}

static void on_gone(void *state)
{
    struct gets_one *one = state;
    one->exchange = NULL;
}

/* Answering may end others, or bring more: those do not wait. */
static void answer_all(struct gets *gets)
{
    gets->answering = true;
    for (size_t i = 0; i < gets->count; i++)
        cache_fetch_entry(thread_of(gets)->cache, gets->list[i].hash);
    for (size_t i = 0; i < gets->count; i++) {
        struct exchange *exchange = gets->list[i].exchange;
        if (exchange == NULL)
            continue;
        exchange->on_gone = NULL;
        api_get_now(exchange);
    }
    gets->count = 0;
    gets->answering = false;
    if (h2o_timeout_is_linked(&gets->due))
        h2o_timeout_unlink(&gets->due);
}

static void on_due(h2o_timeout_entry_t *entry)
{
    answer_all(H2O_STRUCT_FROM_MEMBER(struct gets, due, entry));
}

void gets_init(struct gets *gets)
{
    gets->due.cb = on_due;
}

/* Whether libh2o will look at another frame when this request's handler returns: it consumes the frame that it is at only then. A
 * request that it had put aside may be taken for the last one, or not: neither does harm. */
static bool more_to_come(const h2o_req_t *req)
{
    if (req->version < 0x200)
        return false;
    const h2o_http2_conn_t *conn = (const h2o_http2_conn_t *)(const void *)req->conn;
    const h2o_buffer_t *input = conn->sock->input;
    const uint8_t *frame = (const uint8_t *)input->bytes;
    return input->size > H2O_HTTP2_FRAME_HEADER_SIZE &&
           input->size > H2O_HTTP2_FRAME_HEADER_SIZE + h2o_http2_decode24u(frame);
}

static void keep(struct gets *gets, struct exchange *exchange)
{
    struct router_thread *thread = thread_of(gets);
    struct gets_one *one = &gets->list[gets->count++];
    *one = (struct gets_one){exchange, cache_fetch_place(thread->cache, exchange->key)};
    exchange->state = one;
    exchange->on_gone = on_gone;
    if (!h2o_timeout_is_linked(&gets->due))
        h2o_timeout_link(thread->context.loop, &thread->context.zero_timeout, &gets->due);
}

void api_get(struct exchange *exchange)
{
    struct gets *gets = &exchange->thread->gets;
    bool last = !more_to_come(exchange->req);
    if (gets->answering || (last && gets->count == 0)) {
        api_get_now(exchange);
        return;
    }
    keep(gets, exchange);
    if (last || gets->count == GETS_MAX)
        answer_all(gets);
}
