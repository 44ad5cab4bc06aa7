/* Goal: the running processes are confined as confine.h says, root is given up when RUN_AS asks for it, no token lies in the router's
 * memory or in a core dump, and nobody but our own user speaks to a shard. What a confined process can no longer do is tried
 * from inside by unit/base/test_confine.c.
 * Method: /proc of every process of a store; as root also a store that becomes another user, port below 1024 included. */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "client.h"
#include "kv/clock.h"

#define USER 65534u /* nobody */
#define CHUNK_BYTES (1u << 20)
#define MAPPING_BYTES_MAX ((uint64_t)1 << 30) /* larger ones are the reserves of a sanitizer */

TestSuite(confine, .fini = harness_close, .timeout = 600);

/* ---- /proc -------------------------------------------------------------------------------------------------------- */

/* The number behind `name` in /proc/<pid>/status. */
static unsigned long long status_of(pid_t pid, const char *name, int base)
{
    char path[64], line[256];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "re");
    CHECK(file != NULL, "%s cannot be read", path);
    unsigned long long value = ~0ull;
    while (value == ~0ull && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, name, strlen(name)) == 0)
            value = strtoull(line + strlen(name), NULL, base);
    fclose(file);
    CHECK(value != ~0ull, "%s has no %s", path, name);
    return value;
}

static bool kernel_has_filters(void)
{
    return access("/proc/sys/kernel/seccomp/actions_avail", F_OK) == 0;
}

static void expect_confined(pid_t pid, bool router)
{
    CHECK(status_of(pid, "NoNewPrivs:", 10) == 1, "pid %d", (int)pid);
    if (kernel_has_filters())
        CHECK(status_of(pid, "Seccomp:", 10) == 2, "pid %d", (int)pid);
    if (router)
        CHECK(status_of(pid, "CapEff:", 16) == 0 && status_of(pid, "CapPrm:", 16) == 0, "the router has capabilities");
}

Test(confine, router_and_shards_are)
{
    struct server *server = server_start((struct server_opts){.shards = 2});
    struct child children[CHILDREN_MAX];
    for (int round = 0; round < 2; round++) {
        size_t count = server_children(server, children);
        CHECK(count == 3, "%zu children", count);
        for (size_t i = 0; i < count; i++) {
            expect_confined(children[i].pid, children[i].index < 0);
            kill(children[i].pid, SIGKILL);
        }
        sleep_ms(100);
        server_wait_ready(server); /* those that were started again are confined as well */
    }
    server_stop(server);
}

/* ---- memory and dumps --------------------------------------------------------------------------------------------- */

static bool range_holds(int memory, uint64_t from, uint64_t to, const char *what)
{
    static char chunk[CHUNK_BYTES];
    bool found = false;
    while (!found && from < to) {
        size_t wanted = to - from < CHUNK_BYTES ? (size_t)(to - from) : CHUNK_BYTES;
        ssize_t got = pread(memory, chunk, wanted, (off_t)from);
        if (got <= 0)
            return false;
        found = memmem(chunk, (size_t)got, what, strlen(what)) != NULL;
        from += (size_t)got > strlen(what) && from + (size_t)got < to ? (size_t)got - strlen(what) : (size_t)got;
    }
    return found;
}

/* All that the process can write. */
static bool memory_holds(pid_t pid, const char *what)
{
    char path[64], line[512], mode[5];
    unsigned long from, to;
    bool found = false;
    snprintf(path, sizeof path, "/proc/%d/mem", (int)pid);
    int memory = open(path, O_RDONLY | O_CLOEXEC);
    snprintf(path, sizeof path, "/proc/%d/maps", (int)pid);
    FILE *maps = fopen(path, "re");
    CHECK(memory >= 0 && maps != NULL, "pid %d cannot be read", (int)pid);
    while (!found && fgets(line, sizeof line, maps) != NULL)
        if (sscanf(line, "%lx-%lx %4s", &from, &to, mode) == 3 && mode[0] == 'r' && mode[1] == 'w' &&
            to - from < MAPPING_BYTES_MAX)
            found = range_holds(memory, from, to, what);
    fclose(maps);
    close(memory);
    return found;
}

