/* supervisor/family.c -- the life of every child from fork to wait. See family.h.
 * Does:     assembles each child's descriptors (kv/child.h), notes READY, logs each death once with its cause, its
 *           age and the pause, and arms the restart.
 * Owns:     the status pipes. The listening sockets belong to main.c and survive every child, so that a restart
 *           refuses no connection.
 * Promises: a shard's directory is locked through the shard's own descriptor: it starts when the one before is really
 *           gone. A router starts with an epoch that no router before it had; a shard hears which was the last, so that
 *           an older one finds no shard that would listen, however young the shard is.
 * Fails:    a start that fails (no process, disk full) counts as a death before ready: logged, tried again later.
 * Tests:    unit/supervisor/test_supervise.c with small programs as children. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "family.h"
#include "kv/child.h"
#include "kv/clock.h"
#include "kv/log.h"
#include "reap.h"

static void child_start(struct child *child);

static void on_restart_due(void *arg)
{
    child_start(arg);
}

static void child_init(struct child *child, struct family *family, int shard_index)
{
    *child = (struct child){.family = family, .shard_index = shard_index, .status_fd = -1};
    child->restart.pause_ms_max = restart_pause_ms_max(family->world.settings->shard_wait_ms);
    child->restart_timer.on_due = on_restart_due;
    child->restart_timer.arg = child;
    if (shard_index < 0)
        snprintf(child->name, sizeof(child->name), "router");
    else
        snprintf(child->name, sizeof(child->name), "shard %d", shard_index);
}

void family_init(struct family *family, struct loop *loop, const struct family_world *world,
                 const struct family_events *events)
{
    *family = (struct family){.loop = loop, .world = *world, .events = *events};
    const unsigned shard_count = world->shard_count;
    kv_assert(shard_count <= KV_SHARDS_MAX);
    for (unsigned i = 0; i < shard_count; i++)
        child_init(&family->shards[i], family, (int)i);
    child_init(&family->router, family, -1);
    handover_init(&family->handover, world->files_fd);
}

/* ---- birth ---------------------------------------------------------------------------------------------------- */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Starts `spawn` with settings and a status pipe as descriptors 3 and 4. */
static enum kv_err start_with_settings(struct child *child, struct spawn *spawn, const struct kv_settings *settings,
                                       struct why *why)
{
    int settings_fd = -1, pipe_ends[2] = {-1, -1};
    enum kv_err err = spawn_settings(settings, child->shard_index < 0, &settings_fd, why);
    if (err == KV_OK && pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        why_not(why, "no status pipe: %s", strerror(errno));
        err = KV_UNAVAILABLE;
    }
    spawn->fds[0] = settings_fd;
    spawn->fds[1] = pipe_ends[1];
    if (err == KV_OK)
        err = spawn_child(spawn, &child->pid, why);
    close_fd(&settings_fd);
    close_fd(&pipe_ends[1]);
    if (err == KV_OK)
        child->status_fd = pipe_ends[0];
    else
        close_fd(&pipe_ends[0]);
    return err;
}

static struct kv_settings settings_for(const struct family *family, uint64_t epoch)
{
    struct kv_settings settings = *family->world.settings; /* borrows the texts */
    settings.shard_count = family->world.shard_count;
    settings.store_id = family->world.datadir->identity.id;
    settings.epoch = epoch;
    return settings;
}

static enum kv_err start_shard(struct child *child, struct why *why)
{
    struct family *family = child->family;
    struct kv_settings settings = settings_for(family, family->world.datadir->epoch);
    char argument[16];
    int data_fd = -1;
    snprintf(argument, sizeof(argument), "%d", child->shard_index);
    enum kv_err err = datadir_open_shard(family->world.datadir, (unsigned)child->shard_index, &data_fd, why);
    if (err != KV_OK)
        return err;
    struct spawn spawn = {
        .program = family->world.shard_program,
        .name = "kv-shard",
        .argument = argument,
        .fds = {-1, -1, family->world.shard_fds[child->shard_index], data_fd, -1, family->world.counters_fd},
        .fd_count = 6,
    };
    err = start_with_settings(child, &spawn, &settings, why);
    close_fd(&data_fd); /* the shard's copy keeps the lock */
    return err;
}

