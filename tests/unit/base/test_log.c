/* Goal: whatever bytes a message has, a log line is one line, harmless on a terminal, and valid JSON when asked.
 * Method: standard error is a pipe during one call; JSON is judged by jansson. */
#include <errno.h>
#include <unistd.h>
#include <sys/wait.h>

#include <criterion/criterion.h>
#include <jansson.h>

#include "../captures.h"
#include "kv/child.h"
#include "kv/log.h"

static const char *logged(enum kv_log_level level, const char *message)
{
    int saved, reader;
    capture_begin(&saved, &reader);
    kv_log(level, "%s", message);
    capture_end(saved, reader);
    return line;
}

static void use(enum kv_log_level level, bool json, const char *process, int shard_index)
{
    kv_log_init(&(struct kv_log_options){.level = level, .json = json, .process = process, .shard_index = shard_index});
}

static void expect_message(const char *message, const char *expected)
{
    const char *found = strstr(logged(KV_LOG_INFO, message), "shard=2 ");
    cr_assert_not_null(found, "%s", line);
    char with_end[256];
    snprintf(with_end, sizeof(with_end), "%s\n", expected);
    cr_expect_str_eq(found + strlen("shard=2 "), with_end);
}

Test(log, text_line_has_time_level_place_epoch)
{
    use(KV_LOG_INFO, false, "shard", 2);
    kv_log_epoch(7);
    logged(KV_LOG_WARN, "message");
    int year, month, day, hour, minute, second, millisecond, end = 0;
    int fields = sscanf(line, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &year, &month, &day, &hour, &minute, &second,
                        &millisecond, &end);
    cr_assert_eq(fields, 7, "%s", line);
    cr_expect_str_eq(line + end, " warn process=shard shard=2 epoch=7 message\n");
    kv_log_epoch(0);
    use(KV_LOG_INFO, false, "router", -1);
    cr_expect_not_null(strstr(logged(KV_LOG_INFO, "up"), "Z info process=router up\n"), "%s", line);
}

Test(log, text_escapes_what_moves_a_terminal)
{
    use(KV_LOG_INFO, false, "shard", 2);
    expect_message("plain \xc3\xa4 \xf0\x9f\x98\x80", "plain \xc3\xa4 \xf0\x9f\x98\x80");
    expect_message("a\nb\tc", "a\\nb\\tc");
    expect_message("\x1b[31m\x7f\r", "\\x1b[31m\\x7f\\x0d");
    expect_message("say \"hi\" \\n", "say \\\"hi\\\" \\\\n");
    expect_message("c1 \xc2\x9b end", "c1 \\xc2\\x9b end");
    expect_message("bad \xff\xc3 \xed\xa0\x80", "bad \\xff\\xc3 \\xed\\xa0\\x80");
    expect_message("overlong \xc0\xaf \xf8\x88", "overlong \\xc0\\xaf \\xf8\\x88");
}

/* All byte pairs: each must come out as a JSON string that jansson accepts, and valid text must survive. */
Test(log, json_is_valid_for_every_pair_of_bytes)
{
    use(KV_LOG_INFO, true, "router", -1);
    for (int first = 1; first < 256; first++) {
        char message[3 * 256 + 1];
        size_t bytes = 0;
        for (int second = 1; second < 256; second++) {
            message[bytes++] = (char)first;
            message[bytes++] = (char)second;
            message[bytes++] = '.';
        }
        message[bytes] = '\0';
        json_error_t error;
        json_t *object = json_loads(logged(KV_LOG_INFO, message), 0, &error);
        cr_assert_not_null(object, "first byte %d: %s", first, error.text);
        cr_expect_eq(strchr(line, '\n'), line + strlen(line) - 1, "first byte %d: one line", first);
        json_decref(object);
    }
}

