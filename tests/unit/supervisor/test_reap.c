/* Goal: every ended process is reaped once, and the words say how it ended. Method: forked children. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "kv/child.h"
#include "reap.h"

static pid_t pids[3];
static int statuses[3];
static unsigned ended;

static void on_end(void *arg, pid_t pid, int status)
{
    (void)arg;
    for (size_t i = 0; i < 3; i++)
        if (pids[i] == pid)
            statuses[i] = status;
    ended++;
}

Test(reap, all_that_ended_and_how, .timeout = 600)
{
    reap_all(on_end, NULL);
    cr_expect_eq(ended, 0u, "no children: no calls, no wait");
    static const int codes[] = {0, KV_EXIT_CORRUPT, -1};
    for (size_t i = 0; i < 3; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            if (codes[i] >= 0)
                _exit(codes[i]);
            kill(getpid(), SIGKILL);
        }
    }
    while (ended < 3) {
        reap_all(on_end, NULL);
        usleep(1000);
    }
    char text[128];
    reap_describe(statuses[0], text, sizeof(text));
    cr_expect_str_eq(text, "exit code 0 (by itself)");
    reap_describe(statuses[1], text, sizeof(text));
    cr_expect_str_eq(text, "exit code 4 (its files are damaged)");
    reap_describe(statuses[2], text, sizeof(text));
    cr_expect_str_eq(text, "signal 9 (Killed)");
    cr_expect_eq(reap_ending(statuses[1]).exit_code, KV_EXIT_CORRUPT);
    cr_expect_not(reap_ending(statuses[1]).by_signal);
    cr_expect(reap_ending(statuses[2]).by_signal);
}