static enum kv_err start_router(struct child *child, struct why *why)
{
    struct family *family = child->family;
    enum kv_err err = datadir_raise_epoch(family->world.datadir, why);
    if (err != KV_OK)
        return err;
    struct kv_settings settings = settings_for(family, family->world.datadir->epoch);
    int files_end = -1;
    err = handover_open(&family->handover, &files_end, why);
    if (err != KV_OK)
        return err;
    struct spawn spawn = {
        .program = family->world.router_program,
        .name = "kv-router",
        .fds = {-1, -1, family->world.datadir->sockets_fd, family->world.plain_fd, family->world.tls_fd,
                family->world.counters_fd, files_end},
        .fd_count = 7,
    };
    err = start_with_settings(child, &spawn, &settings, why);
    close_fd(&files_end);
    if (err != KV_OK)
        handover_close(&family->handover);
    return err;
}

static void maybe_all_ready(struct family *family)
{
    bool all = family->router.ready_ms != 0;
    for (unsigned i = 0; i < family->world.shard_count; i++)
        all = all && family->shards[i].ready_ms != 0;
    if (!all || family->all_were_ready)
        return;
    family->all_were_ready = true;
    family->events.on_all_ready(family->events.arg);
}

static void stop_listening(struct child *child)
{
    loop_remove(child->family->loop, &child->status_watch);
    close_fd(&child->status_fd);
}

static void hand_over(struct family *family)
{
    const struct child *router = &family->router;
    if (router->pid > 0 && router->ready_ms != 0 && handover_send(&family->handover) && kill(router->pid, SIGHUP) != 0)
        kv_warn("%s, pid %d, cannot be signalled: %m", router->name, (int)router->pid);
}

static void on_ready(struct child *child)
{
    struct family *family = child->family;
    child->ready_ms = kv_clock_ms();
    kv_info("%s ready after %llu ms, pid %d", child->name, (unsigned long long)(child->ready_ms - child->started_ms),
            (int)child->pid);
    if (child->shard_index < 0) {
        family->router_was_ready = true;
        hand_over(family); /* what came while there was none */
    }
    maybe_all_ready(family);
}

static void on_status(void *arg, uint32_t events)
{
    struct child *child = arg;
    char byte;
    ssize_t got = read(child->status_fd, &byte, 1);
    if (got == 1 && byte == KV_CHILD_READY && child->ready_ms == 0) {
        on_ready(child);
    } else if (got == 1 && child->shard_index < 0 && (byte == KV_CHILD_RELOADED || byte == KV_CHILD_REFUSED)) {
        handover_answer(&child->family->handover, byte == KV_CHILD_RELOADED);
        hand_over(child->family); /* another SIGHUP may have come meanwhile */
    } else if (got == 0 || (events & (EPOLLHUP | EPOLLERR)) != 0) {
        stop_listening(child); /* closed: it is dying, or needs the pipe no more */
    }
}

/* ---- death ---------------------------------------------------------------------------------------------------- */

static void start_again_later(struct child *child, const struct restart_ending *ending, const char *how)
{
    struct family *family = child->family;
    uint64_t wait_ms = 0;
    if (child->stays_down) {
        kv_info("%s ended: %s", child->name, how);
    } else if (restart_decide(&child->restart, ending, &wait_ms) == RESTART_NEVER) {
        kv_error("%s ended: %s: stopping everything", child->name, how);
        family->events.on_wrong_start(family->events.arg);
    } else {
        kv_warn("%s ended: %s, starts again in %llu ms", child->name, how, (unsigned long long)wait_ms);
        loop_timer_arm(family->loop, &child->restart_timer, wait_ms);
    }
}

