/* Goal: what is counted is told, by the names of the contract, and no counter goes back over restarts and silent shards.
 * Method: a page in memory, bodies as shards write them, lines looked up in the text. */
#include <criterion/criterion.h>
#include <pthread.h> /* tsan */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "metrics.h"
#include "metrics_process.h"
#include "wire/messages.h"

static struct kv_counters_page *page;
static struct metrics *metrics;

static void setup(void)
{
    page = kv_counters_page_open(-1);
    metrics = metrics_open(page);
}

static void teardown(void)
{
    free(page);
}

TestSuite(metrics, .init = setup, .fini = teardown);

static const struct metrics_queues queues = {.content_waiting = 2,
                                             .content_jobs = 5,
                                             .content_bytes = 700,
                                             .batch_jobs = 1,
                                             .batch_bytes = 800,
                                             .upload_file_bytes = 900,
                                             .upload_file_bytes_max = 901,
                                             .upload_memory_bytes = 902,
                                             .connections_max = 903,
                                             .fds_max = 904};

static struct kv_buf told(struct kv_slice first, struct kv_slice second)
{
    struct kv_slice bodies[] = {first, second};
    struct metrics_view view = {.page = page,
                                .metrics = metrics,
                                .bodies = bodies,
                                .shard_count = 2,
                                .ready = true,
                                .epoch = 3,
                                .started_s = 99,
                                .certificate_expires_s = 2000000000,
                                .durable = true,
                                .queues = queues};
    struct kv_buf out = {0};
    metrics_write(&view, &out);
    kv_buf_append(&out, kv_slice("", 1));
    return out;
}

static void expect_line(const struct kv_buf *out, const char *line, bool there)
{
    char whole[256];
    snprintf(whole, sizeof(whole), "\n%s\n", line);
    cr_expect_eq(strstr((const char *)out->data, whole) != NULL, there, "'%s' is %s", line,
                 there ? "missing" : "there");
}

static struct kv_buf report(uint64_t keys, uint64_t puts)
{
    struct kv_buf body = {0};
    kv_put_counters_begin(&body, 9);
    kv_put_counter(&body, "keys", keys);
    kv_put_counter(&body, "puts", puts);
    kv_put_counter(&body, "journal_flush_ns_0", 2);
    kv_put_counter(&body, "journal_flush_ns_1", 3);
    kv_put_counter(&body, "journal_flush_ns_17", 1);
    kv_put_counter(&body, "journal_flush_ns_sum", 1500000001);
    kv_put_counter(&body, "journal_flush_ns_18", 1000); /* no such buckets */
    kv_put_counter(&body, "journal_flush_ns_x", 1000);
    kv_put_counter(&body, "no_such_thing", 8);
    return body;
}

Test(metrics, totals_and_shards)
{
    struct kv_buf first = report(10, 100), second = report(5, 50);
    struct kv_buf out = told(kv_buf_peek(&first), kv_buf_peek(&second));
    expect_line(&out, "kv_storage_keys_total 15", true);
    expect_line(&out, "# TYPE kv_storage_keys_total untyped", true);
    expect_line(&out, "kv_storage_shard_keys{shard=\"1\"} 5", true);
    expect_line(&out, "kv_storage_shard_ops_total{shard=\"0\",operation=\"put\"} 100", true);
    expect_line(&out, "kv_storage_shard_journal_flush_seconds_bucket{shard=\"0\",le=\"0.00005\"} 2", true);
    expect_line(&out, "kv_storage_shard_journal_flush_seconds_bucket{shard=\"0\",le=\"0.0001\"} 5", true);
    expect_line(&out, "kv_storage_shard_journal_flush_seconds_bucket{shard=\"0\",le=\"1\"} 5", true);
    expect_line(&out, "kv_storage_shard_journal_flush_seconds_bucket{shard=\"0\",le=\"10\"} 5", true);
    expect_line(&out, "kv_storage_shard_journal_flush_seconds_bucket{shard=\"0\",le=\"+Inf\"} 6", true);
    expect_line(&out, "kv_storage_shard_journal_flush_seconds_sum{shard=\"0\"} 1.500000001", true);
    expect_line(&out, "kv_storage_shard_journal_flush_seconds_count{shard=\"0\"} 6", true);
    expect_line(&out, "kv_storage_shard_journal_group_bytes_count{shard=\"0\"} 0", false);
    expect_line(&out, "kv_storage_shard_up{shard=\"1\"} 1", true);
    expect_line(&out, "kv_storage_ready 1", true);
    expect_line(&out, "kv_storage_router_epoch 3", true);
    kv_buf_free(&out);
    kv_buf_free(&first);
    kv_buf_free(&second);
}

