/* Goal: a durable PUT waits for one flush and not for more, whichever shards take part; PUTs at the same time share flushes.
 * Method: strace on the shards counts fdatasync, fsync and msync between sending a request and having its answer, file by file. The
 * timer of the applier and records written lazily may flush at other times: the window is what the client waits for. Where strace
 * may not attach (no ptrace), the tests are skipped and say so. */
#include <criterion/criterion.h>

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bulk.h"
#include "kv/clock.h"
#include "kv/placement.h"

TestSuite(flush, .fini = harness_close, .timeout = 600);

#define IDLE_MS 2500u /* whatever was written before has been applied, the disks are quiet */

/* ---- strace --------------------------------------------------------------------------------------------------- */

struct trace {
    pid_t strace;
    char path[128]; /* one line per flush: "<pid> <unix time> fdatasync(7</path>) = 0" */
};

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static pid_t tracer_of(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
    struct kv_buf status = read_file(path);
    kv_buf_append(&status, kv_slice("", 1));
    const char *line = strstr((const char *)status.data, "TracerPid:");
    pid_t tracer = line == NULL ? 0 : atoi(line + 10);
    kv_buf_free(&status);
    return tracer;
}

/* Attaches to every thread of the shard; false when that is not allowed here. */
static bool trace_start(struct trace *trace, const struct server *server, int shard_index)
{
    pid_t shard = server_child(server, "kv-shard", shard_index);
    char pid_text[16];
    CHECK(shard != 0, "shard %d does not run", shard_index);
    snprintf(pid_text, sizeof pid_text, "%d", (int)shard);
    snprintf(trace->path, sizeof trace->path, "%s/trace-%d", server->folder, shard_index);
    trace->strace = fork();
    if (trace->strace == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execlp("strace", "strace", "-q", "-f", "-ttt", "-y", "-e", "trace=fdatasync,fsync,msync,sync,syncfs", "-e",
               "signal=none", "-o", trace->path, "-p", pid_text, (char *)NULL);
        _exit(127);
    }
    for (unsigned i = 0; i < 500; i++) {
        int status;
        if (tracer_of(shard) == trace->strace) {
            sleep_ms(200); /* its other threads */
            return true;
        }
        if (waitpid(trace->strace, &status, WNOHANG) == trace->strace)
            return false;
        sleep_ms(10);
    }
    CHECK(false, "strace neither attached nor ended");
    return false;
}

static void trace_stop(struct trace *trace)
{
    kill(trace->strace, SIGINT); /* detaches */
    waitpid(trace->strace, NULL, 0);
}

/* Flushes that began within the window; `path` is a part of the file's name, "" for any. */
static unsigned flushes_between(const struct trace *trace, double begin, double end, const char *path)
{
    unsigned count = 0;
    struct kv_buf lines = read_file(trace->path);
    kv_buf_append(&lines, kv_slice("", 1));
    char *rest = NULL;
    for (char *line = strtok_r((char *)lines.data, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest)) {
        char *after_pid = NULL;
        strtol(line, &after_pid, 10);
        double at = strtod(after_pid, NULL);
        bool begins = strstr(line, "resumed>") == NULL && strchr(line, '(') != NULL;
        if (begins && at >= begin && at <= end && strstr(line, path) != NULL)
            count++;
    }
    kv_buf_free(&lines);
    return count;
}

static bool skipped_without_strace(struct trace *trace, const struct server *server, int shard_index)
{
    if (trace_start(trace, server, shard_index))
        return false;
    fprintf(stderr, "SKIPPED: strace cannot attach to processes here, flushes are not counted\n");
    return true;
}

/* ---- tests ---------------------------------------------------------------------------------------------------- */

static void put(struct client *client, const char *target, const char *value)
{
    const struct response *response = client_put(client, target, kv_slice_text(value));
    CHECK(response->status == 201, "%s: %ld %s", target, response->status, response->problem);
}

Test(flush, one_put_waits_for_one_flush)
{
    enum { PUTS = 5 };
    struct trace trace;
    struct server *server = server_start((struct server_opts){.shards = 1});
    struct client *client = client_new(server, HTTP_2);
    double begin[PUTS], end[PUTS];
    put(client, "/warm", "up");
    if (skipped_without_strace(&trace, server, 0))
        cr_skip_test("no strace");
    for (unsigned i = 0; i < PUTS; i++) {
        char target[32];
        snprintf(target, sizeof target, "/k%u", i);
        sleep_ms(IDLE_MS);
        begin[i] = now_s();
        put(client, target, target);
        end[i] = now_s();
    }
    trace_stop(&trace);
    for (unsigned i = 0; i < PUTS; i++) {
        unsigned journal = flushes_between(&trace, begin[i], end[i], "/journal/");
        unsigned all = flushes_between(&trace, begin[i], end[i], "");
        CHECK(journal == 1 && all == 1, "PUT %u waited for %u flushes of the journal and %u in all", i, journal, all);
    }
    client_free(&client);
    server_stop(server);
}

