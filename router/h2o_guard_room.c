/* router/h2o_guard_room.c -- see h2o_guard.h. This file: contents that wait in memory until their clients take them.
 * A request of 40 bytes (a GET, a batch, a page of keys) may ask for megabytes, a connection may have a hundred of them, and a client
 * that closes its windows takes none: so an address has ANSWER_BYTES_PER_ADDRESS_MAX, and its further requests wait before they ask
 * the shards for anything. Those of other addresses pass them by; the connections of an address take turns. Whoever holds its share
 * without reading is cut after CLIENT_WAIT_MS (http_watch, h2o_guard_sweep.c): so nobody waits for ever.
 * Whoever cancels leaves work at the shards, which do first what came first: an address with ABANDONED_PER_ADDRESS_MAX of that waits
 * in the same way until it is done, H2O_GUARD_ABANDONED_MS at most. */
#include "h2o_guard.h"

#include <utlist.h>

#include "h2o_guard_internal.h"
#include "kv/log.h"
#include "thread.h"

static bool may_begin(const struct guarded *guarded)
{
    uint64_t max = guarded->thread->server->settings->abandoned_per_address_max;
    return guarded->abandoned->calls < max || !h2o_guard_is_on() ||
           h2o_now(guarded->thread->context.loop) > guarded->abandoned->many_since_ms + H2O_GUARD_ABANDONED_MS;
}

static bool try_to_hold(struct guarded *guarded, size_t bytes)
{
    size_t max = guarded->thread->server->settings->answer_bytes_per_address_max;
    size_t held = atomic_load_explicit(guarded->held, memory_order_relaxed);
    if (held != 0 && held + bytes > max && h2o_guard_is_on())
        return false;
    atomic_fetch_add_explicit(guarded->held, bytes, memory_order_relaxed);
    return true;
}

/* In front when it has had its turn already. */
static void wait_for_room(struct guard_share *share, void (*on_room)(struct guard_share *share), bool in_front)
{
    struct guarded *guarded = share->guarded;
    metrics_add(guarded->thread->metrics, METRICS_ANSWERS_DELAYED, 1);
    share->on_room = on_room;
    if (guarded->waiting == NULL)
        DL_APPEND2(guarded->thread->guard.crowded, guarded, crowded_prev, crowded_next);
    if (in_front)
        DL_PREPEND(guarded->waiting, share);
    else
        DL_APPEND(guarded->waiting, share);
}

/* Those of its connection that go on waiting do so behind those of others. */
static void stop_waiting(struct guard_share *share)
{
    struct guarded *guarded = share->guarded;
    struct guarded **crowded = &guarded->thread->guard.crowded;
    DL_DELETE(guarded->waiting, share);
    DL_DELETE2(*crowded, guarded, crowded_prev, crowded_next);
    if (guarded->waiting != NULL)
        DL_APPEND2(*crowded, guarded, crowded_prev, crowded_next);
}

/* Not from within: whoever gives room back may be in the middle of libh2o's clean-up. */
static void wake_later(struct router_thread *thread)
{
    if (thread->guard.crowded != NULL && !h2o_timeout_is_linked(&thread->guard.room))
        h2o_timeout_link(thread->context.loop, &thread->context.zero_timeout, &thread->guard.room);
}

void h2o_guard_share_take(struct guard_share *share, h2o_req_t *req, size_t bytes,
                          void (*on_room)(struct guard_share *share))
{
    struct guarded *guarded = h2o_guard_of(req);
    if (guarded == NULL || bytes == 0) {
        on_room(share);
        return;
    }
    share->guarded = guarded;
    share->bytes = bytes;
    if (guarded->thread->guard.crowded == NULL && may_begin(guarded) && try_to_hold(guarded, bytes)) {
        on_room(share);
        return;
    }
    /* behind those who came before, of whom some may wait for nothing that this one needs */
    wait_for_room(share, on_room, false);
    wake_later(guarded->thread);
}

static void give_back(struct guard_share *share, size_t bytes)
{
    share->bytes -= bytes;
    atomic_fetch_sub_explicit(share->guarded->held, bytes, memory_order_relaxed);
    wake_later(share->guarded->thread);
}

bool h2o_guard_share_change(struct guard_share *share, size_t bytes, void (*on_room)(struct guard_share *share))
{
    if (share->guarded == NULL)
        return true;
    kv_assert(share->on_room == NULL);
    if (bytes <= share->bytes) {
        give_back(share, share->bytes - bytes);
        return true;
    }
    bool room = try_to_hold(share->guarded, bytes - share->bytes);
    if (!room) {
        give_back(share, share->bytes);
        wait_for_room(share, on_room, true);
    }
    share->bytes = bytes;
    return room;
}

void h2o_guard_share_end(struct guard_share *share)
{
    if (share->guarded == NULL)
        return;
    if (share->on_room != NULL)
        stop_waiting(share);
    else
        give_back(share, share->bytes);
    share->guarded = NULL;
}

void *h2o_guard_abandoned(h2o_req_t *req)
{
    struct guarded *guarded = h2o_guard_of(req);
    if (guarded == NULL)
        return NULL;
    if (++guarded->abandoned->calls == guarded->thread->server->settings->abandoned_per_address_max)
        guarded->abandoned->many_since_ms = h2o_now(guarded->thread->context.loop);
    return guarded->abandoned;
}

void h2o_guard_abandoned_over(void *abandoned)
{
    if (abandoned == NULL)
        return;
    ((struct guard_abandoned *)abandoned)->calls--;
    wake_later(guard_own_thread());
}

/* One request of each connection that finds room, then the next of each: so all have their turn, however little room there is. */
void h2o_guard_share_look(struct router_thread *thread)
{
    struct guarded *guarded, *next;
    bool moved = thread->guard.crowded != NULL;
    while (moved) {
        moved = false;
        DL_FOREACH_SAFE2(thread->guard.crowded, guarded, next, crowded_next) {
            struct guard_share *share = guarded->waiting;
            void (*on_room)(struct guard_share * share) = share->on_room;
            if (!may_begin(guarded) || !try_to_hold(guarded, share->bytes))
                continue;
            stop_waiting(share);
            share->on_room = NULL;
            on_room(share);
            moved = true;
        }
    }
}

static void on_room_again(h2o_timeout_entry_t *entry)
{
    h2o_guard_share_look(H2O_STRUCT_FROM_MEMBER(struct router_thread, guard.room, entry));
}

void h2o_guard_room_start(struct router_thread *thread)
{
    thread->guard.room.cb = on_room_again;
}
