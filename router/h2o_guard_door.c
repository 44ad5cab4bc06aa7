/* router/h2o_guard_door.c -- see h2o_guard.h. This file: who may come in, and what a cancelled request costs.
 * Addresses are counted over all threads, under one lock that is taken when a connection comes or goes or a request was
 * cancelled, never for an ordinary request. IPv6 clients own a /64 at least: that counts as one address. */
#include "h2o_guard.h"

#include <arpa/inet.h>
#include <h2o/http2.h>
#include <h2o/http2_internal.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <uthash.h>
#include <utlist.h>

#include "kv/buf.h"
#include "kv/clock.h"
#include "kv/log.h"
#include "thread.h"

enum {
    ADDRESS_BYTES = 9,          /* family, then IPv4 or the first half of IPv6 */
    ADDRESSES_AWAY_MAX = 10000, /* remembered without a connection, for what they have spent */
};

struct guard_address {
    uint8_t bytes[ADDRESS_BYTES];
    size_t connections;
    atomic_size_t streams; /* of all its connections; both are changed without the lock */
    atomic_size_t held;
    atomic_size_t header_bytes; /* of large blocks */
    struct guard_abandoned abandoned[KV_ROUTER_THREADS_MAX];
    double cancels_left;
    uint64_t cancels_at_ms;
    double failures_left; /* requests without a valid token that are answered at once */
    uint64_t failures_at_ms;
    UT_hash_handle hh;
};

struct guard_door {
    pthread_mutex_t lock;
    struct guard_address *addresses; /* uthash */
    size_t away;
    size_t connections_max;
    size_t streams_max;
    double cancels_max;  /* of a connection */
    double failures_max; /* of an address */
};

struct guard_door *h2o_guard_door_new(const struct kv_settings *settings)
{
    struct guard_door *door = kv_alloc_zero(1, sizeof(*door));
    pthread_mutex_init(&door->lock, NULL);
    door->connections_max = settings->connections_per_address_max;
    door->streams_max = settings->requests_per_address_max;
    door->cancels_max = (double)settings->cancels_max;
    door->failures_max = (double)settings->auth_failures_max;
    return door;
}

/* ---- buckets ------------------------------------------------------------------------------------------------------ */

/* Fills up within H2O_GUARD_WINDOW_S. */
static double refill(double left, double max, uint64_t *at_ms, uint64_t now_ms)
{
    left += max * (double)(now_ms - *at_ms) / (H2O_GUARD_WINDOW_S * 1000.0);
    *at_ms = now_ms;
    return left < max ? left : max;
}

static bool take_one(double *left, double max, uint64_t *at_ms)
{
    *left = refill(*left, max, at_ms, kv_clock_ms());
    if (*left < 1)
        return false;
    *left -= 1;
    return true;
}

/* ---- addresses ---------------------------------------------------------------------------------------------------- */

static void read_address(h2o_socket_t *socket, uint8_t bytes[ADDRESS_BYTES])
{
    struct sockaddr_storage from = {0};
    memset(bytes, 0, ADDRESS_BYTES);
    h2o_socket_getpeername(socket, (struct sockaddr *)&from);
    bytes[0] = (uint8_t)from.ss_family;
    if (from.ss_family == AF_INET)
        memcpy(bytes + 1, &((struct sockaddr_in *)&from)->sin_addr, 4);
    if (from.ss_family != AF_INET6)
        return;
    const struct in6_addr *v6 = &((struct sockaddr_in6 *)&from)->sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(v6)) {
        bytes[0] = AF_INET;
        memcpy(bytes + 1, v6->s6_addr + 12, 4);
    } else {
        memcpy(bytes + 1, v6->s6_addr, 8);
    }
}

static void forget(struct guard_door *door, struct guard_address *address)
{
    HASH_DEL(door->addresses, address);
    free(address);
}

/* The last one that counts down does not look at the address again. */
static bool is_worked_for(const struct guard_address *address)
{
    bool is = false;
    for (size_t i = 0; i < KV_ROUTER_THREADS_MAX; i++)
        is = is || address->abandoned[i].calls > 0;
    return is;
}

/* Too many to remember: those who have spent least would be the ones to forget, but all is simpler and as cheap to provoke. */
static void forget_away(struct guard_door *door)
{
    struct guard_address *address, *next;
    HASH_ITER(hh, door->addresses, address, next) {
        if (address->connections > 0 || is_worked_for(address))
            continue;
        forget(door, address);
        door->away--;
    }
}

static struct guard_address *find_or_add(struct guard_door *door, const uint8_t bytes[ADDRESS_BYTES])
{
    struct guard_address *address;
    HASH_FIND(hh, door->addresses, bytes, ADDRESS_BYTES, address);
    if (address != NULL) {
        door->away -= address->connections == 0;
        return address;
    }
    address = kv_alloc_zero(1, sizeof(*address));
    memcpy(address->bytes, bytes, ADDRESS_BYTES);
    address->cancels_left = H2O_GUARD_ADDRESS_CANCELS * door->cancels_max;
    address->failures_left = door->failures_max;
    address->cancels_at_ms = address->failures_at_ms = kv_clock_ms();
    HASH_ADD(hh, door->addresses, bytes, ADDRESS_BYTES, address);
    return address;
}

