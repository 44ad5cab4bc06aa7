/* Goal: a kill, or a full disk, while a large generation is half in LMDB loses nothing and leaves nothing twice, however often it comes.
 * Method: with the smallest OVERLAY_BYTES a generation of some hundred rows is large (store_bound), once the tables have more pages
 * than that. Batches write keys, and as soon as a shard has a file `redo` everything is killed with SIGKILL; or the shards are
 * stopped for a moment and somebody else takes what is left of a small disk, before `redo` is written or once it is there. Then writes are
 * refused, reads go on; the files are checked as they lie, the store starts again on the full disk, and goes on once there is room.
 * In the end each key has what was acknowledged last, and keys and objects are as many as that makes. */
#include <criterion/criterion.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "disk.h"
#include "kv/clock.h"
#include "versions.h"

enum { SHARDS = 2, KEYS = 20000, HALVES = 4, ROUNDS_MAX = 200, PATH_BYTES = 128 };

TestSuite(redo, .fini = harness_close, .timeout = 600);

struct store {
    struct server *server;
    struct client *client;
    struct versions versions;
};

static struct store store_new(size_t key_count, size_t value_bytes)
{
    struct store store = {0};
    store.server =
        server_new((struct server_opts){.shards = SHARDS, .settings = {"OVERLAY_BYTES=1M", "COMPRESSION_LEVEL=0"}});
    versions_init(&store.versions, key_count, value_bytes);
    return store;
}

static void start(struct store *store)
{
    server_spawn(store->server);
    server_wait_ready(store->server);
    store->client = client_new(store->server, HTTP_2);
}

/* The end: all is there, once. */
static void stop_and_check(struct store *store)
{
    versions_expect_all(&store->versions, store->client);
    client_free(&store->client);
    server_stop(store->server);
    struct store_counts counts = server_check_files(store->server, SHARDS);
    CHECK(counts.keys == store->versions.there && counts.objects == store->versions.there,
          "%llu keys and %llu objects of %zu", (unsigned long long)counts.keys, (unsigned long long)counts.objects,
          store->versions.there);
    versions_free(&store->versions);
}

static void write_batch(struct store *store)
{
    long status = versions_write(&store->versions, store->client);
    CHECK(status == 200, "batch: %ld", status);
}

/* Of a file in a shard's folder. */
static const char *path_in(const struct store *store, unsigned shard, const char *name, char out[PATH_BYTES])
{
    snprintf(out, PATH_BYTES, "%s/shard-%u/%s", store->server->db_path, shard, name);
    return out;
}

static bool is_half(const struct store *store)
{
    char path[PATH_BYTES];
    for (unsigned shard = 0; shard < SHARDS; shard++)
        if (access(path_in(store, shard, "redo", path), F_OK) == 0)
            return true;
    return false;
}

static void write_until_half(struct store *store)
{
    for (size_t batches = 0; batches < 4 * store->versions.count / VERSIONS_BATCH_KEYS && !is_half(store); batches++)
        write_batch(store);
}

static void kill_and_check(struct store *store)
{
    client_free(&store->client);
    server_kill(store->server);
    server_check_files(store->server, SHARDS);
}

Test(redo, kills_in_the_midst_of_large_generations_lose_nothing)
{
    struct store store = store_new(KEYS, 100);
    unsigned halves = 0, round = 0;
    start(&store);
    do
        write_batch(&store);
    while (store.versions.next != 0);
    for (; round < ROUNDS_MAX && halves < HALVES; round++) {
        write_until_half(&store);
        kill_and_check(&store);
        halves += is_half(&store);
        start(&store);
    }
    fprintf(stderr, "%u of %u kills left a generation half applied\n", halves, round);
    CHECK(halves == HALVES, "%u kills of %u left a generation half applied", halves, ROUNDS_MAX);
    stop_and_check(&store);
}

/* ---- a full disk ------------------------------------------------------------------------------------------------- */

enum {
    KEYS_BEFORE = 10000,     /* in the tables when the disk fills up */
    KEYS_ROOM = 100000,      /* new keys make data.mdb grow: pages that are there already need no room */
    BATCHES_WAITING = 4,     /* rows of a generation that is not begun */
    REDO_BYTES_LESS = 65536, /* than `redo` needs for them */
    BATCHES_REFUSED = 30,    /* tried on the full disk */
    REFUSALS = 2,            /* of each kind */
    STUCK_WAIT_MS = 3000,
    GO_ON_WAIT_MS = 60000
};

static const char stuck[] = "no space to apply rows";

static void signal_shards(const struct store *store, int number)
{
    for (int shard = 0; shard < SHARDS; shard++)
        CHECK(kill(server_child(store->server, "kv-shard", shard), number) == 0, "%s", strerror(errno));
}

static unsigned times_in_log(const struct store *store, const char *text)
{
    struct kv_buf log = read_file(store->server->log_path);
    unsigned times = 0;
    for (const uint8_t *at = log.data, *end = at + log.bytes;
         (at = memmem(at, (size_t)(end - at), text, strlen(text))) != NULL; at += strlen(text))
        times++;
    kv_buf_free(&log);
    return times;
}

/* A refusal says that nothing was done. */
static bool write_or_refused(struct store *store)
{
    long status = versions_write(&store->versions, store->client);
    CHECK(status == 200 || status == 429 || status == 503 || status == 507, "batch on a full disk: %ld", status);
    return status == 200;
}

/* With the shards stopped somebody takes what the disk has left. */
static void fill_up(const struct store *store, off_t leave_bytes)
{
    signal_shards(store, SIGSTOP);
    disk_fill(store->server, leave_bytes);
    signal_shards(store, SIGCONT);
}

