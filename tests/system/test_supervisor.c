/* Goal: what an operator relies on: a wrong start says which variable and why in one line, exits with 2 and leaves nothing behind;
 * files of another shape stay untouched; one supervisor per store; nothing outlives it; SIGTERM answers what is under way; what dies
 * comes back, after pauses that double while it does not get ready.
 * Method: the real kv-storage, started wrongly in every way of the table, killed, signalled, raced; slow clients by raw socket. */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client.h"
#include "kv/clock.h"

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))
#define NOBODY 65534u

TestSuite(supervisor, .fini = harness_close, .timeout = 600);

/* ---- wrong starts --------------------------------------------------------------------------------------------- */

static bool folder_is_empty(const char *path)
{
    size_t count = 0;
    DIR *folder = opendir(path);
    CHECK(folder != NULL, "%s", path);
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count == 2;
}

/* Exit code 2, nothing on stdout, one line on stderr that holds `name`. */
static void expect_refusal(const char *what, const char *const *argv, struct run_opts opts, const char *name)
{
    struct outcome outcome = run(argv, opts);
    kv_buf_append(&outcome.err, kv_slice("", 1));
    const char *err = (const char *)outcome.err.data, *line_end = strchr(err, '\n');
    CHECK(outcome.exit_code == 2, "%s: exit code %d: %s", what, outcome.exit_code, err);
    CHECK(line_end != NULL && line_end[1] == '\0', "%s: not exactly one line: %s", what, err);
    CHECK(strstr(err, name) != NULL, "%s: does not name %s: %s", what, name, err);
    CHECK(strstr(err, TOKEN) == NULL, "%s: shows the token: %s", what, err);
    CHECK(outcome.out.bytes == 0, "%s: something on stdout", what);
    outcome_free(&outcome);
}

static const char *setting(const char *name, const char *value)
{
    static char space[8][256];
    static unsigned next;
    char *out = space[next++ % 8];
    snprintf(out, sizeof space[0], "%s=%s", name, value);
    return out;
}

static const char *free_address(void)
{
    static char address[64];
    snprintf(address, sizeof address, "127.0.0.1:%u", free_port());
    return address;
}

static const struct {
    const char *env; /* NAME=value; NULL: none */
    const char *flag;
    const char *named;
} wrong_starts[] = {
    {"TOKEN=", NULL, "TOKEN"},
    {"TOKEN_FILE=/nonexistent/token", NULL, "TOKEN_FILE"},
    {"SHARDS=x", NULL, "SHARDS"},
    {"SHARDS=-1", NULL, "SHARDS"},
    {"SHARDS=17", NULL, "SHARDS"},
    {"SHARDS=2.5", NULL, "SHARDS"},
    {"SHARDS=99999999999999999999", NULL, "SHARDS"},
    {"ROUTER_THREADS=65", NULL, "ROUTER_THREADS"},
    {"COMPRESSION_LEVEL=22", NULL, "COMPRESSION_LEVEL"},
    {"MAX_VALUE_BYTES=12X", NULL, "MAX_VALUE_BYTES"},
    {"MAX_VALUE_BYTES=0", NULL, "MAX_VALUE_BYTES"},
    {"OVERLAY_BYTES=1K", NULL, "OVERLAY_BYTES"},
    {"MAP_SIZE=99999999T", NULL, "MAP_SIZE"},
    {"BIND_ADDR=nonsense", NULL, "BIND_ADDR"},
    {"BIND_ADDR=127.0.0.1:99999", NULL, "BIND_ADDR"},
    {"BIND_ADDR=127.0.0.1:", NULL, "BIND_ADDR"},
    {"BIND_ADDR=192.0.2.1:1", NULL, "BIND_ADDR"},
    {"DURABILITY=maybe", NULL, "DURABILITY"},
    {"LOG_LEVEL=loud", NULL, "LOG_LEVEL"},
    {"TLS_CERT=/nonexistent/cert.pem", NULL, "TLS_"},
    {"TLS_KEY=/nonexistent/key.pem", NULL, "TLS_"},
    {NULL, "--frobnicate", "frobnicate"},
    {NULL, "--shards=99", "SHARDS"},
    {NULL, "--shards", "shards"},
    {NULL, "stray", "stray"},
};

