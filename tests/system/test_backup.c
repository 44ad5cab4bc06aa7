/* Goal: a copy of DB_PATH as it is at one instant is a backup: restored, it holds every write that was acknowledged until then, and
 * goes on as a store of its own. What README says of snapshots stands on this.
 * Method: while writers write, all processes are frozen (SIGSTOP), DB_PATH is copied, and the frozen ones are killed. The copy is
 * checked by kv-shard, started, and compared with what the writers were promised; the next round copies the restored store.
 * docker/test-compose does the same with a paused container whose clients go on afterwards. */
#include <criterion/criterion.h>

#include <ctype.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "kv/clock.h"
#include "load.h"

#define ROUNDS 4u
#define WRITERS 4u
#define SHARDS 3u
#define FREEZE_MS 20000u

TestSuite(backup, .fini = harness_close, .timeout = 600);

static bool thread_is_frozen(const char *folder, const char *thread)
{
    char path[512], line[512] = "";
    snprintf(path, sizeof(path), "%s/%s/stat", folder, thread);
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return true; /* it has ended */
    const char *behind_name = fgets(line, sizeof(line), file) == NULL ? NULL : strrchr(line, ')');
    fclose(file);
    return behind_name != NULL && strncmp(behind_name, ") T", 3) == 0;
}

/* A thread that is in the middle of a write stops only behind it. */
static bool is_frozen(pid_t pid)
{
    char folder[64];
    snprintf(folder, sizeof(folder), "/proc/%d/task", (int)pid);
    DIR *threads = opendir(folder);
    CHECK(threads != NULL, "pid %d is gone", (int)pid);
    bool frozen = true;
    for (struct dirent *entry; frozen && (entry = readdir(threads)) != NULL;)
        frozen = !isdigit((unsigned char)entry->d_name[0]) || thread_is_frozen(folder, entry->d_name);
    closedir(threads);
    return frozen;
}

static void freeze_one(pid_t pid)
{
    uint64_t until = kv_clock_ms() + FREEZE_MS;
    CHECK(kill(pid, SIGSTOP) == 0);
    while (!is_frozen(pid)) {
        CHECK(kv_clock_ms() < until, "pid %d cannot be stopped", (int)pid);
        sleep_ms(1);
    }
}

/* The supervisor first, or it would wonder about its children. */
static void freeze(const struct server *server)
{
    struct child children[CHILDREN_MAX];
    freeze_one(server->pid);
    size_t count = server_children(server, children);
    CHECK(count == SHARDS + 1, "%zu children", count);
    for (size_t i = 0; i < count; i++)
        freeze_one(children[i].pid);
}

static struct server *copy_of(const struct server *server)
{
    struct server *copy = server_new(server->opts);
    struct outcome copied =
        run((const char *const[]){"cp", "-a", "--sparse=always", server->db_path, copy->folder, NULL},
            (struct run_opts){.wait_ms = 120000});
    CHECK(copied.exit_code == 0, "cp ended with %d", copied.exit_code);
    outcome_free(&copied);
    return copy;
}

static void write_for_a_while(const struct load *load)
{
    uint64_t before = load_answered(load);
    sleep_ms(150 + (unsigned)random() % 300);
    while (load_answered(load) < before + 20)
        sleep_ms(5);
}

static void move_load(struct load *load, const struct server *server)
{
    for (unsigned i = 0; i < load->writer_count; i++)
        load->writers[i].server = server;
}

Test(backup, is_a_copy_at_one_instant)
{
    struct load *load = kv_alloc(sizeof *load);
    struct server *server = server_start((struct server_opts){.shards = SHARDS});
    load_init(load, server, WRITERS);
    srandom(79);
    for (unsigned round = 0; round < ROUNDS; round++) {
        load_start(load, LOAD_STOP);
        write_for_a_while(load);
        freeze(server);
        struct server *copy = copy_of(server);
        server_kill(server);
        load_stop(load);
        struct store_counts counts = server_check_files(copy, SHARDS);
        cr_log_info("seed 79, round %u: %llu keys, %llu records in journals", round, (unsigned long long)counts.keys,
                    (unsigned long long)counts.journal_records);
        server = copy;
        server_spawn(server);
        server_wait_ready(server);
        move_load(load, server);
        load_verify(load);
    }
    uint64_t keys, objects;
    server_stop(server);
    load_expected(load, &keys, &objects);
    struct store_counts counts = server_check_files(server, SHARDS);
    CHECK(counts.keys == keys && counts.objects == objects, "%llu keys and %llu objects, expected %llu and %llu",
          (unsigned long long)counts.keys, (unsigned long long)counts.objects, (unsigned long long)keys,
          (unsigned long long)objects);
    free(load);
}
