/* Goal: whoever takes over a router or a shard gets no files, no programs, no connections. The test hook of issue 6: the code that
 * confines the real processes, and what an intruder would try.
 * Method: a process is forked, confined, and tries; each try is named, and the parent tells which went through. What such a process
 * needs must still work. Where the kernel lacks a feature, the tries that it would stop are left out, and confine_kernel_lacks
 * must have said so. */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confine.h"

static char folder[64]; /* of the test: `data` and `uploads` below it */
static char data[96], uploads[96], secret[128];
static int listener; /* TCP, loopback */
static struct sockaddr_in address;
static char lacks[512];

static void write_file(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && write(fd, "secret", 6) == 6);
    close(fd);
}

static void setup(void)
{
    socklen_t bytes = sizeof(address);
    snprintf(folder, sizeof(folder), "/tmp/kv-confine-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    snprintf(data, sizeof(data), "%s/data", folder);
    snprintf(uploads, sizeof(uploads), "%s/uploads", folder);
    snprintf(secret, sizeof(secret), "%s/data/secret", folder);
    cr_assert(mkdir(data, 0700) == 0 && mkdir(uploads, 0700) == 0);
    write_file(secret);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(listener, 8) == 0);
    cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
    confine_kernel_lacks(lacks, sizeof(lacks));
}

static void teardown(void)
{
    close(listener);
    unlink(secret);
    rmdir(data);
    rmdir(uploads);
    cr_expect_eq(rmdir(folder), 0, "something was left in %s", folder);
}

TestSuite(confine, .init = setup, .fini = teardown, .timeout = 600);

static bool has_landlock(void)
{
    return strstr(lacks, "no Landlock (") == NULL;
}

static bool has_seccomp(void)
{
    return strstr(lacks, "no seccomp") == NULL;
}

/* ---- tries: true when it went through ----------------------------------------------------------------------------- */

static bool opens(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static bool open_secret(void)
{
    return opens(secret, O_RDONLY);
}

static bool open_for_writing(void)
{
    return opens(secret, O_RDWR);
}

static bool open_passwords(void)
{
    return opens("/etc/passwd", O_RDONLY);
}

static bool make_file(void)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/made", data);
    return opens(path, O_WRONLY | O_CREAT);
}

static bool remove_file(void)
{
    return unlink(secret) == 0;
}

static bool rename_file(void)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/renamed", uploads);
    return rename(secret, path) == 0;
}

static bool execute(void)
{
    char *arguments[] = {(char *)"true", NULL};
    pid_t child = fork();
    int status;
    if (child == 0) {
        execve("/bin/true", arguments, environ);
        _exit(1);
    }
    return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool execute_descriptor(void)
{
    char *arguments[] = {(char *)"true", NULL};
    syscall(SYS_execveat, listener, "", arguments, environ, 0x1000 /* AT_EMPTY_PATH */);
    return errno != EPERM && errno != EACCES; /* EACCES: Landlock came first */
}

static bool connect_tcp(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0;
}

static bool make_udp(void)
{
    return socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0) >= 0;
}

static bool make_raw(void)
{
    return socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0) >= 0 || socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0) >= 0;
}

static bool make_unix(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) >= 0;
}

static int inherited = -1; /* a TCP socket that nobody has connected */

static bool turn_socket_outwards(void)
{
    return connect(inherited, (const struct sockaddr *)&address, sizeof(address)) == 0;
}

/* The length is a lie; the kernel believes it and finds the address too short. */
static bool turn_socket_outwards_in_short(void)
{
    return connect(inherited, (const struct sockaddr *)&address, sizeof(address) - 1) == 0;
}

static bool send_outwards(void)
{
    return sendto(inherited, "x", 1, MSG_FASTOPEN, (const struct sockaddr *)&address, sizeof(address)) == 1;
}

static bool trace_parent(void)
{
    char byte;
    struct iovec here = {&byte, 1}, there = {(void *)&address, 1};
    return syscall(SYS_process_vm_readv, getppid(), &here, 1, &there, 1, 0) == 1;
}

static bool signal_parent(void)
{
    return kill(getppid(), 0) == 0;
}

static bool signal_group(void)
{
    return kill(0, 0) == 0;
}

static bool signal_thread_of_parent(void)
{
    return syscall(SYS_tgkill, getppid(), getppid(), 0) == 0;
}

static bool queue_signal_to_parent(void)
{
    siginfo_t info = {.si_code = SI_QUEUE};
    return syscall(SYS_rt_sigqueueinfo, getppid(), 0, &info) == 0;
}