/* They change when children come and go; the router, which tells, may not look at ours. */
static void count_descriptors(const struct family *family)
{
    uint64_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    for (const struct dirent *entry; dir != NULL && (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] != '.';
    if (dir != NULL)
        closedir(dir);
    if (count > 0)
        kv_counter_set(&family->world.counters->supervisor_fds, count - 1); /* the directory itself was one */
}

static void count_restart(const struct child *child)
{
    struct kv_counters_page *counters = child->family->world.counters;
    if (child->started_ms != 0)
        kv_counter_add(
            child->shard_index < 0 ? &counters->router_restarts : &counters->shard_restarts[child->shard_index], 1);
}

static void child_start(struct child *child)
{
    struct why why;
    count_restart(child);
    child->started_ms = kv_clock_ms();
    child->ready_ms = 0;
    enum kv_err err = child->shard_index < 0 ? start_router(child, &why) : start_shard(child, &why);
    if (err != KV_OK) {
        start_again_later(child, &(struct restart_ending){.exit_code = KV_EXIT_FATAL}, why.text);
        return;
    }
    if (loop_add(child->family->loop, &child->status_watch, child->status_fd, EPOLLIN, on_status, child) != KV_OK)
        kv_fatal("the status pipe of %s cannot be watched: %m", child->name);
    count_descriptors(child->family);
    kv_debug("%s started, pid %d", child->name, (int)child->pid);
}

static void child_ended(struct child *child, int status)
{
    char how[96], line[192];
    uint64_t now_ms = kv_clock_ms();
    if (child->status_fd >= 0)
        on_status(child, 0); /* it may have been ready for a moment */
    struct restart_ending ending = reap_ending(status);
    ending.was_ready = child->ready_ms != 0;
    ending.ready_ms = ending.was_ready ? now_ms - child->ready_ms : 0;
    reap_describe(status, how, sizeof(how));
    snprintf(line, sizeof(line), "%s, pid %d, %s, %llu ms old", how, (int)child->pid,
             ending.was_ready ? "ready" : "never ready", (unsigned long long)(now_ms - child->started_ms));
    stop_listening(child);
    count_descriptors(child->family);
    child->pid = 0;
    child->ready_ms = 0;
    if (child->shard_index < 0)
        handover_close(&child->family->handover);
    start_again_later(child, &ending, line);
    child->family->events.on_end(child->family->events.arg);
}

static void on_process_end(void *arg, pid_t pid, int status)
{
    struct family *family = arg;
    struct child *child = family->router.pid == pid ? &family->router : NULL;
    for (unsigned i = 0; i < family->world.shard_count; i++)
        if (family->shards[i].pid == pid)
            child = &family->shards[i];
    if (child != NULL)
        child_ended(child, status);
    else
        kv_debug("reaped an orphan, pid %d", (int)pid);
}

void family_start(struct family *family)
{
    for (unsigned i = 0; i < family->world.shard_count; i++)
        child_start(&family->shards[i]);
    child_start(&family->router);
}

void family_reap(struct family *family)
{
    reap_all(on_process_end, family);
}

/* ---- the end -------------------------------------------------------------------------------------------------- */

static void child_stop(struct child *child, int signal_number)
{
    child->stays_down = true;
    loop_timer_disarm(child->family->loop, &child->restart_timer);
    if (child->pid > 0 && kill(child->pid, signal_number) != 0)
        kv_warn("%s, pid %d, cannot be signalled: %m", child->name, (int)child->pid);
}

void family_stop_router(struct family *family, int signal_number)
{
    child_stop(&family->router, signal_number);
}

void family_stop_shards(struct family *family, int signal_number)
{
    for (unsigned i = 0; i < family->world.shard_count; i++)
        child_stop(&family->shards[i], signal_number);
}

void family_reload_router(struct family *family, int files_fd)
{
    handover_offer(&family->handover, files_fd);
    hand_over(family);
}

bool family_router_runs(const struct family *family)
{
    return family->router.pid > 0;
}

unsigned family_shards_running(const struct family *family)
{
    unsigned running = 0;
    for (unsigned i = 0; i < family->world.shard_count; i++)
        running += family->shards[i].pid > 0;
    return running;
}

static void child_close(struct child *child)
{
    loop_timer_disarm(child->family->loop, &child->restart_timer);
    stop_listening(child);
}

void family_close(struct family *family)
{
    for (unsigned i = 0; i < family->world.shard_count; i++)
        child_close(&family->shards[i]);
    child_close(&family->router);
    handover_free(&family->handover);
}
