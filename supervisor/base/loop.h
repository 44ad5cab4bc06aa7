/* supervisor/base/loop.h -- one thread's event loop: descriptors and timers.
 * A turn is: wait (epoll), callbacks of ready descriptors, callbacks of due timers, on_turn_end.
 * Owns:     an epoll instance. Watches and timers belong to the caller, who embeds them; they must be
 *           removed or disarmed before their memory goes.
 * Promises: inside any callback any watch may be added, modified or removed (also freed: its pending event is
 *           dropped) and any timer armed or disarmed. A turn never waits when a timer is due and never runs without
 *           an event or a due timer. Timers fire in the order of their times, never early.
 * Limits:   LOOP_EVENTS_MAX descriptors per turn, the rest in the next one; a timer armed by a timer's callback fires
 *           in the next turn at the earliest, so nothing starves.
 * Fails:    a descriptor that epoll cannot watch (regular file, closed) gives KV_IO; trouble with the loop's own
 *           descriptors is fatal. A descriptor that is hung up is reported until it is removed: on EPOLLHUP or
 *           EPOLLERR, remove it.
 * Threads:  everything on the loop's thread. Other threads ring it through a descriptor that it watches.
 * Tests:    unit/base/test_loop.c. */
#ifndef KV_LOOP_H
#define KV_LOOP_H

#include <sys/epoll.h>

#include "kv/err.h"
#include "kv/slice.h"

#define LOOP_EVENTS_MAX 256
#define LOOP_WAIT_FOREVER UINT64_MAX

struct loop;

/* A watched descriptor. Zero-initialised: not watched. Read-only for the caller. */
struct loop_watch {
    void (*on_ready)(void *arg, uint32_t events); /* EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR… as epoll reports them */
    void *arg;
    int fd;
    uint32_t events;
    bool added;
};

/* A one-shot timer, armed again as often as wanted. Zero-initialised: disarmed. Set on_due and arg once. */
struct loop_timer {
    void (*on_due)(void *arg);
    void *arg;
    uint64_t due_ms; /* on the clock of loop_now_ms */
    size_t place;    /* in the loop's heap, counted from 1; 0: disarmed */
};

/* Fatal when the kernel gives no descriptor. */
struct loop *loop_new(void);
/* Frees the loop, not the descriptors that it watches. Accepts NULL. */
void loop_free(struct loop **loop);

/* Watches `fd` (level-triggered, unless `events` has EPOLLET). `events` may be 0: only hang-ups are reported. */
enum kv_err loop_add(struct loop *loop, struct loop_watch *watch, int fd, uint32_t events,
                     void (*on_ready)(void *arg, uint32_t events), void *arg);
/* Changes the events; a call with the same ones costs nothing. */
void loop_modify(struct loop *loop, struct loop_watch *watch, uint32_t events);
/* Stops watching; the caller closes the descriptor, after this call. Does nothing on a watch that is not added. */
void loop_remove(struct loop *loop, struct loop_watch *watch);

/* Fires once, `wait_ms` after the time of this turn. Moves a timer that is armed already. O(log armed timers). */
void loop_timer_arm(struct loop *loop, struct loop_timer *timer, uint64_t wait_ms);
void loop_timer_disarm(struct loop *loop, struct loop_timer *timer);
static inline bool loop_timer_armed(const struct loop_timer *timer)
{
    return timer->place != 0;
}

/* kv_clock_ms at the start of this turn's callbacks: free to call. */
uint64_t loop_now_ms(const struct loop *loop);

/* Runs at the end of every turn, also of the last one; what it does may arm timers and add watches. NULL: nothing. */
void loop_on_turn_end(struct loop *loop, void (*on_turn_end)(void *arg), void *arg);

/* Turns until loop_stop. Can be called again afterwards. */
void loop_run(struct loop *loop);
/* One turn that waits at most `wait_ms_max` for something to happen (LOOP_WAIT_FOREVER: without limit). */
void loop_turn(struct loop *loop, uint64_t wait_ms_max);
/* The turn under way is the last one; a loop not yet running stops after its first turn, which waits for nothing. */
void loop_stop(struct loop *loop);

#endif
