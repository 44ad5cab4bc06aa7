/* Goal: a token does what its line says and nothing else, on every path; guessing is slow; SIGHUP changes what holds.
 * Method: a router with a file of tokens; each right, prefix and operation, on both protocols; metrics tell what was refused. */
#include "harness.h"

#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "admit.h"
#include "digest.h"

static char path[64];

static void write_tokens(const char *const lines[][2], size_t count)
{
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    for (size_t i = 0; i < count; i++) {
        char hex[DIGEST_HEX_BYTES];
        struct kv_hash hash = digest_of(kv_slice_text(lines[i][1]));
        digest_hex(&hash, hex);
        fprintf(file, "%s%.64s\n", lines[i][0], hex);
    }
    fclose(file);
}

static void setup(void)
{
    static const char *const lines[][2] = {
        {"reader:r::", "reads"},    {"writer:w::", "writes"}, {"deleter:d::", "deletes"},
        {"scraper:m::", "scrapes"}, {"app:rwd:app/:", "app"}, {"other:r:app/x:", "deeper"},
    };
    char why[256];
    snprintf(path, sizeof(path), "/tmp/kv-tokens-XXXXXX");
    close(mkstemp(path));
    write_tokens(lines, sizeof(lines) / sizeof(lines[0]));
    http_defaults();
    cr_assert_eq(kv_settings_set(&http_settings, "TOKENS_FILE", path, why, sizeof(why)), KV_OK);
}

static void teardown(void)
{
    unlink(path);
}

TestSuite(tokens, .init = setup, .fini = teardown, .timeout = 600);

static struct answer ask(enum version version, const char *token, const char *method, const char *target,
                         const char *body)
{
    char header[128];
    snprintf(header, sizeof(header), "Authorization: Bearer %s", token);
    struct request request = {.method = method, .path = target, .headers = {header}, .no_token = true};
    if (body != NULL) {
        request.body = kv_slice_text(body);
        request.has_body = true;
    }
    return http_ask(version, &request);
}

static void expect(enum version version, const char *token, const char *method, const char *target, const char *body,
                   long status)
{
    struct answer answer = ask(version, token, method, target, body);
    cr_expect_eq(answer.status, status, "%s %s %s: %ld %s", token, method, target, answer.status, answer.body.data);
    answer_free(&answer);
}

static void expect_body(const char *token, const char *method, const char *target, const char *body, long status,
                        const char *text)
{
    struct answer answer = ask(H1, token, method, target, body);
    cr_expect(answer.status == status && strstr((const char *)answer.body.data, text) != NULL, "%s %s %s: %ld %s",
              token, method, target, answer.status, answer.body.data);
    answer_free(&answer);
}

/* ---- rights ------------------------------------------------------------------------------------------------------- */

Test(tokens, each_right_alone)
{
    static const struct {
        const char *method, *target, *body;
        long reads, writes, deletes, scrapes;
    } cases[] = {
        {"PUT", "/k", "v", 403, 201, 403, 403},        {"GET", "/k", NULL, 200, 403, 403, 403},
        {"HEAD", "/k", NULL, 200, 403, 403, 403},      {"GET", "/keys", NULL, 200, 403, 403, 403},
        {"GET", "/metrics", NULL, 403, 403, 403, 200}, {"POST", "/k", "", 405, 405, 405, 405},
        {"POST", "/batch", "[]", 200, 200, 200, 403},  {"GET", "/", NULL, 404, 404, 404, 404},
        {"DELETE", "/k", NULL, 403, 403, 204, 403},    {"GET", "/-/none", NULL, 404, 404, 404, 404},
    };
    http_start();
    for (size_t v = 0; v < 2; v++) {
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            expect(http_versions[v], "reads", cases[i].method, cases[i].target, cases[i].body, cases[i].reads);
            expect(http_versions[v], "scrapes", cases[i].method, cases[i].target, cases[i].body, cases[i].scrapes);
            expect(http_versions[v], "writes", cases[i].method, cases[i].target, cases[i].body, cases[i].writes);
            expect(http_versions[v], "deletes", cases[i].method, cases[i].target, cases[i].body, cases[i].deletes);
        }
        expect(http_versions[v], TOKEN, "GET", "/metrics", NULL, 200);
        expect(http_versions[v], TOKEN, "GET", "/k", NULL, 404);
    }
    http_stop();
}

