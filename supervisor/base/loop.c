/* supervisor/base/loop.c -- the event loop of loop.h: epoll and a binary heap of timers.
 * Does:     one epoll_wait per turn. A watch that is removed during the turn loses its pending event, so callbacks may
 *           free whatever they like.
 * Tests:    unit/base/test_loop.c. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#include "kv/buf.h"
#include "kv/clock.h"
#include "kv/log.h"
#include "loop.h"

struct loop {
    int epoll_fd;
    bool stopping;
    bool turning;
    bool firing;
    uint64_t now_ms;
    void (*on_turn_end)(void *arg);
    void *turn_end_arg;
    struct loop_timer **timers; /* heap by due_ms; timers[0] is not used */
    size_t timer_count;
    size_t timer_capacity;
    struct epoll_event events[LOOP_EVENTS_MAX];
    size_t event_next;
    size_t event_count;
};

struct loop *loop_new(void)
{
    struct loop *loop = kv_alloc_zero(1, sizeof(*loop));
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0)
        kv_fatal("the event loop cannot be made: %m");
    loop->now_ms = kv_clock_ms();
    return loop;
}

void loop_free(struct loop **loop)
{
    if (*loop == NULL)
        return;
    close((*loop)->epoll_fd);
    free((*loop)->timers);
    free(*loop);
    *loop = NULL;
}

/* ---- descriptors ---------------------------------------------------------------------------------------------- */

enum kv_err loop_add(struct loop *loop, struct loop_watch *watch, int fd, uint32_t events,
                     void (*on_ready)(void *arg, uint32_t events), void *arg)
{
    kv_assert(!watch->added);
    struct epoll_event event = {.events = events, .data.ptr = watch};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0)
        return KV_IO;
    *watch = (struct loop_watch){.on_ready = on_ready, .arg = arg, .fd = fd, .events = events, .added = true};
    return KV_OK;
}

void loop_modify(struct loop *loop, struct loop_watch *watch, uint32_t events)
{
    kv_assert(watch->added);
    if (watch->events == events)
        return;
    struct epoll_event event = {.events = events, .data.ptr = watch};
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &event) < 0)
        kv_fatal("descriptor %d cannot be watched: %m", watch->fd);
    watch->events = events;
}

void loop_remove(struct loop *loop, struct loop_watch *watch)
{
    if (!watch->added)
        return;
    if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL) < 0)
        kv_fatal("bug: descriptor %d was closed before loop_remove: %m", watch->fd);
    watch->added = false;
    for (size_t i = loop->event_next; i < loop->event_count; i++)
        if (loop->events[i].data.ptr == watch)
            loop->events[i].data.ptr = NULL;
}

/* ---- timers --------------------------------------------------------------------------------------------------- */

static void heap_put(struct loop *loop, size_t place, struct loop_timer *timer)
{
    loop->timers[place] = timer;
    timer->place = place;
}

static void heap_rise(struct loop *loop, struct loop_timer *timer)
{
    size_t place = timer->place;
    while (place > 1 && loop->timers[place / 2]->due_ms > timer->due_ms) {
        heap_put(loop, place, loop->timers[place / 2]);
        place /= 2;
    }
    heap_put(loop, place, timer);
}

static void heap_sink(struct loop *loop, struct loop_timer *timer)
{
    size_t place = timer->place;
    for (;;) {
        size_t child = place * 2;
        if (child > loop->timer_count)
            break;
        if (child < loop->timer_count && loop->timers[child + 1]->due_ms < loop->timers[child]->due_ms)
            child++;
        if (loop->timers[child]->due_ms >= timer->due_ms)
            break;
        heap_put(loop, place, loop->timers[child]);
        place = child;
    }
    heap_put(loop, place, timer);
}

static void heap_append(struct loop *loop, struct loop_timer *timer)
{
    if (loop->timer_count + 1 >= loop->timer_capacity) {
        loop->timer_capacity = loop->timer_capacity == 0 ? 16 : loop->timer_capacity * 2;
        loop->timers = kv_realloc(loop->timers, loop->timer_capacity * sizeof(struct loop_timer *));
    }
    heap_put(loop, ++loop->timer_count, timer);
}

