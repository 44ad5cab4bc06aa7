/* router/h2o_guard_pause.c -- see h2o_guard.h. This file: reading later. Who asks for it is in the midst of a read of libh2o's, or of
 * the end of a request: the socket is touched when the turn of the loop is over, if it is still there. */
#include "h2o_guard_internal.h"
#include "kv/log.h"
#include "thread.h"

static void on_turn_over(h2o_timeout_entry_t *entry)
{
    struct guarded *guarded = H2O_STRUCT_FROM_MEMBER(struct guarded, pause.settle, entry);
    h2o_socket_t *socket = guarded->socket;
    if (guarded->pause.asked > 0 && socket->_cb.read != NULL) {
        guarded->pause.read = socket->_cb.read;
        h2o_socket_read_stop(socket);
    } else if (guarded->pause.asked == 0 && guarded->pause.read != NULL) {
        h2o_socket_read_start(socket, guard_pause_over(guarded));
    }
}

static void settle_soon(struct guarded *guarded)
{
    h2o_context_t *context = &guarded->thread->context;
    guarded->pause.settle.cb = on_turn_over;
    if (!h2o_timeout_is_linked(&guarded->pause.settle))
        h2o_timeout_link(context->loop, &context->zero_timeout, &guarded->pause.settle);
}

void h2o_guard_pause(struct guarded *guarded)
{
    guarded->pause.asked++;
    settle_soon(guarded);
}

void h2o_guard_read_on(struct guarded *guarded)
{
    kv_assert(guarded->pause.asked > 0);
    guarded->pause.asked--;
    settle_soon(guarded);
}

h2o_socket_cb guard_pause_over(struct guarded *guarded)
{
    h2o_socket_cb read = guarded->pause.read != NULL ? guarded->pause.read : guarded->socket->_cb.read;
    guarded->pause.read = NULL;
    return read;
}
