/* supervisor/main.c -- kv-storage: "I start you, watch you, and know nothing of your data."
 * Does:     configuration, descriptors, directory, sockets, children, unwinding in reverse order.
 * Promises: everything that can be refused is refused before anything is made; what was made by a start that failed
 *           is removed again.
 * Fails:    one line on standard error that names the variable, exit code KV_EXIT_CONFIG.
 * Tests:    system/test_supervisor.c. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "address.h"
#include "config.h"
#include "confine.h"
#include "health.h"
#include "kv/child.h"
#include "kv/files.h"
#include "kv/log.h"
#include "memory.h"
#include "privilege.h"
#include "supervise.h"

#define DRAIN_SLACK_MS 2000u  /* the router ends its drain by itself; only a stuck one is killed */
#define SHARDS_STOP_MS 10000u /* likewise the shards */
#define DESCRIPTORS_MIN 128u  /* of each process, without the links between router threads and shards */

struct world {
    struct kv_settings settings;
    struct datadir datadir;
    struct family_world family;
    char shard_program[SPAWN_PATH_BYTES];
    char router_program[SPAWN_PATH_BYTES];
    bool plain, tls;
};

static void world_init(struct world *world)
{
    memset(world, 0, sizeof(*world));
    world->datadir = (struct datadir){.fd = -1, .lock_fd = -1, .sockets_fd = -1};
    world->family.plain_fd = world->family.tls_fd = world->family.counters_fd = world->family.files_fd = -1;
    for (unsigned i = 0; i < KV_SHARDS_MAX; i++)
        world->family.shard_fds[i] = -1;
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max)
        return;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        kv_warn("the limit of open files cannot be raised: %m");
}

static unsigned shards_of_new_store(const struct kv_settings *settings)
{
    unsigned cores = config_cores();
    if (settings->shards != 0)
        return (unsigned)settings->shards;
    return cores < KV_SHARDS_MAX ? cores : KV_SHARDS_MAX;
}

/* With less, children would end before they can say why: each router thread has a link to each shard, and four of its own. */
static enum kv_err check_descriptor_limit(const struct world *world, struct why *why)
{
    const struct datadir *datadir = &world->datadir;
    uint64_t shards = datadir->fresh ? shards_of_new_store(&world->settings) : datadir->identity.shard_count;
    uint64_t needed = DESCRIPTORS_MIN + world->settings.router_threads * (shards + 4);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed)
        return KV_OK;
    return why_not(
        why, "RLIMIT_NOFILE: %lu open files are allowed; SHARDS=%lu with ROUTER_THREADS=%lu needs %lu (ulimit -n)",
        (uint64_t)limit.rlim_cur, shards, world->settings.router_threads, needed);
}

/* A listening socket, or /dev/null so that the router's descriptors keep their numbers. */
static enum kv_err open_listener(const char *variable, const char *text, bool wanted, int *fd, bool *open_now,
                                 struct why *why)
{
    struct address address;
    enum kv_err err = address_parse(variable, text, &address, why);
    if (err != KV_OK)
        return err;
    *open_now = wanted && !address.off;
    if (*open_now)
        return address_listen(variable, &address, fd, why);
    *fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    return *fd >= 0 ? KV_OK : why_not(why, "/dev/null cannot be opened: %s", strerror(errno));
}

static enum kv_err open_listeners(struct world *world, struct why *why)
{
    const struct kv_settings *settings = &world->settings;
    privilege_raise();
    enum kv_err err =
        open_listener("BIND_ADDR", settings->bind_addr, true, &world->family.plain_fd, &world->plain, why);
    if (err == KV_OK)
        err = open_listener("TLS_BIND_ADDR", settings->tls_bind_addr, *settings->tls_cert != '\0',
                            &world->family.tls_fd, &world->tls, why);
    privilege_lower();
    return err;
}

static enum kv_err open_shard_sockets(struct world *world, struct why *why)
{
    enum kv_err err = KV_OK;
    world->family.shard_count = world->datadir.identity.shard_count;
    for (unsigned i = 0; err == KV_OK && i < world->family.shard_count; i++)
        err = datadir_listen(&world->datadir, i, &world->family.shard_fds[i], why);
    if (err != KV_OK)
        datadir_undo(&world->datadir);
    return err;
}

static enum kv_err open_counters(struct world *world, struct why *why)
{
    world->family.counters_fd = kv_counters_page_new();
    if (world->family.counters_fd < 0)
        return why_not(why, "no memory can be shared for counters: %s", strerror(errno));
    world->family.counters = kv_counters_page_open(world->family.counters_fd);
    return KV_OK;
}

/* Order: first all that only looks, then ports, then the directory. Nothing is left when a step refuses. Files that only root may
 * read are read, and ports that only root may have are opened, before root is given up. */
