/* Goal: whatever is killed, and whenever, every acknowledged write is there afterwards, and none is half done; the death of a shard
 * costs clients time but never an error, that of the router only the connection.
 * Method: writers that note what was acknowledged (load.h) run while processes are killed with SIGKILL: everything ten times over;
 * one shard after the other; the router; then each key is read and compared, and the files are checked and counted: as many keys and
 * objects as the acknowledgements add up to, so nothing leaked either. Pauses between kills come from a fixed seed, printed. */
#include <criterion/criterion.h>

#include <signal.h>
#include <stdlib.h>

#include "kv/clock.h"
#include "load.h"

#define ROUNDS 10u
#define WRITERS 4u

TestSuite(crash, .fini = harness_close, .timeout = 600);

static void expect_files_agree(struct server *server, const struct load *load, unsigned shards)
{
    uint64_t keys, objects;
    server_stop(server);
    load_expected(load, &keys, &objects);
    struct store_counts counts = server_check_files(server, shards);
    CHECK(counts.keys == keys, "%llu keys, acknowledged %llu", (unsigned long long)counts.keys,
          (unsigned long long)keys);
    CHECK(counts.objects == objects, "%llu objects, acknowledged %llu", (unsigned long long)counts.objects,
          (unsigned long long)objects);
}

static void kill_everything(unsigned shards, unsigned seed)
{
    struct load *load = kv_alloc(sizeof *load);
    struct server *server = server_start((struct server_opts){.shards = shards});
    load_init(load, server, WRITERS);
    srandom(seed);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t before = load_answered(load);
        load_start(load, LOAD_STOP);
        unsigned pause = 150 + (unsigned)random() % 400;
        sleep_ms(pause);
        while (load_answered(load) == before) /* a kill before the first write would show nothing */
            sleep_ms(5);
        server_kill(server);
        load_stop(load);
        cr_log_info("seed %u, round %u: killed after %u ms and %llu writes", seed, round, pause,
                    (unsigned long long)(load_answered(load) - before));
        server_spawn(server);
        server_wait_ready(server);
        load_verify(load);
    }
    expect_files_agree(server, load, shards);
    free(load);
}

Test(crash, of_everything_with_1_shard)
{
    kill_everything(1, 71);
}

Test(crash, of_everything_with_3_shards)
{
    kill_everything(3, 73);
}

/* Kills the process and waits until another one has taken its place. */
static void kill_and_wait(struct server *server, const char *name, int index)
{
    pid_t old = server_child(server, name, index), new = old;
    CHECK(old != 0, "%s %d does not run", name, index);
    kill(old, SIGKILL);
    uint64_t until = kv_clock_ms() + 20000;
    while ((new == old || new == 0) && kv_clock_ms() < until) {
        sleep_ms(5);
        new = server_child(server, name, index);
    }
    CHECK(new != old &&new != 0, "%s %d was not started again within 20 s", name, index);
}

/* However slow the disk: somebody writes on. */
static void wait_for_answers(struct load *load, uint64_t before)
{
    uint64_t until = kv_clock_ms() + 20000;
    while (load_answered(load) <= before && kv_clock_ms() < until)
        sleep_ms(5);
    CHECK(load_answered(load) > before, "nobody was writing");
}

Test(crash, of_a_shard_costs_clients_only_time)
{
    enum { SHARDS = 3, KILLS = 6 };
    struct load *load = kv_alloc(sizeof *load);
    struct server *server = server_start((struct server_opts){.shards = SHARDS});
    load_init(load, server, WRITERS);
    load_start(load, LOAD_FAIL);
    for (int kill_number = 0; kill_number < KILLS; kill_number++) {
        uint64_t before = load_answered(load);
        sleep_ms(300);
        kill_and_wait(server, "kv-shard", kill_number % SHARDS);
        sleep_ms(300);
        server_wait_ready(server);
        wait_for_answers(load, before);
    }
    load_stop(load);
    load_verify(load);
    for (unsigned i = 0; i < WRITERS; i++)
        CHECK(load->writers[i].slowest_ms < 10000, "one answer took %llu ms: that is SHARD_WAIT_MS",
              (unsigned long long)load->writers[i].slowest_ms);
    expect_files_agree(server, load, SHARDS);
    free(load);
}

Test(crash, of_all_shards_at_once_costs_clients_only_time)
{
    enum { SHARDS = 3, KILLS = 3 };
    struct load *load = kv_alloc(sizeof *load);
    struct server *server = server_start((struct server_opts){.shards = SHARDS});
    load_init(load, server, WRITERS);
    load_start(load, LOAD_FAIL);
    for (unsigned number = 0; number < KILLS; number++) {
        sleep_ms(400);
        for (int i = 0; i < SHARDS; i++) {
            pid_t pid = server_child(server, "kv-shard", i);
            CHECK(pid != 0, "shard %d does not run", i);
            kill(pid, SIGKILL);
        }
        sleep_ms(400);
        server_wait_ready(server);
    }
    sleep_ms(200);
    load_stop(load);
    load_verify(load);
    expect_files_agree(server, load, SHARDS);
    free(load);
}

Test(crash, of_the_router_loses_nothing)
{
    enum { SHARDS = 3, KILLS = 6 };
    struct load *load = kv_alloc(sizeof *load);
    struct server *server = server_start((struct server_opts){.shards = SHARDS});
    load_init(load, server, WRITERS);
    load_start(load, LOAD_RETRY);
    for (unsigned number = 0; number < KILLS; number++) {
        uint64_t before = load_answered(load);
        sleep_ms(300);
        kill_and_wait(server, "kv-router", -1);
        server_wait_ready(server);
        sleep_ms(100);
        wait_for_answers(load, before);
    }
    load_stop(load);
    load_verify(load);
    expect_files_agree(server, load, SHARDS);
    free(load);
}

Test(crash, of_router_and_shards_in_any_order)
{
    enum { SHARDS = 4, KILLS = 12 };
    struct load *load = kv_alloc(sizeof *load);
    struct server *server = server_start((struct server_opts){.shards = SHARDS});
    load_init(load, server, WRITERS);
    load_start(load, LOAD_RETRY);
    srandom(79);
    for (unsigned number = 0; number < KILLS; number++) {
        struct child children[CHILDREN_MAX];
        sleep_ms(50 + (unsigned)random() % 300);
        size_t count = server_children(server, children);
        if (count > 0)
            kill(children[(size_t)random() % count].pid, SIGKILL);
    }
    server_wait_ready(server);
    load_stop(load);
    load_verify(load);
    expect_files_agree(server, load, SHARDS);
    free(load);
}