Test(supervisor, wrong_settings_are_named)
{
    const char *folder = temp_folder();
    char db_path[128];
    snprintf(db_path, sizeof db_path, "%s/db", folder);
    for (size_t i = 0; i < COUNT_OF(wrong_starts); i++) {
        const char *wrong = wrong_starts[i].env, *flag = wrong_starts[i].flag;
        struct run_opts opts = {.folder = folder, .wait_ms = 10000};
        size_t count = 0;
        if (wrong == NULL || strncmp(wrong, "TOKEN", 5) != 0)
            opts.env[count++] = "TOKEN=" TOKEN;
        opts.env[count++] = setting("DB_PATH", db_path);
        if (wrong == NULL || strncmp(wrong, "BIND_ADDR", 9) != 0)
            opts.env[count++] = setting("BIND_ADDR", free_address());
        opts.env[count++] = wrong;
        expect_refusal(wrong == NULL ? flag : wrong, (const char *const[]){"kv-storage", flag, NULL}, opts,
                       wrong_starts[i].named);
        CHECK(folder_is_empty(folder), "%s: something was left behind", wrong == NULL ? flag : wrong);
    }
}

Test(supervisor, no_token_at_all)
{
    const char *folder = temp_folder();
    expect_refusal("no token", (const char *const[]){"kv-storage", NULL},
                   (struct run_opts){.folder = folder, .env = {setting("BIND_ADDR", free_address())}}, "TOKEN");
    CHECK(folder_is_empty(folder), "the default DB_PATH was made");
}

Test(supervisor, port_in_use)
{
    const char *folder = temp_folder();
    char address[64], db_path[128];
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(fd, (struct sockaddr *)&in, bytes) == 0 && listen(fd, 1) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&in, &bytes) == 0);
    snprintf(address, sizeof address, "127.0.0.1:%u", ntohs(in.sin_port));
    snprintf(db_path, sizeof db_path, "%s/db", folder);
    expect_refusal(
        "port in use", (const char *const[]){"kv-storage", NULL},
        (struct run_opts){.folder = folder,
                          .env = {"TOKEN=" TOKEN, setting("BIND_ADDR", address), setting("DB_PATH", db_path)}},
        "BIND_ADDR");
    CHECK(folder_is_empty(folder), "a store was made for an address that is taken");
    close(fd);
}

/* Each child would end without a word, again and again. */
Test(supervisor, too_few_descriptors)
{
    const char *folder = temp_folder();
    char program[512];
    snprintf(program, sizeof(program), "%s", bin_path("kv-storage")); /* run asks for another path */
    expect_refusal("ulimit -n 138", (const char *const[]){"sh", "-c", "ulimit -n 138 && exec \"$0\"", program, NULL},
                   (struct run_opts){.folder = folder,
                                     .env = {"TOKEN=" TOKEN, setting("BIND_ADDR", free_address()), "DB_PATH=db",
                                             "SHARDS=7", "ROUTER_THREADS=1"}},
                   "RLIMIT_NOFILE: 138 open files are allowed; SHARDS=7 with ROUTER_THREADS=1 needs 139");
    CHECK(folder_is_empty(folder), "a store was made that cannot be served");
}

/* Uploads would fill another disk than the one that was meant. */
Test(supervisor, a_tmpdir_that_cannot_be_used_is_told)
{
    struct server *server =
        server_start((struct server_opts){.shards = 1, .settings = {"TMPDIR=/nonexistent/uploads"}});
    CHECK(server_log_has(server,
                         "TMPDIR: /nonexistent/uploads is no folder that can be written to: uploads wait in /tmp"));
    server_stop(server);
}

