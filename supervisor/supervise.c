/* supervisor/supervise.c -- signals and the order of the end. See supervise.h.
 * Does:     stop = router drains (shards live on, also across a crash, so that what is under way gets its answer),
 *           then the shards flush and close. Each stage has a limit, after which it is killed.
 * Tests:    unit/supervisor/test_supervise.c, system/test_supervisor.c. */
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kv/child.h"
#include "kv/files.h"
#include "kv/log.h"
#include "notify.h"
#include "supervise.h"

enum stage { STAGE_RUN, STAGE_ROUTER, STAGE_SHARDS, STAGE_OVER };

struct supervision {
    struct loop *loop;
    struct family family;
    struct supervise_options options;
    enum stage stage;
    struct loop_timer stage_timer;
    struct loop_watch signal_watch;
    int signal_fd;
    int exit_code;
};

static sigset_t waited_signals(void)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        sigaddset(&set, numbers[i]);
    return set;
}

void supervise_block_signals(void)
{
    sigset_t set = waited_signals();
    signal(SIGCHLD, SIG_DFL); /* inherited SIG_IGN would hide how children end */
    signal(SIGPIPE, SIG_IGN);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

/* What nobody will accept any more is refused at once: whoever came during the drain would wait in vain until its end. Only
 * the supervisor may do this: the socket is shared with every router there will be. (/dev/null for an address that is off.) */
static void refuse_connections(const struct family_world *world)
{
    shutdown(world->plain_fd, SHUT_RD);
    shutdown(world->tls_fd, SHUT_RD);
}

static void enter_stage(struct supervision *supervision, enum stage stage)
{
    struct family *family = &supervision->family;
    supervision->stage = stage;
    if (stage == STAGE_ROUTER) {
        family_stop_router(family, SIGTERM);
        refuse_connections(&family->world);
        loop_timer_arm(supervision->loop, &supervision->stage_timer, supervision->options.router_stop_ms);
    } else if (stage == STAGE_SHARDS) {
        family_stop_shards(family, SIGTERM);
        loop_timer_arm(supervision->loop, &supervision->stage_timer, supervision->options.shards_stop_ms);
    } else if (stage == STAGE_OVER) {
        loop_timer_disarm(supervision->loop, &supervision->stage_timer);
        loop_stop(supervision->loop);
    }
}

/* Goes through as many stages as nobody has to be waited for. */
static void advance(struct supervision *supervision)
{
    if (supervision->stage == STAGE_ROUTER && !family_router_runs(&supervision->family))
        enter_stage(supervision, STAGE_SHARDS);
    if (supervision->stage == STAGE_SHARDS && family_shards_running(&supervision->family) == 0)
        enter_stage(supervision, STAGE_OVER);
}

static void tell_manager(const char *state)
{
    enum kv_err err = notify_tell(state);
    if (err != KV_OK && err != KV_NOT_FOUND)
        kv_warn("the service manager could not be told %s: %m", state);
}

static void begin_stop(struct supervision *supervision, int exit_code)
{
    if (supervision->stage != STAGE_RUN)
        return;
    tell_manager("STOPPING=1");
    supervision->exit_code = exit_code;
    enter_stage(supervision, STAGE_ROUTER);
    advance(supervision);
}

static void kill_everything(struct supervision *supervision)
{
    supervision->exit_code = SUPERVISE_EXIT_FORCED;
    family_stop_router(&supervision->family, SIGKILL);
    family_stop_shards(&supervision->family, SIGKILL);
}

static void on_stage_late(void *arg)
{
    struct supervision *supervision = arg;
    if (supervision->stage == STAGE_ROUTER) {
        kv_warn("the router did not drain in time: killed");
        family_stop_router(&supervision->family, SIGKILL);
    } else {
        kv_warn("shards that did not stop in time are killed: %u", family_shards_running(&supervision->family));
        family_stop_shards(&supervision->family, SIGKILL);
    }
}

static void on_wrong_start(void *arg)
{
    begin_stop(arg, KV_EXIT_CONFIG);
}

static void on_end(void *arg)
{
    advance(arg);
}

static void on_all_ready(void *arg)
{
    struct supervision *supervision = arg;
    if (supervision->stage != STAGE_RUN)
        return;
    tell_manager("READY=1");
    supervision->options.on_all_ready(supervision->options.arg);
}

/* The router opens no files: it gets their bytes. */
static void reload_files(struct family *family)
{
    int fd;
    char why[512];
    if (kv_files_open(family->world.settings, &fd, why, sizeof(why)) != KV_OK) {
        kv_error("SIGHUP: what was loaded before stays: %s", why);
        return;
    }
    kv_info("SIGHUP: tokens and TLS files are read, the router decides");
    family_reload_router(family, fd);
}

static void take_signal(struct supervision *supervision, const struct signalfd_siginfo *info)
{
    if (info->ssi_signo == SIGCHLD) {
        family_reap(&supervision->family);
    } else if (info->ssi_signo == SIGHUP) {
        reload_files(&supervision->family);
    } else if (supervision->stage == STAGE_RUN) {
        kv_info("stopping: signal %u from pid %u", info->ssi_signo, info->ssi_pid);
        begin_stop(supervision, KV_EXIT_OK);
    } else {
        kv_warn("second signal: everything is killed at once");
        kill_everything(supervision);
    }
}

static void on_signal(void *arg, uint32_t events)
{
    struct supervision *supervision = arg;
    struct signalfd_siginfo info;
    (void)events;
    while (read(supervision->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        take_signal(supervision, &info);
}

static void watch_signals(struct supervision *supervision)
{
    sigset_t set = waited_signals();
    supervision->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (supervision->signal_fd < 0 || loop_add(supervision->loop, &supervision->signal_watch, supervision->signal_fd,
                                               EPOLLIN, on_signal, supervision) != KV_OK)
        kv_fatal("signals cannot be watched: %m");
}

int supervise(const struct family_world *world, const struct supervise_options *options, bool *served)
{
    struct supervision supervision = {.loop = loop_new(), .options = *options};
    supervision.stage_timer.on_due = on_stage_late;
    supervision.stage_timer.arg = &supervision;
    struct family_events events = {on_all_ready, on_wrong_start, on_end, &supervision};
    family_init(&supervision.family, supervision.loop, world, &events);
    watch_signals(&supervision);
    family_start(&supervision.family);
    loop_run(supervision.loop);
    *served = supervision.family.router_was_ready;
    family_close(&supervision.family);
    loop_remove(supervision.loop, &supervision.signal_watch);
    close(supervision.signal_fd);
    loop_free(&supervision.loop);
    return supervision.exit_code;
}