/* The n-th key that lives on this shard. */
static void key_on_shard(unsigned shard_index, unsigned shard_count, unsigned n, char out[32])
{
    for (unsigned i = 0;; i++) {
        snprintf(out, 32, "key-%u", i);
        if (kv_shard_of(kv_slice_text(out), shard_count) == shard_index && n-- == 0)
            return;
    }
}

/* A content whose hash lives on this shard. */
static void content_on_shard(unsigned shard_index, unsigned shard_count, char out[32])
{
    for (unsigned i = 0;; i++) {
        char hex[65];
        uint8_t hash[32];
        snprintf(out, 32, "content-%u", i);
        sha256_hex(kv_slice_text(out), hex);
        for (unsigned k = 0; k < 32; k++) {
            char digits[3] = {hex[2 * k], hex[2 * k + 1], '\0'};
            hash[k] = (uint8_t)strtoul(digits, NULL, 16);
        }
        if (kv_shard_of(kv_slice(hash, sizeof hash), shard_count) == shard_index)
            return;
    }
}

Test(flush, one_put_over_two_shards_waits_for_one_flush_on_each)
{
    enum { SHARDS = 3, KEY_SHARD = 2, CONTENT_SHARD = 0 };
    struct trace traces[SHARDS];
    char key[32], target[40], content[32];
    struct server *server = server_start((struct server_opts){.shards = SHARDS});
    struct client *client = client_new(server, HTTP_2);
    key_on_shard(KEY_SHARD, SHARDS, 0, key);
    snprintf(target, sizeof target, "/%s", key);
    content_on_shard(CONTENT_SHARD, SHARDS, content);
    put(client, "/warm", "up");
    for (int i = 0; i < SHARDS; i++) {
        if (skipped_without_strace(&traces[i], server, i))
            cr_skip_test("no strace");
    }
    sleep_ms(IDLE_MS);
    double begin = now_s();
    put(client, target, content);
    double end = now_s();
    for (unsigned i = 0; i < SHARDS; i++)
        trace_stop(&traces[i]);
    for (unsigned i = 0; i < SHARDS; i++) {
        unsigned expected = i == KEY_SHARD || i == CONTENT_SHARD ? 1 : 0;
        unsigned flushes = flushes_between(&traces[i], begin, end, "");
        CHECK(flushes == expected, "shard %u flushed %u times, expected %u", i, flushes, expected);
    }
    client_free(&client);
    server_stop(server);
}

#define TOGETHER 64u

static void make_put(void *arg, size_t i, struct request *out)
{
    static char targets[TOGETHER][32];
    (void)arg;
    snprintf(targets[i], sizeof targets[i], "/together/%zu", i);
    *out = (struct request){.method = "PUT", .target = targets[i], .body = kv_slice_text(targets[i]), .has_body = true};
}

static void on_put(void *arg, size_t i, const struct response *response)
{
    (void)i;
    *(unsigned *)arg += response->status == 201;
}

Test(flush, puts_at_the_same_time_share_flushes)
{
    struct trace trace;
    unsigned created = 0;
    struct server *server = server_start((struct server_opts){.shards = 1});
    struct client *client = client_new(server, HTTP_2);
    put(client, "/warm", "up");
    client_free(&client);
    if (skipped_without_strace(&trace, server, 0))
        cr_skip_test("no strace");
    sleep_ms(IDLE_MS);
    double begin = now_s();
    CHECK(bulk_run(&(struct bulk){.server = server,
                                  .http = HTTP_2,
                                  .count = TOGETHER,
                                  .in_flight = TOGETHER,
                                  .make = make_put,
                                  .done = on_put,
                                  .arg = &created}));
    double end = now_s();
    trace_stop(&trace);
    unsigned flushes = flushes_between(&trace, begin, end, "");
    CHECK(created == TOGETHER, "%u of %u created", created, TOGETHER);
    CHECK(flushes >= 1 && flushes <= TOGETHER / 4, "%u flushes for %u PUTs at once", flushes, TOGETHER);
    fprintf(stderr, "%u PUTs at once: %u flushes\n", TOGETHER, flushes);
    server_stop(server);
}
