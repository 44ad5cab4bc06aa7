/* Goal: a MessagePack batch means what the JSON one means; hostile bytes are refused without allocating what they claim.
 * Method: bodies built with msgpack-c's packer; cut, mutated and handmade bytes; answers read back by wire/pack.h. */
#include "batch_rig.h"

#include "wire/pack.h"

static void text(struct kv_buf *buf, const char *string)
{
    kv_pack_str(buf, kv_slice_text(string));
}

static void operation(struct kv_buf *buf, const char *op, const char *key, size_t more)
{
    kv_pack_map(buf, 2 + more);
    text(buf, "op");
    text(buf, op);
    text(buf, "key");
    text(buf, key);
}

static struct kv_buf good_body(void)
{
    struct kv_buf body = {0};
    kv_pack_array(&body, 4);
    operation(&body, "put", "a", 2);
    text(&body, "value");
    kv_pack_bin(&body, kv_slice("\0\xff", 2));
    text(&body, "if_none_match");
    text(&body, "*");
    operation(&body, "put", "b", 1);
    text(&body, "value");
    text(&body, "text");
    operation(&body, "get", "\xc3\xa9", 0);
    operation(&body, "delete", "d", 0);
    return body;
}

Test(batch_msgpack, operations)
{
    struct kv_buf body = good_body();
    struct rig rig = rig_read(BATCH_MSGPACK, kv_buf_peek(&body), 1000);
    cr_assert_eq(rig.err, KV_OK, "%s", rig.refusal.sentence);
    cr_assert_eq(rig.batch.count, 4);
    cr_expect_eq(rig.batch.ops[0].match, BACKEND_MATCH_ABSENT);
    rig_expect_value(&rig, 0, kv_slice("\0\xff", 2));
    rig_expect_value(&rig, 1, kv_slice_text("text"));
    cr_expect_eq(rig.batch.ops[2].kind, BACKEND_GET);
    cr_expect(kv_slice_equal(rig.batch.ops[2].key, kv_slice_text("\xc3\xa9")));
    cr_expect_eq(rig.batch.ops[3].kind, BACKEND_DELETE);
    rig_free(&rig);
    kv_buf_free(&body);
}

/* One operation in front, then the bytes given. */
static void expect_refused(const char *bytes, size_t count, const char *code, const char *sentence)
{
    struct kv_buf body = {0};
    kv_pack_array(&body, 2);
    operation(&body, "get", "k", 0);
    kv_buf_append(&body, kv_slice(bytes, count));
    rig_expect_refusal(BATCH_MSGPACK, kv_buf_peek(&body), 400, code, sentence);
    kv_buf_free(&body);
}

#define REFUSED(bytes, code, sentence) expect_refused(bytes, sizeof(bytes) - 1, code, sentence)

Test(batch_msgpack, refused_with_the_index)
{
    REFUSED("", "invalid_request", "Operation 1: malformed");
    REFUSED("\xc1", "invalid_request", "Operation 1: malformed");
    REFUSED("\x05", "invalid_request", "Operation 1: it is not a map");
    REFUSED("\xdf\xff\xff\xff\xff", "invalid_request", "Operation 1: malformed MessagePack, or a map of more than 32");
    REFUSED("\x81\x05\x05", "invalid_request", "Operation 1: the name of a member is not a str");
    REFUSED("\x81\xa2op", "invalid_request", "Operation 1: malformed");
    REFUSED("\x81\xa2op\x05", "invalid_request", "Operation 1: \"op\" is not a str");
    REFUSED("\x81\xa2op\xc4\x03get", "invalid_request", "Operation 1: \"op\" is not a str");
    REFUSED("\x81\xa5value\xc0", "invalid_request", "Operation 1: \"value\" is not a str or bin");
    REFUSED("\x82\xa2op\xa3get\xa2op\xa3get", "invalid_request", "Operation 1: the member \"op\" comes twice");
    REFUSED("\x81\xa2op\xa3get", "invalid_request", "Operation 1: the member \"key\" is missing");
    REFUSED("\x82\xa2op\xa3get\xa3key\xa1\xff", "invalid_key", "Operation 1: \"key\" is a str and not valid UTF-8");
    REFUSED("\x83\xa2op\xa3put\xa3key\xa1k\xa5value\xa1\xff", "invalid_request",
            "\"value\" is a str and not valid UTF-8");
    REFUSED("\x82\xa2op\xa3get\xa3key\xa0", "invalid_key", "Operation 1: the key is empty");
    REFUSED("\x82\xa2op\xa3get\xa3key\xa2k\x00", "invalid_key", "U+0000");
    REFUSED("\x84\xa2op\xa3put\xa3key\xa1k\xa5value\xa1v\xa8"
            "encoding\xa6"
            "base64",
            "invalid_request", "no member \"encoding\" in MessagePack");
    REFUSED("\x82\xa2op\xa3get\xa3key\xa1kx", "invalid_request", "Bytes are left over");
}

