/* tests/system/server.c -- the life of a store under test: see harness.h. Tools and files: tools.c. */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"
#include "environment.h"
#include "kv/clock.h"

#define LOG_TAIL_BYTES 6000u
#define READY_WAIT_MS 60000u
#define STOP_WAIT_MS 40000u /* DRAIN_WAIT_MS and a slow sanitizer build */

static struct server *servers; /* of this test */

/* ---- failing -------------------------------------------------------------------------------------------------- */

static void print_log(const struct server *server)
{
    struct kv_buf log = read_file(server->log_path);
    size_t from = log.bytes > LOG_TAIL_BYTES ? log.bytes - LOG_TAIL_BYTES : 0;
    fprintf(stderr, "---- log of the server in %s%s\n%.*s----\n", server->folder, from > 0 ? " (its end)" : "",
            (int)(log.bytes - from), (const char *)log.data + from);
    kv_buf_free(&log);
}

void harness_fail(const char *file, int line, const char *condition, const char *format, ...)
{
    char sentence[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    for (const struct server *server = servers; server != NULL; server = server->next)
        print_log(server);
    cr_assert_fail("%s:%d: %s: %s", file, line, condition, sentence);
    abort(); /* not reached: cr_assert_fail leaves the test */
}

/* What a server of ours must never write, whatever the test did to it. */
static const char *bug_in_log(const struct server *server)
{
    static const char *const signs[] = {"ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "WARNING: ThreadSanitizer",
                                        "runtime error:", " does not hold at "};
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
        if (server_log_has(server, signs[i]))
            return signs[i];
    }
    return NULL;
}

bool server_log_has(const struct server *server, const char *text)
{
    struct kv_buf log = read_file(server->log_path);
    bool found = memmem(log.data, log.bytes, text, strlen(text)) != NULL;
    kv_buf_free(&log);
    return found;
}

/* ---- starting ------------------------------------------------------------------------------------------------- */

struct server *server_new(struct server_opts opts)
{
    struct server *server = kv_alloc_zero(1, sizeof *server);
    server->opts = opts;
    server->port = free_port();
    snprintf(server->folder, sizeof server->folder, "%s", temp_folder());
    snprintf(server->db_path, sizeof server->db_path, "%s/db", server->folder);
    snprintf(server->log_path, sizeof server->log_path, "%s/log", server->folder);
    int fd = open(server->log_path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
    CHECK(fd >= 0, "%s: %s", server->log_path, strerror(errno));
    close(fd);
    server->next = servers;
    servers = server;
    return server;
}

static bool is_set(const struct server *server, const char *name)
{
    for (size_t i = 0; i < SETTINGS_MAX && server->opts.settings[i] != NULL; i++)
        if (strncmp(server->opts.settings[i], name, strlen(name)) == 0)
            return true;
    return false;
}

static _Noreturn void exec_server(const struct server *server, pid_t parent)
{
    char db_path[128], bind_addr[64], shards[32], tmpdir[80];
    const char *settings[SETTINGS_MAX + 6] = {0};
    size_t count = 0;
    snprintf(db_path, sizeof db_path, "DB_PATH=%s", server->db_path);
    snprintf(bind_addr, sizeof bind_addr, "BIND_ADDR=127.0.0.1:%u", server->port);
    snprintf(shards, sizeof shards, "SHARDS=%u", server->opts.shards);
    snprintf(tmpdir, sizeof tmpdir, "TMPDIR=%s", server->folder);
    if (!is_set(server, "TOKEN="))
        settings[count++] = "TOKEN=" TOKEN;
    settings[count++] = db_path;
    settings[count++] = bind_addr;
    if (!is_set(server, "TMPDIR="))
        settings[count++] = tmpdir;
    if (server->opts.shards > 0)
        settings[count++] = shards;
    for (size_t i = 0; i < SETTINGS_MAX && server->opts.settings[i] != NULL; i++)
        settings[count++] = server->opts.settings[i];
    char **env = environment_make(settings);
    int fd = open(server->log_path, O_WRONLY | O_APPEND | O_CLOEXEC);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() == parent)
        execle(bin_path("kv-storage"), "kv-storage", (char *)NULL, env);
    fprintf(stderr, "harness: cannot execute %s: %s\n", bin_path("kv-storage"), strerror(errno));
    _exit(127);
}

