/* include/kv/log.h -- one line per event on standard error (the supervisor's, inherited).
 * Text: `2026-11-22T19:30:00.123Z info process=shard shard=2 epoch=7 message`, JSON with LOG_FORMAT=json: members time, level,
 * process, shard, epoch, request, message; those that do not apply are left out.
 * A line leaves in one write(2). Never pass a token or a value. Control bytes and quotes are escaped.
 * Implementation: supervisor/base/log.c. Tests: unit/base/test_log.c. */
#ifndef KV_LOG_H
#define KV_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "kv/slice.h"

enum kv_log_level { KV_LOG_ERROR, KV_LOG_WARN, KV_LOG_INFO, KV_LOG_DEBUG };

struct kv_log_options {
    enum kv_log_level level;
    bool json;
    const char *process; /* "supervisor", "shard", "router"; static storage */
    int shard_index;     /* -1 where it does not apply */
};

/* Once per process before the first thread. Without it: info, text, process "kv". */
void kv_log_init(const struct kv_log_options *options);
/* The epoch shown in each line from now on; 0 hides it. Any thread. */
void kv_log_epoch(uint64_t epoch);

void kv_log(enum kv_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with the id of the request that it is about: visible ASCII, or escaped. Empty: none. */
void kv_log_request(enum kv_log_level level, struct kv_slice request_id, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#define kv_error(...) kv_log(KV_LOG_ERROR, __VA_ARGS__)
#define kv_warn(...) kv_log(KV_LOG_WARN, __VA_ARGS__)
#define kv_info(...) kv_log(KV_LOG_INFO, __VA_ARGS__)
#define kv_debug(...) kv_log(KV_LOG_DEBUG, __VA_ARGS__)

/* Cannot go on: logs, then _exit(KV_EXIT_FATAL); the supervisor restarts the process. */
_Noreturn void kv_fatal(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* An invariant of ours, on in every build: logs the place and aborts. */
_Noreturn void kv_assert_failed(const char *expression, const char *file, int line);
#define kv_assert(expression) ((expression) ? (void)0 : kv_assert_failed(#expression, __FILE__, __LINE__))

#endif
