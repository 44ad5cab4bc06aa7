/* supervisor/spawn.c -- fork, put the descriptors where kv/child.h wants them, exec. See spawn.h.
 * Promises: a child gets exactly its descriptors, default signals, /dev/null as input, its own session (so that
 *           Ctrl-C reaches the supervisor alone, which then stops in order), and dies with the supervisor, also when
 *           that is killed between fork and prctl.
 * Tests:    unit/supervisor/test_spawn.c, system/test_supervisor.c. */
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "kv/child.h"
#include "spawn.h"

#define FD_ASIDE 64 /* above every number that is about to be assigned */

static void reset_signals(void)
{
    sigset_t none;
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL); /* fails for KILL, STOP and libc's own: fine */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Copies go aside first: a source may have the number of another's destination. */
static bool place_descriptors(const struct spawn *spawn)
{
    int aside[SPAWN_FDS_MAX];
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0)
        return false;
    for (unsigned i = 0; i < spawn->fd_count; i++)
        if (spawn->fds[i] >= 0 && (aside[i] = fcntl(spawn->fds[i], F_DUPFD, FD_ASIDE)) < 0)
            return false;
    for (unsigned i = 0; i < spawn->fd_count; i++) {
        int number = KV_FD_SETTINGS + (int)i;
        if (spawn->fds[i] < 0)
            close(number); /* whatever had it */
        else if (dup2(aside[i], number) < 0)
            return false;
    }
    return close_range((unsigned)KV_FD_SETTINGS + spawn->fd_count, ~0u, 0) == 0;
}

static _Noreturn void become(const struct spawn *spawn, pid_t supervisor)
{
    char *arguments[] = {(char *)spawn->name, (char *)spawn->argument, NULL};
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != supervisor)
        _exit(SPAWN_EXIT_NOT_EXECUTED); /* it died before prctl: no signal will come */
    setsid();
    reset_signals();
    if (place_descriptors(spawn))
        execve(spawn->program, arguments, environ);
    _exit(SPAWN_EXIT_NOT_EXECUTED);
}

enum kv_err spawn_child(const struct spawn *spawn, pid_t *pid, struct why *why)
{
    pid_t supervisor = getpid();
    pid_t child = fork();
    if (child < 0) {
        why_not(why, "%s cannot be forked: %s", spawn->name, strerror(errno));
        return KV_UNAVAILABLE;
    }
    if (child == 0)
        become(spawn, supervisor);
    *pid = child;
    return KV_OK;
}

static bool write_all(int fd, struct kv_slice bytes)
{
    while (bytes.bytes > 0) {
        ssize_t written = write(fd, bytes.data, bytes.bytes);
        if (written < 0 && errno != EINTR)
            return false;
        if (written > 0)
            bytes = kv_slice(bytes.data + written, bytes.bytes - (size_t)written);
    }
    return true;
}

enum kv_err spawn_settings(const struct kv_settings *settings, bool with_token, int *fd, struct why *why)
{
    static char nothing[] = "";
    struct kv_settings handed = *settings; /* borrows the texts */
    if (!with_token)
        handed.token = nothing;
    struct kv_buf lines = {0};
    kv_settings_write(&handed, &lines);
    int made = memfd_create("kv-settings", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    bool done = made >= 0 && write_all(made, kv_buf_peek(&lines)) &&
                fcntl(made, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) == 0;
    int saved = errno;
    explicit_bzero(lines.data, lines.bytes);
    kv_buf_free(&lines);
    if (!done) {
        if (made >= 0)
            close(made);
        why_not(why, "the settings cannot be handed over: %s", strerror(saved));
        return KV_UNAVAILABLE;
    }
    *fd = made;
    return KV_OK;
}

enum kv_err spawn_find(const char *name, char out[SPAWN_PATH_BYTES], struct why *why)
{
    static const char *const places[] = {"", "../libexec/kv-storage/"};
    char folder[4096];
    ssize_t bytes = readlink("/proc/self/exe", folder, sizeof(folder) - 1);
    if (bytes < 0)
        return why_not(why, "/proc/self/exe cannot be read: %s", strerror(errno));
    folder[bytes] = '\0';
    char *slash = strrchr(folder, '/');
    if (slash != NULL)
        *slash = '\0';
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        snprintf(out, SPAWN_PATH_BYTES, "%s/%s%s", folder, places[i], name);
        if (faccessat(AT_FDCWD, out, X_OK, AT_EACCESS) == 0)
            return KV_OK;
    }
    return why_not(why, "%s is neither in %s nor in %s/../libexec/kv-storage", name, folder, folder);
}