static void expect_path_refused(const char *what, const char *db_path, uid_t uid)
{
    expect_refusal(
        what, (const char *const[]){"kv-storage", NULL},
        (struct run_opts){.uid = uid,
                          .folder = "/",
                          .env = {"TOKEN=" TOKEN, setting("BIND_ADDR", free_address()), setting("DB_PATH", db_path)}},
        "DB_PATH");
}

Test(supervisor, unwritable_path)
{
    const char *folder = temp_folder();
    char path[128];
    uid_t uid = geteuid() == 0 ? NOBODY : 0; /* root may write anywhere */
    CHECK(chmod(folder, 0555) == 0);
    snprintf(path, sizeof path, "%s/db", folder);
    expect_path_refused("a folder that others own", path, uid);
    expect_path_refused("a folder that is not there", "/nonexistent/deep/db", uid);
    expect_path_refused("a file system without files", "/proc/kv", uid);
    CHECK(folder_is_empty(folder), "something was left behind");
    CHECK(chmod(folder, 0755) == 0);
    snprintf(path, sizeof path, "%s/file", folder);
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    expect_path_refused("a file", path, 0);
}

/* ---- files of another shape ----------------------------------------------------------------------------------- */

static void put_some(const struct server *server, unsigned count)
{
    struct client *client = client_new(server, HTTP_2);
    for (unsigned i = 0; i < count; i++) {
        char target[32];
        snprintf(target, sizeof target, "/k%u", i);
        CHECK(client_put(client, target, kv_slice(target, sizeof target))->status == 201, "%s", target);
    }
    client_free(&client);
}

static void expect_some(const struct server *server, unsigned count)
{
    struct client *client = client_new(server, HTTP_2);
    for (unsigned i = 0; i < count; i++) {
        char target[32];
        snprintf(target, sizeof target, "/k%u", i);
        const struct response *response = client_get(client, target);
        CHECK(response->status == 200 && memcmp(response->body.data, target, strlen(target)) == 0, "%s", target);
    }
    client_free(&client);
}

Test(supervisor, another_number_of_shards_is_refused)
{
    static const char *const others[] = {"1", "2", "3", "5", "16"};
    char before[65], after[65];
    struct server *server = server_start((struct server_opts){.shards = 4});
    put_some(server, 200);
    server_stop(server);
    tree_digest(server->db_path, before);
    for (size_t i = 0; i < COUNT_OF(others); i++) {
        expect_refusal(others[i], (const char *const[]){"kv-storage", NULL},
                       (struct run_opts){.env = {"TOKEN=" TOKEN, setting("BIND_ADDR", free_address()),
                                                 setting("DB_PATH", server->db_path), setting("SHARDS", others[i])}},
                       "SHARDS");
        tree_digest(server->db_path, after);
        CHECK(strcmp(before, after) == 0, "SHARDS=%s touched the files", others[i]);
    }
    server->opts.shards = 0; /* the store's own number */
    server_spawn(server);
    server_wait_ready(server);
    expect_some(server, 200);
    CHECK(server_child(server, "kv-shard", 3) != 0 && server_child(server, "kv-shard", 4) == 0);
    server_stop(server);
}

/* As when the disk of a shard is not mounted, or a backup is not whole. */
Test(supervisor, a_shard_without_its_files_is_refused)
{
    char folder[128], before[65], after[65];
    struct server *server = server_start((struct server_opts){.shards = 2});
    put_some(server, 20);
    server_stop(server);
    snprintf(folder, sizeof(folder), "%s/shard-1", server->db_path);
    remove_tree(folder);
    CHECK(mkdir(folder, 0700) == 0);
    tree_digest(server->db_path, before);
    expect_refusal("emptied", (const char *const[]){"kv-storage", NULL},
                   (struct run_opts){.env = {"TOKEN=" TOKEN, setting("BIND_ADDR", free_address()),
                                             setting("DB_PATH", server->db_path)}},
                   "shard-1/data.mdb");
    tree_digest(server->db_path, after);
    CHECK(strcmp(before, after) == 0, "the files were touched");
}

