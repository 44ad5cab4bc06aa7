/* supervisor/base/confine.h -- what a process gives up once it has begun, so that whoever takes it over has little.
 * Does:     a router: opens no file but unnamed ones in the folder of uploads, executes nothing, makes no socket but of AF_UNIX,
 *           connects and binds no TCP socket, signals nobody, has no capability.
 *           a shard:  reads and writes below its own folder alone, executes nothing, makes no socket at all.
 *           Both: no_new_privs; none of the calls that change or look into the system, other processes or the kernel.
 * How:      Landlock (paths, TCP, signals) and a seccomp filter (system calls), each as far as this kernel has it; both stay for
 *           the life of the process and all of its threads, so call before the first thread starts. A refused call fails with
 *           EPERM or EACCES. It is a list of what is forbidden: sanitizers and libraries need calls that nobody foresees.
 * Promises: what is already open stays usable. Never fails: what cannot be had is told (confine_kernel_lacks), and the start goes on.
 * Tests:    unit/base/test_confine.c (from inside), system/test_confine.c (the real processes). */
#ifndef KV_CONFINE_H
#define KV_CONFINE_H

#include <stdbool.h>
#include <stddef.h>

/* Forbids core dumps and, but for root, looking at this process's memory and environment. An exec undoes it. */
void confine_hide(void);

/* `data_fd`: the shard's directory. */
void confine_shard(int data_fd);
/* `uploads`: the folder of unnamed files; `named`: it has no such files, so that named ones below it are allowed. */
void confine_router(const char *uploads, bool named);

/* What this kernel cannot do of the above, in words for a log line; false (and an empty text) when nothing is missing. */
bool confine_kernel_lacks(char *out, size_t out_bytes);

/* Is the process at the other end of a Unix socket one of our user (SO_PEERCRED)? */
bool confine_peer_is_ours(int socket_fd);

#endif
