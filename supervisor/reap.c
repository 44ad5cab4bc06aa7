/* supervisor/reap.c -- waitpid, and the meaning of its status. See reap.h.
 * Tests:    unit/supervisor/test_reap.c. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "kv/child.h"
#include "reap.h"
#include "spawn.h"

void reap_all(void (*on_end)(void *arg, pid_t pid, int status), void *arg)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid < 0 && errno == EINTR)
            continue;
        if (pid <= 0)
            return;
        on_end(arg, pid, status);
    }
}

static const char *meaning_of(int exit_code)
{
    switch (exit_code) {
    case KV_EXIT_OK:
        return "by itself";
    case KV_EXIT_CONFIG:
        return "the start was wrong";
    case KV_EXIT_FATAL:
        return "it could not go on";
    case KV_EXIT_CORRUPT:
        return "its files are damaged";
    case KV_EXIT_UNREAD:
        return "its data.mdb was cut short, or the disk cannot be read";
    case SPAWN_EXIT_NOT_EXECUTED:
        return "it could not be executed";
    default:
        return "unknown";
    }
}

void reap_describe(int status, char *out, unsigned out_bytes)
{
    if (WIFSIGNALED(status))
        snprintf(out, out_bytes, "signal %d (%s)%s", WTERMSIG(status), strsignal(WTERMSIG(status)),
                 WCOREDUMP(status) ? ", core dumped" : "");
    else
        snprintf(out, out_bytes, "exit code %d (%s)", WEXITSTATUS(status), meaning_of(WEXITSTATUS(status)));
}

struct restart_ending reap_ending(int status)
{
    return (struct restart_ending){
        .by_signal = WIFSIGNALED(status),
        .exit_code = WIFSIGNALED(status) ? 0 : WEXITSTATUS(status),
    };
}
