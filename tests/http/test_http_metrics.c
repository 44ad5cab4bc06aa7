/* Goal: GET /metrics is what Prometheus takes without a word, under the contract's names, and counts what clients did.
 * Method: libcurl against the HTTP side over a backend in memory with two shards, one of them sometimes silent. */
#include "harness.h"
#include "metrics_internal.h"
#include "thread.h"

#include <stdlib.h>
#include <unistd.h>

static void setup(void)
{
    http_defaults();
    http_start();
}

TestSuite(metrics, .init = setup, .fini = http_stop);

static struct answer ask(void)
{
    struct answer answer = http_get(H1, "/metrics", NULL);
    cr_assert_eq(answer.status, 200);
    return answer;
}

static bool has(const struct answer *answer, const char *line)
{
    char whole[256];
    snprintf(whole, sizeof(whole), "\n%s\n", line);
    return strstr((const char *)answer->body.data, whole) != NULL;
}

static bool is_told(const char *line)
{
    struct answer page = ask();
    bool told = has(&page, line);
    answer_free(&page);
    return told;
}

/* A client has its answer a moment before its loop counts the request; another one may write the page. */
static void expect_line(const char *line)
{
    bool told = is_told(line);
    for (int waited = 0; !told && waited < HTTP_WAIT_MS; waited += 5) {
        http_nap(5);
        told = is_told(line);
    }
    cr_expect(told, "'%s' is missing", line);
}

static size_t count_connections(void)
{
    size_t count = 0;
    for (unsigned i = 0; i < http_server->thread_count; i++)
        count += kv_counter_get(&http_server->threads[i].metrics->gauges[METRICS_GAUGE_CONNECTIONS]);
    return count;
}

static void make_some_traffic(void)
{
    struct answer answer = http_put(H2, "/a", kv_slice_text("12345"), NULL);
    answer_free(&answer);
    answer = http_get(H1, "/a", NULL);
    answer_free(&answer);
    answer = http_get(H1, "/nothing", NULL);
    answer_free(&answer);
    answer = http_get(H1, "/keys?limit=0", NULL);
    answer_free(&answer);
    static const char batch[] = "[{\"op\":\"get\",\"key\":\"a\"}]";
    answer = http_ask(
        H1, &(struct request){.method = "POST", .path = "/batch", .body = kv_slice_text(batch), .has_body = true});
    cr_expect_eq(answer.status, 200);
    answer_free(&answer);
}

Test(metrics, headers)
{
    struct answer answer = ask();
    cr_expect_str_eq(http_value(&answer, "content-type"), "text/plain; version=0.0.4; charset=utf-8");
    cr_expect_str_eq(http_value(&answer, "cache-control"), "no-store");
    answer_free(&answer);
    answer = http_method(H2, "HEAD", "/metrics?name=x", NULL);
    cr_expect_eq(answer.status, 200);
    cr_expect_eq(answer.body.bytes, 0);
    answer_free(&answer);
    answer = http_ask(H1, &(struct request){.path = "/metrics", .no_token = true});
    cr_expect_eq(answer.status, 401);
    answer_free(&answer);
}

Test(metrics, what_clients_did)
{
    make_some_traffic();
    expect_line("kv_storage_keys_total 1");
    expect_line("kv_storage_ops_total{operation=\"put\"} 1");
    expect_line("kv_storage_ops_total{operation=\"get\"} 3");
    expect_line("kv_storage_ops_total{operation=\"delete\"} 0");
    expect_line("kv_storage_requests_total{method=\"PUT\",status=\"201\"} 1");
    expect_line("kv_storage_requests_total{method=\"GET\",status=\"404\"} 1");
    expect_line("kv_storage_requests_total{method=\"GET\",status=\"400\"} 1");
    expect_line("kv_storage_requests_total{method=\"POST\",status=\"200\"} 1");
    expect_line("kv_storage_request_duration_seconds_count{operation=\"put\"} 1");
    expect_line("kv_storage_request_duration_seconds_count{operation=\"get\"} 2");
    expect_line("kv_storage_request_duration_seconds_count{operation=\"batch\"} 1");
    expect_line("kv_storage_request_duration_seconds_count{operation=\"list\"} 1");
    expect_line("kv_storage_http_request_body_bytes_total 29");
    expect_line("kv_storage_transactions_total{outcome=\"done\"} 2");
    http_wait_until(count_connections() == 0);
    expect_line("kv_storage_connections_open 1");
    http_wait_until(count_connections() == 0);
    expect_line("kv_storage_requests_in_flight 1");
}

/* One by one, also where a batch writes one key several times, and the shards see one row. */
Test(metrics, operations_of_batches)
{
    static const char batch[] =
        "[{\"op\":\"put\",\"key\":\"b\",\"value\":\"1\"},{\"op\":\"put\",\"key\":\"b\",\"value\":\"2\"},"
        "{\"op\":\"head\",\"key\":\"b\"},{\"op\":\"delete\",\"key\":\"b\"},{\"op\":\"delete\",\"key\":\"b\"}]";
    struct answer answer = http_ask(
        H2, &(struct request){.method = "POST", .path = "/batch", .body = kv_slice_text(batch), .has_body = true});
    cr_expect_eq(answer.status, 200);
    answer_free(&answer);
    expect_line("kv_storage_ops_total{operation=\"put\"} 2");
    expect_line("kv_storage_ops_total{operation=\"get\"} 1");
    expect_line("kv_storage_ops_total{operation=\"delete\"} 1");
    expect_line("kv_storage_batch_operations_total 5");
    answer = http_put(H2, "/c", kv_slice_text("12345"), NULL);
    answer_free(&answer);
    for (int i = 0; i < 2; i++) { /* the second finds nothing */
        answer = http_method(H1, "DELETE", "/c", NULL);
        answer_free(&answer);
    }
    expect_line("kv_storage_ops_total{operation=\"put\"} 3");
    expect_line("kv_storage_ops_total{operation=\"delete\"} 2");
}

