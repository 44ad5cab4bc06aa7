/* Goal: what the flat reader takes, jansson takes and reads alike; what it refuses is left alone.
 * Method: a table of texts with what is expected; then a few hundred thousand texts mutated from them (seeded), each in memory of
 * exact size: whenever one is taken, jansson must read the same members. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <stdlib.h>

#include "json_flat.h"

static const struct {
    const char *text;
    const char *taken; /* name=value; of all members, NULL: not taken */
} cases[] = {
    {"{\"a\":\"b\"}", "a=b;"},
    {" \t\r\n{ \"a\" : \"b\" , \"c\" : \"d\" } ,", "a=b;c=d;"},
    {"{\"a\":\"\",\"a\":\"twice\"}", "a=;a=twice;"},
    {"{\"op\":\"put\",\"key\":\"0123456789abcdef\",\"value\":\"all work and no play\"}",
     "op=put;key=0123456789abcdef;value=all work and no play;"},
    {"{\"v\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\",\"w\":\"1234567\\n9\\n\"}", "v=\"\\/\b\f\n\r\t;w=1234567\n9\n;"},
    {"{\"v\":\"\xc3\xa9t\xc3\xa9 \xf0\x9f\x98\x80\",\"\xc3\xa9\":\"\x7f\"}",
     "v=\xc3\xa9t\xc3\xa9 \xf0\x9f\x98\x80;\xc3\xa9=\x7f;"},
    {"{\"1\":\"\",\"2\":\"\",\"3\":\"\",\"4\":\"\",\"5\":\"\",\"6\":\"\",\"7\":\"\",\"8\":\"\"}",
     "1=;2=;3=;4=;5=;6=;7=;8=;"},
    {"{\"1\":\"\",\"2\":\"\",\"3\":\"\",\"4\":\"\",\"5\":\"\",\"6\":\"\",\"7\":\"\",\"8\":\"\",\"9\":\"\"}", NULL},
    {"{}", NULL},
    {"", NULL},
    {"{", NULL},
    {"[\"a\"]", NULL},
    {"{\"a\":1}", NULL},
    {"{\"a\":\"b\",}", NULL},
    {"{\"a\":\"b\"", NULL},
    {"{\"a\":\"b", NULL},
    {"{\"a\":\"b\\", NULL},
    {"{\"a\":\"b\\\"", NULL},
    {"{\"a\":\"\\u0041\"}", NULL},
    {"{\"a\":\"\\x\"}", NULL},
    {"{\"\\n\":\"b\"}", NULL},
    {"{\"a\":{\"b\":\"c\"}}", NULL},
    {"{\"a\":\"line\nfeed\"}", NULL},
    {"{\"a\":\"12345678\x1f\"}", NULL},
    {"{\"a\":\"\xff\"}", NULL},
    {"{\"a\":\"\xc0\x80\"}", NULL},
    {"{\"a\":\"\xed\xa0\x80\"}", NULL},
    {"{\"a\":\"\xe2\x82\"}", NULL},
    {"{\"a\" \"b\"}", NULL},
    {"{'a':'b'}", NULL},
};
enum { CASES = sizeof cases / sizeof *cases };

static bool read_exact(struct json_flat *flat, struct kv_slice text, size_t *used)
{
    uint8_t *copy = malloc(text.bytes); /* of exact size: the sanitizer sees a byte too far */
    static struct kv_buf kept;          /* slices of the answer point into the text */
    if (text.bytes > 0)
        memcpy(copy, text.data, text.bytes);
    bool taken = json_flat_read(flat, kv_slice(copy, text.bytes), used);
    kept.bytes = 0;
    kv_buf_reserve(&kept, 2 * text.bytes + 1);
    for (size_t i = 0; taken && i < flat->count; i++) {
        struct kv_slice *parts[] = {&flat->members[i].name, &flat->members[i].value};
        for (size_t j = 0; j < 2; j++) {
            uint8_t *at = kept.data + kept.bytes;
            kv_buf_append(&kept, *parts[j]);
            *parts[j] = kv_slice(at, parts[j]->bytes);
        }
    }
    free(copy);
    return taken;
}

Test(json_flat, takes_flat_objects_of_strings)
{
    struct json_flat flat = {0};
    for (size_t i = 0; i < CASES; i++) {
        size_t used = 0;
        bool taken = read_exact(&flat, kv_slice_text(cases[i].text), &used);
        cr_assert_eq(taken, cases[i].taken != NULL, "%s", cases[i].text);
        if (!taken)
            continue;
        cr_expect_eq(cases[i].text[used - 1], '}', "%s", cases[i].text);
        struct kv_buf got = {0};
        for (size_t j = 0; j < flat.count; j++) {
            kv_buf_append(&got, flat.members[j].name);
            kv_buf_append(&got, kv_slice_text("="));
            kv_buf_append(&got, flat.members[j].value);
            kv_buf_append(&got, kv_slice_text(";"));
        }
        cr_expect(kv_slice_equal(kv_buf_peek(&got), kv_slice_text(cases[i].taken)), "%s", cases[i].text);
        kv_buf_free(&got);
    }
    json_flat_free(&flat);
}

/* Members that come twice are the caller's to see: jansson is asked to refuse them, so they are skipped here. */
static bool has_twins(const struct json_flat *flat)
{
    for (size_t i = 0; i < flat->count; i++)
        for (size_t j = 0; j < i; j++)
            if (kv_slice_equal(flat->members[i].name, flat->members[j].name))
                return true;
    return false;
}

static void expect_as_jansson(const struct json_flat *flat, struct kv_slice text, uint64_t round)
{
    json_error_t error;
    json_t *object = json_loadb((const char *)text.data, text.bytes,
                                JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    cr_assert(object != NULL, "round %lu: jansson refuses '%.*s': %s", round, (int)text.bytes, (const char *)text.data,
              error.text);
    cr_assert_eq(json_object_size(object), flat->count, "round %lu", round);
    for (size_t i = 0; i < flat->count; i++) {
        char name[256];
        cr_assert_lt(flat->members[i].name.bytes, sizeof name);
        memcpy(name, flat->members[i].name.data, flat->members[i].name.bytes);
        name[flat->members[i].name.bytes] = '\0';
        const json_t *value = json_object_get(object, name);
        cr_assert(json_is_string(value), "round %lu: %s", round, name);
        cr_assert(kv_slice_equal(kv_slice(json_string_value(value), json_string_length(value)), flat->members[i].value),
                  "round %lu: %s", round, name);
    }
    json_decref(object);
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

Test(json_flat, mutated_texts_agree_with_jansson)
{
    static const uint8_t odd[] = "\"\\\"\\{}:, \n\x01\x1f\x7f\x80\xc3\xa9\xe2\x82\xac\xffnu/";
    struct json_flat flat = {0};
    uint64_t random = 7, taken = 0;
    for (uint64_t round = 0; round < 200000; round++) {
        uint8_t text[256];
        struct kv_slice from = kv_slice_text(cases[next_random(&random) % CASES].text);
        size_t bytes = from.bytes, used;
        memcpy(text, from.data, bytes);
        for (uint64_t changes = next_random(&random) % 4; changes > 0 && bytes > 0; changes--)
            text[next_random(&random) % bytes] = odd[next_random(&random) % (sizeof odd - 1)];
        if (!read_exact(&flat, kv_slice(text, bytes), &used))
            continue;
        taken++;
        if (!has_twins(&flat))
            expect_as_jansson(&flat, kv_slice(text, used), round);
    }
    cr_expect_gt(taken, 10000, "only %lu were taken", taken);
    json_flat_free(&flat);
}