static void wait_for_log(const struct server *server, const char *text)
{
    uint64_t until_ms = kv_clock_ms() + 20000;
    while (!server_log_has(server, text) && kv_clock_ms() < until_ms)
        sleep_ms(10);
    CHECK(server_log_has(server, text), "the log has no \"%s\"", text);
}

static void write_token(const char *path, const char *token)
{
    FILE *file = fopen(path, "we");
    CHECK(file != NULL && fprintf(file, "%s\n", token) > 0 && fclose(file) == 0, "%s", path);
}

/* The supervisor keeps TOKEN for routers to come, and cannot be looked at but by root; a shard never had it. */
Test(confine, the_router_forgets_the_token)
{
    if (geteuid() != 0)
        cr_skip_test("only root may look");
    static const char in_file[] = "staple-horse-correct-battery";
    char token_file[128];
    snprintf(token_file, sizeof token_file, "TOKEN_FILE=%s/token", temp_folder());
    write_token(strchr(token_file, '=') + 1, in_file);
    struct server *server = server_new((struct server_opts){.shards = 1, .settings = {token_file}});
    server_spawn(server);
    wait_for_log(server, " serving "); /* requests bring tokens along: there shall be none yet */
    CHECK(!memory_holds(server->pid, in_file), "the supervisor, which can read the file again, keeps what is in it");
    pid_t router = server_child(server, "kv-router", -1), shard = server_child(server, "kv-shard", 0);
    CHECK(memory_holds(router, server->folder), "the search does not even find TMPDIR");
    CHECK(!memory_holds(router, TOKEN), "the router's memory holds the token");
    CHECK(!memory_holds(router, in_file), "the router's memory holds the token of TOKEN_FILE");
    CHECK(!memory_holds(shard, TOKEN), "a shard's memory holds the token");
    server_stop(server);
}

Test(confine, the_router_leaves_no_core)
{
    struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    if (setrlimit(RLIMIT_CORE, &unlimited) != 0)
        cr_skip_test("the limit of core dumps cannot be raised");
    struct server *server = server_start((struct server_opts){.shards = 1});
    kill(server_child(server, "kv-router", -1), SIGQUIT);
    wait_for_log(server, "router ended: signal 3 (Quit)");
    CHECK(!server_log_has(server, "core dumped"), "the router's memory was dumped");
    server_wait_ready(server);
    server_stop(server);
}

/* ---- another user ------------------------------------------------------------------------------------------------- */

static unsigned owner_of(const char *path)
{
    struct stat status;
    CHECK(stat(path, &status) == 0, "%s", path);
    return status.st_uid;
}

/* What cannot be dumped belongs to root in /proc. */
static void expect_hidden(const struct server *server)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/environ", (int)server->pid);
    CHECK(owner_of(path) == 0, "the supervisor can be looked at");
    snprintf(path, sizeof path, "/proc/%d/environ", (int)server_child(server, "kv-router", -1));
    CHECK(owner_of(path) == 0, "the router can be looked at");
}

static void expect_user(const struct server *server)
{
    struct child children[CHILDREN_MAX];
    size_t count = server_children(server, children);
    children[count++] = (struct child){.pid = server->pid, .index = 0};
    for (size_t i = 0; i < count; i++) {
        CHECK(status_of(children[i].pid, "Uid:", 10) == USER && status_of(children[i].pid, "Gid:", 10) == USER,
              "pid %d is another user's", (int)children[i].pid);
        CHECK(status_of(children[i].pid, "CapPrm:", 16) == 0, "pid %d has capabilities", (int)children[i].pid);
    }
    expect_hidden(server);
}

