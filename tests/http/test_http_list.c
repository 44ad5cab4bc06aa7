/* Goal: GET /keys says what the contract says, whatever the parameters; a walk by `next` sees every key once.
 * Method: libcurl against the HTTP side over a backend in memory; answers parsed by jansson. */
#include "harness.h"

#include <jansson.h>
#include <stdlib.h>

static void setup(void)
{
    http_defaults();
    http_start();
}

TestSuite(list, .init = setup, .fini = http_stop);

static void put(const char *path)
{
    struct answer answer = http_put(H2, path, kv_slice_text(path), "Content-Type: text/x");
    cr_assert_eq(answer.status, 201, "%s: %ld", path, answer.status);
    answer_free(&answer);
}

static json_t *list(const char *query)
{
    char path[16384];
    json_error_t error;
    snprintf(path, sizeof(path), "/keys%s", query);
    struct answer answer = http_get(H1, path, NULL);
    cr_assert_eq(answer.status, 200, "%s: %ld %s", query, answer.status, answer.body.data);
    cr_expect_str_eq(http_value(&answer, "content-type"), "application/json");
    json_t *root = json_loadb((const char *)answer.body.data, answer.body.bytes, JSON_REJECT_DUPLICATES, &error);
    cr_assert_not_null(root, "%s: %s in %s", query, error.text, answer.body.data);
    answer_free(&answer);
    return root;
}

/* "a b|p/ q/|next": keys, then shared prefixes, then next; each list with spaces between. */
static void expect_page(const char *query, const char *expected)
{
    char text[4096] = "";
    json_t *root = list(query);
    json_t *value;
    size_t i;
    json_array_foreach(json_object_get(root, "keys"), i, value)
    {
        strcat(strcat(text, i == 0 ? "" : " "), json_string_value(json_object_get(value, "key")));
    }
    strcat(text, "|");
    json_array_foreach(json_object_get(root, "prefixes"), i, value)
    {
        strcat(strcat(text, i == 0 ? "" : " "), json_string_value(value));
    }
    value = json_object_get(root, "next");
    strcat(strcat(text, "|"), value == NULL ? "" : json_string_value(value));
    cr_expect_str_eq(text, expected, "%s: %s instead of %s", query, text, expected);
    json_decref(root);
}

Test(list, members)
{
    put("/b");
    put("/a%0a%22%c3%a9");
    json_t *root = list("");
    json_t *key = json_array_get(json_object_get(root, "keys"), 0);
    cr_expect_eq(json_object_size(root), 2);
    cr_expect_eq(json_integer_value(json_object_get(root, "total")), 2);
    cr_expect_eq(json_object_size(key), 7);
    cr_expect_str_eq(json_string_value(json_object_get(key, "key")), "a\n\"\xc3\xa9");
    cr_expect_eq(json_integer_value(json_object_get(key, "size")), 14);
    cr_expect_eq(json_string_length(json_object_get(key, "hash")), 64);
    cr_expect_str_eq(json_string_value(json_object_get(key, "hash_algorithm")), "sha256");
    cr_expect_eq(json_integer_value(json_object_get(key, "refs")), 1);
    cr_expect_gt(json_integer_value(json_object_get(key, "created_at")), 1700000000);
    cr_expect_str_eq(json_string_value(json_object_get(key, "content_type")), "text/x");
    json_decref(root);
}

Test(list, nothing)
{
    struct answer answer = http_get(H2, "/keys", NULL);
    cr_expect_str_eq((const char *)answer.body.data, "{\"keys\":[],\"total\":0}");
    answer_free(&answer);
    answer = http_get(H2, "/keys?delimiter=/&prefix=x", NULL);
    cr_expect_str_eq((const char *)answer.body.data, "{\"keys\":[],\"prefixes\":[]}");
    answer_free(&answer);
    answer = http_method(H1, "HEAD", "/keys", NULL);
    cr_expect_eq(answer.status, 200);
    cr_expect_str_eq(http_value(&answer, "content-length"), "21");
    cr_expect_eq(answer.body.bytes, 0);
    answer_free(&answer);
}

Test(list, pages)
{
    static const char *const paths[] = {"/a",     "/b/1",   "/b/2", "/b+c", "/b%20c",
                                        "/c/x/1", "/c/x/2", "/c/y", "/d",   "/%c3%a9/1"};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
        put(paths[i]);
    expect_page("", "a b c b+c b/1 b/2 c/x/1 c/x/2 c/y d \xc3\xa9/1||");
    expect_page("?", "a b c b+c b/1 b/2 c/x/1 c/x/2 c/y d \xc3\xa9/1||");
    expect_page("?&limit=3&", "a b c b+c||b+c");
    expect_page("?limit=3&after=b/1", "b/2 c/x/1 c/x/2||c/x/2");
    expect_page("?limit=3&after=c%2Fy", "d \xc3\xa9/1||");
    expect_page("?limit=10", "a b c b+c b/1 b/2 c/x/1 c/x/2 c/y d \xc3\xa9/1||");
    expect_page("?offset=8", "d \xc3\xa9/1||");
    expect_page("?offset=100", "||");
    expect_page("?offset=9007199254740992&limit=1000", "||");
    expect_page("?prefix=b", "b c b+c b/1 b/2||");
    expect_page("?prefix=b+", "b c||");
    expect_page("?prefix=b%2B&after=", "b+c||");
    expect_page("?pre%66ix=b%2f", "b/1 b/2||");
    expect_page("?delimiter=/", "a b c b+c d|b/ c/ \xc3\xa9/|");
    expect_page("?delimiter=/&limit=4", "a b c b+c|b/|b/");
    expect_page("?delimiter=/&limit=3&after=b/", "d|c/ \xc3\xa9/|");
    expect_page("?delimiter=/&prefix=c/", "c/y|c/x/|");
    expect_page("?delimiter=/&prefix=c/&limit=1", "|c/x/|c/x/");
    expect_page("?delimiter=/&prefix=c/&limit=1&after=c/x/", "c/y||");
    expect_page("?delimiter=%c3%a9", "a b c b+c b/1 b/2 c/x/1 c/x/2 c/y d|\xc3\xa9|");
    json_t *root = list("?prefix=b");
    cr_expect_null(json_object_get(root, "total"), "with a prefix the total is left out");
    json_decref(root);
    root = list("?prefix=&limit=1");
    cr_expect_eq(json_integer_value(json_object_get(root, "total")), 10);
    json_decref(root);
}