void loop_timer_arm(struct loop *loop, struct loop_timer *timer, uint64_t wait_ms)
{
    if (loop->firing && wait_ms == 0)
        wait_ms = 1; /* a timer that arms itself must not keep the turn from ending */
    uint64_t now_ms = loop->turning ? loop->now_ms : kv_clock_ms();
    timer->due_ms = wait_ms > UINT64_MAX - now_ms ? UINT64_MAX : now_ms + wait_ms;
    if (timer->place == 0)
        heap_append(loop, timer);
    heap_rise(loop, timer);
    heap_sink(loop, timer);
}

void loop_timer_disarm(struct loop *loop, struct loop_timer *timer)
{
    if (timer->place == 0)
        return;
    size_t place = timer->place;
    timer->place = 0;
    struct loop_timer *last = loop->timers[loop->timer_count--];
    if (last == timer)
        return;
    heap_put(loop, place, last);
    heap_rise(loop, last);
    heap_sink(loop, last);
}

uint64_t loop_now_ms(const struct loop *loop)
{
    return loop->now_ms;
}

static void fire_due_timers(struct loop *loop)
{
    loop->firing = true;
    while (loop->timer_count > 0 && loop->timers[1]->due_ms <= loop->now_ms) {
        struct loop_timer *timer = loop->timers[1];
        loop_timer_disarm(loop, timer);
        timer->on_due(timer->arg); /* may free the timer */
    }
    loop->firing = false;
}

/* ---- turns ---------------------------------------------------------------------------------------------------- */

void loop_on_turn_end(struct loop *loop, void (*on_turn_end)(void *arg), void *arg)
{
    loop->on_turn_end = on_turn_end;
    loop->turn_end_arg = arg;
}

void loop_stop(struct loop *loop)
{
    loop->stopping = true;
}

/* Milliseconds for epoll_wait: until the first timer, at most wait_ms_max, -1 for ever. */
static int wait_ms(struct loop *loop, uint64_t wait_ms_max)
{
    uint64_t wait = wait_ms_max;
    if (loop->stopping)
        return 0;
    if (loop->timer_count > 0) {
        uint64_t now_ms = kv_clock_ms();
        uint64_t due_ms = loop->timers[1]->due_ms;
        uint64_t until_due = due_ms > now_ms ? due_ms - now_ms : 0;
        wait = until_due < wait ? until_due : wait;
    }
    if (wait == LOOP_WAIT_FOREVER)
        return -1;
    return wait > INT_MAX ? INT_MAX : (int)wait;
}

static void wait_for_events(struct loop *loop, uint64_t wait_ms_max)
{
    int count = epoll_wait(loop->epoll_fd, loop->events, LOOP_EVENTS_MAX, wait_ms(loop, wait_ms_max));
    if (count < 0 && errno != EINTR)
        kv_fatal("the event loop cannot wait: %m");
    loop->event_count = count < 0 ? 0 : (size_t)count;
    loop->event_next = 0;
    loop->now_ms = kv_clock_ms();
}

static void dispatch_events(struct loop *loop)
{
    while (loop->event_next < loop->event_count) {
        struct epoll_event event = loop->events[loop->event_next++];
        struct loop_watch *watch = event.data.ptr;
        if (watch == NULL)
            continue; /* removed earlier in this turn */
        uint32_t ready = event.events & (watch->events | EPOLLERR | EPOLLHUP);
        if (ready != 0) /* else an earlier callback stopped asking for it */
            watch->on_ready(watch->arg, ready);
    }
}

void loop_turn(struct loop *loop, uint64_t wait_ms_max)
{
    kv_assert(!loop->turning);
    wait_for_events(loop, wait_ms_max);
    loop->turning = true;
    dispatch_events(loop);
    fire_due_timers(loop);
    if (loop->on_turn_end != NULL)
        loop->on_turn_end(loop->turn_end_arg);
    loop->turning = false;
}

void loop_run(struct loop *loop)
{
    do
        loop_turn(loop, LOOP_WAIT_FOREVER);
    while (!loop->stopping);
    loop->stopping = false;
}
