/* include/kv/child.h -- what the supervisor and its children agree on: descriptors, signals, exit codes.
 * A child is exec'ed with no arguments but its name (shards: `kv-shard <index>`, for ps), these
 * descriptors open, everything else closed, and PR_SET_PDEATHSIG = SIGKILL.
 *   fd 3  settings: a sealed memfd of `NAME=value` lines (kv/settings.h), read once at start
 *   fd 4  status pipe to the supervisor: the child writes one byte KV_CHILD_READY when it serves,
 *         the router another one for each time that files came
 *   fd 5  shard: its listening Unix socket;            router: the directory that holds the sockets `shard-<i>`
 *   fd 6  shard: its data directory DB_PATH/shard-<i>;  router: listening TCP socket, plaintext, or /dev/null when off
 *   fd 7  router: listening TCP socket, TLS, or /dev/null when off;  shard: not open
 *   fd 8  the page of counters that outlives them (kv/counters_page.h)
 *   fd 9  router: a socket of pairs over which files come (kv/files.h), once before the start and then before each SIGHUP
 * SIGTERM: finish what is under way, then exit 0 (router: drains clients; shard: flushes and closes).
 * Implementation: supervisor/base/child.c. Tests: system/test_supervisor.c. */
#ifndef KV_CHILD_H
#define KV_CHILD_H

#include <stdbool.h>

enum {
    KV_FD_SETTINGS = 3,
    KV_FD_STATUS = 4,
    KV_FD_SHARD_LISTEN = 5,
    KV_FD_SHARD_DATA = 6,
    KV_FD_ROUTER_SOCKETS = 5,
    KV_FD_ROUTER_PLAIN = 6,
    KV_FD_ROUTER_TLS = 7,
    KV_FD_COUNTERS = 8,
    KV_FD_ROUTER_FILES = 9,
};

enum {
    KV_EXIT_OK = 0,
    KV_EXIT_CONFIG = 2,  /* the start was wrong: the supervisor stops everything, no restart */
    KV_EXIT_FATAL = 3,   /* cannot go on: restart */
    KV_EXIT_CORRUPT = 4, /* files damaged: logged, restarted with the longest pause; never repaired silently */
    KV_EXIT_UNREAD = 5,  /* a mapped file could not be read (SIGBUS): as KV_EXIT_CORRUPT, said by the supervisor */
};

#define KV_CHILD_READY 'R'
#define KV_CHILD_RELOADED 'L' /* the files are in use: a router that starts later gets these */
#define KV_CHILD_REFUSED 'K'  /* something is wrong with them: what was there before stays */

struct kv_settings;

/* First call of every child: ignores SIGPIPE, reads KV_FD_SETTINGS into `out`, starts the log. Exits on failure. */
void kv_child_start(const char *process, int shard_index, struct kv_settings *out);
/* Tells the supervisor that the child serves. Once. */
void kv_child_ready(void);
/* The answer to files that came with a SIGHUP. */
void kv_child_reloaded(bool accepted);

#endif
