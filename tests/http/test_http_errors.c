/* Goal: every refusal has the status, code and body of the HTTP contract, in the contract's order of checks.
 * Method: tables of requests, with curl where curl would send them, on raw sockets where not; text and JSON. */
#include "harness.h"

#include <jansson.h>
#include <unistd.h>

#include "http.h"

static void setup(void)
{
    http_defaults();
    http_settings.value_bytes_max = 100000;
    http_start();
}

TestSuite(errors, .init = setup, .fini = http_stop);

static void expect_code(const struct answer *answer, const char *code, const char *what)
{
    json_t *body = json_loads((const char *)answer->body.data, 0, NULL);
    const char *found = json_string_value(json_object_get(json_object_get(body, "error"), "code"));
    const char *sentence = json_string_value(json_object_get(json_object_get(body, "error"), "message"));
    cr_expect_str_eq(found == NULL ? "(none)" : found, code, "%s", what);
    cr_expect(sentence != NULL && sentence[strlen(sentence) - 1] == '.', "%s: %s", what, answer->body.data);
    cr_expect_str_eq(http_value(answer, "content-type"), "application/json");
    json_decref(body);
}

static const struct row {
    const char *method, *path, *header;
    long status;
    const char *code;
    bool no_token;
} rows[] = {
    {"GET", "/", NULL, 404, "not_found", false},
    {"PUT", "/", NULL, 404, "not_found", false},
    {"GET", "/missing", NULL, 404, "not_found", false},
    {"GET", "/%zz", NULL, 400, "invalid_key", false},
    {"PUT", "/%ff", NULL, 400, "invalid_key", false},
    {"DELETE", "/a%00b", NULL, 400, "invalid_key", false},
    {"POST", "/a", NULL, 405, "method_not_allowed", false},
    {"PATCH", "/a", NULL, 405, "method_not_allowed", false},
    {"POST", "/%zz", NULL, 405, "method_not_allowed", false},
    {"PUT", "/keys", NULL, 405, "method_not_allowed", false},
    {"DELETE", "/keys", NULL, 405, "method_not_allowed", false},
    {"PUT", "/k%65ys", NULL, 405, "method_not_allowed", false},
    {"GET", "/batch", NULL, 405, "method_not_allowed", false},
    {"PUT", "/batch", NULL, 405, "method_not_allowed", false},
    {"POST", "/metrics", NULL, 405, "method_not_allowed", false},
    {"PUT", "/-/anything", NULL, 405, "method_not_allowed", false},
    {"DELETE", "/-/ready", NULL, 405, "method_not_allowed", false},
    {"GET", "/-/anything", NULL, 404, "not_found", false},
    {"GET", "/-/", NULL, 404, "not_found", false},
    {"GET", "/a", NULL, 401, "unauthorized", true},
    {"PUT", "/keys", NULL, 401, "unauthorized", true},
    {"GET", "/%zz", NULL, 401, "unauthorized", true},
    {"GET", "/", NULL, 401, "unauthorized", true},
    {"POST", "/-/ready", NULL, 401, "unauthorized", true},
    {"GET", "/-/other", NULL, 401, "unauthorized", true},
    {"GET", "/a", "Authorization: Bearer wrong", 401, "unauthorized", true},
    {"GET", "/a", "Authorization: Basic test-token", 401, "unauthorized", true},
    {"GET", "/missing", "Authorization: bEARER test-token", 404, "not_found", true},
};

static void expect_row(enum version version, const struct row *row)
{
    struct answer answer = http_ask(version, &(struct request){.method = row->method,
                                                               .path = row->path,
                                                               .headers = {"Accept: application/json", row->header},
                                                               .no_token = row->no_token});
    cr_expect_eq(answer.status, row->status, "%s %s: %ld %s", row->method, row->path, answer.status, answer.body.data);
    expect_code(&answer, row->code, row->path);
    if (row->status == 401)
        cr_expect_str_eq(http_value(&answer, "www-authenticate"), "Bearer realm=\"kv-storage\"");
    if (row->status == 405)
        cr_expect_neq(http_value(&answer, "allow")[0], '\0');
    answer_free(&answer);
}

Test(errors, statuses_and_codes)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        expect_row(H1, &rows[i]);
        expect_row(H2, &rows[i]);
    }
    cr_expect_eq(fake_keys(), 0);
}

Test(errors, text_unless_json_is_preferred)
{
    struct answer answer = http_get(H1, "/missing", "Accept: */*");
    cr_expect_str_eq((const char *)answer.body.data, "Error: The key does not exist.\n");
    cr_expect(strncmp(http_value(&answer, "content-type"), "text/plain", 10) == 0);
    answer_free(&answer);
    answer = http_get(H2, "/missing", "Accept: text/plain;q=0.5, application/json");
    expect_code(&answer, "not_found", "quality");
    answer_free(&answer);
    answer = http_method(H1, "HEAD", "/missing", NULL);
    cr_expect_eq(answer.status, 404);
    cr_expect_eq(answer.body.bytes, 0);
    answer_free(&answer);
}

