/* supervisor/spawn.h -- how a child is born: memory sealed, descriptors numbered, death bound to ours. */
#ifndef KV_SPAWN_H
#define KV_SPAWN_H

#include <sys/types.h>

#include "kv/settings.h"
#include "why.h"

#define SPAWN_FDS_MAX 7 /* kv/child.h: 3 to 9 */
#define SPAWN_EXIT_NOT_EXECUTED 127
#define SPAWN_PATH_BYTES 4352

struct spawn {
    const char *program;
    const char *name;       /* argv[0] */
    const char *argument;   /* argv[1] or NULL */
    int fds[SPAWN_FDS_MAX]; /* become 3, 4, … in the child, -1: closed there; the caller keeps and closes its own */
    unsigned fd_count;
};

/* Starts the program. KV_UNAVAILABLE (with a sentence) when the machine has no process left to give. */
enum kv_err spawn_child(const struct spawn *spawn, pid_t *pid, struct why *why);

/* A sealed memfd with the settings as kv/settings.h writes them; `with_token` is false for those who need none. */
enum kv_err spawn_settings(const struct kv_settings *settings, bool with_token, int *fd, struct why *why);

/* The path of kv-shard or kv-router: the folder of this executable, then ../libexec/kv-storage beside it. */
enum kv_err spawn_find(const char *name, char out[SPAWN_PATH_BYTES], struct why *why);

#endif