void server_spawn(struct server *server)
{
    CHECK(server->pid == 0, "it runs already");
    pid_t parent = getpid();
    pid_t pid = fork();
    CHECK(pid >= 0, "fork: %s", strerror(errno));
    if (pid == 0)
        exec_server(server, parent);
    server->pid = pid;
}

void server_wait_ready(struct server *server)
{
    struct client *client = client_new(server, HTTP_1);
    uint64_t until = kv_clock_ms() + READY_WAIT_MS;
    long status = 0;
    while (status != 200 && kv_clock_ms() < until) {
        int code = server_wait_exit(server, 0);
        CHECK(code == -1, "kv-storage ended with %d instead of getting ready", code);
        status = client_send(client, &(struct request){.method = "GET", .target = "/-/ready", .wait_ms = 2000})->status;
        if (status != 200)
            sleep_ms(10);
    }
    client_free(&client);
    CHECK(status == 200, "not ready after %u ms, last status %ld", READY_WAIT_MS, status);
}

struct server *server_start(struct server_opts opts)
{
    struct server *server = server_new(opts);
    server_spawn(server);
    server_wait_ready(server);
    return server;
}

/* ---- its processes -------------------------------------------------------------------------------------------- */

/* Fields of /proc/<pid>/stat. False: no such process. */
static bool read_stat(pid_t pid, char name[16], char *state, pid_t *ppid)
{
    char path[64], line[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    size_t got = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    char *open = strchr(line, '('), *close = strrchr(line, ')');
    if (got == 0 || open == NULL || close == NULL)
        return false;
    int parent = 0;
    sscanf(close + 2, "%c %d", state, &parent);
    *ppid = parent;
    snprintf(name, 16, "%.*s", (int)(close - open - 1), open + 1);
    return true;
}

static int index_of_shard(pid_t pid)
{
    char path[64], line[256] = "";
    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return -1;
    size_t got = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    size_t first = strlen(line);
    return first + 1 < got ? atoi(line + first + 1) : -1;
}

size_t server_children(const struct server *server, struct child *out)
{
    size_t count = 0;
    DIR *proc = opendir("/proc");
    CHECK(proc != NULL);
    for (struct dirent *entry; (entry = readdir(proc)) != NULL && count < CHILDREN_MAX;) {
        pid_t pid = atoi(entry->d_name), ppid = 0;
        char state = '?';
        struct child *child = &out[count];
        if (pid <= 0 || !read_stat(pid, child->name, &state, &ppid) || ppid != server->pid || state == 'Z')
            continue;
        child->pid = pid;
        child->index = strcmp(child->name, "kv-shard") == 0 ? index_of_shard(pid) : -1;
        count++;
    }
    closedir(proc);
    return count;
}

pid_t server_child(const struct server *server, const char *name, int index)
{
    struct child children[CHILDREN_MAX];
    size_t count = server_children(server, children);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(children[i].name, name) == 0 && children[i].index == index)
            return children[i].pid;
    }
    return 0;
}

bool process_is_dead(pid_t pid)
{
    char name[16], state = '?';
    pid_t ppid;
    return !read_stat(pid, name, &state, &ppid) || state == 'Z' || state == 'X';
}

bool processes_die_within(const pid_t *pids, size_t count, unsigned wait_ms)
{
    uint64_t until = kv_clock_ms() + wait_ms;
    for (size_t i = 0; i < count; i++) {
        while (!process_is_dead(pids[i])) {
            if (kv_clock_ms() > until)
                return false;
            sleep_ms(2);
        }
    }
    return true;
}