/* A copy onto a disk that was full, or a disk that fails: LMDB's map has pages that are not there. */
Test(supervisor, a_file_cut_short_is_said_to_be)
{
    char path[128];
    struct server *server = server_start((struct server_opts){.shards = 1});
    put_some(server, 20);
    server_stop(server);
    snprintf(path, sizeof(path), "%s/shard-0/data.mdb", server->db_path);
    CHECK(truncate(path, 8192) == 0); /* LMDB's two meta pages */
    struct outcome check =
        run((const char *const[]){"kv-shard", "--check", server->db_path, NULL}, (struct run_opts){0});
    kv_buf_append(&check.out, kv_slice("", 1));
    CHECK(check.exit_code == 1 && strstr((const char *)check.out.data, "shard 0: data.mdb was cut short") != NULL,
          "%d %s", check.exit_code, (const char *)check.out.data);
    outcome_free(&check);
    server_spawn(server);
    while (!server_log_has(server, "exit code 5 (its data.mdb was cut short, or the disk cannot be read)"))
        sleep_ms(20); /* the suite's timeout ends it */
    CHECK(kill(server->pid, SIGTERM) == 0 && server_wait_exit(server, 30000) == 0);
}

Test(supervisor, second_start_on_the_same_store_is_refused)
{
    struct server *server = server_start((struct server_opts){.shards = 2});
    put_some(server, 20);
    expect_refusal("second start", (const char *const[]){"kv-storage", NULL},
                   (struct run_opts){.env = {"TOKEN=" TOKEN, setting("BIND_ADDR", free_address()),
                                             setting("DB_PATH", server->db_path)}},
                   "DB_PATH");
    expect_some(server, 20);
    server_stop(server);
}

/* ---- ends ----------------------------------------------------------------------------------------------------- */

Test(supervisor, nothing_outlives_it)
{
    struct server *server = server_start((struct server_opts){.shards = 4});
    struct child children[CHILDREN_MAX];
    pid_t pids[CHILDREN_MAX];
    put_some(server, 20);
    size_t count = server_children(server, children);
    CHECK(count == 5, "%zu children of 4 shards and a router", count);
    for (size_t i = 0; i < count; i++)
        pids[i] = children[i].pid;
    kill(server->pid, SIGKILL);
    CHECK(server_wait_exit(server, 5000) == 128 + SIGKILL);
    CHECK(processes_die_within(pids, count, 5000), "a child outlived kill -9 of the supervisor");
    server_spawn(server);
    server_wait_ready(server);
    expect_some(server, 20);
    server_stop(server);
}

Test(supervisor, sigint_stops_in_order)
{
    struct server *server = server_start((struct server_opts){.shards = 2});
    put_some(server, 20);
    kill(server->pid, SIGINT);
    int code = server_wait_exit(server, 30000);
    CHECK(code == 0, "exit code %d after SIGINT", code);
    CHECK(server_check_files(server, 2).journal_records == 0, "an ordered stop leaves nothing to replay");
    server_spawn(server);
    server_wait_ready(server);
    expect_some(server, 20);
    server_stop(server);
}

