/* router/main.c -- kv-router: "I face strangers; I keep nothing on disk."
 * Does:     settings, what all threads share, the loops, READY; then waits for SIGTERM, drains and ends.
 * Promises: SIGTERM answers what is under way, at most DRAIN_WAIT_MS, then exits 0 whatever hangs (a client can make a loop of
 *           libh2o spin: the deadline belongs to this thread, not to a loop).
 * Fails:    a wrong TLS pair: one line, KV_EXIT_CONFIG.
 * Tests:    system/, http/test_http_drain.c (server.c). */
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "kv/child.h"
#include "kv/counters_page.h"
#include "kv/log.h"
#include "server.h"

/* Blocked in every thread, taken by sigwait: no handler ever runs. SIGINT from a terminal is the supervisor's business. */
static void block_signals(sigset_t *stop)
{
    signal(SIGINT, SIG_IGN);
    sigemptyset(stop);
    sigaddset(stop, SIGTERM);
    pthread_sigmask(SIG_BLOCK, stop, NULL);
}

static void wait_for_stop(const sigset_t *stop)
{
    int number;
    while (sigwait(stop, &number) != 0)
        continue;
}

int main(void)
{
    static struct kv_settings settings; /* read by every thread until _exit */
    struct server *server;
    sigset_t stop;
    char why[512];
    block_signals(&stop);
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
    server_start(server);
    kv_child_ready();
    wait_for_stop(&stop);
    if (!server_drain(server, settings.drain_wait_ms))
        kv_warn("stopping with requests under way: DRAIN_WAIT_MS (%lu) is over", settings.drain_wait_ms);
    _exit(KV_EXIT_OK);
}
