/* Goal: the loop calls back what is ready and due, once, in order, and sleeps otherwise; callbacks may remove and free
 * anything. Method: pipes and short timers; use after free is found by the address sanitizer. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "kv/buf.h"
#include "kv/clock.h"
#include "loop.h"

static struct loop *loop;
static unsigned turns;

static void count_turn(void *arg)
{
    (void)arg;
    turns++;
}

static void setup(void)
{
    loop = loop_new();
    turns = 0;
    loop_on_turn_end(loop, count_turn, NULL);
}

static void teardown(void)
{
    loop_free(&loop);
    cr_expect_null(loop);
}

TestSuite(loop, .init = setup, .fini = teardown, .timeout = 600);

/* One end of a pipe that counts how often it was ready; may free another when called. */
struct peer {
    struct loop_watch watch;
    int reader, writer;
    unsigned calls;
    uint32_t events;
    struct peer **victim;
    bool read_it;
};

static void peer_free(struct peer **peer)
{
    loop_remove(loop, &(*peer)->watch);
    close((*peer)->reader);
    if ((*peer)->writer >= 0)
        close((*peer)->writer);
    free(*peer);
    *peer = NULL;
}

static void on_peer(void *arg, uint32_t events)
{
    struct peer *peer = arg;
    peer->calls++;
    peer->events = events;
    char byte;
    if (peer->read_it)
        cr_assert_eq(read(peer->reader, &byte, 1), 1);
    if (peer->victim != NULL && *peer->victim != NULL)
        peer_free(peer->victim);
}

static struct peer *peer_new(void)
{
    struct peer *peer = kv_alloc_zero(1, sizeof(*peer));
    int ends[2];
    cr_assert_eq(pipe2(ends, O_NONBLOCK | O_CLOEXEC), 0);
    peer->reader = ends[0];
    peer->writer = ends[1];
    peer->read_it = true;
    cr_assert_eq(loop_add(loop, &peer->watch, peer->reader, EPOLLIN, on_peer, peer), KV_OK);
    return peer;
}

static void poke(struct peer *peer)
{
    cr_assert_eq(write(peer->writer, "x", 1), 1);
}

Test(loop, calls_what_is_ready)
{
    struct peer *one = peer_new(), *two = peer_new();
    poke(one);
    loop_turn(loop, LOOP_WAIT_FOREVER);
    cr_expect_eq(one->calls, 1u);
    cr_expect_eq(one->events, (uint32_t)EPOLLIN);
    cr_expect_eq(two->calls, 0u);
    loop_turn(loop, 0);
    cr_expect_eq(one->calls, 1u, "read: no longer ready");
    peer_free(&one);
    peer_free(&two);
}

/* Both are ready in one turn; whichever comes first frees the other. */
Test(loop, a_callback_may_free_another_ready_watch)
{
    struct peer *one = peer_new(), *two = peer_new();
    one->victim = &two;
    two->victim = &one;
    poke(one);
    poke(two);
    loop_turn(loop, LOOP_WAIT_FOREVER);
    cr_expect((one == NULL) != (two == NULL));
    struct peer *left = one == NULL ? two : one;
    cr_expect_eq(left->calls, 1u);
    peer_free(one == NULL ? &two : &one);
}

static void on_free_itself(void *arg, uint32_t events)
{
    (void)events;
    peer_free(arg);
}

Test(loop, a_callback_may_free_its_own_watch)
{
    struct peer *one = peer_new();
    loop_remove(loop, &one->watch);
    loop_remove(loop, &one->watch); /* twice is harmless */
    cr_assert_eq(loop_add(loop, &one->watch, one->reader, EPOLLIN, on_free_itself, &one), KV_OK);
    poke(one);
    loop_turn(loop, LOOP_WAIT_FOREVER);
    cr_expect_null(one);
    loop_turn(loop, 0);
}

static struct peer *silenced;

static void on_silence(void *arg, uint32_t events)
{
    on_peer(arg, events);
    loop_modify(loop, &silenced->watch, 0);
}

Test(loop, modify_drops_events_that_are_pending)
{
    struct peer *one = peer_new();
    silenced = peer_new();
    loop_remove(loop, &one->watch);
    cr_assert_eq(loop_add(loop, &one->watch, one->reader, EPOLLIN, on_silence, one), KV_OK);
    poke(one);
    poke(silenced);
    loop_turn(loop, LOOP_WAIT_FOREVER);
    unsigned calls = silenced->calls; /* 1 when it came first, 0 when silenced before */
    poke(silenced);
    loop_turn(loop, 0);
    loop_turn(loop, 0);
    cr_expect_eq(silenced->calls, calls);
    loop_modify(loop, &silenced->watch, EPOLLIN);
    loop_turn(loop, LOOP_WAIT_FOREVER);
    cr_expect_eq(silenced->calls, calls + 1);
    peer_free(&one);
    peer_free(&silenced);
}