static int connect_raw(const struct server *server)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    in.sin_port = htons((uint16_t)server->port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int bytes = 65536; /* a client that reads slowly must not have everything in its kernel already */
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    CHECK(connect(fd, (struct sockaddr *)&in, sizeof in) == 0, "%s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = 20}, sizeof(struct timeval));
    return fd;
}

static void send_raw(int fd, const char *text)
{
    size_t bytes = strlen(text);
    CHECK(send(fd, text, bytes, MSG_NOSIGNAL) == (ssize_t)bytes, "%s", strerror(errno));
}

/* Everything until the peer closes or `bytes_max` have come. */
static size_t receive_raw(int fd, char *out, size_t bytes_max)
{
    size_t bytes = 0;
    while (bytes < bytes_max) {
        ssize_t got = recv(fd, out + bytes, bytes_max - bytes, 0);
        if (got <= 0)
            break;
        bytes += (size_t)got;
    }
    return bytes;
}

/* Five of ten bytes; the router has read the head, since it asks for them. */
static int begin_upload(const struct server *server)
{
    static const char invitation[] = "HTTP/1.1 100 Continue\r\n\r\n";
    char answer[sizeof invitation] = "";
    int fd = connect_raw(server);
    send_raw(fd, "PUT /slow HTTP/1.1\r\nHost: kv\r\nAuthorization: Bearer " TOKEN
                 "\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n");
    receive_raw(fd, answer, sizeof invitation - 1);
    CHECK(strcmp(answer, invitation) == 0, "answer: %s", answer);
    send_raw(fd, "01234");
    return fd;
}

Test(supervisor, sigterm_answers_an_upload_under_way)
{
    struct server *server = server_start((struct server_opts){.shards = 2});
    char answer[2048] = "";
    int fd = begin_upload(server);
    kill(server->pid, SIGTERM);
    sleep_ms(300);
    CHECK(server_wait_exit(server, 0) == -1, "it did not wait for the upload");
    send_raw(fd, "56789");
    receive_raw(fd, answer, sizeof answer - 1);
    CHECK(strncmp(answer, "HTTP/1.1 201 ", 13) == 0, "answer: %s", answer);
    close(fd);
    int code = server_wait_exit(server, 30000);
    CHECK(code == 0, "exit code %d", code);
    server_spawn(server);
    server_wait_ready(server);
    struct client *client = client_new(server, HTTP_2);
    CHECK(response_body_is(client_get(client, "/slow"), kv_slice_text("0123456789")), "it was acknowledged");
    client_free(&client);
    server_stop(server);
}

Test(supervisor, sigterm_finishes_a_download_under_way)
{
    enum { BYTES = 32 * 1024 * 1024 };
    struct server *server = server_start((struct server_opts){.shards = 2});
    uint8_t *value = kv_alloc(BYTES);
    char *answer = kv_alloc_zero(1, BYTES + 4096);
    for (size_t i = 0; i < BYTES; i++)
        value[i] = (uint8_t)(i * i >> 5 ^ i >> 11);
    struct client *client = client_new(server, HTTP_2);
    CHECK(client_put(client, "/large", kv_slice(value, BYTES))->status == 201);
    client_free(&client);
    int fd = connect_raw(server);
    send_raw(fd, "GET /large HTTP/1.1\r\nHost: kv\r\nAuthorization: Bearer " TOKEN "\r\n\r\n");
    size_t bytes = receive_raw(fd, answer, 100000); /* then the client is slow */
    kill(server->pid, SIGTERM);
    sleep_ms(300);
    bytes += receive_raw(fd, answer + bytes, BYTES + 4095 - bytes);
    const char *body = memmem(answer, bytes, "\r\n\r\n", 4);
    CHECK(body != NULL && strncmp(answer, "HTTP/1.1 200 ", 13) == 0);
    size_t body_bytes = bytes - (size_t)(body + 4 - answer);
    CHECK(body_bytes == BYTES && memcmp(body + 4, value, BYTES) == 0, "%zu bytes of %d came", body_bytes, BYTES);
    close(fd);
    int code = server_wait_exit(server, 30000);
    CHECK(code == 0, "exit code %d", code);
    free(value);
    free(answer);
}

Test(supervisor, sigterm_does_not_wait_for_ever)
{
    struct server *server = server_start((struct server_opts){.shards = 2, .settings = {"DRAIN_WAIT_MS=700"}});
    int fd = begin_upload(server);
    uint64_t begin = kv_clock_ms();
    kill(server->pid, SIGTERM);
    int code = server_wait_exit(server, 20000);
    uint64_t took = kv_clock_ms() - begin;
    CHECK(code == 0, "exit code %d", code);
    CHECK(took < 6000, "%llu ms with DRAIN_WAIT_MS=700", (unsigned long long)took);
    close(fd);
}

/* ---- returns -------------------------------------------------------------------------------------------------- */

/* Kills a shard and returns the milliseconds until another one stands in its place. */
static uint64_t kill_shard(struct server *server, int index)
{
    pid_t old = server_child(server, "kv-shard", index), new = old;
    CHECK(old != 0, "shard %d does not run", index);
    uint64_t begin = kv_clock_ms();
    kill(old, SIGKILL);
    while ((new == old || new == 0) && kv_clock_ms() < begin + 20000) {
        sleep_ms(1);
        new = server_child(server, "kv-shard", index);
    }
    CHECK(new != old &&new != 0, "shard %d did not come back in 20 s", index);
    return kv_clock_ms() - begin;
}

Test(supervisor, pauses_double_while_a_child_does_not_get_ready)
{
    struct server *server = server_start((struct server_opts){.shards = 2});
    uint64_t pauses[7];
    put_some(server, 20);
    sleep_ms(1200); /* steady: the first restart is at once */
    for (size_t i = 0; i < COUNT_OF(pauses); i++)
        pauses[i] = kill_shard(server, 0); /* as soon as it is seen: before it is ready, or barely */
    CHECK(pauses[0] < 4000, "a steady child came back after %llu ms", (unsigned long long)pauses[0]);
    for (size_t i = 1; i < COUNT_OF(pauses); i++) {
        uint64_t at_least = (uint64_t)50 << (i - 1);
        CHECK(pauses[i] >= (at_least > 1000 ? 1000 : at_least) * 9 / 10, "pause %zu was %llu ms", i,
              (unsigned long long)pauses[i]);
        CHECK(pauses[i] < at_least * 2 + 4000, "pause %zu was %llu ms", i, (unsigned long long)pauses[i]);
    }
    server_wait_ready(server);
    expect_some(server, 20);
    server_stop(server);
}

Test(supervisor, a_router_that_dies_comes_back_behind_the_same_port)
{
    struct server *server = server_start((struct server_opts){.shards = 2});
    put_some(server, 20);
    for (unsigned i = 0; i < 3; i++) {
        pid_t router = server_child(server, "kv-router", -1);
        CHECK(router != 0);
        kill(router, SIGKILL);
        struct client *client = client_new(server, HTTP_1); /* connects at once: the supervisor holds the socket */
        const struct response *response = client_get(client, "/k0");
        CHECK(response->status == 200 || strstr(response->problem, "refused") == NULL, "%s", response->problem);
        client_free(&client);
        server_wait_ready(server);
        expect_some(server, 20);
    }
    server_stop(server);
}

Test(supervisor, the_token_is_shown_nowhere)
{
    struct server *server =
        server_start((struct server_opts){.shards = 2, .settings = {"LOG_LEVEL=debug", "ACCESS_LOG=on"}});
    struct child children[CHILDREN_MAX];
    put_some(server, 5);
    size_t count = server_children(server, children);
    children[count++].pid = server->pid;
    for (size_t i = 0; i < count; i++) {
        static const char *const files[] = {"environ", "cmdline"};
        for (size_t f = 0; f < COUNT_OF(files); f++) {
            char path[64];
            if (f == 0 && geteuid() != 0)
                continue; /* of these processes only root may read it */
            snprintf(path, sizeof path, "/proc/%d/%s", (int)children[i].pid, files[f]);
            struct kv_buf bytes = read_file(path);
            CHECK(memmem(bytes.data, bytes.bytes, TOKEN, strlen(TOKEN)) == NULL, "%s shows the token", path);
            kv_buf_free(&bytes);
        }
    }
    server_stop(server);
    CHECK(!server_log_has(server, TOKEN), "the log shows the token");
}
