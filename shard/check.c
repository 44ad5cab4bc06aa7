/* shard/check.c -- see check.h. */
#include "check.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv/log.h"
#include "kv/settings.h"
#include "recover.h"

#define CHECK_FAULT 1
#define PATH_BYTES_MAX 4096

/* What on_bus_error may say, which is given no time to print: a page of data.mdb is not there (main.c). */
static char unread[80];

static void on_bus_error(int number)
{
    (void)number;
    ssize_t written = write(STDOUT_FILENO, unread, strlen(unread));
    (void)written;
    _exit(CHECK_FAULT);
}

/* A core that only replays asks nothing of the world but rows. */
static void world_failed(void *ctx, enum kv_err err, const char *what)
{
    (void)ctx;
    printf("%s: %s\n", what, kv_err_text(err));
    exit(CHECK_FAULT);
}

static enum kv_err check_shard(const char *path, const struct store_identity *identity, char *why, size_t why_bytes,
                               struct core_stats *stats, uint64_t *records)
{
    struct recovered on = {0};
    struct core_world world = {.ctx = &on, .failed = world_failed};
    recovered_world(&world);
    struct recover_options options = {.path = path,
                                      .identity = identity,
                                      .map_bytes = 256 * KV_GIB, /* the default; only address space */
                                      .core = {.shard_index = (unsigned)identity->shard_index,
                                               .shard_count = (unsigned)identity->shard_count,
                                               .overlay_bytes_max = UINT64_MAX / 2}, /* nothing is applied */
                                      .read_only = true};
    enum kv_err err = recover(&options, &world, why, why_bytes, &on);
    if (err != KV_OK)
        return err;
    core_stats(on.core, stats);
    *records = on.records;
    recovered_read_end(&on); /* it opens its own snapshot */
    err = store_check(on.store, why, why_bytes);
    recovered_close(&on);
    return err;
}

/* Of either LMDB would say in a log line, and without a name, that some call failed. */
static bool is_there(const char *shard_path, unsigned long long index)
{
    char file_path[PATH_BYTES_MAX];
    struct stat status;
    snprintf(file_path, sizeof(file_path), "%s/data.mdb", shard_path);
    if (stat(file_path, &status) != 0)
        printf("shard %llu: %s: %m\n", index, file_path);
    else if (status.st_size == 0)
        printf("shard %llu: %s is empty\n", index, file_path);
    else
        return true;
    return false;
}

static bool print_shard(const char *path, const struct store_identity *identity)
{
    char why[512] = "", shard_path[PATH_BYTES_MAX - 16];
    struct core_stats stats = {0};
    uint64_t records = 0;
    unsigned long long index = identity->shard_index;
    snprintf(shard_path, sizeof(shard_path), "%s/shard-%llu", path, index);
    if (!is_there(shard_path, index))
        return false;
    snprintf(unread, sizeof(unread), "shard %llu: data.mdb was cut short, or the disk cannot be read\n", index);
    if (check_shard(shard_path, identity, why, sizeof(why), &stats, &records) != KV_OK) {
        printf("shard %llu: %s\n", index, why);
        return false;
    }
    printf("shard %llu keys %llu objects %llu stored_bytes %llu journal_records %llu: ok\n", index,
           (unsigned long long)stats.keys, (unsigned long long)stats.objects, (unsigned long long)stats.stored_bytes,
           (unsigned long long)records);
    return true;
}

/* The supervisor's file, three lines. */
static bool read_identity(const char *path, unsigned *shard_count, char id[KV_STORE_ID_BYTES + 1])
{
    char file_path[PATH_BYTES_MAX];
    snprintf(file_path, sizeof(file_path), "%s/store", path);
    FILE *file = fopen(file_path, "re");
    if (file == NULL) {
        printf("%s: %m\n", file_path);
        return false;
    }
    int fields = fscanf(file, "format 1\nshards %9u\nid %32[0-9a-f]\n", shard_count, id);
    fclose(file);
    if (fields != 2 || *shard_count < 1 || *shard_count > KV_SHARDS_MAX) {
        *shard_count = 0;
        printf("%s: damaged, or of another version\n", file_path);
        return false;
    }
    return true;
}

/* The supervisor's lock, for as long as `fd` is open; a copy that came without one needs none (-1). */
static bool take_lock(const char *path, int *fd)
{
    char file_path[PATH_BYTES_MAX];
    snprintf(file_path, sizeof(file_path), "%s/lock", path);
    *fd = open(file_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (*fd < 0 || flock(*fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
        return true;
    close(*fd);
    printf("%s is in use: stop kv-storage first, or check a copy\n", path);
    return false;
}

static bool check_shards(const char *path)
{
    unsigned shard_count = 0;
    char id[KV_STORE_ID_BYTES + 1] = "";
    bool whole = read_identity(path, &shard_count, id);
    for (unsigned i = 0; i < shard_count; i++) {
        struct store_identity identity = {.shard_index = i, .shard_count = shard_count, .store_id = id};
        whole = print_shard(path, &identity) && whole;
    }
    return whole;
}

static bool check_store(const char *path)
{
    int lock_fd;
    if (!take_lock(path, &lock_fd))
        return false;
    bool whole = check_shards(path);
    if (lock_fd >= 0)
        close(lock_fd);
    return whole;
}

int check_stores(const char *const *paths, size_t count)
{
    bool whole = true;
    setvbuf(stdout, NULL, _IOLBF, 0); /* what was said stays said when a signal ends this */
    signal(SIGBUS, on_bus_error);
    for (size_t i = 0; i < count; i++)
        whole = check_store(paths[i]) && whole;
    return whole ? 0 : CHECK_FAULT;
}
