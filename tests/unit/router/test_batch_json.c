/* Goal: a JSON batch becomes exactly the operations it says, or is refused as a whole with the index of the culprit.
 * Method: good and bad bodies by the table; cut and mutated bodies (seeded) under the sanitizers; answers read back by jansson. */
#include <jansson.h>

#include "batch_rig.h"

#define HELLO "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

static struct rig read_json(const char *body)
{
    struct rig rig = rig_read(BATCH_JSON, kv_slice_text(body), 1000);
    cr_assert_eq(rig.err, KV_OK, "%s: %s", body, rig.refusal.sentence);
    return rig;
}

Test(batch_json, operations)
{
    struct rig rig = read_json(
        " [ {\"op\":\"put\",\"key\":\"a/\\u00e9\",\"value\":\"x\\u0000y\"} ,\n"
        "{\"value\":\"aGVsbG8=\",\"encoding\":\"base64\",\"content_type\":\"image/png\",\"key\":\"b\",\"op\":\"put\","
        "\"if_none_match\":\"*\"},"
        "{\"op\":\"get\",\"key\":\"[,]}{\\\"\\\\\"},{\"op\":\"head\",\"key\":\"c\"},"
        "{\"op\":\"delete\",\"key\":\"d\",\"if_match\":\"" HELLO
        "\"},{\"op\":\"delete\",\"key\":\"d\",\"if_match\":\"*\"}]\t");
    const struct backend_op *ops = rig.batch.ops;
    cr_assert_eq(rig.batch.count, 6);
    cr_expect_eq(ops[0].kind, BACKEND_PUT);
    cr_expect(kv_slice_equal(ops[0].key, kv_slice_text("a/\xc3\xa9")));
    cr_expect(kv_slice_equal(ops[0].content_type, kv_slice_text("application/octet-stream")));
    rig_expect_value(&rig, 0, kv_slice("x\0y", 3));
    cr_expect_eq(ops[1].match, BACKEND_MATCH_ABSENT);
    cr_expect(kv_slice_equal(ops[1].content_type, kv_slice_text("image/png")));
    rig_expect_value(&rig, 1, kv_slice_text("hello"));
    cr_expect_eq(ops[2].kind, BACKEND_GET);
    cr_expect(kv_slice_equal(ops[2].key, kv_slice_text("[,]}{\"\\")));
    cr_expect_eq(ops[3].kind, BACKEND_HEAD);
    cr_expect_eq(ops[4].kind, BACKEND_DELETE);
    cr_expect_eq(ops[4].match, BACKEND_MATCH_HASH);
    cr_expect(kv_hash_equal(&ops[4].match_hash, &ops[1].content->hash));
    cr_expect_eq(ops[5].match, BACKEND_MATCH_ANY);
    rig_free(&rig);
}

Test(batch_json, content_types)
{
    static const struct {
        const char *type;
        enum batch_format format;
    } taken[] = {{"", BATCH_JSON},
                 {"application/json; charset=utf-8", BATCH_JSON},
                 {"Application/JSON", BATCH_JSON},
                 {"application/vnd.x+json", BATCH_JSON},
                 {"application/x-www-form-urlencoded", BATCH_JSON},
                 {"application/msgpack", BATCH_MSGPACK},
                 {"application/x-msgpack ;v=1", BATCH_MSGPACK}};
    static const char *const refused[] = {"application/xml", "json", "+jso", "application/msgpack2",
                                          "multipart/form-data"};
    enum batch_format format;
    for (size_t i = 0; i < sizeof(taken) / sizeof(taken[0]); i++) {
        cr_expect_eq(batch_format_of(kv_slice_text(taken[i].type), &format), KV_OK, "%s", taken[i].type);
        cr_expect_eq(format, taken[i].format, "%s", taken[i].type);
    }
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        cr_expect_eq(batch_format_of(kv_slice_text(refused[i]), &format), KV_INVALID, "%s", refused[i]);
}

Test(batch_json, nothing_is_a_batch)
{
    struct rig rig = read_json("[ ]");
    struct kv_buf out = {0};
    cr_expect_eq(rig.batch.count, 0);
    batch_write(&rig.batch, NULL, &out);
    cr_expect(kv_slice_equal(kv_buf_peek(&out), kv_slice_text("{\"results\":[]}")));
    kv_buf_free(&out);
    rig_free(&rig);
}

