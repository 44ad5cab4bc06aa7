/* supervisor/reap.h -- which processes have ended, and how. */
#ifndef KV_REAP_H
#define KV_REAP_H

#include <sys/types.h>

#include "restart.h"

/* Reaps every process that has ended and calls on_end for each: children, and, as PID 1, orphans that were given to
 * us. Never blocks. */
void reap_all(void (*on_end)(void *arg, pid_t pid, int status), void *arg);

/* A wait status in words: "exit code 3 (cannot go on)", "signal 9 (Killed)". */
void reap_describe(int status, char *out, unsigned out_bytes);

/* The part of an ending that the wait status tells; was_ready and ready_ms are left at zero. */
struct restart_ending reap_ending(int status);

#endif
