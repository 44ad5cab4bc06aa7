/* Goal: what dies is started again with its descriptors and a higher epoch, stops are ordered, nothing outlives the
 * supervisor. Method: supervise() runs in a forked process with shell scripts as shards and router; they write down
 * what happens to them in files of a temporary directory, which is all that the test looks at. */
#include <netinet/in.h>
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <criterion/criterion.h>

#include "kv/child.h"
#include "kv/files.h"
#include "kv/clock.h"
#include "kv/log.h"
#include "supervise.h"
#include "temp.h"

TestSuite(supervise, .init = temp_setup, .fini = temp_teardown, .timeout = 600);

#define SHARDS 2
#define WAIT_MS 60000

/* Every child notes its birth and its pid, says READY once it is prepared for signals, and leaves on SIGTERM with a note. */
#define CHILD_BEGIN "#!/bin/sh\ncd %s\nname=$(basename $0)$1\necho born-$name >>events\necho $$ >$name.pid\n"
#define CHILD_READY "printf R >&4\n"
#define CHILD_WAIT "while :; do sleep 0.05; done\n"
#define CHILD_SERVES "trap 'echo term-$name >>events; exit 0' TERM\n" CHILD_READY CHILD_WAIT

static char shard_program[128], router_program[128];
static int listener = -1; /* instead of /dev/null */

static void write_script(const char *name, const char *body, char out[128])
{
    char text[2048];
    size_t bytes = (size_t)snprintf(text, sizeof(text), CHILD_BEGIN, temp);
    snprintf(text + bytes, sizeof(text) - bytes, "%s", body);
    snprintf(out, 128, "%s", temp_file(name, text, 0700));
}

static void use_scripts(const char *shard, const char *router)
{
    write_script("shard", shard, shard_program);
    write_script("router", router, router_program);
}

static void note_all_ready(void *arg)
{
    (void)arg;
    temp_file("all-ready", "", 0600);
}