Test(tokens, a_prefix_is_a_wall)
{
    http_start();
    expect(H2, TOKEN, "PUT", "/other", "v", 201);
    expect(H2, "app", "PUT", "/app/a", "v", 201);
    expect(H2, "app", "PUT", "/app%2Fb", "v", 201);
    expect(H2, "app", "GET", "/app/a", NULL, 200);
    expect(H2, "app", "PUT", "/app", "v", 403);
    expect(H2, "app", "PUT", "/other", "w", 403);
    expect(H2, "app", "GET", "/other", NULL, 403);
    expect(H2, "app", "HEAD", "/nothing", NULL, 403);
    expect(H2, "app", "DELETE", "/other", NULL, 403);
    expect(H2, "app", "GET", "/app/../other", NULL, 404); /* a key like any other, inside */
    expect_body("app", "GET", "/other", NULL, 403, "outside of the prefix");
    expect(H2, TOKEN, "GET", "/other", NULL, 200);
    expect(H2, "app", "DELETE", "/app/a", NULL, 204);
    http_stop();
}

Test(tokens, listings_stay_within_the_prefix)
{
    http_start();
    expect(H1, TOKEN, "PUT", "/app/x", "v", 201);
    expect(H1, TOKEN, "PUT", "/secret", "v", 201);
    expect(H1, "app", "GET", "/keys", NULL, 403);
    expect(H1, "app", "GET", "/keys?prefix=", NULL, 403);
    expect(H1, "app", "GET", "/keys?prefix=app", NULL, 403);
    expect(H1, "app", "GET", "/keys?prefix=secret", NULL, 403);
    expect(H1, "app", "GET", "/keys?after=app/", NULL, 403);
    expect_body("app", "GET", "/keys?prefix=app/", NULL, 200, "\"app/x\"");
    expect_body("app", "GET", "/keys?prefix=app%2Fx&after=a", NULL, 200, "\"app/x\"");
    expect_body("deeper", "GET", "/keys?prefix=app/x", NULL, 200, "\"app/x\"");
    expect(H1, "deeper", "GET", "/keys?prefix=app/", NULL, 403);
    struct answer answer = ask(H1, "app", "GET", "/keys?prefix=app/", NULL);
    cr_expect_null(strstr((const char *)answer.body.data, "total"), "%s", answer.body.data);
    cr_expect_null(strstr((const char *)answer.body.data, "secret"), "%s", answer.body.data);
    answer_free(&answer);
    http_stop();
}

Test(tokens, a_batch_is_refused_as_a_whole)
{
    http_start();
    expect_body("app", "POST", "/batch",
                "[{\"op\":\"put\",\"key\":\"app/1\",\"value\":\"v\"},{\"op\":\"put\",\"key\":\"ap\",\"value\":\"v\"}]",
                403, "Operation 1: the key is outside of the prefix of this token; nothing was done.");
    expect(H1, TOKEN, "GET", "/app/1", NULL, 404);
    expect_body("reads", "POST", "/batch", "[{\"op\":\"get\",\"key\":\"a\"},{\"op\":\"head\",\"key\":\"a\"}]", 200,
                "found");
    expect_body("reads", "POST", "/batch", "[{\"op\":\"delete\",\"key\":\"a\"}]", 403,
                "Operation 0: this token has no right to delete");
    expect_body("writes", "POST", "/batch",
                "[{\"op\":\"put\",\"key\":\"a\",\"value\":\"v\"},{\"op\":\"get\",\"key\":\"a\"}]", 403,
                "Operation 1: this token has no right to read");
    expect(H1, TOKEN, "GET", "/a", NULL, 404);
    expect_body("app", "POST", "/batch",
                "[{\"op\":\"put\",\"key\":\"app/1\",\"value\":\"v\"},{\"op\":\"delete\",\"key\":\"app/2\"}]", 200,
                "created");
    expect(H1, "app", "POST", "/batch", "[", 400);
    http_stop();
}