/* ---- ending --------------------------------------------------------------------------------------------------- */

int server_wait_exit(struct server *server, unsigned wait_ms)
{
    uint64_t until = kv_clock_ms() + wait_ms;
    for (;;) {
        int status;
        pid_t got = waitpid(server->pid, &status, WNOHANG);
        if (got == server->pid) {
            server->pid = 0;
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        if (kv_clock_ms() >= until)
            return -1;
        sleep_ms(2);
    }
}

static size_t child_pids(const struct server *server, pid_t *pids)
{
    struct child children[CHILDREN_MAX];
    size_t count = server_children(server, children);
    for (size_t i = 0; i < count; i++)
        pids[i] = children[i].pid;
    return count;
}

void server_stop(struct server *server)
{
    pid_t pids[CHILDREN_MAX];
    size_t count = child_pids(server, pids);
    kill(server->pid, SIGTERM);
    int code = server_wait_exit(server, STOP_WAIT_MS);
    CHECK(code == 0, "exit code %d after SIGTERM", code);
    CHECK(processes_die_within(pids, count, 1000), "a child outlived an ordered stop");
    CHECK(bug_in_log(server) == NULL, "the log says: %s", bug_in_log(server));
}

static void kill_all(struct server *server)
{
    pid_t pids[CHILDREN_MAX];
    size_t count = child_pids(server, pids);
    kill(server->pid, SIGKILL); /* first, so that it replaces nobody */
    for (size_t i = 0; i < count; i++)
        kill(pids[i], SIGKILL);
    server_wait_exit(server, 10000);
    processes_die_within(pids, count, 10000);
}

void server_kill(struct server *server)
{
    kill_all(server);
    CHECK(server->pid == 0, "the supervisor survived kill -9");
    CHECK(bug_in_log(server) == NULL, "the log says: %s", bug_in_log(server));
}

void harness_close(void)
{
    char bug[128] = "";
    for (struct server *server = servers, *next; server != NULL; server = next) {
        next = server->next;
        if (server->pid != 0)
            kill_all(server);
        if (bug[0] == '\0' && bug_in_log(server) != NULL) {
            snprintf(bug, sizeof bug, "%s", bug_in_log(server));
            print_log(server);
        }
        free(server);
    }
    servers = NULL;
    temp_folders_remove();
    cr_assert(bug[0] == '\0', "a server's log says: %s", bug);
}

/* ---- what its files hold -------------------------------------------------------------------------------------- */

static void add_counts(struct store_counts *sum, const char *line)
{
    unsigned long long keys, objects, stored_bytes, records;
    const char *numbers = strstr(line, "keys ");
    int found = numbers == NULL ? 0
                                : sscanf(numbers, "keys %llu objects %llu stored_bytes %llu journal_records %llu: ok",
                                         &keys, &objects, &stored_bytes, &records);
    CHECK(found == 4 && strstr(line, ": ok") != NULL, "--check said: %s", line);
    sum->keys += keys;
    sum->objects += objects;
    sum->stored_bytes += stored_bytes;
    sum->journal_records += records;
}

struct store_counts server_check_files(const struct server *server, unsigned shard_count)
{
    struct store_counts sum = {0};
    unsigned lines = 0;
    struct outcome check =
        run((const char *const[]){"kv-shard", "--check", server->db_path, NULL}, (struct run_opts){0});
    kv_buf_append(&check.out, kv_slice("", 1));
    kv_buf_append(&check.err, kv_slice("", 1));
    CHECK(check.exit_code == 0, "--check ended with %d: %s%s", check.exit_code, (const char *)check.out.data,
          (const char *)check.err.data);
    char *rest = NULL;
    for (char *line = strtok_r((char *)check.out.data, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        add_counts(&sum, line);
        lines++;
    }
    CHECK(lines == shard_count, "--check spoke of %u shards, not %u", lines, shard_count);
    outcome_free(&check);
    return sum;
}