static bool bind_parent_to_processors(void)
{
    cpu_set_t all;
    return sched_getaffinity(0, sizeof(all), &all) == 0 && sched_setaffinity(getppid(), sizeof(all), &all) == 0;
}

static bool schedule_parent(void)
{
    struct sched_param parameters = {0};
    return sched_setscheduler(getppid(), SCHED_OTHER, &parameters) == 0;
}

static bool slow_down_parent(void)
{
    return setpriority(PRIO_PROCESS, (id_t)getppid(), getpriority(PRIO_PROCESS, (id_t)getppid())) == 0;
}

static bool slow_down_group(void)
{
    return setpriority(PRIO_PGRP, 0, getpriority(PRIO_PGRP, 0)) == 0;
}

static bool make_ring(void)
{
    char parameters[120] = {0};
    syscall(SYS_io_uring_setup, 1, parameters);
    return errno != EPERM;
}

static bool enter_namespace(void)
{
    return unshare(0x10000000 /* CLONE_NEWUSER */) == 0;
}

static bool make_code(void)
{
    return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
}

#ifndef KV_SANITIZED
/* As mprotect does, with a key that says nothing. */
static bool make_code_with_key(void)
{
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return syscall(SYS_pkey_mprotect, page, 4096, PROT_READ | PROT_EXEC, -1) == 0;
}
#endif

static bool attach_code(void)
{
    int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0700);
    bool attached = id >= 0 && shmat(id, NULL, SHM_EXEC) != (void *)-1;
    shmctl(id, IPC_RMID, NULL);
    return attached;
}

static bool limit_parent(void)
{
    struct rlimit limit;
    return prlimit(getppid(), RLIMIT_CORE, NULL, &limit) == 0;
}

static bool change_mode(void)
{
    return chmod(secret, 0600) == 0;
}

/* Of Linux 6.6: younger than the filter's table. */
static bool change_mode_anew(void)
{
    return syscall(452 /* fchmodat2 */, AT_FDCWD, secret, 0600, 0) == 0;
}

/* ---- what must still work ----------------------------------------------------------------------------------------- */

static void *run_thread(void *arg)
{
    *(bool *)arg = true;
    return NULL;
}

static bool thread_works(void)
{
    pthread_t thread;
    bool ran = false;
    return pthread_create(&thread, NULL, run_thread, &ran) == 0 && pthread_join(thread, NULL) == 0 && ran;
}

/* A socket in the working directory, as the router sees those of the shards. */
static bool connect_works(void)
{
    struct sockaddr_un shard = {.sun_family = AF_UNIX, .sun_path = "shard-15"};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd >= 0 &&
           connect(fd, (struct sockaddr *)&shard, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 9)) == 0;
}

static bool accept_works(void)
{
    struct sockaddr_in peer;
    socklen_t bytes = sizeof(peer);
    int fd = accept4(listener, (struct sockaddr *)&peer, &bytes, SOCK_CLOEXEC);
    return fd >= 0 && send(fd, "x", 1, 0) == 1;
}

static bool limits_work(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_NOFILE, &limit) == 0 && setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

static bool schedule_works(void)
{
    cpu_set_t all;
    return sched_getaffinity(0, sizeof(all), &all) == 0 && sched_setaffinity(0, sizeof(all), &all) == 0 &&
           setpriority(PRIO_PROCESS, 0, 19) == 0;
}

static bool abort_works(void)
{
    signal(SIGABRT, SIG_IGN);
    return kill(getpid(), 0) == 0 && raise(SIGABRT) == 0;
}

static bool loop_works(void)
{
    return epoll_create1(EPOLL_CLOEXEC) >= 0 && eventfd(0, EFD_CLOEXEC) >= 0;
}

static bool upload_works(void)
{
    int fd = open(uploads, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
    void *map = fd < 0 || posix_fallocate(fd, 0, 8192) != 0
                    ? MAP_FAILED
                    : mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return map != MAP_FAILED && pwrite(fd, "x", 1, 4096) == 1 && ftruncate(fd, 1) == 0;
}

static bool named_upload_works(void)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/body", uploads);
    return opens(path, O_RDWR | O_CREAT) && unlink(path) == 0;
}

static bool data_works(void)
{
    char path[160], renamed[160];
    snprintf(path, sizeof(path), "%s/segment", data);
    snprintf(renamed, sizeof(renamed), "%s/spare", data);
    return opens(path, O_RDWR | O_CREAT) && rename(path, renamed) == 0 && unlink(renamed) == 0 && open_secret();
}

