/* Goal: a request target becomes exactly the bytes of the key that the client meant, or a refusal with the right cause.
 * Method: tables of targets, escapes and UTF-8 sequences from both sides of every border. */
#include <criterion/criterion.h>

#include "key.h"

static uint8_t space[KV_KEY_BYTES_MAX];
static const char *why;

static enum kv_err decode(const char *path, struct kv_slice *key)
{
    return key_decode(kv_slice_text(path), space, sizeof(space), key, &why);
}

Test(key, decodes_once_and_keeps_everything_else)
{
    static const struct {
        const char *path, *key;
    } rows[] = {
        {"/a", "a"},
        {"/a/b%2Fc", "a/b/c"},
        {"/a%2fb", "a/b"},
        {"/a//b", "a//b"},
        {"//", "/"},
        {"/a/../b", "a/../b"},
        {"/.", "."},
        {"/%2e%2E", ".."},
        {"/%252F", "%2F"},
        {"/a+b", "a+b"},
        {"/%0A", "\n"},
        {"/a#b", "a#b"},
        {"/%F0%9F%98%80", "\xf0\x9f\x98\x80"},
        {"/\xc3\xa9", "\xc3\xa9"},
        {"/a%20b", "a b"},
        {"/keys/", "keys/"},
        {"/%3F", "?"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct kv_slice key;
        cr_assert_eq(decode(rows[i].path, &key), KV_OK, "%s", rows[i].path);
        cr_expect(kv_slice_equal(key, kv_slice_text(rows[i].key)), "%s", rows[i].path);
    }
}

Test(key, refuses_what_is_no_key)
{
    static const char *const bad[] = {
        "/%",         "/%2",        "/a%",           "/%zz",          "/%2g",          "/%g2",       "/a%0",
        "/%00",       "/a%00b",     "/%ff",          "/%c0%af",       "/%c1%bf",       "/%e0%80%80", "/%e0%9f%bf",
        "/%ed%a0%80", "/%ed%bf%bf", "/%f0%80%80%80", "/%f4%90%80%80", "/%f5%80%80%80", "/%80",       "/%c3",
        "/%e2%82",    "/%e2%28%a1", "/%f0%9f%98",    "/%c3%28",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct kv_slice key = kv_slice_text("untouched");
        why = NULL;
        cr_expect_eq(decode(bad[i], &key), KV_INVALID, "%s", bad[i]);
        cr_expect(why != NULL && strlen(why) > 10, "%s", bad[i]);
        cr_expect(kv_slice_equal(key, kv_slice_text("untouched")));
    }
    struct kv_slice key;
    cr_expect_eq(decode("/", &key), KV_NOT_FOUND);
}

Test(key, takes_the_borders_of_utf8)
{
    static const char *const good[] = {"/%01",       "/%7f",       "/%c2%80",    "/%df%bf",       "/%e0%a0%80",
                                       "/%ed%9f%bf", "/%ee%80%80", "/%ef%bf%bf", "/%f0%90%80%80", "/%f4%8f%bf%bf"};
    struct kv_slice key;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        cr_expect_eq(decode(good[i], &key), KV_OK, "%s", good[i]);
}

Test(key, counts_decoded_bytes)
{
    char path[3 * (KV_KEY_BYTES_MAX + 1) + 2] = "/";
    struct kv_slice key;
    for (unsigned i = 0; i < KV_KEY_BYTES_MAX; i++)
        strcpy(path + 1 + 3 * i, "%61");
    cr_assert_eq(decode(path, &key), KV_OK);
    cr_expect_eq(key.bytes, KV_KEY_BYTES_MAX);
    strcat(path, "b");
    cr_expect_eq(decode(path, &key), KV_TOO_LARGE);
}

Test(key, targets_are_cut_into_path_and_query)
{
    static const struct {
        const char *target, *path, *query;
    } rows[] = {
        {"/a", "/a", ""},
        {"/a?b=c", "/a", "b=c"},
        {"/?", "/", ""},
        {"/a?b?c", "/a", "b?c"},
        {"http://host/a/b?c", "/a/b", "c"},
        {"https://host:1", "/", ""},
        {"HTTP://host//a", "//a", ""},
        {"/http://x/y", "/http://x/y", ""},
    };
    static const char *const bad[] = {"", "*", "a", "host:80", "?a", "://x/y", "a b://x/y", "http:///x"};
    struct key_target target;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cr_assert_eq(key_target(kv_slice_text(rows[i].target), &target), KV_OK, "%s", rows[i].target);
        cr_expect(kv_slice_equal(target.path, kv_slice_text(rows[i].path)), "%s", rows[i].target);
        cr_expect(kv_slice_equal(target.query, kv_slice_text(rows[i].query)), "%s", rows[i].target);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_eq(key_target(kv_slice_text(bad[i]), &target), KV_INVALID, "%s", bad[i]);
}
