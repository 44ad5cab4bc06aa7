/* Goal: lists of entity tags name a content, in both its forms, or they do not.
 * Method: lists with weak, foreign, compressed and malformed tags against one hash. */
#include <criterion/criterion.h>

#include "digest.h"
#include "etag.h"

#define A "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" /* of "abc" */
#define B "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" /* of "" */

static bool matches(const char *value, bool strong)
{
    struct kv_hash hash = digest_of(kv_slice_text("abc"));
    struct etag_list list = {0};
    cr_assert_eq(etag_list_parse(kv_slice_text(value), &list), KV_OK, "%s", value);
    return etag_list_matches(&list, &hash, strong);
}

Test(etag, strong_and_weak_comparison)
{
    cr_expect(matches("\"" A "\"", true));
    cr_expect(matches("\"" A "-zstd\"", true));
    cr_expect(matches("\"x\", \"" A "\"", true));
    cr_expect(matches(",\"" B "\" , ,\"" A "\"", true));
    cr_expect(matches(" * ", true));
    cr_expect_not(matches("W/\"" A "\"", true));
    cr_expect(matches("W/\"" A "\"", false));
    cr_expect(matches("W/\"" A "-zstd\"", false));
    cr_expect_not(matches("\"" B "\"", false));
    cr_expect_not(matches("\"" A "-gzip\"", false));
    cr_expect_not(matches("\"\"", false));
    cr_expect_not(matches("\"a,b\"", false));
    cr_expect_not(matches("\"BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD\"", false));
}

Test(etag, malformed_lists_are_refused)
{
    static const char *const bad[] = {"",         " ",       ",",   A,        "\"" A, "\"a\" \"b\"",
                                      "*, \"a\"", "w/\"a\"", "W/a", "\"a\"x", "W/"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct etag_list list = {0};
        cr_expect_eq(etag_list_parse(kv_slice_text(bad[i]), &list), KV_INVALID, "%s", bad[i]);
        cr_expect_not(list.present);
    }
}

Test(etag, the_only_candidate)
{
    struct kv_hash hash, expected = digest_of(kv_slice_text("abc"));
    struct etag_list list;
    etag_list_parse(kv_slice_text("\"x\", W/\"" B "\", \"" A "\", \"" A "-zstd\""), &list);
    cr_expect_eq(etag_list_only(&list, &hash), KV_OK);
    cr_expect(kv_hash_equal(&hash, &expected));
    etag_list_parse(kv_slice_text("\"" A "\", \"" B "\""), &list);
    cr_expect_eq(etag_list_only(&list, &hash), KV_TOO_LARGE);
    etag_list_parse(kv_slice_text("W/\"" A "\""), &list);
    cr_expect_eq(etag_list_only(&list, &hash), KV_NOT_FOUND);
}

Test(etag, is_written_with_quotes)
{
    char tag[ETAG_BYTES_MAX];
    struct kv_hash hash = digest_of(kv_slice_text("abc"));
    cr_expect(kv_slice_equal(kv_slice(tag, etag_write(&hash, false, tag)), kv_slice_text("\"" A "\"")));
    cr_expect(kv_slice_equal(kv_slice(tag, etag_write(&hash, true, tag)), kv_slice_text("\"" A "-zstd\"")));
}
