/* Goal: a child gets exactly what kv/child.h promises: descriptors, clean signals, no token it does not need, and death
 * with its parent. Method: shell scripts as children that write down what they find. */
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <criterion/criterion.h>

#define WIPE explicit_bzero
#include "../wipes.h"
#include "spawn.h"
#include "temp.h"

TestSuite(spawn, .init = temp_setup, .fini = temp_teardown, .timeout = 600);

static struct why why;

static const char *script(const char *name, const char *body)
{
    char text[2048];
    snprintf(text, sizeof(text), "#!/bin/sh\ncd %s || exit 9\n%s\n", temp, body);
    return temp_file(name, text, 0700);
}

static int run_to_end(const struct spawn *spawn)
{
    pid_t pid;
    int status = 0;
    cr_assert_eq(spawn_child(spawn, &pid, &why), KV_OK, "%s", why.text);
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int file_with(const char *name, const char *text)
{
    return open(temp_file(name, text, 0600), O_RDONLY | O_CLOEXEC);
}

/* The sources are handed over in an order that would overwrite each other without copies aside. */
Test(spawn, descriptors_get_their_numbers_and_nothing_else_is_open)
{
    int sources[3];
    for (int i = 0; i < 3; i++) {
        char text[2] = {(char)('a' + i), '\0'};
        sources[i] = file_with(text, text);
    }
    int high = fcntl(sources[0], F_DUPFD_CLOEXEC, 200), leak = dup(sources[0]); /* leak: not close-on-exec */
    dup2(sources[1], 4);
    struct spawn spawn = {
        .program = script("child", "read three <&3; read four <&4; read five <&5; read zero || zero=none\n"
                                   "echo \"$# $1 $three $four $five $zero\" >out; ls /proc/self/fd >fds"),
        .name = "kv-shard",
        .argument = "7",
        .fds = {sources[2], high, 4},
        .fd_count = 3,
    };
    cr_assert_eq(run_to_end(&spawn), 0);
    cr_expect_str_eq(temp_read("out"), "1 7 c a b none\n");
    /* 0, 2, 3, 4, 5 as handed over; 1 is `fds`; ls itself has one open directory, the lowest free number */
    cr_expect_str_eq(temp_read("fds"), "0\n1\n2\n3\n4\n5\n6\n", "%s", temp_read("fds"));
    close(high);
    close(leak);
}

Test(spawn, signals_are_clean)
{
    sigset_t blocked;
    sigfillset(&blocked);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    struct spawn spawn = {.program = script("child", "grep -E '^Sig(Blk|Ign)' /proc/self/status >out"), .name = "x"};
    cr_assert_eq(run_to_end(&spawn), 0);
    cr_expect_str_eq(temp_read("out"), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

Test(spawn, what_cannot_be_executed_ends_with_its_code)
{
    struct spawn spawn = {.program = temp_path("missing"), .name = "x"};
    cr_expect_eq(run_to_end(&spawn), SPAWN_EXIT_NOT_EXECUTED);
}

Test(spawn, settings_are_sealed_and_shards_get_no_token)
{
    struct kv_settings settings, got;
    kv_settings_init(&settings);
    kv_settings_set(&settings, "TOKEN", "secret", why.text, sizeof(why.text));
    kv_settings_set(&settings, "SHARDS", "5", why.text, sizeof(why.text));
    for (int with_token = 0; with_token <= 1; with_token++) {
        char text[65536];
        int fd;
        wiped_bytes = 0;
        cr_assert_eq(spawn_settings(&settings, with_token == 1, &fd, &why), KV_OK, "%s", why.text);
        cr_expect_eq(was_wiped("TOKEN=secret\n"), with_token == 1, "what was written stays in memory");
        ssize_t bytes = pread(fd, text, sizeof(text), 0);
        cr_assert_eq(kv_settings_read(kv_slice(text, (size_t)bytes), &got), KV_OK);
        cr_expect_str_eq(got.token, with_token == 1 ? "secret" : "");
        cr_expect_eq(got.shards, 5u);
        kv_settings_free(&got);
        cr_expect_lt(write(fd, "x", 1), 0, "sealed");
        cr_expect_lt(ftruncate(fd, 0), 0, "sealed");
        close(fd);
    }
    cr_expect_str_eq(settings.token, "secret", "the supervisor's own is kept");
    kv_settings_free(&settings);
}

static bool gone(pid_t pid)
{
    for (int i = 0; i < 6000; i++) {
        char path[64], state = 'Z';
        snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        FILE *file = fopen(path, "r");
        if (file == NULL)
            return true;
        int fields = fscanf(file, "%*d %*s %c", &state);
        fclose(file);
        if (fields == 1 && state == 'Z') /* whoever adopts orphans here need not reap */
            return true;
        usleep(10000);
    }
    return false;
}

Test(spawn, a_child_dies_with_its_parent)
{
    struct spawn spawn = {.program = script("child", "exec sleep 100"), .name = "x"};
    int ends[2];
    pid_t grandchild = 0;
    cr_assert_eq(pipe(ends), 0);
    pid_t parent = fork();
    if (parent == 0) {
        pid_t pid = 0;
        if (spawn_child(&spawn, &pid, &why) != KV_OK || write(ends[1], &pid, sizeof(pid)) != sizeof(pid))
            _exit(1);
        pause();
    }
    cr_assert_eq(read(ends[0], &grandchild, sizeof(grandchild)), (ssize_t)sizeof(grandchild));
    usleep(50000);
    cr_expect_eq(kill(grandchild, 0), 0, "alive");
    kill(parent, SIGKILL);
    waitpid(parent, NULL, 0);
    cr_expect(gone(grandchild));
}

Test(spawn, find_looks_beside_this_executable)
{
    char path[SPAWN_PATH_BYTES];
    cr_expect_eq(spawn_find("test_spawn", path, &why), KV_OK, "%s", why.text);
    cr_expect_eq(access(path, X_OK), 0);
    cr_expect_eq(spawn_find("no-such-program", path, &why), KV_INVALID);
    cr_expect_not_null(strstr(why.text, "no-such-program is neither in "), "%s", why.text);
}