Test(batch_msgpack, refused_as_a_whole)
{
    rig_expect_refusal(BATCH_MSGPACK, kv_slice("", 0), 400, "invalid_request", "not a MessagePack array");
    rig_expect_refusal(BATCH_MSGPACK, kv_slice("[]", 2), 400, "invalid_request", "not a MessagePack array");
    rig_expect_refusal(BATCH_MSGPACK, kv_slice("\x80", 1), 400, "invalid_request", "not a MessagePack array");
    rig_expect_refusal(BATCH_MSGPACK, kv_slice("\xdd\xff\xff\xff\xff", 5), 400, "invalid_request",
                       "more elements than");
    struct kv_buf many = {0};
    kv_pack_array(&many, KV_BATCH_OPS_MAX + 1);
    for (unsigned i = 0; i <= KV_BATCH_OPS_MAX; i++)
        operation(&many, "get", "k", 0);
    rig_expect_refusal(BATCH_MSGPACK, kv_buf_peek(&many), 413, "too_large", "at most 10000 operations");
    kv_buf_free(&many);
}

Test(batch_msgpack, cut_and_mutated_bodies)
{
    struct kv_buf body = good_body();
    for (size_t cut = 0; cut < body.bytes; cut++) {
        struct rig rig = rig_read(BATCH_MSGPACK, kv_slice(body.data, cut), 1000);
        cr_expect_neq(rig.err, KV_OK, "cut at %zu", cut);
        rig_free(&rig);
    }
    uint64_t seed = 11;
    for (unsigned round = 0; round < 20000; round++) {
        uint8_t *copy = kv_copy(kv_buf_peek(&body));
        for (unsigned i = 0; i <= round % 3; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            copy[(seed >> 33) % body.bytes] = (uint8_t)(seed >> 20);
        }
        struct rig rig = rig_read(BATCH_MSGPACK, kv_slice(copy, body.bytes), 1000);
        cr_expect(rig.err == KV_OK || rig.refusal.sentence[0] != '\0', "round %u of seed 11", round);
        rig_free(&rig);
        free(copy);
    }
    kv_buf_free(&body);
}

static void expect_name(struct kv_unpack *in, const char *name)
{
    struct kv_slice got = kv_unpack_str(in, 100);
    cr_expect(kv_slice_equal(got, kv_slice_text(name)), "'%.*s' instead of '%s'", (int)got.bytes,
              (const char *)got.data, name);
}

/* {"<op>":{"key":key, … and the number of members. */
static void expect_result(struct kv_unpack *in, const char *op, const char *key, size_t members)
{
    cr_expect_eq(kv_unpack_map(in, 1), 1);
    expect_name(in, op);
    cr_expect_eq(kv_unpack_map(in, 100), members);
    expect_name(in, "key");
    expect_name(in, key);
}

Test(batch_msgpack, results)
{
    struct kv_buf body = good_body();
    struct rig rig = rig_read(BATCH_MSGPACK, kv_buf_peek(&body), 1000);
    struct kv_buf out = {0};
    struct backend_op_result results[4] = {
        [1] = {.found = true}, [2] = {.found = true, .content = kv_slice_text("value")}, [3] = {.found = true}};
    batch_write(&rig.batch, results, &out);
    struct kv_unpack in = kv_unpack_start(kv_buf_peek(&out));
    cr_expect_eq(kv_unpack_map(&in, 1), 1);
    expect_name(&in, "results");
    cr_expect_eq(kv_unpack_array(&in, 10), 4);
    for (int i = 0; i < 2; i++) {
        expect_result(&in, "put", i == 0 ? "a" : "b", 3);
        expect_name(&in, "hash");
        cr_expect_eq(kv_unpack_str(&in, 64).bytes, 64);
        expect_name(&in, "created");
        cr_expect_eq(kv_unpack_bool(&in), i == 0);
    }
    expect_result(&in, "get", "\xc3\xa9", 3);
    expect_name(&in, "value");
    cr_expect(kv_slice_equal(kv_unpack_bin(&in, 100), kv_slice_text("value")), "a value is bin, even when it is text");
    expect_name(&in, "found");
    cr_expect(kv_unpack_bool(&in));
    expect_result(&in, "delete", "d", 2);
    expect_name(&in, "deleted");
    cr_expect(kv_unpack_bool(&in));
    cr_expect_eq(kv_unpack_end(&in), KV_OK);
    kv_buf_free(&out);
    kv_buf_free(&body);
    rig_free(&rig);
}
