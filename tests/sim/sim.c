/* tests/sim/sim.c -- see sim.h. This file: events, and the twins of clock, log and assertions (ld --wrap). */
#include "sim.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "kv/log.h"
#include "report.h"

#define EPOCH_S 1700000000

struct sim *sim_running;

/* ---- events --------------------------------------------------------------------------------------------------- */

static bool is_before(const struct event *a, const struct event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->sequence < b->sequence;
}

static void sift_up(struct event *events, size_t at)
{
    struct event event = events[at];
    for (; at > 0 && is_before(&event, &events[(at - 1) / 2]); at = (at - 1) / 2)
        events[at] = events[(at - 1) / 2];
    events[at] = event;
}

static void sift_down(struct event *events, size_t count, size_t at)
{
    struct event event = events[at];
    for (size_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && is_before(&events[child + 1], &events[child]))
            child++;
        if (!is_before(&events[child], &event))
            break;
        events[at] = events[child];
    }
    events[at] = event;
}

static void add_event(struct sim *sim, struct event event)
{
    if (sim->event_count == sim->event_capacity) {
        struct heap *before = heap_enter(&sim->heap);
        sim->event_capacity = sim->event_capacity * 2 + 256;
        sim->events = kv_realloc(sim->events, sim->event_capacity * sizeof *sim->events);
        heap_enter(before);
    }
    event.sequence = ++sim->event_sequence;
    sim->events[sim->event_count++] = event;
    sift_up(sim->events, sim->event_count - 1);
}

void sim_at(struct sim *sim, uint64_t delay_us, struct process *process, bool any_incarnation, void (*run)(void *arg),
            void *arg)
{
    uint64_t incarnation = process == NULL || any_incarnation ? 0 : process->incarnation;
    add_event(sim, (struct event){sim->now_us + delay_us, 0, process, incarnation, run, arg});
}

static struct event take_event(struct sim *sim)
{
    struct event event = sim->events[0];
    sim->events[0] = sim->events[--sim->event_count];
    if (sim->event_count > 0)
        sift_down(sim->events, sim->event_count, 0);
    return event;
}

bool sim_step(struct sim *sim)
{
    if (sim->event_count == 0)
        return false;
    struct event event = take_event(sim);
    struct process *process = event.process;
    sim->now_us = event.at_us;
    if (process != NULL && event.incarnation != 0 && event.incarnation != process->incarnation)
        return true;
    if (process != NULL && process->stopped_until_us > sim->now_us) {
        event.at_us = process->stopped_until_us;
        add_event(sim, event);
        return true;
    }
    heap_enter(process != NULL ? &process->heap : &sim->heap);
    event.run(event.arg);
    heap_enter(&sim->heap);
    return true;
}

uint64_t sim_stamp(struct sim *sim)
{
    return ++sim->stamp;
}

/* ---- words ---------------------------------------------------------------------------------------------------- */

void sim_trace(const struct sim *sim, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("%8llu.%03llu  ", (unsigned long long)(sim->now_us / 1000), (unsigned long long)(sim->now_us % 1000));
    vprintf(format, args);
    putchar('\n');
    va_end(args);
}

_Noreturn void sim_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(report_why, sizeof report_why, format, args);
    va_end(args);
    longjmp(report_failed, 1);
}

/* ---- clock, log and assertions of the code under test ---------------------------------------------------------- */

int __wrap_clock_gettime(clockid_t clock, struct timespec *out);
void __wrap_kv_log(enum kv_log_level level, const char *format, ...);
_Noreturn void __wrap_kv_assert_failed(const char *expression, const char *file, int line);
_Noreturn void __wrap_kv_fatal(const char *format, ...);

int __wrap_clock_gettime(clockid_t clock, struct timespec *out)
{
    uint64_t now_us = sim_running == NULL ? 0 : sim_running->now_us;
    *out = (struct timespec){(time_t)(now_us / 1000000), (long)(now_us % 1000000) * 1000};
    out->tv_sec += clock == CLOCK_REALTIME ? EPOCH_S : 1000;
    return 0;
}

/* What the code calls an error must not happen here. */
void __wrap_kv_log(enum kv_log_level level, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (level == KV_LOG_ERROR)
        sim_fail("error logged: %s", text);
    SIM_TRACE(sim_running, "log: %s", text);
}

_Noreturn void __wrap_kv_assert_failed(const char *expression, const char *file, int line)
{
    sim_fail("assertion at %s:%d: %s", file, line, expression);
}

_Noreturn void __wrap_kv_fatal(const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    sim_fail("fatal: %s", text);
}
