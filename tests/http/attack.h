/* tests/http/attack.h -- a router in a process of its own, to be brought down with the frames of attack/frames.h.
 * One test file makes one executable: everything is static. */
#ifndef KV_TESTS_ATTACK_H
#define KV_TESTS_ATTACK_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "h2o_guard.h"
#include "harness.h"
#include "kv/clock.h"
#include "metrics_internal.h"
#include "thread.h"
/* behind harness.h, which has the token */
#include "../attack/frames.h"

/* ---- the victim --------------------------------------------------------------------------------------------------- */

struct shared {
    atomic_uint port;
    atomic_bool hold;  /* the backend takes calls and does not answer */
    atomic_bool drain; /* say GOAWAY within half a second, and again one second later */
    atomic_uint files_max;
    atomic_uint rounds;  /* in which it has looked at these, */
    atomic_size_t calls; /* and said the rest */
    atomic_size_t connections;
    _Atomic uint64_t counters[METRICS_COUNTER_COUNT];
};

struct victim {
    pid_t pid;
    struct shared *shared;
    char stderr_path[64];
    bool small_buffers; /* of accepted sockets: writes stay unfinished */
};

static void publish(struct shared *shared)
{
    size_t connections = 0;
    for (unsigned i = 0; i < http_server->thread_count; i++)
        connections += http_server->threads[i].listeners.connections;
    for (unsigned counter = 0; counter < METRICS_COUNTER_COUNT; counter++) {
        uint64_t sum = 0;
        for (unsigned i = 0; i < http_server->thread_count; i++)
            sum += kv_counter_get(&http_server->threads[i].metrics->counters[counter]);
        shared->counters[counter] = sum;
    }
    shared->connections = connections;
    shared->calls = fake_calls();
}

static void limit_files(unsigned max)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

_Noreturn static void suffer(const struct victim *victim, bool guarded)
{
    struct shared *shared = victim->shared;
    int few = 16384;
    bool held = false;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGABRT, SIG_DFL);
    if (freopen(victim->stderr_path, "w", stderr) == NULL)
        _exit(1);
    if (!guarded)
        h2o_guard_disable();
    http_start();
    if (victim->small_buffers)
        setsockopt(http_server->plain_fd, SOL_SOCKET, SO_SNDBUF, &few, sizeof(few));
    shared->port = http_port;
    for (;;) {
        if (shared->hold != held)
            fake_hold(held = shared->hold);
        if (shared->files_max != 0)
            limit_files(shared->files_max);
        shared->files_max = 0;
        for (unsigned i = 0; i < http_server->thread_count && shared->drain; i++)
            thread_drain(&http_server->threads[i], 1000);
        shared->drain = false;
        publish(shared);
        shared->rounds++;
        http_nap(2);
    }
}

/* With http_settings as the caller left them. */
static struct victim victim_start_with(bool guarded, bool small_buffers)
{
    struct victim victim = {
        .shared = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)};
    cr_assert(victim.shared != MAP_FAILED);
    victim.small_buffers = small_buffers;
    snprintf(victim.stderr_path, sizeof(victim.stderr_path), "/tmp/kv-guard-%d", (int)getpid());
    victim.pid = fork();
    cr_assert_geq(victim.pid, 0);
    if (victim.pid == 0)
        suffer(&victim, guarded);
    http_wait_until(victim.shared->port != 0);
    http_port = (unsigned short)victim.shared->port;
    return victim;
}

static struct victim victim_start(bool guarded)
{
    return victim_start_with(guarded, false);
}

/* Until it has done what was asked, and said what has become of it: a round under way may have begun before. */
UNUSED_IS_FINE static void victim_settle(const struct victim *victim)
{
    unsigned before = victim->shared->rounds;
    http_wait_until(victim->shared->rounds - before >= 2);
}