Test(log, json_members)
{
    use(KV_LOG_INFO, true, "shard", 3);
    kv_log_epoch(9);
    json_t *object = json_loads(logged(KV_LOG_ERROR, "a \"b\"\n\xc3\xa4\xc2\x9b"), 0, NULL);
    cr_assert_not_null(object, "%s", line);
    cr_expect_str_eq(json_string_value(json_object_get(object, "level")), "error");
    cr_expect_str_eq(json_string_value(json_object_get(object, "process")), "shard");
    cr_expect_eq(json_integer_value(json_object_get(object, "shard")), 3);
    cr_expect_eq(json_integer_value(json_object_get(object, "epoch")), 9);
    cr_expect_str_eq(json_string_value(json_object_get(object, "message")), "a \"b\"\n\xc3\xa4\xc2\x9b");
    cr_expect_not_null(json_string_value(json_object_get(object, "time")));
    json_decref(object);
}

static const char *logged_request(const char *id, const char *message)
{
    int saved, reader;
    capture_begin(&saved, &reader);
    kv_log_request(KV_LOG_WARN, kv_slice(id, strlen(id)), "%s", message);
    capture_end(saved, reader);
    return line;
}

Test(log, a_request_id_has_its_own_place)
{
    use(KV_LOG_WARN, false, "router", -1);
    cr_expect_not_null(strstr(logged_request("abc-1", "met"), "Z warn process=router request=abc-1 met\n"), "%s", line);
    cr_expect_not_null(strstr(logged_request("", "met"), "Z warn process=router met\n"), "%s", line);
    cr_expect_eq(strchr(logged_request("a\nb", "met"), '\n'), line + strlen(line) - 1, "one line whatever the id");
    use(KV_LOG_WARN, true, "router", -1);
    json_t *object = json_loads(logged_request("a\"b", "met"), 0, NULL);
    cr_assert_not_null(object, "%s", line);
    cr_expect_str_eq(json_string_value(json_object_get(object, "request")), "a\"b");
    cr_expect_str_eq(json_string_value(json_object_get(object, "message")), "met");
    json_decref(object);
    use(KV_LOG_ERROR, true, "router", -1);
    cr_expect_str_empty(logged_request("abc", "hidden"));
}

Test(log, less_important_levels_are_dropped)
{
    use(KV_LOG_WARN, false, "kv", -1);
    cr_expect_str_empty(logged(KV_LOG_INFO, "hidden"));
    cr_expect_str_empty(logged(KV_LOG_DEBUG, "hidden"));
    cr_expect_not_null(strstr(logged(KV_LOG_WARN, "shown"), " warn "));
    cr_expect_not_null(strstr(logged(KV_LOG_ERROR, "shown"), " error "));
}

Test(log, long_messages_are_cut_between_characters)
{
    static char message[9000];
    use(KV_LOG_INFO, true, "kv", -1);
    for (size_t shift = 0; shift < 4; shift++) {
        memset(message, 'x', shift);
        for (size_t i = shift; i + 4 < sizeof(message); i += 4)
            memcpy(message + i, "\xf0\x9f\x98\x80", 5);
        json_t *object = json_loads(logged(KV_LOG_INFO, message), 0, NULL);
        cr_assert_not_null(object, "shift %zu", shift);
        const char *text = json_string_value(json_object_get(object, "message"));
        cr_expect_str_eq(text + strlen(text) - 3, "...");
        cr_expect_null(strstr(text, "\xef\xbf\xbd"), "no replacement character");
        json_decref(object);
    }
}

Test(log, errno_survives_and_can_be_printed)
{
    use(KV_LOG_INFO, false, "kv", -1);
    int saved, reader;
    capture_begin(&saved, &reader);
    errno = ENOENT;
    kv_info("open: %m");
    int after = errno;
    capture_end(saved, reader);
    cr_expect_eq(after, ENOENT);
    cr_expect_not_null(strstr(line, "open: No such file or directory\n"));
}

Test(log, fatal_exits_with_its_code)
{
    int saved, reader, status = 0;
    capture_begin(&saved, &reader);
    pid_t child = fork();
    if (child == 0)
        kv_fatal("cannot go on");
    waitpid(child, &status, 0);
    capture_end(saved, reader);
    cr_expect(WIFEXITED(status));
    cr_expect_eq(WEXITSTATUS(status), KV_EXIT_FATAL);
    cr_expect_not_null(strstr(line, " error "));
    cr_expect_not_null(strstr(line, "cannot go on\n"));
}