static bool proc_works(void)
{
    return opens("/proc/self/statm", O_RDONLY) && opens("/proc/self/fd", O_RDONLY | O_DIRECTORY);
}

/* ---- the tables --------------------------------------------------------------------------------------------------- */

struct attempt {
    const char *name;
    bool (*run)(void);
};
#define ATTEMPT(function)                                                                                              \
    {                                                                                                                  \
#function, function                                                                                            \
    }

/* Runs in a child that `confine` has confined; returns the names of those whose outcome is not `expected`. */
static void expect_all(void (*confine)(void), const struct attempt *attempts, size_t count, bool expected)
{
    for (size_t i = 0; i < count; i++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            confine();
            _exit(attempts[i].run() ? 1 : 0);
        }
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == expected, "%s: status %x", attempts[i].name,
                  (unsigned)status);
    }
}

static void as_router(void)
{
    confine_router(uploads, false);
}

static void as_router_with_names(void)
{
    confine_router(uploads, true);
}

static void as_shard(void)
{
    confine_shard(open(data, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
}

static void as_nobody_in_particular(void)
{
}

#define LANDLOCK_CREATE 444

/* As Linux before 5.13 answers, or a container's filter. */
static void without_landlock(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, LANDLOCK_CREATE, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
        _exit(99);
}

static void as_shard_without_landlock(void)
{
    without_landlock();
    as_shard();
}

static void as_router_without_landlock(void)
{
    without_landlock();
    as_router();
}

/* The tries are worth nothing if they fail by themselves. */
Test(confine, everything_works_without)
{
    static const struct attempt attempts[] = {
        ATTEMPT(open_secret),
        ATTEMPT(open_passwords),
        ATTEMPT(execute),
        ATTEMPT(connect_tcp),
        ATTEMPT(make_udp),
        ATTEMPT(make_unix),
        ATTEMPT(signal_parent),
        ATTEMPT(make_code),
        ATTEMPT(turn_socket_outwards),
        ATTEMPT(limit_parent),
        ATTEMPT(attach_code),
        ATTEMPT(change_mode),
        ATTEMPT(limits_work),
        ATTEMPT(signal_group),
        ATTEMPT(signal_thread_of_parent),
        ATTEMPT(queue_signal_to_parent),
        ATTEMPT(bind_parent_to_processors),
        ATTEMPT(schedule_parent),
        ATTEMPT(slow_down_parent),
        ATTEMPT(slow_down_group), /* not make_code_with_key: Docker's own profile refuses that */
    };
    inherited = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    expect_all(as_nobody_in_particular, attempts, sizeof(attempts) / sizeof(attempts[0]), true);
}

/* What seccomp stops, in every build. */
static const struct attempt of_calls[] = {
    ATTEMPT(execute),
    ATTEMPT(execute_descriptor),
    ATTEMPT(connect_tcp),
    ATTEMPT(make_udp),
    ATTEMPT(make_raw),
    ATTEMPT(make_ring),
    ATTEMPT(trace_parent),
    ATTEMPT(enter_namespace),
    ATTEMPT(limit_parent),
    ATTEMPT(change_mode_anew),
    ATTEMPT(signal_parent),
    ATTEMPT(signal_group),
    ATTEMPT(signal_thread_of_parent),
    ATTEMPT(queue_signal_to_parent),
    ATTEMPT(bind_parent_to_processors),
    ATTEMPT(schedule_parent),
    ATTEMPT(slow_down_parent),
    ATTEMPT(slow_down_group),
};

/* What Landlock stops; a plain build has seccomp in the router for it as well. */
static const struct attempt of_files[] = {
    ATTEMPT(open_secret), ATTEMPT(open_for_writing), ATTEMPT(open_passwords),
    ATTEMPT(make_file),   ATTEMPT(remove_file),      ATTEMPT(rename_file),
};

#define EXPECT(confine, attempts, expected)                                                                            \
    expect_all(confine, attempts, sizeof(attempts) / sizeof((attempts)[0]), expected)

Test(confine, a_router_gets_nowhere)
{
    static const struct attempt outwards[] = {ATTEMPT(turn_socket_outwards), ATTEMPT(send_outwards),
                                              ATTEMPT(turn_socket_outwards_in_short)};
    inherited = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (has_seccomp()) {
        EXPECT(as_router, of_calls, false);
        EXPECT(as_router, outwards, false);
        EXPECT(as_router_without_landlock, outwards, false);
    }
    if (has_landlock()) {
        EXPECT(as_router, of_files, false);
        EXPECT(as_router_with_names, of_files, false);
    }
}

Test(confine, a_shard_has_its_own_folder_and_no_socket)
{
    static const struct attempt more[] = {ATTEMPT(make_unix)};
    static const struct attempt files[] = {ATTEMPT(open_passwords), ATTEMPT(named_upload_works), ATTEMPT(rename_file)};
    if (has_seccomp()) {
        EXPECT(as_shard, of_calls, false);
        EXPECT(as_shard, more, false);
    }
    if (has_landlock())
        EXPECT(as_shard, files, false);
}

#ifndef KV_SANITIZED
Test(confine, no_new_code_and_no_new_modes)
{
    static const struct attempt code[] = {ATTEMPT(make_code), ATTEMPT(make_code_with_key), ATTEMPT(attach_code)};
    static const struct attempt modes[] = {ATTEMPT(change_mode)};
    if (!has_seccomp())
        return;
    EXPECT(as_router, code, false);
    EXPECT(as_shard, code, false);
    EXPECT(as_router, modes, false);
}
#endif

Test(confine, what_they_need_works)
{
    static const struct attempt of_both[] = {ATTEMPT(thread_works), ATTEMPT(loop_works), ATTEMPT(limits_work),
                                             ATTEMPT(schedule_works), ATTEMPT(abort_works)};
    static const struct attempt of_router[] = {ATTEMPT(upload_works), ATTEMPT(make_unix), ATTEMPT(accept_works),
                                               ATTEMPT(connect_works)};
    static const struct attempt of_named[] = {ATTEMPT(named_upload_works), ATTEMPT(upload_works)};
    static const struct attempt of_shard[] = {ATTEMPT(data_works), ATTEMPT(proc_works)};
    struct sockaddr_un shard = {.sun_family = AF_UNIX, .sun_path = "shard-15"};
    int shard_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(chdir(uploads) == 0 && bind(shard_fd, (struct sockaddr *)&shard, sizeof(shard)) == 0);
    cr_assert_eq(listen(shard_fd, 8), 0);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(client, (const struct sockaddr *)&address, sizeof(address)), 0);
    EXPECT(as_router, of_both, true);
    EXPECT(as_shard, of_both, true);
    EXPECT(as_router, of_router, true);
    EXPECT(as_router_with_names, of_named, true);
    EXPECT(as_shard, of_shard, true);
    close(client);
    close(shard_fd);
    unlink("shard-15");
}

static bool says_so(void)
{
    char text[512];
    return confine_kernel_lacks(text, sizeof(text)) && strstr(text, "no Landlock (") != NULL &&
           strchr(text, ';') == NULL;
}

Test(confine, goes_on_without_landlock)
{
    static const struct attempt works[] = {ATTEMPT(says_so), ATTEMPT(data_works), ATTEMPT(thread_works)};
    static const struct attempt still_works[] = {ATTEMPT(upload_works), ATTEMPT(make_unix)};
    if (!has_seccomp())
        return;
    EXPECT(as_shard_without_landlock, works, true);
    EXPECT(as_shard_without_landlock, of_calls, false);
    EXPECT(as_router_without_landlock, still_works, true);
    EXPECT(as_router_without_landlock, of_calls, false);
#ifndef KV_SANITIZED
    EXPECT(as_router_without_landlock, of_files, false);
#endif
}

static bool has_capabilities(void)
{
    char line[128];
    unsigned long long effective = 1;
    FILE *status = fopen("/proc/self/status", "r"); /* Landlock leaves us that, seccomp does not: see below */
    while (status != NULL && fgets(line, sizeof(line), status) != NULL)
        if (sscanf(line, "CapEff: %llx", &effective) == 1)
            break;
    return effective != 0;
}

Test(confine, a_router_has_no_capability)
{
    static const struct attempt capabilities[] = {ATTEMPT(has_capabilities)};
    EXPECT(as_router_with_names, capabilities, false);
}

Test(confine, hidden_from_core_dumps)
{
    confine_hide();
    cr_expect_eq(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
}

Test(confine, peers_of_our_user)
{
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    cr_expect(confine_peer_is_ours(ends[0]));
    cr_expect_not(confine_peer_is_ours(listener), "a TCP socket has no peer of ours");
    if (geteuid() == 0) {
        cr_assert_eq(seteuid(65534), 0);
        cr_expect_not(confine_peer_is_ours(ends[0]), "root's socket passed for ours");
        cr_assert_eq(seteuid(0), 0);
    }
    close(ends[0]);
    close(ends[1]);
}