static void expect_told(const struct answer *answer, const char *name, bool told)
{
    bool found = http_value(answer, name)[0] != '\0';
    for (size_t at = 0; at + 4 <= answer->body.bytes && !found; at++)
        found = memcmp(answer->body.data + at, "refs", 4) == 0;
    cr_expect_eq(answer->status / 100, 2, "%ld", answer->status);
    cr_expect_eq(found, told, "%s: %s", name, (const char *)answer->body.data);
}

static void expect_sharing(enum version version, const char *token, bool told)
{
    static const char *const asked[][4] = {
        {"PUT", "/app/a", "secret", "x-deduplicated"},
        {"GET", "/app/a", NULL, "x-refs"},
        {"HEAD", "/app/a", NULL, "x-refs"},
        {"GET", "/keys?prefix=app/", NULL, "refs"},
        {"GET", "/keys?prefix=app/&delimiter=z", NULL, "refs"},
        {"POST", "/batch", "[{\"op\":\"head\",\"key\":\"app/a\"}]", "refs"},
        {"POST", "/batch",
         "\x91\x82\xa2op\xa4head\xa3key\xa5"
         "app/a",
         "refs"},
    };
    for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
        char header[128];
        snprintf(header, sizeof(header), "Authorization: Bearer %s", token);
        bool packed = asked[i][2] != NULL && asked[i][2][0] < 0;
        struct request request = {.method = asked[i][0],
                                  .path = asked[i][1],
                                  .headers = {header, packed ? "Content-Type: application/msgpack" : NULL},
                                  .no_token = true};
        if (asked[i][2] != NULL) {
            request.body = kv_slice_text(asked[i][2]);
            request.has_body = true;
        }
        struct answer answer = http_ask(version, &request);
        expect_told(&answer, asked[i][3], told);
        answer_free(&answer);
    }
}

/* Who has a part of the keys cannot ask whether others hold a content. */
Test(tokens, a_prefix_hides_who_shares_a_content)
{
    http_start();
    for (size_t v = 0; v < 2; v++) {
        expect(http_versions[v], TOKEN, "PUT", "/other", "secret", v == 0 ? 201 : 200);
        expect_sharing(http_versions[v], "app", false);
        expect_sharing(http_versions[v], TOKEN, true);
        expect_sharing(http_versions[v], "app", false); /* out of the cache */
    }
    http_stop();
}

/* Large bodies of those who may not send any are not kept, and yet get their answer. */
Test(tokens, large_bodies_without_the_right)
{
    http_start();
    struct kv_buf body = http_content(3000000, true);
    for (size_t v = 0; v < 2; v++) {
        struct request request = {.method = "PUT",
                                  .path = "/large",
                                  .headers = {"Authorization: Bearer reads"},
                                  .body = kv_buf_peek(&body),
                                  .has_body = true,
                                  .no_token = true};
        struct answer answer = http_ask(http_versions[v], &request);
        cr_expect_eq(answer.status, 403, "%ld", answer.status);
        answer_free(&answer);
        request.path = "/app/large";
        request.headers[0] = "Authorization: Bearer app";
        answer = http_ask(http_versions[v], &request);
        cr_expect_eq(answer.status, v == 0 ? 201 : 200, "%ld", answer.status);
        answer_free(&answer);
    }
    kv_buf_free(&body);
    http_stop();
}

/* ---- failures ----------------------------------------------------------------------------------------------------- */

static unsigned long long metric(const char *name)
{
    char head[128];
    struct answer answer = http_get(H1, "/metrics", NULL);
    snprintf(head, sizeof(head), "\n%s ", name);
    const char *line = strstr((const char *)answer.body.data, head);
    cr_assert_not_null(line, "%s", name);
    unsigned long long value = strtoull(line + strlen(head), NULL, 10);
    answer_free(&answer);
    return value;
}