Test(errors, what_the_backend_says_has_a_status)
{
    static const struct {
        enum kv_err err;
        long status;
        const char *code;
    } failures[] = {
        {KV_OVERLOADED, 429, "overloaded"},   {KV_NO_SPACE, 507, "insufficient_storage"},
        {KV_UNAVAILABLE, 503, "unavailable"}, {KV_UNCERTAIN, 504, "uncertain"},
        {KV_CORRUPT, 500, "corrupt"},         {KV_IO, 500, "internal"},
    };
    for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
        fake_fail_next(failures[i].err);
        struct answer answer = http_put(H2, "/f", kv_slice_text("x"), "Accept: application/json");
        cr_expect_eq(answer.status, failures[i].status, "%ld", answer.status);
        expect_code(&answer, failures[i].code, failures[i].code);
        if (answer.status == 429 || answer.status == 503)
            cr_expect_str_eq(http_value(&answer, "retry-after"), "1");
        answer_free(&answer);
        fake_fail_next(failures[i].err);
        answer = http_get(H1, "/f", NULL);
        cr_expect_eq(answer.status, failures[i].status);
        answer_free(&answer);
    }
}

Test(errors, values_above_the_limit)
{
    struct kv_buf content = http_content(100001, false);
    for (size_t v = 0; v < 2; v++) {
        struct answer answer = http_put(http_versions[v], "/big", kv_buf_peek(&content), "Accept: application/json");
        cr_expect_eq(answer.status, 413);
        expect_code(&answer, "too_large", "413");
        answer_free(&answer);
        answer = http_put(http_versions[v], "/big", kv_slice(content.data, 100000), NULL);
        cr_expect_eq(answer.status, v == 0 ? 201 : 200);
        answer_free(&answer);
    }
    kv_buf_free(&content);
}

Test(errors, health_needs_no_token)
{
    for (size_t v = 0; v < 2; v++) {
        struct request request = {.path = "/-/healthy", .no_token = true};
        struct answer answer = http_ask(http_versions[v], &request);
        cr_expect_eq(answer.status, 200);
        answer_free(&answer);
        request.path = "/-/ready";
        answer = http_ask(http_versions[v], &request);
        cr_expect_eq(answer.status, 200);
        answer_free(&answer);
        fake_unready("Shard 1 does not answer.");
        answer = http_ask(http_versions[v], &request);
        cr_expect_eq(answer.status, 503);
        cr_expect_str_eq((const char *)answer.body.data, "Error: Shard 1 does not answer.\n");
        answer_free(&answer);
        fake_unready(NULL);
    }
}

Test(errors, request_ids_come_back)
{
    struct answer answer = http_get(H2, "/missing", "X-Request-Id: my-id/1");
    cr_expect_str_eq(http_value(&answer, "x-request-id"), "my-id/1");
    answer_free(&answer);
    char id[HTTP_REQUEST_ID_BYTES_MAX + 32] = "X-Request-Id: ";
    memset(id + 14, 'i', HTTP_REQUEST_ID_BYTES_MAX + 1);
    answer = http_get(H1, "/missing", id);
    cr_expect_eq(strlen(http_value(&answer, "x-request-id")), 32, "too long: replaced");
    answer_free(&answer);
    answer = http_get(H1, "/missing", "X-Request-Id: a b");
    cr_expect_eq(strlen(http_value(&answer, "x-request-id")), 32, "a space: replaced");
    answer_free(&answer);
}

static void expect_raw(const char *request, const char *status)
{
    int fd = http_connect();
    http_send(fd, request);
    struct kv_buf answer = http_receive_until(fd, "\r\n\r\n");
    cr_expect(strncmp((char *)answer.data, "HTTP/1.1 ", 9) == 0 && strncmp((char *)answer.data + 9, status, 3) == 0,
              "%s -> %.300s", request, (char *)answer.data);
    kv_buf_free(&answer);
    close(fd);
}

#define AUTH "Host: x\r\nAuthorization: Bearer " TOKEN "\r\n\r\n"

Test(errors, odd_targets)
{
    expect_raw("GET * HTTP/1.1\r\n" AUTH, "400");
    expect_raw("OPTIONS * HTTP/1.1\r\n" AUTH, "400");
    expect_raw("CONNECT host:80 HTTP/1.1\r\n" AUTH, "400");
    expect_raw("GET abc HTTP/1.1\r\n" AUTH, "400");
    expect_raw("GET http://x/missing HTTP/1.1\r\n" AUTH, "404");
    expect_raw("PUT http://x/absolute HTTP/1.1\r\n" AUTH, "201");
    expect_raw("GET http://y:80/absolute?q HTTP/1.1\r\n" AUTH, "200");
    expect_raw("GET * HTTP/1.1\r\nHost: x\r\n\r\n", "401");
    expect_raw("GET /a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN "\r\nAuthorization: Bearer " TOKEN
               "\r\n\r\n",
               "401");
    cr_expect_eq(fake_keys(), 1);
}

Test(errors, too_many_headers)
{
    struct kv_buf request = {0};
    kv_buf_append(&request, kv_slice_text("GET /a HTTP/1.1\r\n"));
    for (unsigned i = 0; i < HTTP_HEADERS_MAX - 2; i++)
        kv_buf_append(&request, kv_slice_text("X-H: 1\r\n"));
    kv_buf_append(&request, kv_slice("" AUTH, sizeof(AUTH)));
    expect_raw((const char *)request.data, "404");
    kv_buf_free(&request);
    struct curl_slist *headers = curl_slist_append(NULL, "Authorization: Bearer " TOKEN);
    for (unsigned i = 0; i < HTTP_HEADERS_MAX; i++)
        headers = curl_slist_append(headers, "X-H: 1");
    CURL *curl = curl_easy_init();
    char url[64];
    long status = 0;
    snprintf(url, sizeof(url), "http://127.0.0.1:%u/a", http_port);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    cr_expect_eq(curl_easy_perform(curl), CURLE_OK);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    cr_expect_eq(status, 431);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
}