Test(metrics, a_silent_shard_keeps_its_counters)
{
    struct kv_buf first = report(10, 100), second = report(5, 50);
    struct kv_buf out = told(kv_buf_peek(&first), kv_buf_peek(&second));
    kv_buf_free(&out);
    metrics = metrics_open(page); /* and another router asks */
    out = told(kv_buf_peek(&first), kv_slice(NULL, 0));
    expect_line(&out, "kv_storage_shard_up{shard=\"0\"} 1", true);
    expect_line(&out, "kv_storage_shard_up{shard=\"1\"} 0", true);
    expect_line(&out, "kv_storage_shard_ops_total{shard=\"1\",operation=\"put\"} 50", true);
    expect_line(&out, "kv_storage_shard_keys{shard=\"1\"} 5", false);
    expect_line(&out, "kv_storage_shard_journal_flush_seconds_count{shard=\"1\"} 6", true);
    kv_buf_free(&out);
    out = told(kv_buf_peek(&first), kv_slice_text("rubbish"));
    expect_line(&out, "kv_storage_shard_up{shard=\"1\"} 0", true);
    kv_buf_free(&out);
    kv_buf_free(&first);
    kv_buf_free(&second);
}

static struct kv_buf told_alone(void)
{
    return told(kv_slice(NULL, 0), kv_slice(NULL, 0));
}

Test(metrics, requests_land_in_their_buckets)
{
    static const uint64_t took_ns[] = {0, 50000, 50001, 1000000, 10000000000, 10000000001};
    for (size_t i = 0; i < 6; i++)
        metrics_request(metrics_of_thread(metrics, (unsigned)i % 2), HTTP_PUT, METRICS_PUT, 200, took_ns[i]);
    metrics_request(metrics_of_thread(metrics, 0), HTTP_DELETE, METRICS_OTHER, 0, 5);
    metrics_request(metrics_of_thread(metrics, 0), HTTP_OTHER, METRICS_OTHER, 299, 5);
    struct kv_buf out = told_alone();
    expect_line(&out, "kv_storage_requests_total{method=\"PUT\",status=\"200\"} 6", true);
    expect_line(&out, "kv_storage_requests_total{method=\"DELETE\",status=\"0\"} 1", true);
    expect_line(&out, "kv_storage_requests_total{method=\"other\",status=\"other\"} 1", true);
    expect_line(&out, "kv_storage_request_duration_seconds_bucket{operation=\"put\",le=\"0.00005\"} 2", true);
    expect_line(&out, "kv_storage_request_duration_seconds_bucket{operation=\"put\",le=\"0.0001\"} 3", true);
    expect_line(&out, "kv_storage_request_duration_seconds_bucket{operation=\"put\",le=\"0.0005\"} 3", true);
    expect_line(&out, "kv_storage_request_duration_seconds_bucket{operation=\"put\",le=\"0.001\"} 4", true);
    expect_line(&out, "kv_storage_request_duration_seconds_bucket{operation=\"put\",le=\"10\"} 5", true);
    expect_line(&out, "kv_storage_request_duration_seconds_bucket{operation=\"put\",le=\"+Inf\"} 6", true);
    expect_line(&out, "kv_storage_request_duration_seconds_count{operation=\"put\"} 6", true);
    expect_line(&out, "kv_storage_request_duration_seconds_sum{operation=\"put\"} 20.001100002", true);
    kv_buf_free(&out);
}