Test(loop, hang_up_is_reported_without_asking)
{
    struct peer *one = peer_new();
    one->read_it = false;
    loop_modify(loop, &one->watch, 0);
    close(one->writer);
    one->writer = -1;
    loop_turn(loop, LOOP_WAIT_FOREVER);
    cr_expect_eq(one->events, (uint32_t)EPOLLHUP);
    peer_free(&one);
}

Test(loop, what_epoll_refuses_is_an_error)
{
    struct loop_watch watch = {0};
    int file = open("/proc/self/exe", O_RDONLY);
    cr_expect_eq(loop_add(loop, &watch, file, EPOLLIN, on_peer, NULL), KV_IO);
    cr_expect_not(watch.added);
    close(file);
    cr_expect_eq(loop_add(loop, &watch, file, EPOLLIN, on_peer, NULL), KV_IO);
}

/* ---- timers --------------------------------------------------------------------------------------------------- */

#define TIMERS 200

struct alarm {
    struct loop_timer timer;
    uint64_t due_ms;
    unsigned fired;
};

static uint64_t last_due_ms;
static unsigned alarms_fired;

static void on_alarm(void *arg)
{
    struct alarm *alarm = arg;
    alarm->fired++;
    alarms_fired++;
    cr_expect_geq(kv_clock_ms(), alarm->due_ms, "too early");
    cr_expect_geq(alarm->due_ms, last_due_ms, "out of order");
    last_due_ms = alarm->due_ms;
}

static void alarm_arm(struct alarm *alarm, uint64_t wait_ms)
{
    loop_timer_arm(loop, &alarm->timer, wait_ms);
    alarm->due_ms = alarm->timer.due_ms;
}

Test(loop, timers_fire_once_in_order)
{
    static struct alarm alarms[TIMERS];
    unsigned seed = 7, disarmed = 0;
    for (size_t i = 0; i < TIMERS; i++) {
        alarms[i].timer.on_due = on_alarm;
        alarms[i].timer.arg = &alarms[i];
        alarm_arm(&alarms[i], (uint64_t)rand_r(&seed) % 60);
    }
    for (size_t i = 0; i < TIMERS; i += 3)
        alarm_arm(&alarms[i], (uint64_t)rand_r(&seed) % 60); /* moved */
    for (size_t i = 0; i < TIMERS; i += 5, disarmed++)
        loop_timer_disarm(loop, &alarms[i].timer);
    while (alarms_fired < TIMERS - disarmed)
        loop_turn(loop, LOOP_WAIT_FOREVER);
    loop_turn(loop, 80);
    for (size_t i = 0; i < TIMERS; i++) {
        cr_expect_eq(alarms[i].fired, i % 5 == 0 ? 0u : 1u, "timer %zu", i);
        cr_expect_not(loop_timer_armed(&alarms[i].timer));
    }
}

static void on_arm_again(void *arg)
{
    struct alarm *alarm = arg;
    alarm->fired++;
    loop_timer_arm(loop, &alarm->timer, 0);
}

Test(loop, a_timer_that_arms_itself_waits_for_the_next_turn)
{
    struct alarm alarm = {.timer = {.on_due = on_arm_again, .arg = &alarm}};
    alarm_arm(&alarm, 0);
    for (unsigned turn = 1; turn <= 5; turn++) {
        loop_turn(loop, LOOP_WAIT_FOREVER);
        cr_expect_eq(alarm.fired, turn);
    }
    loop_timer_disarm(loop, &alarm.timer);
    loop_timer_disarm(loop, &alarm.timer);
}

static void on_stop(void *arg)
{
    (void)arg;
    loop_stop(loop);
}

Test(loop, it_sleeps_between_events)
{
    struct loop_timer stop = {.on_due = on_stop};
    uint64_t begin_ms = kv_clock_ms();
    loop_timer_arm(loop, &stop, 100);
    loop_run(loop);
    cr_expect_geq(kv_clock_ms() - begin_ms, 100u);
    cr_expect_leq(turns, 3u, "%u turns in 100 ms: it spins", turns);
}

/* The suite's timeout catches one that waits. */
Test(loop, stopped_before_it_runs_it_makes_one_turn)
{
    loop_stop(loop);
    loop_run(loop);
    cr_expect_eq(turns, 1u);
}