Test(tokens, failures_are_counted_by_reason)
{
    http_settings.auth_failures_max = 0;
    http_start();
    struct answer answer = http_ask(H1, &(struct request){.path = "/k", .no_token = true});
    cr_expect_eq(answer.status, 401);
    cr_expect_str_eq(http_value(&answer, "www-authenticate"), "Bearer realm=\"kv-storage\"");
    answer_free(&answer);
    answer = http_ask(H1, &(struct request){.path = "/k", .headers = {"Authorization: Basic eDp5"}, .no_token = true});
    cr_expect_eq(answer.status, 401);
    answer_free(&answer);
    for (int i = 0; i < 3; i++)
        expect(H2, "guess", "GET", "/k", NULL, 401);
    expect(H2, "reads", "PUT", "/k", "v", 403);
    cr_expect_eq(metric("kv_storage_auth_failures_total{reason=\"missing\"}"), 1u);
    cr_expect_eq(metric("kv_storage_auth_failures_total{reason=\"scheme\"}"), 1u);
    cr_expect_eq(metric("kv_storage_auth_failures_total{reason=\"unknown\"}"), 3u);
    cr_expect_eq(metric("kv_storage_auth_failures_total{reason=\"forbidden\"}"), 1u);
    cr_expect_eq(metric("kv_storage_auth_refusals_delayed_total"), 0u);
    http_stop();
}

static unsigned elapsed_ms(const struct timespec *since)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned)((now.tv_sec - since->tv_sec) * 1000 + (now.tv_nsec - since->tv_nsec) / 1000000);
}

/* A bucket of two fills up by one in five seconds. */
Test(tokens, guessing_is_slow_and_stops_nobody_else)
{
    struct timespec begin;
    http_settings.auth_failures_max = 2;
    http_start();
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int i = 0; i < 4; i++)
        expect(i % 2 == 0 ? H1 : H2, "guess", "GET", "/k", NULL, 401);
    cr_expect_geq(elapsed_ms(&begin), 900u); /* libh2o's clock may be a little behind */
    cr_expect_geq(metric("kv_storage_auth_refusals_delayed_total"), 1u);
    int guesser = http_connect();
    http_send(guesser, "GET /k HTTP/1.1\r\nHost: kv\r\nAuthorization: Bearer guess\r\n\r\n");
    expect(H2, TOKEN, "GET", "/k", NULL, 404);
    struct kv_buf answer = http_receive_until(guesser, "\r\n\r\n");
    cr_expect_eq(strncmp((const char *)answer.data, "HTTP/1.1 401", 12), 0, "%s", answer.data);
    kv_buf_free(&answer);
    close(guesser);
    http_stop();
}

Test(tokens, clients_that_leave_while_they_wait)
{
    http_settings.auth_failures_max = 1;
    http_start();
    for (int i = 0; i < 20; i++) {
        int fd = http_connect();
        http_send(fd, "GET /k HTTP/1.1\r\nHost: kv\r\nAuthorization: Bearer guess\r\n\r\n");
        http_nap(2);
        close(fd);
    }
    expect(H1, TOKEN, "GET", "/k", NULL, 404);
    http_stop(); /* nothing is left */
}

Test(tokens, few_wait_at_once)
{
    enum { SOCKETS = 3 * ADMIT_DELAYED_MAX };
    static int sockets[SOCKETS];
    http_settings.auth_failures_max = 1;
    http_settings.router_threads = 1;
    http_start();
    unsigned long long cut = 0;
    for (int tries = 0; tries < 20 && cut == 0; tries++) { /* a slow machine may answer some before all have asked */
        for (size_t i = 0; i < SOCKETS; i++) {
            sockets[i] = http_connect();
            http_send(sockets[i], "GET /k HTTP/1.1\r\nHost: kv\r\nAuthorization: Bearer guess\r\n\r\n");
        }
        cut = metric("kv_storage_connections_cut_tokens_total");
        for (size_t i = 0; i < SOCKETS; i++)
            close(sockets[i]);
    }
    cr_expect_gt(cut, 0u);
    expect(H2, TOKEN, "GET", "/k", NULL, 404);
    http_stop();
}