Test(batch_json, identical_values_are_one_content)
{
    struct rig rig = read_json("[{\"op\":\"put\",\"key\":\"a\",\"value\":\"hello\"},"
                               "{\"op\":\"put\",\"key\":\"b\",\"value\":\"aGVsbG8=\",\"encoding\":\"base64\"},"
                               "{\"op\":\"put\",\"key\":\"c\",\"value\":\"hello!\"}]");
    cr_expect_eq(rig.batch.ops[0].content, rig.batch.ops[1].content);
    cr_expect_neq(rig.batch.ops[0].content, rig.batch.ops[2].content);
    rig_free(&rig);
}

#define GOOD "{\"op\":\"get\",\"key\":\"k\"}"
#define PUT(members) "[" GOOD ",{\"op\":\"put\",\"key\":\"k\"," members "}]"

Test(batch_json, refused_with_the_index)
{
    static const struct {
        const char *body, *code, *sentence;
    } cases[] = {
        {"", "invalid_json", "not a JSON array"},
        {"{}", "invalid_json", "not a JSON array"},
        {"null", "invalid_json", "not a JSON array"},
        {"\xef\xbb\xbf[]", "invalid_json", "not a JSON array"},
        {"[", "invalid_json", "Operation 0: malformed"},
        {"[]x", "invalid_json", "Operation 0: malformed"},
        {"[][]", "invalid_json", "Operation 0: malformed"},
        {"[" GOOD, "invalid_json", "Operation 0: malformed"},
        {"[" GOOD ",", "invalid_json", "Operation 1: malformed"},
        {"[" GOOD ",]", "invalid_json", "Operation 1: malformed"},
        {"[," GOOD "]", "invalid_json", "Operation 0: malformed"},
        {"[" GOOD " " GOOD "]", "invalid_json", "Operation 0: malformed"},
        {"[" GOOD ",{\"op\":\"get\",\"key\":\"k}]", "invalid_json", "Operation 1: malformed"},
        {"[" GOOD ",{\"op\":\"get\",\"key\":\"k\"]}", "invalid_json", "Operation 1: malformed"},
        {"[" GOOD ",{'op':'get'}]", "invalid_json", "Operation 1: malformed"},
        {"[" GOOD ",{\"op\":\"get\",\"key\":\"\xff\"}]", "invalid_json", "Operation 1: malformed"},
        {"[" GOOD ",{\"op\":\"get\",\"key\":\"\xc0\xaf\"}]", "invalid_json", "Operation 1: malformed"},
        {"[" GOOD ",{\"op\":\"get\",\"key\":\"\\ud800\"}]", "invalid_json", "Operation 1: malformed"},
        {"[" GOOD ",{\"op\":\"get\",\"key\":\"a\nb\"}]", "invalid_json", "Operation 1: malformed"},
        {"[" GOOD ",{\"op\":\"get\",\"op\":\"get\",\"key\":\"k\"}]", "invalid_json", "Operation 1: malformed"},
        {"[" GOOD ",{\"op\":\"get\",\"k\\u0000\":\"k\"}]", "invalid_json", "Operation 1: malformed"},
        {"[" GOOD ",[[[[[[[[[]]]]]]]]]]", "invalid_json", "Operation 1: it is nested deeper than 8"},
        {"[" GOOD ",7]", "invalid_request", "Operation 1: it is not an object"},
        {"[" GOOD ",\"get\"]", "invalid_request", "Operation 1: it is not an object"},
        {"[" GOOD ",{}]", "invalid_request", "Operation 1: the member \"op\" is missing"},
        {"[" GOOD ",{\"op\":\"get\"}]", "invalid_request", "Operation 1: the member \"key\" is missing"},
        {"[" GOOD ",{\"op\":\"GET\",\"key\":\"k\"}]", "invalid_request", "Operation 1: \"op\" is not one of"},
        {"[" GOOD ",{\"op\":1,\"key\":\"k\"}]", "invalid_request", "Operation 1: \"op\" is not a string"},
        {"[" GOOD ",{\"op\":\"get\",\"key\":[]}]", "invalid_request", "Operation 1: \"key\" is not a string"},
        {"[" GOOD ",{\"op\":\"get\",\"key\":null}]", "invalid_request", "Operation 1: \"key\" is not a string"},
        {"[" GOOD ",{\"op\":\"get\",\"key\":\"\"}]", "invalid_key", "Operation 1: the key is empty"},
        {"[" GOOD ",{\"op\":\"get\",\"key\":\"a\\u0000b\"}]", "invalid_key",
         "Operation 1: the key holds the character U+0000."},
        {"[" GOOD ",{\"op\":\"get\",\"key\":\"k\",\"ttl\":\"1\"}]", "invalid_request", "no member \"ttl\""},
        {"[" GOOD ",{\"op\":\"get\",\"key\":\"k\",\"t\\n\\u00e9\":\"1\"}]", "invalid_request", "no member \"t???\""},
        {"[" GOOD ",{\"op\":\"get\",\"key\":\"k\",\"value\":\"1\"}]", "invalid_request",
         "a get has no member \"value\""},
        {"[" GOOD ",{\"op\":\"head\",\"key\":\"k\",\"if_match\":\"*\"}]", "invalid_request", "a head has no member"},
        {"[" GOOD ",{\"op\":\"delete\",\"key\":\"k\",\"encoding\":\"base64\"}]", "invalid_request", "a delete has no"},
        {"[" GOOD ",{\"op\":\"put\",\"key\":\"k\"}]", "invalid_request",
         "Operation 1: the member \"value\" is missing"},
        {PUT("\"value\":5"), "invalid_request", "Operation 1: \"value\" is not a string"},
        {PUT("\"value\":\"aGk=\",\"encoding\":\"hex\""), "invalid_request", "\"encoding\" is not \"base64\""},
        {PUT("\"value\":\"aGk\",\"encoding\":\"base64\""), "invalid_request", "not base64"},
        {PUT("\"value\":\"aGk==\",\"encoding\":\"base64\""), "invalid_request", "not base64"},
        {PUT("\"value\":\"aG k\",\"encoding\":\"base64\""), "invalid_request", "not base64"},
        {PUT("\"value\":\" aGk=\",\"encoding\":\"base64\""), "invalid_request", "not base64"},
        {PUT("\"value\":\"aG=k\",\"encoding\":\"base64\""), "invalid_request", "not base64"},
        {PUT("\"value\":\"a===\",\"encoding\":\"base64\""), "invalid_request", "not base64"},
        {PUT("\"value\":\"====\",\"encoding\":\"base64\""), "invalid_request", "not base64"},
        {PUT("\"value\":\"aGl=\",\"encoding\":\"base64\""), "invalid_request", "not base64"},
        {PUT("\"value\":\"aH==\",\"encoding\":\"base64\""), "invalid_request", "not base64"},
        {PUT("\"value\":\"aG-_\",\"encoding\":\"base64\""), "invalid_request", "not base64"},
        {PUT("\"value\":\"aGk=\\n\",\"encoding\":\"base64\""), "invalid_request", "not base64"},
        {PUT("\"value\":\"v\",\"if_match\":\"abc\""), "invalid_request", "neither \"*\" nor 64 hex digits"},
        {PUT("\"value\":\"v\",\"if_none_match\":\"" HELLO "\""), "invalid_request", "\"if_none_match\" is not \"*\""},
        {PUT("\"value\":\"v\",\"if_none_match\":\"*\",\"if_match\":\"*\""), "invalid_request", "exclude each other"},
        {PUT("\"value\":\"v\",\"content_type\":\"a\\nb\""), "invalid_request", "control characters"},
        {PUT("\"value\":\"v\",\"content_type\":\"a\\u0000\""), "invalid_request", "control characters"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        rig_expect_refusal(BATCH_JSON, kv_slice_text(cases[i].body), 400, cases[i].code, cases[i].sentence);
}

Test(batch_json, base64_of_every_length)
{
    static const char *const texts[] = {"", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"};
    for (size_t i = 0; i < 7; i++) {
        char body[128];
        snprintf(body, sizeof(body), "[{\"op\":\"put\",\"key\":\"k\",\"encoding\":\"base64\",\"value\":\"%s\"}]",
                 texts[i]);
        struct rig rig = read_json(body);
        rig_expect_value(&rig, 0, kv_slice("foobar", i));
        rig_free(&rig);
    }
}

static struct kv_buf repeated(const char *begin, const char *element, size_t count, const char *end)
{
    struct kv_buf body = {0};
    kv_buf_append(&body, kv_slice_text(begin));
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            kv_buf_append(&body, kv_slice_text(","));
        kv_buf_append(&body, kv_slice_text(element));
    }
    kv_buf_append(&body, kv_slice_text(end));
    return body;
}

Test(batch_json, limits)
{
    struct kv_buf body = repeated("[", GOOD, KV_BATCH_OPS_MAX, "]");
    struct rig rig = rig_read(BATCH_JSON, kv_buf_peek(&body), 1000);
    cr_expect_eq(rig.err, KV_OK);
    cr_expect_eq(rig.batch.count, KV_BATCH_OPS_MAX);
    rig_free(&rig);
    kv_buf_free(&body);
    body = repeated("[", GOOD, KV_BATCH_OPS_MAX + 1, "]");
    rig_expect_refusal(BATCH_JSON, kv_buf_peek(&body), 413, "too_large", "at most 10000 operations");
    kv_buf_free(&body);
    body = repeated("[{\"op\":[", "0", 1000000, "]}]"); /* would be a tree of 100 MB for a larger body */
    rig_expect_refusal(BATCH_JSON, kv_buf_peek(&body), 400, "invalid_request",
                       "Operation 0: it has more than 32 members");
    kv_buf_free(&body);
    body = repeated("[{\"op\":\"put\",\"key\":\"k\",\"value\":\"", "123456789", 101, "\"}]");
    rig_expect_refusal(BATCH_JSON, kv_buf_peek(&body), 413, "too_large", "Operation 0: the value has 1009 bytes");
    kv_buf_free(&body);
    body = repeated("[{\"op\":\"get\",\"key\":\"", "123456789", 410, "\"}]");
    rig_expect_refusal(BATCH_JSON, kv_buf_peek(&body), 400, "invalid_key", "longer than 4096 bytes");
    kv_buf_free(&body);
}

/* Whatever comes is taken or refused with a sentence; a body that is cut off is never taken. */
Test(batch_json, cut_and_mutated_bodies)
{
    static const char whole[] =
        "[{\"op\":\"put\",\"key\":\"a\",\"value\":\"aGk=\",\"encoding\":\"base64\"},"
        "{\"op\":\"get\",\"key\":\"\\u00e9\\\"\"},{\"op\":\"delete\",\"key\":\"x\",\"if_match\":\"*\"}]";
    size_t bytes = sizeof(whole) - 1;
    for (size_t cut = 0; cut < bytes; cut++) {
        struct rig rig = rig_read(BATCH_JSON, kv_slice(whole, cut), 1000);
        cr_expect_neq(rig.err, KV_OK, "cut at %zu", cut);
        rig_free(&rig);
    }
    uint64_t seed = 7;
    for (unsigned round = 0; round < 20000; round++) {
        char body[sizeof(whole)];
        memcpy(body, whole, sizeof(whole));
        for (unsigned i = 0; i <= round % 3; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            body[(seed >> 33) % bytes] = "[]{},:\"\\ex0\0\xff"[(seed >> 20) % 13];
        }
        struct rig rig = rig_read(BATCH_JSON, kv_slice(body, bytes), 1000);
        cr_expect(rig.err == KV_OK || rig.refusal.sentence[0] != '\0', "round %u of seed 7", round);
        rig_free(&rig);
    }
}

/* ---- answers ------------------------------------------------------------------------------------------------------ */

static json_t *written(const struct rig *rig, const struct backend_op_result *results)
{
    struct kv_buf out = {0};
    json_error_t error;
    struct batch_results copy;
    batch_results_copy(&rig->batch, results, &copy);
    batch_write(&rig->batch, copy.results, &out);
    batch_results_free(&copy);
    json_t *answer = json_loadb((const char *)out.data, out.bytes, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
    cr_assert_not_null(answer, "%s: %.*s", error.text, (int)out.bytes, (const char *)out.data);
    kv_buf_free(&out);
    return answer;
}

static const char *member(json_t *answer, size_t index, const char *op, const char *name)
{
    json_t *result = json_array_get(json_object_get(answer, "results"), index);
    cr_assert_eq(json_object_size(result), 1);
    return json_string_value(json_object_get(json_object_get(result, op), name));
}

static json_t *value_of(json_t *answer, size_t index, const char *op, const char *name)
{
    return json_object_get(json_object_get(json_array_get(json_object_get(answer, "results"), index), op), name);
}

Test(batch_json, results)
{
    struct rig rig =
        read_json("[{\"op\":\"put\",\"key\":\"a\",\"value\":\"hello\"},{\"op\":\"get\",\"key\":\"b\\n\"},"
                  "{\"op\":\"get\",\"key\":\"c\"},{\"op\":\"head\",\"key\":\"d\"},{\"op\":\"head\",\"key\":\"e\"},"
                  "{\"op\":\"delete\",\"key\":\"f\"},{\"op\":\"get\",\"key\":\"g\"}]");
    struct backend_op_result results[7] = {
        [1] = {.found = true, .content = kv_slice("\"\0\xc3\xa9", 4)},
        [2] = {.found = true, .content = kv_slice("\xff\xfe", 2)},
        [3] = {.found = true, .refs = 3, .row = {.size = 9, .created_s = 12, .content_type = kv_slice_text("t/\xe9")}},
        [5] = {.found = true}};
    json_t *answer = written(&rig, results);
    cr_expect_eq(json_array_size(json_object_get(answer, "results")), 7);
    cr_expect_str_eq(member(answer, 0, "put", "hash"), HELLO);
    cr_expect(json_is_true(value_of(answer, 0, "put", "created")));
    cr_expect_str_eq(member(answer, 1, "get", "key"), "b\n");
    cr_expect_eq(json_string_length(value_of(answer, 1, "get", "value")), 4);
    cr_expect_null(value_of(answer, 1, "get", "encoding"));
    cr_expect_str_eq(member(answer, 2, "get", "value"), "//4=");
    cr_expect_str_eq(member(answer, 2, "get", "encoding"), "base64");
    cr_expect_eq(json_integer_value(value_of(answer, 3, "head", "size")), 9);
    cr_expect_eq(json_integer_value(value_of(answer, 3, "head", "refs")), 3);
    cr_expect_eq(json_integer_value(value_of(answer, 3, "head", "created_at")), 12);
    cr_expect_str_eq(member(answer, 3, "head", "content_type"), "t/\xc3\xa9");
    cr_expect(json_is_false(value_of(answer, 4, "head", "found")));
    cr_expect_eq(json_object_size(json_object_get(json_array_get(json_object_get(answer, "results"), 4), "head")), 2);
    cr_expect(json_is_true(value_of(answer, 5, "delete", "deleted")));
    cr_expect(json_is_false(value_of(answer, 6, "get", "found")));
    cr_expect_null(value_of(answer, 6, "get", "value"));
    json_decref(answer);
    rig_free(&rig);
}

/* A value of control characters would grow to six times its size as a string. */
Test(batch_json, long_values_that_would_grow_leave_as_base64)
{
    struct rig rig =
        read_json("[{\"op\":\"get\",\"key\":\"a\"},{\"op\":\"get\",\"key\":\"b\"},{\"op\":\"get\",\"key\":\"c\"}]");
    uint8_t bells[2000];
    memset(bells, 7, sizeof(bells));
    uint8_t letters[2000];
    memset(letters, 'x', sizeof(letters));
    struct backend_op_result results[3] = {{.found = true, .content = kv_slice(bells, sizeof(bells))},
                                           {.found = true, .content = kv_slice(bells, 100)},
                                           {.found = true, .content = kv_slice(letters, sizeof(letters))}};
    json_t *answer = written(&rig, results);
    cr_expect_str_eq(member(answer, 0, "get", "encoding"), "base64");
    cr_expect_null(value_of(answer, 1, "get", "encoding"));
    cr_expect_null(value_of(answer, 2, "get", "encoding"));
    json_decref(answer);
    rig_free(&rig);
}