/* Signal that ended it, 0 while it runs or when it ended by itself. */
UNUSED_IS_FINE static int victim_signal(const struct victim *victim, int wait_ms)
{
    int status = 0;
    for (int waited = 0; waited <= wait_ms; waited += 5) {
        if (waitpid(victim->pid, &status, WNOHANG) == victim->pid)
            return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
        http_nap(5);
    }
    return 0;
}

static void victim_end(struct victim *victim)
{
    kill(victim->pid, SIGKILL);
    waitpid(victim->pid, NULL, 0);
    unlink(victim->stderr_path);
    munmap(victim->shared, sizeof(struct shared));
}

UNUSED_IS_FINE static uint64_t victim_cpu_ms(const struct victim *victim)
{
    char path[64], line[1024] = "";
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)victim->pid);
    FILE *file = fopen(path, "re");
    cr_assert(file != NULL && fgets(line, sizeof(line), file) != NULL);
    fclose(file);
    cr_assert_eq(sscanf(strrchr(line, ')') + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system),
                 2);
    return (user + system) * 1000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

UNUSED_IS_FINE static uint64_t victim_rss_mb(const struct victim *victim)
{
    char path[64];
    unsigned long pages = 0;
    snprintf(path, sizeof(path), "/proc/%d/statm", (int)victim->pid);
    FILE *file = fopen(path, "re");
    cr_assert(file != NULL && fscanf(file, "%*u %lu", &pages) == 1);
    fclose(file);
    return pages * 4096 / 1000000;
}

UNUSED_IS_FINE static bool is_serving(void)
{
    struct answer answer = http_get(H1, "/-/healthy", NULL);
    bool serving = answer.status == 200;
    answer_free(&answer);
    return serving;
}

/* ---- connections ------------------------------------------------------------------------------------------------- */

/* What the victim still takes; it may have closed the connection already. */
static bool give(int fd, struct kv_buf *bytes)
{
    size_t sent = 0;
    while (sent < bytes->bytes) {
        ssize_t put = send(fd, bytes->data + sent, bytes->bytes - sent, MSG_NOSIGNAL);
        if (put <= 0)
            break;
        sent += (size_t)put;
    }
    bool all = sent == bytes->bytes;
    kv_buf_free(bytes);
    return all;
}

/* Prior knowledge, from an address of the loopback net; reads little when asked to. */
static int h2_connect_from(const char *address, bool small)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons(http_port)};
    struct timeval wait = {.tv_sec = 5};
    int few = 32768, on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_geq(fd, 0);
    inet_pton(AF_INET, address, &from.sin_addr);
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    if (small)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &few, sizeof(few));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    cr_assert(bind(fd, (struct sockaddr *)&from, sizeof(from)) == 0);
    cr_assert(connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
    struct kv_buf out = {0};
    hello(&out);
    give(fd, &out);
    return fd;
}

static int h2_connect(void)
{
    return h2_connect_from("127.0.0.1", false);
}

/* Whether the victim has taken all that was sent over the connection, and left it open. */
UNUSED_IS_FINE static bool is_taken(int fd)
{
    static const char text[] = "12345678";
    struct kv_buf out = {0};
    frame(&out, PING, 0, 0, raw(text, 8));
    give(fd, &out);
    struct kv_buf in = http_receive_until(fd, text);
    bool taken = memmem(in.data, in.bytes, text, 8) != NULL;
    kv_buf_free(&in);
    return taken;
}

/* Whether the victim has closed the connection, or does so within the time. */
static bool is_closed(int fd, int wait_ms)
{
    static char bytes[65536];
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    uint64_t until_ms = kv_clock_ms() + (uint64_t)wait_ms;
    for (uint64_t now_ms = kv_clock_ms(); now_ms <= until_ms; now_ms = kv_clock_ms())
        if (poll(&poller, 1, (int)(until_ms - now_ms)) == 1 && recv(fd, bytes, sizeof(bytes), 0) <= 0)
            return true;
    return false;
}

#endif