Test(metrics, counters_survive_a_router_and_gauges_do_not)
{
    struct metrics_thread *slot = metrics_of_thread(metrics, KV_ROUTER_THREADS_MAX - 1);
    metrics_add(slot, METRICS_CHECKSUM_FAILURES, 2);
    metrics_transaction(slot, KV_OK);
    metrics_transaction(slot, KV_UNCERTAIN);
    metrics_transaction(slot, KV_IO);
    metrics_set(slot, METRICS_GAUGE_CONNECTIONS, 7);
    metrics_set_calls(slot, 0, 5, true);
    metrics_set_calls(slot, 1, 6, false);
    metrics_set_calls(metrics_of_thread(metrics, 0), 1, 7, true); /* this thread has heard of it */
    kv_counter_add(&page->router_restarts, 1);
    kv_counter_add(&page->shard_restarts[1], 4);
    struct kv_buf out = told_alone();
    expect_line(&out, "kv_storage_connections_open 7", true);
    expect_line(&out, "kv_storage_shard_calls{shard=\"0\",state=\"sent\"} 5", true);
    expect_line(&out, "kv_storage_shard_calls{shard=\"0\",state=\"waiting\"} 0", true);
    expect_line(&out, "kv_storage_shard_calls{shard=\"1\",state=\"sent\"} 7", true);
    expect_line(&out, "kv_storage_shard_calls{shard=\"1\",state=\"waiting\"} 6", true);
    kv_buf_free(&out);
    metrics = metrics_open(page);
    metrics_add(metrics_of_thread(metrics, 0), METRICS_CHECKSUM_FAILURES, 1);
    out = told_alone();
    expect_line(&out, "kv_storage_checksum_failures_total 3", true);
    expect_line(&out, "kv_storage_connections_open 0", true);
    expect_line(&out, "kv_storage_shard_calls{shard=\"1\",state=\"waiting\"} 0", true);
    expect_line(&out, "kv_storage_transactions_total{outcome=\"done\"} 1", true);
    expect_line(&out, "kv_storage_transactions_total{outcome=\"uncertain\"} 1", true);
    expect_line(&out, "kv_storage_transactions_total{outcome=\"failed\"} 1", true);
    expect_line(&out, "kv_storage_restarts_total{process=\"router\",shard=\"\"} 1", true);
    expect_line(&out, "kv_storage_restarts_total{process=\"shard\",shard=\"1\"} 4", true);
    kv_buf_free(&out);
}

Test(metrics, what_waits_outside_of_the_loops)
{
    struct kv_buf out = told_alone();
    expect_line(&out, "kv_storage_worker_jobs{worker=\"content\",state=\"waiting\"} 2", true);
    expect_line(&out, "kv_storage_worker_jobs{worker=\"content\",state=\"begun\"} 3", true);
    expect_line(&out, "kv_storage_worker_jobs{worker=\"batch\",state=\"begun\"} 1", true);
    expect_line(&out, "kv_storage_worker_bytes{worker=\"content\"} 700", true);
    expect_line(&out, "kv_storage_worker_bytes{worker=\"batch\"} 800", true);
    expect_line(&out, "kv_storage_upload_bytes{where=\"files\"} 900", true);
    expect_line(&out, "kv_storage_upload_max_bytes 901", true);
    expect_line(&out, "kv_storage_upload_bytes{where=\"memory\"} 902", true);
    expect_line(&out, "kv_storage_connections_max 903", true);
    expect_line(&out, "kv_storage_router_max_fds 904", true);
    expect_line(&out, "kv_storage_tls_certificate_expires_seconds 2000000000", true);
    expect_line(&out, "kv_storage_durable 1", true);
    kv_buf_free(&out);
}

Test(metrics, the_region_of_another_layout_begins_anew)
{
    memset((void *)page->router, 0x55, sizeof(page->router));
    metrics = metrics_open(page);
    struct kv_buf out = told_alone();
    expect_line(&out, "kv_storage_checksum_failures_total 0", true);
    expect_line(&out, "kv_storage_keys_total 0", true);
    kv_buf_free(&out);
}

static void *count_requests(void *arg)
{
    struct metrics_thread *slot = arg;
    for (int i = 0; i < 20000; i++)
        metrics_request(slot, HTTP_GET, METRICS_GET, 200, 1000);
    return NULL;
}

/* Threads count while another tells: nothing is lost, nothing is a race. */
Test(metrics, counting_while_telling)
{
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, count_requests, metrics_of_thread(metrics, i)), 0);
    struct kv_buf out = told_alone();
    kv_buf_free(&out);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    out = told_alone();
    expect_line(&out, "kv_storage_requests_total{method=\"GET\",status=\"200\"} 80000", true);
    kv_buf_free(&out);
}

Test(metrics, this_process)
{
    volatile unsigned work = 0;
    while (metrics_process_own().cpu_us == 0)
        for (unsigned i = 0; i < 10000000; i++)
            work += i;
    struct metrics_process before = metrics_process_own();
    int fd = dup(2);
    struct metrics_process after = metrics_process_own();
    cr_expect_gt(before.rss_bytes, 100000);
    cr_expect_geq(before.fds, 1);
    cr_expect_eq(after.fds, before.fds + 1);
    close(fd);
    struct metrics_process parent = metrics_process_supervisor();
    cr_expect(parent.rss_bytes > 100000 && parent.fds == 0);
}