static int run_supervisor(void)
{
    static const struct kv_files files;
    struct why why;
    struct kv_settings settings;
    struct datadir datadir;
    bool served = false;
    int log = open(temp_path("log"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    dup2(log, STDERR_FILENO);
    kv_settings_init(&settings);
    struct family_world world = {.settings = &settings,
                                 .datadir = &datadir,
                                 .shard_count = SHARDS,
                                 .plain_fd = listener >= 0 ? listener : open("/dev/null", O_RDWR | O_CLOEXEC),
                                 .tls_fd = open("/dev/null", O_RDWR | O_CLOEXEC),
                                 .shard_program = shard_program,
                                 .router_program = router_program,
                                 .counters_fd = kv_counters_page_new(),
                                 .files_fd = kv_files_seal(&files)};
    world.counters = kv_counters_page_open(world.counters_fd);
    if (datadir_open(temp_path("db"), 0, &datadir, &why) != KV_OK || datadir_prepare(&datadir, SHARDS, &why) != KV_OK)
        return 100;
    for (unsigned i = 0; i < SHARDS; i++)
        if (datadir_listen(&datadir, i, &world.shard_fds[i], &why) != KV_OK)
            return 101;
    supervise_block_signals();
    struct supervise_options options = {.router_stop_ms = 500, .shards_stop_ms = 500, .on_all_ready = note_all_ready};
    int code = supervise(&world, &options, &served);
    for (unsigned i = 0; i < SHARDS; i++)
        close(world.shard_fds[i]);
    datadir_close(&datadir);
    kv_settings_free(&settings);
    return code == 0 && !served && temp_exists("all-ready") ? 102 : code;
}

static pid_t start_supervisor(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
        _exit(run_supervisor());
    }
    return pid;
}

static int exit_code(pid_t pid)
{
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static unsigned count(const char *file, const char *what)
{
    unsigned found = 0;
    for (const char *at = temp_read(file); (at = strstr(at, what)) != NULL; at += strlen(what))
        found++;
    return found;
}

static void wait_until(const char *file, const char *what, unsigned times)
{
    uint64_t until_ms = kv_clock_ms() + WAIT_MS;
    while (count(file, what) < times && kv_clock_ms() < until_ms)
        usleep(10000);
    cr_assert_geq(count(file, what), times, "%s in %s; log:\n%s", what, file, temp_read("log"));
}

static pid_t pid_of(const char *name)
{
    char file[32];
    snprintf(file, sizeof(file), "%s.pid", name);
    return (pid_t)atoi(temp_read(file));
}

static bool gone(pid_t pid)
{
    uint64_t until_ms = kv_clock_ms() + WAIT_MS;
    char path[64], line[256];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    while (kv_clock_ms() < until_ms) {
        FILE *file = fopen(path, "r");
        bool alive = file != NULL && fgets(line, sizeof(line), file) != NULL && strstr(line, ") Z ") == NULL;
        if (file != NULL)
            fclose(file);
        if (!alive)
            return true;
        usleep(10000);
    }
    return false;
}

static int connect_to(const struct sockaddr_in *address)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int err = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ? 0 : errno;
    close(fd);
    return err;
}

/* The test holds the socket open throughout, as a router does that drains. */
Test(supervise, refuses_connections_from_the_stop_on)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(bind(listener, (struct sockaddr *)&address, bytes) == 0 && listen(listener, 8) == 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
    use_scripts(CHILD_SERVES, CHILD_SERVES);
    pid_t pid = start_supervisor();
    wait_until("log", " ready after ", SHARDS + 1);
    cr_expect_eq(connect_to(&address), 0);
    kill(pid, SIGTERM);
    cr_expect_eq(exit_code(pid), 0, "%s", temp_read("log"));
    cr_expect_eq(connect_to(&address), ECONNREFUSED);
    close(listener);
}

Test(supervise, stops_in_order_router_first)
{
    use_scripts(CHILD_SERVES, CHILD_SERVES);
    pid_t supervisor = start_supervisor();
    wait_until("log", " ready after ", SHARDS + 1);
    kill(supervisor, SIGTERM);
    cr_expect_eq(exit_code(supervisor), 0, "%s", temp_read("log"));
    cr_expect(temp_exists("all-ready"));
    cr_expect_eq(count("events", "term-"), SHARDS + 1u);
    const char *events = temp_read("events");
    cr_expect_lt(strstr(events, "term-router"), strstr(events, "term-shard"), "%s", events);
    cr_expect_eq(rmdir(temp_path("db/sockets")), 0, "the folder stays, and is empty: %s", strerror(errno));
}

Test(supervise, what_dies_is_started_again_and_the_router_with_a_higher_epoch)
{
    use_scripts(CHILD_SERVES, "grep ^KV_EPOCH= /dev/fd/3 >>epochs\n" CHILD_SERVES);
    pid_t supervisor = start_supervisor();
    wait_until("log", " ready after ", SHARDS + 1);
    kill(pid_of("shard1"), SIGKILL);
    wait_until("log", "shard 1 ready after ", 2);
    kill(pid_of("router"), SIGKILL);
    wait_until("log", "router ready after ", 2);
    cr_expect_eq(count("events", "born-shard0"), 1u, "the others were left alone");
    cr_expect_eq(count("epochs", "KV_EPOCH="), 2u);
    cr_expect_eq(count("epochs", "KV_EPOCH=1\n"), 1u, "%s", temp_read("epochs"));
    cr_expect_eq(count("epochs", "KV_EPOCH=2\n"), 1u, "%s", temp_read("epochs"));
    cr_expect_eq(count("log", "signal 9 (Killed)"), 2u, "%s", temp_read("log"));
    kill(supervisor, SIGINT);
    cr_expect_eq(exit_code(supervisor), 0);
}

/* A shard that knew nothing of epochs would take the frames of a router that was replaced while it was down. */
Test(supervise, a_shard_is_told_the_epoch_of_the_last_router)
{
    use_scripts("test $1 = 1 && grep ^KV_EPOCH= /dev/fd/3 >>epochs\n" CHILD_SERVES, CHILD_SERVES);
    pid_t supervisor = start_supervisor();
    wait_until("log", " ready after ", SHARDS + 1);
    kill(pid_of("router"), SIGKILL);
    wait_until("log", "router ready after ", 2);
    kill(pid_of("shard1"), SIGKILL);
    wait_until("log", "shard 1 ready after ", 2);
    cr_expect_str_eq(temp_read("epochs"), "KV_EPOCH=0\nKV_EPOCH=2\n");
    kill(supervisor, SIGTERM);
    cr_expect_eq(exit_code(supervisor), 0);
}

Test(supervise, pauses_double_for_a_child_that_never_gets_ready)
{
    use_scripts("test $1 = 1 && exit 3\n" CHILD_SERVES, CHILD_SERVES);
    pid_t supervisor = start_supervisor();
    wait_until("log", "starts again in 400 ms", 1);
    cr_expect_eq(count("log", "starts again in 50 ms"), 1u, "%s", temp_read("log"));
    cr_expect_eq(count("log", "starts again in 100 ms"), 1u);
    cr_expect_eq(count("log", "starts again in 200 ms"), 1u);
    cr_expect_not(temp_exists("all-ready"));
    kill(supervisor, SIGTERM); /* also while a restart is pending */
    cr_expect_eq(exit_code(supervisor), 0);
}

Test(supervise, a_wrong_start_stops_everything)
{
    use_scripts("test $1 = 1 && exit 2\n" CHILD_SERVES, CHILD_SERVES);
    pid_t supervisor = start_supervisor();
    cr_expect_eq(exit_code(supervisor), KV_EXIT_CONFIG);
    cr_expect_eq(count("events", "born-shard1"), 1u, "not repeated");
    cr_expect(gone(pid_of("shard0")));
    cr_expect(gone(pid_of("router")));
}

Test(supervise, who_does_not_stop_is_killed)
{
    static const char stubborn[] = "trap '' TERM\n" CHILD_READY CHILD_WAIT;
    use_scripts(stubborn, stubborn);
    pid_t supervisor = start_supervisor();
    wait_until("log", " ready after ", SHARDS + 1);
    uint64_t begin_ms = kv_clock_ms();
    kill(supervisor, SIGTERM);
    cr_expect_eq(exit_code(supervisor), 0, "%s", temp_read("log"));
    cr_expect_geq(kv_clock_ms() - begin_ms, 1000u, "both stages had their time");
    cr_expect_eq(count("log", "signal 9 (Killed)"), SHARDS + 1u);
}

Test(supervise, a_second_signal_stops_at_once)
{
    static const char stubborn[] = "trap 'echo term >>events' TERM\n" CHILD_READY CHILD_WAIT;
    use_scripts(stubborn, stubborn);
    pid_t supervisor = start_supervisor();
    wait_until("log", " ready after ", SHARDS + 1);
    kill(supervisor, SIGTERM);
    wait_until("log", "stopping: ", 1);
    kill(supervisor, SIGTERM);
    cr_expect_eq(exit_code(supervisor), SUPERVISE_EXIT_FORCED);
    cr_expect(gone(pid_of("router")));
}

/* A crash while the router drains must not cost the requests under way: the shard comes back until the router is done. */
Test(supervise, a_shard_that_dies_during_the_drain_comes_back)
{
    use_scripts(CHILD_SERVES,
                CHILD_READY "trap 'echo draining >>events; kill -9 $(cat shard0.pid); sleep 0.3; exit 0' TERM\n"
                            "while :; do sleep 0.05; done\n");
    pid_t supervisor = start_supervisor();
    wait_until("log", " ready after ", SHARDS + 1);
    kill(supervisor, SIGTERM);
    cr_expect_eq(exit_code(supervisor), 0);
    cr_expect_eq(count("events", "born-shard0"), 2u, "%s", temp_read("log"));
    cr_expect_eq(count("events", "term-shard"), (unsigned)SHARDS, "%s", temp_read("events"));
}

/* Only to the router, and not before it is ready: it might not have its signals blocked yet. */
Test(supervise, hang_up_is_for_the_router)
{
    use_scripts(CHILD_SERVES, "while [ ! -e go ]; do sleep 0.02; done\n"
                              "trap 'echo hup-router >>events; printf L >&4' HUP\n" CHILD_SERVES);
    pid_t supervisor = start_supervisor();
    wait_until("log", " ready after ", SHARDS);
    kill(supervisor, SIGHUP);
    wait_until("log", "SIGHUP: ", 1);
    cr_expect_eq(count("events", "hup-router"), 0u);
    temp_file("go", "", 0600);
    wait_until("events", "hup-router", 1); /* what came before is handed on now */
    kill(supervisor, SIGHUP);
    wait_until("events", "hup-router", 2);
    cr_expect_eq(count("log", " ended: "), 0u, "%s", temp_read("log"));
    kill(supervisor, SIGTERM);
    cr_expect_eq(exit_code(supervisor), 0);
}

Test(supervise, nothing_outlives_a_killed_supervisor)
{
    use_scripts(CHILD_SERVES, CHILD_SERVES);
    pid_t supervisor = start_supervisor();
    wait_until("log", " ready after ", SHARDS + 1);
    kill(supervisor, SIGKILL);
    cr_expect_eq(exit_code(supervisor), -SIGKILL);
    cr_expect(gone(pid_of("shard0")));
    cr_expect(gone(pid_of("shard1")));
    cr_expect(gone(pid_of("router")));
    pid_t again = start_supervisor(); /* and the next start works, with what the first left */
    wait_until("log", " ready after ", 2 * (SHARDS + 1));
    kill(again, SIGTERM);
    cr_expect_eq(exit_code(again), 0, "%s", temp_read("log"));
}
