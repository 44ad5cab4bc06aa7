/* router/main.c -- kv-router: "I face strangers; I keep nothing on disk."
 * Does:     settings and files from the supervisor, what all threads share, confinement, the loops, READY; then waits for signals:
 *           SIGHUP takes tokens and TLS files that the supervisor has read again, SIGTERM drains and ends.
 * Promises: SIGTERM answers what is under way, at most DRAIN_WAIT_MS, then exits 0 whatever hangs (a client can make a loop of
 *           libh2o spin: the deadline belongs to this thread, not to a loop).
 * Fails:    a wrong TLS pair or TOKENS_FILE: one line, KV_EXIT_CONFIG; on SIGHUP: one line, what was there before stays.
 * Tests:    system/, http/test_http_drain.c (server.c). */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* What the supervisor has read; without anything new all stays. */
static enum kv_err reload(struct server *server, char *why, size_t why_bytes)
{
    struct kv_files files = {0};
    enum kv_err err = kv_files_receive(KV_FD_ROUTER_FILES, &files);
    if (err == KV_INVALID)
        snprintf(why, why_bytes, "the files came damaged");
    if (err == KV_OK)
        err = server_reload(server, &files, why, why_bytes);
    kv_files_free(&files);
    return err;
}

static void on_reload(struct server *server)
{
    char why[512];
    enum kv_err err = reload(server, why, sizeof(why));
    if (err == KV_NOT_FOUND)
        return; /* a SIGHUP that the supervisor did not send */
    if (err == KV_OK)
        kv_info("tokens%s were loaded again", server->tls == NULL ? "" : ", certificate and key");
    else
        kv_error("what was loaded before stays: %s", why);
    kv_child_reloaded(err == KV_OK);
}

static void wait_for_stop(const sigset_t *waited, struct server *server)
{
    int number = 0;
    while (number != SIGTERM)
        if (sigwait(waited, &number) == 0 && number == SIGHUP)
            on_reload(server);
}

/* All that must be opened is open; no thread runs yet, and no stranger's byte was read. */
static void confine(void)
{
    bool named;
    const char *folder = body_files_folder(&named), *wanted = getenv("TMPDIR");
    if (wanted != NULL && strcmp(wanted, folder) != 0)
        kv_warn("TMPDIR: %s is no folder that can be written to: uploads wait in %s", wanted, folder);
    if (named)
        kv_warn("the file system of %s has no unnamed files: the router may open files below it", folder);
    if (fchdir(KV_FD_ROUTER_SOCKETS) != 0) /* so that addresses of shards are short: confine_seccomp.c */
        kv_fatal("the folder of the sockets cannot be entered: %m");
    confine_router(folder, named);
}

static struct server *make_server(struct kv_settings *settings)
{
    struct kv_files files = {0};
    struct server *server;
    char why[512] = "the supervisor has sent no files";
    enum kv_err err = kv_files_receive(KV_FD_ROUTER_FILES, &files);
    struct server_options options = {.settings = settings,
                                     .files = &files,
                                     .plain_fd = KV_FD_ROUTER_PLAIN,
                                     .tls_fd = KV_FD_ROUTER_TLS,
                                     .sockets_fd = AT_FDCWD,
                                     .counters = kv_counters_page_open(KV_FD_COUNTERS)};
    if (err == KV_OK)
        err = server_new(&options, &server, why, sizeof(why));
    if (err != KV_OK) {
        kv_error("%s", why);
        exit(KV_EXIT_CONFIG);
    }
    kv_files_free(&files);
    explicit_bzero(settings->token, strlen(settings->token)); /* its hash is enough */
    return server;
}

int main(void)
{
    static struct kv_settings settings; /* read by every thread until _exit */
    sigset_t waited;
    block_signals(&waited);
    confine_hide(); /* before there is a token in memory */
    kv_child_start("router", -1, &settings);
    struct server *server = make_server(&settings);
    confine();
    server_start(server);
    kv_child_ready();
    wait_for_stop(&waited, server);
    if (!server_drain(server, settings.drain_wait_ms))
        kv_warn("stopping with requests under way: DRAIN_WAIT_MS (%lu) is over", settings.drain_wait_ms);
    _exit(KV_EXIT_OK);
}