static struct guard_address *address_enter(struct guard_door *door, const uint8_t bytes[ADDRESS_BYTES])
{
    pthread_mutex_lock(&door->lock);
    struct guard_address *address = find_or_add(door, bytes);
    bool full = h2o_guard_is_on() && address->connections >= door->connections_max;
    address->connections += !full;
    pthread_mutex_unlock(&door->lock);
    return full ? NULL : address;
}

static void address_leave(struct guard_door *door, struct guard_address *address)
{
    double max = H2O_GUARD_ADDRESS_CANCELS * door->cancels_max;
    pthread_mutex_lock(&door->lock);
    if (--address->connections == 0) {
        uint64_t now_ms = kv_clock_ms();
        address->cancels_left = refill(address->cancels_left, max, &address->cancels_at_ms, now_ms);
        address->failures_left = refill(address->failures_left, door->failures_max, &address->failures_at_ms, now_ms);
        if (address->cancels_left >= max && address->failures_left >= door->failures_max && !is_worked_for(address))
            forget(door, address);
        else if (++door->away > ADDRESSES_AWAY_MAX)
            forget_away(door);
    }
    pthread_mutex_unlock(&door->lock);
}

static bool address_may_cancel(struct guard_door *door, struct guard_address *address)
{
    pthread_mutex_lock(&door->lock);
    bool may = take_one(&address->cancels_left, H2O_GUARD_ADDRESS_CANCELS * door->cancels_max, &address->cancels_at_ms);
    pthread_mutex_unlock(&door->lock);
    return may;
}

static bool address_may_fail(struct guard_door *door, struct guard_address *address)
{
    pthread_mutex_lock(&door->lock);
    bool may = take_one(&address->failures_left, door->failures_max, &address->failures_at_ms);
    pthread_mutex_unlock(&door->lock);
    return may;
}

/* ---- connections -------------------------------------------------------------------------------------------------- */

struct guarded *h2o_guard_enter(struct router_thread *thread, h2o_socket_t *socket)
{
    uint8_t bytes[ADDRESS_BYTES];
    struct guard_door *door = thread->server->door;
    read_address(socket, bytes);
    struct guard_address *address = address_enter(door, bytes);
    if (address == NULL) {
        metrics_add(thread->metrics, METRICS_CONNECTIONS_REFUSED, 1);
        return NULL;
    }
    struct guarded *guarded = kv_alloc_zero(1, sizeof(*guarded));
    guarded->thread = thread;
    guarded->socket = socket;
    guarded->address = address;
    guarded->held = &address->held;
    guarded->abandoned = &address->abandoned[thread->index];
    guarded->idle_since_ms = h2o_now(thread->context.loop);
    guarded->cancels_left = door->cancels_max;
    guarded->cancels_at_ms = kv_clock_ms();
    socket->on_close.data = guarded;
    DL_APPEND(thread->guard.connections, guarded);
    return guarded;
}

void h2o_guard_leave(struct guarded **guarded)
{
    struct guarded *old = *guarded;
    *guarded = NULL;
    DL_DELETE(old->thread->guard.connections, old);
    kv_assert(old->streams == 0 && old->waiting == NULL && old->pause.asked == 0);
    h2o_timeout_unlink(&old->pause.settle);
    address_leave(old->thread->server->door, old->address);
    auth_forget(&old->seen);
    free(old);
}

static bool is_idle(const struct guarded *guarded)
{
    return guarded->in_flight == 0 && guarded->streams == 0 && guarded->phase != GUARD_BODY && !guarded->cut &&
           h2o_now(guarded->thread->context.loop) >= guarded->idle_since_ms + H2O_GUARD_IDLE_MS;
}

static struct guard_address *most_crowded(struct router_thread *thread)
{
    struct guard_address *most = NULL;
    struct guarded *guarded;
    pthread_mutex_lock(&thread->server->door->lock);
    DL_FOREACH(thread->guard.connections, guarded)
        if ((most == NULL || guarded->address->connections > most->connections) && is_idle(guarded))
            most = guarded->address;
    pthread_mutex_unlock(&thread->server->door->lock);
    return most;
}

void h2o_guard_make_room(struct router_thread *thread)
{
    struct guard_address *address = most_crowded(thread);
    struct guarded *guarded;
    unsigned count = 0;
    DL_FOREACH(thread->guard.connections, guarded)
        if (guarded->address == address && count < H2O_GUARD_ROOM && is_idle(guarded)) {
            h2o_guard_cut(guarded, METRICS_CUT_CROWD);
            count++;
        }
}

struct guarded *h2o_guard_of(h2o_req_t *req)
{
    h2o_socket_t *socket = req->conn->callbacks->get_socket(req->conn);
    return socket == NULL ? NULL : socket->on_close.data;
}

