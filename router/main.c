/* router/main.c -- kv-router: "I face strangers; I keep nothing on disk."
 * Does:     settings, what all threads share, the loops, READY; then waits for signals: SIGHUP loads the TLS files again, SIGTERM
 *           drains and ends.
 * Promises: SIGTERM answers what is under way, at most DRAIN_WAIT_MS, then exits 0 whatever hangs (a client can make a loop of
 *           libh2o spin: the deadline belongs to this thread, not to a loop).
 * Fails:    a wrong TLS pair: one line, KV_EXIT_CONFIG.
 * Tests:    system/, http/test_http_drain.c (server.c). */
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "body_file.h"
#include "confine.h"
#include "kv/child.h"
#include "kv/counters_page.h"
#include "kv/log.h"
#include "server.h"

/* Blocked in every thread, taken by sigwait: no handler ever runs. SIGINT from a terminal is the supervisor's business. */
static void block_signals(sigset_t *waited)
{
    signal(SIGINT, SIG_IGN);
    sigemptyset(waited);
    sigaddset(waited, SIGTERM);
    sigaddset(waited, SIGHUP);
    pthread_sigmask(SIG_BLOCK, waited, NULL);
}

static void reload_tls(struct server *server)
{
    char why[512];
    enum kv_err err = server_reload_tls(server, why, sizeof(why));
    if (err == KV_OK)
        kv_info("SIGHUP: certificate and key were loaded again");
    else if (err == KV_NOT_FOUND)
        kv_info("SIGHUP: TLS is off, there is nothing to load again");
    else
        kv_error("SIGHUP: the old certificate stays: %s", why);
}

static void wait_for_stop(const sigset_t *waited, struct server *server)
{
    int number = 0;
    while (number != SIGTERM)
        if (sigwait(waited, &number) == 0 && number == SIGHUP)
            reload_tls(server);
}

/* All that must be opened is open; no thread runs yet, and no stranger's byte was read. */
static void confine(void)
{
    bool named;
    const char *folder = body_files_folder(&named);
    if (named)
        kv_warn("the file system of %s has no unnamed files: the router may open files below it", folder);
    confine_router(folder, named);
}

int main(void)
{
    static struct kv_settings settings; /* read by every thread until _exit */
    struct server *server;
    sigset_t waited;
    char why[512];
    block_signals(&waited);
    confine_hide(); /* before there is a token in memory */
    kv_child_start("router", -1, &settings);
    struct server_options options = {.settings = &settings,
                                     .plain_fd = KV_FD_ROUTER_PLAIN,
                                     .tls_fd = KV_FD_ROUTER_TLS,
                                     .sockets_fd = KV_FD_ROUTER_SOCKETS,
                                     .counters = kv_counters_page_open(KV_FD_COUNTERS)};
    if (server_new(&options, &server, why, sizeof(why)) != KV_OK) {
        kv_error("%s", why);
        return KV_EXIT_CONFIG;
    }
    confine();
    server_start(server);
    kv_child_ready();
    wait_for_stop(&waited, server);
    if (!server_drain(server, settings.drain_wait_ms))
        kv_warn("stopping with requests under way: DRAIN_WAIT_MS (%lu) is over", settings.drain_wait_ms);
    _exit(KV_EXIT_OK);
}
