/* Goal: quality values decide as RFC 9110 says. Method: tables of header values, odd ones included. */
#include <criterion/criterion.h>

#include "accept.h"
#include "list.h"

Test(accept, json_only_when_preferred_over_text)
{
    static const char *const json[] = {
        "application/json",
        "APPLICATION/JSON",
        "application/json, text/plain;q=0.9",
        "text/plain;q=0.1, application/json;q=0.2",
        "application/json, */*;q=0.5",
        "application/json, */*",
        "application/*",
        "text/html, application/json",
        "application/json;charset=utf-8",
        "application/json ; q=0.001",
        ",,application/json,",
        "text/plain;q=0, */*",
        "application/json, text/plain, */*",
        "text/plain, application/json",
    };
    static const char *const text[] = {
        "",
        "*/*",
        "text/plain",
        "application/json;q=0.5, text/plain",
        "application/json;q=0",
        "application/json;q=2",
        "application/json;q=x",
        "text/*, application/json;q=0.9",
        "application/jsonp",
        "text/html",
        "\"application/json\"",
        "application/json;q=0, */*",
        ";q=1",
    };
    for (size_t i = 0; i < sizeof(json) / sizeof(json[0]); i++)
        cr_expect(accept_prefers_json(kv_slice_text(json[i])), "%s", json[i]);
    for (size_t i = 0; i < sizeof(text) / sizeof(text[0]); i++)
        cr_expect_not(accept_prefers_json(kv_slice_text(text[i])), "%s", text[i]);
}

Test(accept, zstd_only_when_named)
{
    static const char *const yes[] = {"zstd",           "gzip, zstd",
                                      "ZSTD;q=0.1",     "identity;q=0.5, zstd",
                                      "zstd, identity", "gzip;q=1.0, zstd;q=0.001, *;q=0"};
    static const char *const no[] = {
        "", "gzip", "*", "zstd;q=0", "zstd;q=0.000", "identity, zstd;q=0.5", "zstd;q=5", "zstandard", "xzstd"};
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++)
        cr_expect(accept_prefers_zstd(kv_slice_text(yes[i])), "%s", yes[i]);
    for (size_t i = 0; i < sizeof(no) / sizeof(no[0]); i++)
        cr_expect_not(accept_prefers_zstd(kv_slice_text(no[i])), "%s", no[i]);
}

Test(list, keeps_quoted_separators)
{
    struct kv_slice rest = kv_slice_text("a, \"b,\\\"c\" ,,d"), element;
    static const char *const expected[] = {"a", "\"b,\\\"c\"", "", "d"};
    for (size_t i = 0; i < 4; i++) {
        cr_assert(list_next(&rest, ',', &element));
        cr_expect(kv_slice_equal(element, kv_slice_text(expected[i])), "%zu", i);
    }
    cr_expect_not(list_next(&rest, ',', &element));
}