void h2o_guard_cut(struct guarded *guarded, enum metrics_counter reason)
{
    if (guarded->cut || !h2o_guard_is_on())
        return;
    guarded->cut = true;
    metrics_add(guarded->thread->metrics, reason, 1);
    shutdown(h2o_socket_get_fd(guarded->socket), SHUT_RDWR);
}

/* ---- requests ----------------------------------------------------------------------------------------------------- */

bool h2o_guard_begin(h2o_req_t *req)
{
    struct guarded *guarded = h2o_guard_of(req);
    if (guarded == NULL)
        return true;
    guarded->in_flight++;
    guarded->phase = GUARD_QUIET; /* a request came through: what the sweep saw before is over */
    return !guarded->cut;
}

/* Before the answer was there, or while it was on its way. A reset and a fault that makes us reset look the same: they are
 * (CVE-2023-44487, CVE-2025-8671). A connection that ends takes its requests with it: that is no cancellation. */
static bool is_cancelled(const h2o_req_t *req)
{
    const h2o_http2_conn_t *conn = (const h2o_http2_conn_t *)(const void *)req->conn;
    if (req->version < 0x200 || conn->state >= H2O_HTTP2_CONN_STATE_IS_CLOSING)
        return false;
    if (req->res.status == 0)
        return true;
    bool has_body = req->res.content_length != SIZE_MAX && req->res.status != 304 &&
                    !h2o_memis(req->method.base, req->method.len, H2O_STRLIT("HEAD"));
    return has_body && req->bytes_sent < req->res.content_length;
}

static void charge_cancel(struct guarded *guarded)
{
    struct guard_door *door = guarded->thread->server->door;
    if (door->cancels_max < 1 || guarded->cut)
        return;
    metrics_add(guarded->thread->metrics, METRICS_REQUESTS_CANCELLED, 1);
    if (!take_one(&guarded->cancels_left, door->cancels_max, &guarded->cancels_at_ms) ||
        !address_may_cancel(door, guarded->address))
        h2o_guard_cut(guarded, METRICS_CUT_CANCELS);
}

bool h2o_guard_may_fail(h2o_req_t *req)
{
    struct guarded *guarded = h2o_guard_of(req);
    if (guarded == NULL)
        return true;
    struct guard_door *door = guarded->thread->server->door;
    return door->failures_max < 1 || address_may_fail(door, guarded->address);
}

void h2o_guard_end(h2o_req_t *req)
{
    struct guarded *guarded = h2o_guard_of(req);
    if (guarded == NULL)
        return;
    guarded->in_flight--;
    guarded->idle_since_ms = h2o_now(guarded->thread->context.loop);
    if (is_cancelled(req))
        charge_cancel(guarded);
}

void h2o_guard_stream_opened(struct guarded *guarded)
{
    size_t streams = atomic_fetch_add_explicit(&guarded->address->streams, 1, memory_order_relaxed) + 1;
    guarded->streams++;
    if (streams > guarded->thread->server->door->streams_max)
        h2o_guard_cut(guarded, METRICS_CUT_REQUESTS);
}

/* A request that upgraded to HTTP/2 was opened before its connection was known here: it was never counted. */
void h2o_guard_stream_closed(struct guarded *guarded, bool cancelled)
{
    if (guarded->streams > 0) {
        atomic_fetch_sub_explicit(&guarded->address->streams, 1, memory_order_relaxed);
        guarded->streams--;
    }
    if (cancelled)
        charge_cancel(guarded);
}

/* Dies with the request's memory, in which the decoded headers are. */
struct header_charge {
    struct guard_address *address;
    size_t bytes;
};

static void on_headers_gone(void *memory)
{
    const struct header_charge *charge = memory;
    atomic_fetch_sub_explicit(&charge->address->header_bytes, charge->bytes, memory_order_relaxed);
}

bool h2o_guard_headers_taken(struct guarded *guarded, h2o_req_t *req, size_t bytes)
{
    struct guard_address *address = guarded->address;
    size_t max = guarded->thread->server->settings->header_bytes_per_address_max;
    if (atomic_fetch_add_explicit(&address->header_bytes, bytes, memory_order_relaxed) + bytes > max) {
        atomic_fetch_sub_explicit(&address->header_bytes, bytes, memory_order_relaxed);
        h2o_guard_cut(guarded, METRICS_CUT_HEADER_BYTES);
        return false;
    }
    struct header_charge *charge = h2o_mem_alloc_shared(&req->pool, sizeof(*charge), on_headers_gone);
    *charge = (struct header_charge){address, bytes};
    return true;
}

bool h2o_guard_headers_too_large(const h2o_req_t *req, uint64_t bytes_max)
{
    uint64_t bytes = req->path.len;
    for (size_t i = 0; i < req->headers.size; i++)
        bytes += req->headers.entries[i].name->len + req->headers.entries[i].value.len;
    return bytes > bytes_max && h2o_guard_is_on();
}