static enum kv_err world_open(struct world *world, struct why *why)
{
    const struct kv_settings *settings = &world->settings;
    enum kv_err err = kv_files_open(settings, &world->family.files_fd, why->text, sizeof(why->text));
    if (err == KV_OK)
        err = privilege_begin(settings->run_as, why);
    if (err == KV_OK)
        err = spawn_find("kv-shard", world->shard_program, why);
    if (err == KV_OK)
        err = spawn_find("kv-router", world->router_program, why);
    if (err == KV_OK)
        err = datadir_open(settings->db_path, (unsigned)settings->shards, &world->datadir, why);
    if (err == KV_OK)
        err = check_descriptor_limit(world, why);
    if (err == KV_OK)
        err = open_listeners(world, why);
    if (err == KV_OK)
        err = open_counters(world, why);
    if (err == KV_OK)
        err = datadir_prepare(&world->datadir, shards_of_new_store(settings), why);
    if (err == KV_OK)
        err = open_shard_sockets(world, why);
    if (err == KV_OK)
        err = privilege_drop(why);
    world->family.settings = &world->settings;
    world->family.datadir = &world->datadir;
    world->family.shard_program = world->shard_program;
    world->family.router_program = world->router_program;
    return err;
}

static void world_close(struct world *world)
{
    for (unsigned i = 0; i < KV_SHARDS_MAX; i++)
        if (world->family.shard_fds[i] >= 0)
            close(world->family.shard_fds[i]);
    if (world->family.counters_fd >= 0)
        close(world->family.counters_fd);
    if (world->family.tls_fd >= 0)
        close(world->family.tls_fd);
    if (world->family.plain_fd >= 0)
        close(world->family.plain_fd);
    datadir_close(&world->datadir);
    kv_settings_free(&world->settings);
}

/* For a person at a terminal, or supervisor/run: where it listens and what to type. Never the token itself. */
static void print_hint(const char *scheme, const char *address, const char *options)
{
    const char *port = strrchr(address, ':');
    bool everywhere = strncmp(address, "0.0.0.0:", 8) == 0 || strncmp(address, "[::]:", 5) == 0;
    printf("kv-storage: listening on %s://%s\n", scheme, address);
    printf("try: curl %s-X PUT --data 'hello' -H \"Authorization: Bearer $TOKEN\" %s://%.*s%s/greeting\n", options,
           scheme, everywhere ? 9 : (int)(port - address), everywhere ? "localhost" : address, port);
    fflush(stdout);
}

static void on_all_ready(void *arg)
{
    const struct world *world = arg;
    char plain[128] = "", tls[128] = "";
    struct why why;
    if (datadir_note_served(&world->datadir, &why) != KV_OK)
        kv_warn("a shard whose files are removed would not be noticed: %s", why.text);
    if (world->plain)
        address_of_socket(world->family.plain_fd, plain, sizeof(plain));
    if (world->tls)
        address_of_socket(world->family.tls_fd, tls, sizeof(tls));
    kv_info("serving%s%s%s%s, %u shards, store %s in %s", world->plain ? " http://" : "", plain,
            world->tls ? " https://" : "", tls, world->family.shard_count, world->datadir.identity.id,
            world->datadir.path);
    if (!isatty(STDOUT_FILENO) && getenv("KV_STORAGE_HINT") == NULL)
        return;
    if (world->plain)
        print_hint("http", plain, "");
    else
        print_hint("https", tls, "-k ");
}

static void tell_confinement(void)
{
    char lacks[512];
    if (confine_kernel_lacks(lacks, sizeof(lacks)))
        kv_warn("router and shards are confined as far as this kernel can: %s", lacks);
}

static int run(struct world *world)
{
    struct why why;
    bool served = false;
    kv_log_init(&(struct kv_log_options){
        .level = (enum kv_log_level)world->settings.log_level,
        .json = world->settings.log_format == KV_LOG_FORMAT_JSON,
        .process = "supervisor",
        .shard_index = -1,
    });
    umask(077);
    supervise_block_signals();
    raise_descriptor_limit();
    if (world_open(world, &why) != KV_OK) {
        fprintf(stderr, "kv-storage: %s\n", why.text);
        return KV_EXIT_CONFIG;
    }
    tell_confinement();
    memory_warn(&world->settings, world->family.shard_count);
    struct supervise_options options = {
        .router_stop_ms = world->settings.drain_wait_ms + DRAIN_SLACK_MS,
        .shards_stop_ms = SHARDS_STOP_MS,
        .on_all_ready = on_all_ready,
        .arg = world,
    };
    int code = supervise(&world->family, &options, &served);
    if (code == KV_EXIT_CONFIG && !served)
        datadir_undo(&world->datadir); /* refused by a child: no client has written yet */
    if (code == KV_EXIT_OK)
        kv_info("stopped");
    return code;
}

static int health(const struct kv_settings *settings)
{
    struct why why;
    if (health_check(settings, &why) == KV_OK)
        return 0;
    fprintf(stderr, "kv-storage: %s\n", why.text);
    return 1;
}

int main(int argc, char **argv)
{
    static struct world world;
    struct why why;
    enum config_action action;
    confine_hide(); /* before there is a token in memory */
    world_init(&world);
    if (config_read(argc, argv, environ, &world.settings, &action, &why) != KV_OK) {
        fprintf(stderr, "kv-storage: %s\n", why.text);
        return KV_EXIT_CONFIG;
    }
    config_wipe_token(argc, argv);
    int code = 0;
    if (action == CONFIG_HELP)
        config_print_help(stdout);
    else if (action == CONFIG_VERSION)
        printf("kv-storage %s\n", KV_VERSION);
    else
        code = action == CONFIG_HEALTH ? health(&world.settings) : run(&world);
    world_close(&world);
    return code;
}
