/* Goal: a child finds its settings where the supervisor puts them and reports readiness with one byte; started by
 * hand it refuses. Method: each case is a forked process with descriptors 3 and 4 laid out as kv/child.h says. */
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#define WIPE explicit_bzero
#include "../wipes.h"
#include "kv/child.h"
#include "kv/settings.h"

/* A memfd above the descriptors of the contract. */
static int memfd_of(struct kv_slice bytes)
{
    int low = memfd_create("settings", MFD_CLOEXEC);
    int fd = fcntl(low, F_DUPFD_CLOEXEC, 100);
    close(low);
    cr_assert_eq(write(fd, bytes.data, bytes.bytes), (ssize_t)bytes.bytes);
    return fd;
}

static int exit_code(pid_t child)
{
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void hush(void)
{
    int null = open("/dev/null", O_WRONLY);
    dup2(null, STDERR_FILENO);
}

/* Twice with one memfd: both children share its file offset, and the first must not eat the second's settings. */
Test(child, reads_settings_and_reports_ready)
{
    struct kv_settings settings;
    kv_settings_init(&settings);
    char why[128];
    kv_settings_set(&settings, "TOKEN", "secret\ntoken", why, sizeof(why));
    kv_settings_set(&settings, "KV_EPOCH", "12", why, sizeof(why));
    struct kv_buf lines = {0};
    kv_settings_write(&settings, &lines);
    int memfd = memfd_of(kv_buf_peek(&lines));
    for (int round = 0; round < 2; round++) {
        int ends[2];
        cr_assert_eq(pipe(ends), 0);
        pid_t pid = fork();
        if (pid == 0) {
            int status = fcntl(ends[1], F_DUPFD, 100);
            dup2(memfd, KV_FD_SETTINGS);
            dup2(status, KV_FD_STATUS);
            struct kv_settings got;
            kv_child_start("shard", 1, &got);
            struct sigaction pipe_action;
            sigaction(SIGPIPE, NULL, &pipe_action);
            bool good = strcmp(got.token, "secret\ntoken") == 0 && got.epoch == 12 &&
                        pipe_action.sa_handler == SIG_IGN && fcntl(KV_FD_SETTINGS, F_GETFD) < 0 &&
                        was_wiped("TOKEN=secret\\ntoken\nTOKEN_FILE="); /* the lines as they came */
            kv_child_ready();
            kv_settings_free(&got);
            _exit(good ? 0 : 1);
        }
        close(ends[1]);
        char byte = 0;
        cr_expect_eq(read(ends[0], &byte, 1), 1, "round %d", round);
        cr_expect_eq(byte, KV_CHILD_READY);
        cr_expect_eq(exit_code(pid), 0, "round %d", round);
        close(ends[0]);
    }
    close(memfd);
    kv_buf_free(&lines);
    kv_settings_free(&settings);
}

static int start_with(int fd)
{
    pid_t pid = fork();
    if (pid == 0) {
        hush();
        close(KV_FD_SETTINGS);
        if (fd >= 0)
            dup2(fd, KV_FD_SETTINGS);
        struct kv_settings got;
        kv_child_start("router", -1, &got);
        _exit(0);
    }
    return exit_code(pid);
}

Test(child, without_good_settings_it_exits_as_wrongly_configured)
{
    cr_expect_eq(start_with(-1), KV_EXIT_CONFIG, "no descriptor 3");
    int malformed = memfd_of(kv_slice_text("SHARDS=many\n"));
    cr_expect_eq(start_with(malformed), KV_EXIT_CONFIG);
    int huge = memfd_of(kv_slice_text(""));
    cr_assert_eq(ftruncate(huge, 1 << 20), 0);
    cr_expect_eq(start_with(huge), KV_EXIT_CONFIG);
    close(malformed);
    close(huge);
}

/* The supervisor is gone: the byte has no reader, and the child lives on until it is killed. */
Test(child, ready_survives_a_closed_pipe)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGPIPE, SIG_IGN);
        int status = fcntl(ends[1], F_DUPFD, 100);
        close(ends[0]);
        dup2(status, KV_FD_STATUS);
        kv_child_ready();
        _exit(0);
    }
    close(ends[0]);
    close(ends[1]);
    cr_expect_eq(exit_code(pid), 0);
}
