/* tests/system/harness.h -- the store as a user sees it: real processes, a temp directory, a port.
 * Does:     starts `kv-storage` on a random free port of 127.0.0.1 with a DB_PATH of its own, waits for /-/ready, finds, kills and
 *           restarts its processes, runs tools to their end.
 * Owns:     a folder /tmp/kv-system-XXXXXX per server with the database (`db`) and the log of all its starts (`log`). harness_close
 *           removes them and kills what still runs; should the test process itself die, its servers are killed with it.
 * Fails:    through CHECK: the sentence, the end of the server's log, and the test is over. Main thread only.
 * KV_BIN:   folder of the executables; without it the bin/ of the build. */
#ifndef KV_SYSTEM_HARNESS_H
#define KV_SYSTEM_HARNESS_H

#include <criterion/criterion.h>
#include <stdbool.h>
#include <sys/types.h>

#include "kv/buf.h"

#define TOKEN "correct-horse-battery-staple"
#define SETTINGS_MAX 12u

/* Ends the test with a sentence and the logs of all servers, unless the condition holds. */
#define CHECK(condition, ...) ((condition) ? (void)0 : harness_fail(__FILE__, __LINE__, #condition, " " __VA_ARGS__))
_Noreturn void harness_fail(const char *file, int line, const char *condition, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* TestSuite(name, .fini = harness_close): kills, removes; says so when a server's log tells of a bug (sanitizer, assertion). */
void harness_close(void);

struct server_opts {
    unsigned shards;                    /* 0: SHARDS is left out */
    const char *settings[SETTINGS_MAX]; /* further NAME=value */
};

struct server {
    struct server_opts opts;
    char folder[64]; /* /tmp/kv-system-XXXXXX */
    char db_path[80];
    char log_path[80];
    unsigned port;
    pid_t pid; /* of the supervisor, 0 when it does not run */
    struct server *next;
};

/* Makes the folder and picks the port; nothing runs yet. Owned by the harness until harness_close. */
struct server *server_new(struct server_opts opts);
/* Starts kv-storage without waiting, on the same files and port as before. */
void server_spawn(struct server *server);
/* GET /-/ready answers 200 within 60 s. */
void server_wait_ready(struct server *server);
/* server_new, server_spawn, server_wait_ready. */
struct server *server_start(struct server_opts opts);
/* SIGTERM, then waits for the exit code, which must be 0, and for the children, which must be gone. */
void server_stop(struct server *server);
/* kill -9 of the supervisor and of every child; returns when all are dead. */
void server_kill(struct server *server);
/* Waits at most `wait_ms` for the supervisor's end: its exit code, 128 + signal, or -1 when it still runs. */
int server_wait_exit(struct server *server, unsigned wait_ms);
/* The log holds this text now. */
bool server_log_has(const struct server *server, const char *text);

struct child {
    pid_t pid;
    char name[16]; /* kv-shard, kv-router */
    int index;     /* of a shard; -1 for the router */
};
#define CHILDREN_MAX 64u
/* The supervisor's children now. */
size_t server_children(const struct server *server, struct child *out);
/* Pid of shard `index` (name "kv-shard") or of the router (index -1); 0 when it does not run now. */
pid_t server_child(const struct server *server, const char *name, int index);
/* Gone, or a zombie that nobody has collected. */
bool process_is_dead(pid_t pid);
bool processes_die_within(const pid_t *pids, size_t count, unsigned wait_ms);

/* What `kv-shard --check` says about a stopped store, summed over its shards. Any fault fails the test. */
struct store_counts {
    uint64_t keys;
    uint64_t objects;
    uint64_t stored_bytes;
    uint64_t journal_records;
};
struct store_counts server_check_files(const struct server *server, unsigned shard_count);

/* ---- tools ---------------------------------------------------------------------------------------------------- */

struct outcome {
    int exit_code; /* 128 + signal when killed; -1: it still ran after wait_ms and was killed */
    struct kv_buf out;
    struct kv_buf err;
};
struct run_opts {
    const char *env[SETTINGS_MAX]; /* NAME=value beside PATH and the sanitizers' options */
    const char *folder;            /* working directory; NULL: as it is */
    uid_t uid;                     /* 0: as it is */
    unsigned wait_ms;              /* 0: 30 s */
};
/* Runs a program to its end. argv[0] without a slash is searched in the bin folder first, then in PATH. */
struct outcome run(const char *const *argv, struct run_opts opts);
void outcome_free(struct outcome *outcome);
/* Path of one of our executables; static storage, overwritten by the next call. */
const char *bin_path(const char *name);

/* A port of 127.0.0.1 that was free a moment ago. */
unsigned free_port(void);
void sleep_ms(unsigned ms);
/* An empty folder /tmp/kv-system-XXXXXX that harness_close removes; static storage of the harness. */
const char *temp_folder(void);
void remove_tree(const char *path);
/* Whole file; an unreadable one fails the test. */
struct kv_buf read_file(const char *path);
/* SHA-256 over names, modes, sizes and bytes of everything below a folder: equal means untouched. 64 hex digits. */
void tree_digest(const char *folder, char out[65]);
void hex_of(const uint8_t *bytes, size_t count, char *out);
/* 64 hex digits and a NUL. */
void sha256_hex(struct kv_slice bytes, char out[65]);

#endif