/* A port below 1024 that nobody listens on. */
static unsigned low_port(void)
{
    for (unsigned port = 1023; port > 600; port--) {
        struct sockaddr_in address = {
            .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool free_one = bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
        close(fd);
        if (free_one)
            return port;
    }
    CHECK(false, "no port below 1024 is free");
}

static struct server *start_as_user(void)
{
    struct server *server = server_new((struct server_opts){.shards = 2, .settings = {"RUN_AS=nobody"}});
    CHECK(chmod(server->folder, 0711) == 0);
    server->port = low_port();
    server_spawn(server);
    server_wait_ready(server);
    return server;
}

Test(confine, root_is_given_up)
{
    if (geteuid() != 0)
        cr_skip_test("only root can give it up");
    struct server *server = start_as_user();
    struct client *client = client_new(server, HTTP_2);
    expect_user(server);
    CHECK(owner_of(server->db_path) == USER, "DB_PATH is not the user's");
    CHECK(client_put(client, "/k", kv_slice_text("v"))->status == 201);
    kill(server_child(server, "kv-router", -1), SIGKILL);
    kill(server_child(server, "kv-shard", 0), SIGKILL);
    sleep_ms(100);
    server_wait_ready(server);
    expect_user(server);
    client_free(&client);
    client = client_new(server, HTTP_2);
    CHECK(client_get(client, "/k")->status == 200);
    client_free(&client);
    server_stop(server);
    server_spawn(server); /* on a directory that is the user's by now */
    server_wait_ready(server);
    server_stop(server);
}

/* RUN_AS is not the only way there: a supervisor that another user starts hides as well. */
Test(confine, who_was_never_root_hides_too)
{
    struct server *server = server_new((struct server_opts){.shards = 1});
    if (geteuid() == 0)
        CHECK(chown(server->folder, USER, USER) == 0 && setgid(USER) == 0 && setuid(USER) == 0);
    server_spawn(server);
    server_wait_ready(server);
    expect_hidden(server);
    server_stop(server);
}

/* The folder of the sockets keeps others out, root excepted; root is refused by the shard. */
Test(confine, shards_speak_to_our_user_only)
{
    if (geteuid() != 0)
        cr_skip_test("only root gets past the folder's mode");
    struct server *server = start_as_user();
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;
    char byte;
    snprintf(address.sun_path, sizeof address.sun_path, "%s/sockets", server->db_path);
    CHECK(stat(address.sun_path, &status) == 0 && (status.st_mode & 0777) == 0700, "mode %o", (unsigned)status.st_mode);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/sockets/shard-1", server->db_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    ssize_t got = recv(fd, &byte, 1, 0);
    CHECK(got <= 0, "the shard spoke");
    close(fd);
    wait_for_log(server, "connection refused: another user's process");
    server_stop(server);
}

/* ---- refusals ----------------------------------------------------------------------------------------------------- */

static void expect_refused(const char *run_as, uid_t uid, const char *sentence)
{
    char db[160], bind_addr[64];
    snprintf(db, sizeof db, "DB_PATH=%s/db", temp_folder());
    snprintf(bind_addr, sizeof bind_addr, "BIND_ADDR=127.0.0.1:%u", free_port());
    struct outcome outcome = run((const char *const[]){"kv-storage", NULL},
                                 (struct run_opts){.env = {"TOKEN=" TOKEN, run_as, db, bind_addr}, .uid = uid});
    kv_buf_append(&outcome.err, kv_slice("", 1));
    CHECK(outcome.exit_code == 2 && strstr((const char *)outcome.err.data, sentence) != NULL, "%s: exit code %d: %s",
          run_as, outcome.exit_code, (const char *)outcome.err.data);
    CHECK(access(db + strlen("DB_PATH="), F_OK) != 0, "%s: a store was left", run_as);
    outcome_free(&outcome);
}

Test(confine, wrong_users_stop_the_start)
{
    expect_refused("RUN_AS=no-such-user", 0, "RUN_AS: there is no user");
    expect_refused("RUN_AS=root", 0, "RUN_AS: that is root itself");
    if (geteuid() == 0)
        expect_refused("RUN_AS=daemon", USER, "RUN_AS: only root can become another user");
}