/* Rows of a generation that is not begun, and less room than `redo` needs. */
static void fill_up_before_redo(struct store *store)
{
    for (unsigned i = 0; i < BATCHES_WAITING; i++)
        write_batch(store);
    fill_up(store, REDO_BYTES_LESS);
}

struct filler {
    const struct store *store;
    int inotify_fd;
    atomic_bool done;
};

/* As soon as a shard has closed its file `redo`: its rows are about to go into LMDB. */
static void *run_filler(void *arg)
{
    struct filler *filler = arg;
    _Alignas(struct inotify_event) char events[4096];
    for (bool closed = false; !closed;) {
        ssize_t bytes = read(filler->inotify_fd, events, sizeof events);
        CHECK(bytes > 0, "%s", strerror(errno));
        for (char *at = events; at < events + bytes;) {
            const struct inotify_event *event = (const void *)at;
            closed = closed || strcmp(event->name, "redo") == 0;
            at += sizeof *event + event->len;
        }
    }
    fill_up(filler->store, 0);
    filler->done = true;
    return NULL;
}

static void fill_up_behind_redo(struct store *store)
{
    struct filler filler = {.store = store, .inotify_fd = inotify_init1(IN_CLOEXEC)};
    pthread_t thread;
    char path[PATH_BYTES];
    for (unsigned shard = 0; shard < SHARDS; shard++)
        CHECK(inotify_add_watch(filler.inotify_fd, path_in(store, shard, "", path), IN_CLOSE_WRITE) >= 0);
    CHECK(pthread_create(&thread, NULL, run_filler, &filler) == 0);
    while (!filler.done)
        (void)write_or_refused(store);
    pthread_join(thread, NULL);
    close(filler.inotify_fd);
}

/* Whether a generation met the full disk. */
static bool is_applier_stuck(const struct store *store, unsigned times)
{
    uint64_t until_ms = kv_clock_ms() + STUCK_WAIT_MS;
    while (times_in_log(store, stuck) == times && kv_clock_ms() < until_ms)
        sleep_ms(20);
    return times_in_log(store, stuck) > times;
}

static void write_on_full_disk(struct store *store)
{
    unsigned written = 0;
    for (unsigned i = 0; i < BATCHES_REFUSED; i++)
        written += write_or_refused(store);
    CHECK(written < BATCHES_REFUSED, "%u batches found room on a full disk", written);
}

/* Rows that a shard has in memory only. */
static double rows_waiting(const struct store *store, unsigned shard)
{
    char name[64];
    snprintf(name, sizeof name, "\nkv_storage_shard_overlay_rows{shard=\"%u\"} ", shard);
    const struct response *response = client_get(store->client, "/metrics");
    CHECK(response->status == 200, "GET /metrics: %ld", response->status);
    const char *line = memmem(response->body.data, response->body.bytes, name, strlen(name));
    CHECK(line != NULL, "no%s", name);
    return atof(line + strlen(name));
}

/* Writes are taken again, and in the end all is applied: one shard may find its room later than another. */
static void go_on(struct store *store)
{
    uint64_t until_ms = kv_clock_ms() + GO_ON_WAIT_MS;
    disk_empty(store->server);
    while (!write_or_refused(store)) {
        CHECK(kv_clock_ms() < until_ms, "there is room, and writes are refused");
        sleep_ms(50);
    }
    while (is_half(store) || rows_waiting(store, 0) + rows_waiting(store, 1) > 0) {
        CHECK(kv_clock_ms() < until_ms, "there is room, and rows stay where they are");
        sleep_ms(20);
    }
}

/* True: the disk was full when `redo` was to be written, or while rows went into LMDB. */
static bool meet_full_disk(struct store *store, bool half, bool killed)
{
    unsigned times = times_in_log(store, stuck);
    if (half)
        fill_up_behind_redo(store);
    else
        fill_up_before_redo(store);
    bool met = is_applier_stuck(store, times);
    if (met)
        write_on_full_disk(store);
    met = met && is_half(store) == half;
    versions_expect_all(&store->versions, store->client);
    if (killed) {
        kill_and_check(store);
        start(store);
        versions_expect_all(&store->versions, store->client);
    }
    go_on(store);
    versions_expect_all(&store->versions, store->client);
    return met;
}

static void run_on_small_disk(const char *kind, bool half)
{
    struct store store = store_new(KEYS_ROOM, 1000);
    unsigned met = 0, round = 0;
    if (!disk_mount(store.server, kind)) {
        fprintf(stderr, "SKIPPED: no %s of 64 MiB can be mounted here: %s\n", kind, strerror(errno));
        return;
    }
    start(&store);
    while (store.versions.there < KEYS_BEFORE)
        write_batch(&store);
    for (; round < ROUNDS_MAX && met < REFUSALS; round++)
        met += meet_full_disk(&store, half, met % 2 == 0);
    fprintf(stderr, "%u of %u full disks met the generation\n", met, round);
    CHECK(met == REFUSALS, "%u of %u full disks met the generation", met, ROUNDS_MAX);
    CHECK(!server_log_has(store.server, " ended: exit"), "a process gave up");
    stop_and_check(&store);
    disk_unmount(store.server);
}

Test(redo, no_room_to_write_it)
{
    run_on_small_disk("tmpfs", false);
}

Test(redo, no_room_to_write_it_on_ext4)
{
    run_on_small_disk("ext4", false);
}

Test(redo, no_room_behind_it)
{
    run_on_small_disk("tmpfs", true);
}

Test(redo, no_room_behind_it_on_ext4)
{
    run_on_small_disk("ext4", true);
}
