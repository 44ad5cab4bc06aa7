/* supervisor/base/log.c -- one event, one line, one write(2) to standard error.
 * Does:     builds the line on the stack (no allocation: it also reports that memory ran out), escapes the message.
 * Promises: a line never holds a line feed, a terminal escape or half a character; JSON lines are valid JSON
 *           whatever bytes the message has; errno is kept.
 * Limits:   LOG_MESSAGE_BYTES_MAX of message, cut with "..." above it.
 * Fails:    silently when standard error is closed or full: there is nobody left to tell.
 * Tests:    unit/base/test_log.c. */
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "kv/child.h"
#include "kv/log.h"
#include "kv/utf8.h"

#define LOG_MESSAGE_BYTES_MAX 2048
#define LOG_LINE_BYTES_MAX (LOG_MESSAGE_BYTES_MAX * 6 + 1536) /* every byte may become \u00XX; head and request id */

struct line {
    size_t bytes;
    char text[LOG_LINE_BYTES_MAX];
};

static const char *const level_names[] = {"error", "warn", "info", "debug"};

static struct kv_log_options log_options = {.level = KV_LOG_INFO, .process = "kv", .shard_index = -1};
static _Atomic uint64_t log_epoch;
static const struct kv_slice no_request = {NULL, 0};

void kv_log_init(const struct kv_log_options *options)
{
    log_options = *options;
}

void kv_log_epoch(uint64_t epoch)
{
    atomic_store_explicit(&log_epoch, epoch, memory_order_relaxed);
}

__attribute__((format(printf, 2, 3))) static void line_print(struct line *line, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t room = sizeof(line->text) - line->bytes;
    int printed = vsnprintf(line->text + line->bytes, room, format, arguments);
    va_end(arguments);
    if (printed > 0)
        line->bytes += (size_t)printed < room ? (size_t)printed : room - 1;
}

static void line_append(struct line *line, const void *text, size_t bytes)
{
    size_t room = sizeof(line->text) - line->bytes;
    size_t fits = bytes < room ? bytes : room - 1; /* room for a NUL is always left */
    memcpy(line->text + line->bytes, text, fits);
    line->bytes += fits;
}

static void line_escape_byte(struct line *line, unsigned char byte, bool well_formed)
{
    if (byte == '"' || byte == '\\')
        line_print(line, "\\%c", byte);
    else if (byte == '\n')
        line_print(line, "\\n");
    else if (byte == '\t')
        line_print(line, "\\t");
    else if (!log_options.json)
        line_print(line, "\\x%02x", byte);
    else if (well_formed)
        line_print(line, "\\u%04x", byte);
    else
        line_print(line, "\\ufffd");
}

/* C0, DEL and C1 controls move terminals; quotes and backslashes would break JSON or our own escapes. */
static bool must_escape(const unsigned char *text, size_t length)
{
    if (length == 1)
        return text[0] < 0x20 || text[0] == 0x7f || text[0] == '"' || text[0] == '\\';
    return length == 0 || (length == 2 && text[0] == 0xc2 && text[1] < 0xa0);
}

static void line_escape(struct line *line, const char *message, size_t bytes)
{
    const unsigned char *text = (const unsigned char *)message;
    for (size_t i = 0; i < bytes;) {
        size_t length = kv_utf8_bytes(text + i, bytes - i);
        size_t step = length == 0 ? 1 : length;
        if (!must_escape(text + i, length))
            line_append(line, text + i, step);
        else if (length == 2 && log_options.json)
            line_print(line, "\\u%04x", text[i + 1]); /* C1: U+0080 to U+009F */
        else
            for (size_t k = 0; k < step; k++)
                line_escape_byte(line, text[i + k], length == 1);
        i += step;
    }
}

static void line_print_time(struct line *line)
{
    struct timespec now;
    struct tm calendar;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &calendar);
    char text[32];
    strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &calendar);
    line_print(line, "%s.%03ldZ", text, now.tv_nsec / 1000000);
}

static void line_print_head(struct line *line, enum kv_log_level level, struct kv_slice request_id)
{
    unsigned long long epoch = atomic_load_explicit(&log_epoch, memory_order_relaxed);
    bool json = log_options.json;
    if (json)
        line_print(line, "{\"time\":\"");
    line_print_time(line);
    line_print(line, json ? "\",\"level\":\"%s\",\"process\":\"%s\"" : " %s process=%s", level_names[level],
               log_options.process);
    if (log_options.shard_index >= 0)
        line_print(line, json ? ",\"shard\":%d" : " shard=%d", log_options.shard_index);
    if (epoch != 0)
        line_print(line, json ? ",\"epoch\":%llu" : " epoch=%llu", epoch);
    if (request_id.bytes > 0) {
        line_print(line, json ? ",\"request\":\"" : " request=");
        line_escape(line, (const char *)request_id.data, request_id.bytes);
        line_print(line, json ? "\"" : "");
    }
    line_print(line, json ? ",\"message\":\"" : " ");
}

static void log_line(enum kv_log_level level, struct kv_slice request_id, const char *format, va_list arguments)
{
    char message[LOG_MESSAGE_BYTES_MAX];
    int printed = vsnprintf(message, sizeof(message), format, arguments);
    if (printed < 0)
        return;
    size_t bytes = (size_t)printed;
    const char *tail = "";
    if (bytes >= sizeof(message)) {
        bytes = sizeof(message) - 1;
        while (bytes > 0 && ((unsigned char)message[bytes - 1] & 0xc0) == 0x80)
            bytes--; /* not in the middle of a character */
        if (bytes > 0 && (unsigned char)message[bytes - 1] >= 0xc0)
            bytes--;
        tail = "...";
    }
    struct line line = {.bytes = 0};
    line_print_head(&line, level, request_id);
    line_escape(&line, message, bytes);
    line_print(&line, log_options.json ? "%s\"}\n" : "%s\n", tail);
    ssize_t written = write(STDERR_FILENO, line.text, line.bytes);
    (void)written;
}

void kv_log(enum kv_log_level level, const char *format, ...)
{
    if (level > log_options.level)
        return;
    int saved = errno;
    va_list arguments;
    va_start(arguments, format);
    log_line(level, no_request, format, arguments);
    va_end(arguments);
    errno = saved;
}

void kv_log_request(enum kv_log_level level, struct kv_slice request_id, const char *format, ...)
{
    if (level > log_options.level)
        return;
    int saved = errno;
    va_list arguments;
    va_start(arguments, format);
    log_line(level, request_id, format, arguments);
    va_end(arguments);
    errno = saved;
}

void kv_fatal(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    log_line(KV_LOG_ERROR, no_request, format, arguments);
    va_end(arguments);
    _exit(KV_EXIT_FATAL);
}

void kv_assert_failed(const char *expression, const char *file, int line)
{
    kv_error("bug: %s does not hold at %s:%d", expression, file, line);
    abort();
}