static void put_if(const char *condition, long status)
{
    struct answer answer = http_put(H2, "/k", kv_slice_text("12345"), condition);
    cr_expect_eq(answer.status, status, "%ld", answer.status);
    answer_free(&answer);
}

/* Once each, by what the client was told, however often the row was looked at and whether a transaction came of it. */
Test(metrics, writes_by_how_they_ended)
{
    put_if(NULL, 201);
    put_if("If-None-Match: \"x\"", 200);
    put_if("If-None-Match: \"5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5\"", 412);
    put_if("If-Match: \"x\"", 412);
    put_if("If-None-Match: *", 412);
    fake_race("k", 1);
    put_if("If-None-Match: \"x\"", 200);
    fake_race("k", 100);
    put_if("If-None-Match: \"x\"", 429);
    fake_race("k", 0);
    expect_line("kv_storage_transactions_total{outcome=\"done\"} 3");
    expect_line("kv_storage_transactions_total{outcome=\"precondition_failed\"} 3");
    expect_line("kv_storage_transactions_total{outcome=\"overloaded\"} 1");
}

/* Whatever the server answers has a status of its own in requests_total. */
Test(metrics, an_expectation_refused)
{
    int fd = http_connect();
    http_send(fd, "PUT /k HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN
                  "\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n");
    struct kv_buf answer = http_receive_until(fd, "\r\n\r\n");
    cr_expect(strncmp((char *)answer.data, "HTTP/1.1 417", 12) == 0, "%s", (char *)answer.data);
    kv_buf_free(&answer);
    close(fd);
    expect_line("kv_storage_requests_total{method=\"PUT\",status=\"417\"} 1");
}

Test(metrics, a_shard_that_is_down)
{
    expect_line("kv_storage_shard_up{shard=\"1\"} 1");
    fake_shard_down(1);
    expect_line("kv_storage_shard_up{shard=\"0\"} 1");
    expect_line("kv_storage_shard_up{shard=\"1\"} 0");
    expect_line("kv_storage_shard_ops_total{shard=\"1\",operation=\"put\"} 11");
    fake_unready("shard 1 does not answer");
    expect_line("kv_storage_ready 0");
    fake_unready(NULL);
    fake_shard_down(-1);
}

/* The value of a sample, -1 when it is not there. */
static long value(const char *name)
{
    char whole[256];
    struct answer page = ask();
    snprintf(whole, sizeof(whole), "\n%s ", name);
    const char *at = strstr((const char *)page.body.data, whole);
    long number = at == NULL ? -1 : strtol(at + strlen(whole), NULL, 10);
    answer_free(&page);
    return number;
}

/* Each loop has one call to each shard, as the twin has it. */
Test(metrics, what_waits_on_each_loop)
{
    long loops = (long)http_server->thread_count;
    http_wait_until(value("kv_storage_transactions_open") == 7 * loops);
    http_wait_until(value("kv_storage_shard_calls{shard=\"1\",state=\"sent\"}") == loops);
    cr_expect_eq(value("kv_storage_shard_calls{shard=\"1\",state=\"waiting\"}"), 0);
    fake_shard_down(1);
    http_wait_until(value("kv_storage_shard_calls{shard=\"1\",state=\"waiting\"}") == loops);
    cr_expect_eq(value("kv_storage_shard_calls{shard=\"1\",state=\"sent\"}"), 0);
    cr_expect_eq(value("kv_storage_shard_calls{shard=\"0\",state=\"sent\"}"), loops);
    fake_shard_down(-1);
    cr_expect_eq(value("kv_storage_requests_waiting_for_clients"), 0);
    cr_expect_eq(value("kv_storage_worker_jobs{worker=\"content\",state=\"waiting\"}"), 0);
    cr_expect_eq(value("kv_storage_upload_bytes{where=\"files\"}"), 0);
    cr_expect_gt(value("kv_storage_upload_max_bytes"), 0);
    cr_expect_gt(value("kv_storage_router_max_fds"), 0);
    cr_expect_gt(value("kv_storage_connections_max"), 0);
    cr_expect_eq(value("kv_storage_durable"), 1);
    cr_expect_eq(value("kv_storage_tls_certificate_expires_seconds"), 0, "no TLS");
}

static size_t drop_bytes(char *data, size_t size, size_t count, void *arg)
{
    (void)data;
    (void)arg;
    return size * count;
}

/* Over HTTP/2, which h2o watches while a request is worked on. */
Test(metrics, clients_that_leave)
{
    char url[64];
    fake_hold(true);
    CURL *curl = curl_easy_init();
    struct curl_slist *headers = curl_slist_append(NULL, "Authorization: Bearer " TOKEN);
    snprintf(url, sizeof(url), "http://127.0.0.1:%u/metrics", http_port);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, drop_bytes);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, 300L);
    cr_expect_eq(curl_easy_perform(curl), CURLE_OPERATION_TIMEDOUT);
    curl_easy_cleanup(curl);
    curl_slist_free_all(headers);
    http_wait_until(fake_waiting() == 0);
    fake_hold(false);
    expect_line("kv_storage_requests_total{method=\"GET\",status=\"0\"} 1");
}
