/* shard/main.c -- kv-shard: one process, one LMDB file, one journal.
 *   kv-shard <index>                  started by kv-storage, with the descriptors of kv/child.h
 *   kv-shard --check DB_PATH…          checks the files of stopped stores and prints one line per shard (check.h)
 * Fails: files of another store, shard or count: KV_EXIT_CONFIG; damaged ones: KV_EXIT_CORRUPT; anything else:
 * KV_EXIT_FATAL; one log line each. Pages of data.mdb that are not there: KV_EXIT_UNREAD, of which the supervisor tells. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "check.h"
#include "confine.h"
#include "kv/buf.h"
#include "kv/child.h"
#include "kv/log.h"
#include "kv/settings.h"
#include "loop.h"
#include "serve.h"

static void usage(void)
{
    fprintf(stderr, "usage: kv-shard --check DB_PATH...   (a shard itself is started by kv-storage)\n");
}

static bool parse_index(const char *text, unsigned *out)
{
    char *end = NULL;
    errno = 0;
    unsigned long index = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] < '0' || text[0] > '9' || index >= KV_SHARDS_MAX)
        return false;
    *out = (unsigned)index;
    return true;
}

/* LMDB reads its file through memory. A page behind the end of a file that was cut short, or one that the disk cannot give,
 * comes as this signal, in whichever thread touched it. */
static void on_bus_error(int number)
{
    (void)number;
    _exit(KV_EXIT_UNREAD);
}

/* Before any thread starts, so that all of them leave SIGTERM to the loop. SIGINT from a terminal reaches the whole group: the
 * supervisor decides what it means. */
static int take_signals(void)
{
    sigset_t set;
    signal(SIGINT, SIG_IGN);
    signal(SIGBUS, on_bus_error);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (fd < 0)
        kv_fatal("cannot make a descriptor for signals: %m");
    return fd;
}

static void on_signal(void *arg, uint32_t events)
{
    struct serve *serve = arg;
    (void)events; /* the signal is left in the descriptor's queue: serve_stop twice is once */
    kv_info("stopping: writing out what is in memory");
    serve_stop(serve);
}

static struct serve *open_shard(const struct kv_settings *settings, unsigned shard_index)
{
    static char path[64];
    char why[512];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", KV_FD_SHARD_DATA);
    struct store_identity identity = {
        .shard_index = shard_index, .shard_count = settings->shard_count, .store_id = settings->store_id};
    struct serve_options options = {
        .recover = {.path = path,
                    .identity = &identity,
                    .map_bytes = settings->map_size,
                    .core = {.shard_index = shard_index,
                             .shard_count = (unsigned)settings->shard_count,
                             .overlay_bytes_max = settings->overlay_bytes},
                    .flush = settings->durability == KV_DURABILITY_SYNC,
                    .flush_interval_ms = settings->flush_interval_ms},
        .listen_fd = KV_FD_SHARD_LISTEN,
        .shard_wait_ms = settings->shard_wait_ms,
        .epoch = settings->epoch,
        .counters = kv_counters_page_open(KV_FD_COUNTERS)->shards[shard_index],
    };
    struct serve *serve = NULL;
    enum kv_err err = serve_open(&options, why, sizeof(why), &serve);
    if (err != KV_OK)
        recovered_end(err, why);
    return serve;
}

static void run_shard(unsigned shard_index)
{
    struct kv_settings settings;
    struct loop_watch signals = {0};
    kv_child_start("shard", (int)shard_index, &settings);
    kv_trim_prepare();
    int signal_fd = take_signals();
    confine_shard(KV_FD_SHARD_DATA); /* before the first byte of anybody else is read, and before the first thread */
    struct serve *serve = open_shard(&settings, shard_index);
    if (loop_add(serve_loop(serve), &signals, signal_fd, EPOLLIN | EPOLLET, on_signal, serve) != KV_OK)
        kv_fatal("cannot watch for signals: %m");
    kv_settings_free(&settings);
    kv_child_ready();
    serve_run(serve);
    loop_remove(serve_loop(serve), &signals);
    close(signal_fd);
    serve_close(&serve);
    kv_info("stopped");
}

int main(int argc, char **argv)
{
    unsigned shard_index = 0;
    if (argc >= 3 && strcmp(argv[1], "--check") == 0)
        return check_stores((const char *const *)argv + 2, (size_t)argc - 2);
    if (argc != 2 || !parse_index(argv[1], &shard_index)) {
        usage();
        return KV_EXIT_CONFIG;
    }
    run_shard(shard_index);
    return KV_EXIT_OK;
}