/* ---- loading again ------------------------------------------------------------------------------------------------ */

Test(tokens, other_tokens_hold_from_now_on)
{
    static const char *const rotated[][2] = {{"reader:r::", "reads"}, {"reader:r::", "reads-too"}};
    static const char *const after[][2] = {{"reader:r::", "reads-too"}};
    char why[256] = "";
    http_settings.auth_failures_max = 0;
    http_start();
    expect(H1, "reads", "GET", "/k", NULL, 404);
    expect(H1, "reads-too", "GET", "/k", NULL, 401);
    write_tokens(rotated, 2);
    cr_expect_eq(http_reload(why, sizeof(why)), KV_OK, "%s", why);
    expect(H1, "reads", "GET", "/k", NULL, 404);
    expect(H1, "reads-too", "GET", "/k", NULL, 404);
    expect(H1, "app", "GET", "/app/a", NULL, 401);
    write_tokens(after, 1);
    cr_expect_eq(http_reload(why, sizeof(why)), KV_OK, "%s", why);
    expect(H1, "reads", "GET", "/k", NULL, 401);
    cr_assert_eq(truncate(path, 70), 0);
    cr_expect_eq(http_reload(why, sizeof(why)), KV_INVALID);
    cr_expect_eq(strncmp(why, "TOKENS_FILE: line 1: ", 21), 0, "%s", why);
    expect(H1, "reads-too", "GET", "/k", NULL, 404);
    expect(H1, TOKEN, "GET", "/k", NULL, 404);
    http_stop();
}

/* Of a client that waits to be invited before it sends a body. */
static void expect_status(const char *token, const char *target, const char *status)
{
    char head[256];
    int fd = http_connect();
    snprintf(
        head, sizeof(head),
        "PUT %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n",
        target, token);
    http_send(fd, head);
    struct kv_buf answer = http_receive_until(fd, "\r\n\r\n");
    cr_expect(answer.bytes > 12 && memcmp(answer.data + 9, status, 3) == 0, "%s %s: %s", token, target,
              (char *)answer.data);
    kv_buf_free(&answer);
    close(fd);
}

Test(tokens, nobody_is_invited_to_send_what_is_forbidden)
{
    http_start();
    expect_status("app", "/app/a", "100");
    expect_status("app", "/ap", "403");
    expect_status("reads", "/a", "403");
    expect_status("scrapes", "/a", "403");
    expect_status("nobody", "/a", "401");
    expect_status("writes", "/a", "100");
    cr_expect_eq(fake_keys(), 0);
    http_stop();
}

static long ask_over(CURL *easy, bool fresh)
{
    long status = 0, connects = 0;
    CURLcode code = curl_easy_perform(easy);
    cr_expect_eq(code, CURLE_OK, "%s", curl_easy_strerror(code));
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &connects);
    cr_expect_eq(connects, fresh, "all over one connection");
    return status;
}

static size_t drop(char *data, size_t size, size_t count, void *arg)
{
    (void)data;
    (void)arg;
    return size * count;
}

/* What it has shown before is remembered (auth.h). */
Test(tokens, an_open_connection_loses_them_too)
{
    static const char *const after[][2] = {{"reader:r::", "reads-too"}};
    char why[256] = "", url[64];
    http_settings.auth_failures_max = 0;
    http_start();
    CURL *easy = curl_easy_init();
    struct curl_slist *headers = curl_slist_append(NULL, "Authorization: Bearer reads");
    snprintf(url, sizeof url, "http://127.0.0.1:%u/k", http_port);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION,
                     (long)CURL_HTTP_VERSION_2_0); /* prior knowledge: curl 7.88 fails at the second one */
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, drop);
    for (int i = 0; i < 3; i++)
        cr_expect_eq(ask_over(easy, i == 0), 404);
    write_tokens(after, 1);
    cr_expect_eq(http_reload(why, sizeof(why)), KV_OK, "%s", why);
    cr_expect_eq(ask_over(easy, false), 401);
    curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
    http_stop();
}