Test(list, refused_parameters)
{
    static const struct {
        const char *query, *named;
    } cases[] = {
        {"?limit=0", "limit"},
        {"?limit=1001", "limit"},
        {"?limit=x", "limit"},
        {"?limit=", "limit"},
        {"?limit", "limit"},
        {"?limit=+1", "limit"},
        {"?limit=1.5", "limit"},
        {"?limit=-1", "limit"},
        {"?limit=99999999999999999999999999", "limit"},
        {"?offset=-1", "offset"},
        {"?offset=x", "offset"},
        {"?offset=9007199254740993", "offset"},
        {"?offset=18446744073709551617", "offset"},
        {"?limit=1&limit=1", "limit"},
        {"?prefix=a&prefix=a", "prefix"},
        {"?prefix=%", "prefix"},
        {"?prefix=%zz", "prefix"},
        {"?prefix=%ff", "prefix"},
        {"?prefix=%00", "prefix"},
        {"?after=%c3", "after"},
        {"?delimiter=", "delimiter"},
        {"?delimiter=ab", "delimiter"},
        {"?delimiter=%00", "delimiter"},
        {"?delimiter=%80", "delimiter"},
        {"?sort=desc", "sort"},
        {"?a%0ab%22=1", "a?b\""},
        {"?=1", ""},
        {"?%ff%zz=1", "%ff%zz"},
        {"?Limit=1", "Limit"},
    };
    size_t calls = fake_calls();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char path[256], begin[256];
        snprintf(path, sizeof(path), "/keys%s", cases[i].query);
        snprintf(begin, sizeof(begin), "Error: The parameter \"%s\" ", cases[i].named);
        struct answer answer = http_get(http_versions[i % 2], path, NULL);
        cr_expect_eq(answer.status, 400, "%s: %ld %s", path, answer.status, answer.body.data);
        cr_expect_eq(strncmp((const char *)answer.body.data, begin, strlen(begin)), 0, "%s: %s", path,
                     answer.body.data);
        answer_free(&answer);
    }
    cr_expect_eq(fake_calls(), calls);
}

Test(list, long_parameters)
{
    char query[KV_KEY_BYTES_MAX + 32];
    static const char *const names[] = {"prefix", "after"};
    for (size_t i = 0; i < 2; i++) {
        int used = snprintf(query, sizeof(query), "/keys?%s=", names[i]);
        memset(query + used, 'x', KV_KEY_BYTES_MAX + 1);
        query[(size_t)used + KV_KEY_BYTES_MAX + 1] = '\0';
        struct answer answer = http_get(H1, query, NULL);
        cr_expect_eq(answer.status, 400);
        answer_free(&answer);
        query[(size_t)used + KV_KEY_BYTES_MAX] = '\0';
        answer = http_get(H1, query, NULL);
        cr_expect_eq(answer.status, 200);
        answer_free(&answer);
    }
}

Test(list, a_walk_sees_every_key_once)
{
    char after[64] = "", path[128];
    size_t seen = 0, pages = 0;
    for (int i = 0; i < 57; i++) {
        snprintf(path, sizeof(path), "/k%02d", (i * 31) % 57);
        put(path);
    }
    for (bool more = true; more; pages++) {
        snprintf(path, sizeof(path), "?limit=10&after=%s", after);
        json_t *root = list(path);
        json_t *key;
        size_t i;
        json_array_foreach(json_object_get(root, "keys"), i, key)
        {
            snprintf(path, sizeof(path), "k%02zu", seen++);
            cr_expect_str_eq(json_string_value(json_object_get(key, "key")), path);
        }
        more = json_object_get(root, "next") != NULL;
        if (more)
            snprintf(after, sizeof(after), "%s", json_string_value(json_object_get(root, "next")));
        json_decref(root);
    }
    cr_expect_eq(seen, 57);
    cr_expect_eq(pages, 6);
}

Test(list, what_the_backend_says)
{
    fake_fail_next(KV_UNAVAILABLE);
    struct answer answer = http_get(H2, "/keys", NULL);
    cr_expect_eq(answer.status, 503);
    answer_free(&answer);
    answer = http_method(H1, "PUT", "/keys", NULL);
    cr_expect_eq(answer.status, 405);
    cr_expect_str_eq(http_value(&answer, "allow"), "GET, HEAD");
    answer_free(&answer);
}
