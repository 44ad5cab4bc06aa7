/* router/api_metrics.c -- GET /metrics: asks every shard that can be reached, then writes the page.
 * Promises: answers within METRICS_WAIT_MS, with what there is; a shard that did not answer has kv_storage_shard_up 0. Never
 *           from a cache. Parameters in the URL are passed over: scrapers may add some.
 * Tests:    http/test_http_metrics.c, system/test_metrics.c. */
#include "answer.h"
#include "api.h"
#include "metrics.h"
#include "thread.h"

#define METRICS_WAIT_MS 1000u

static void on_stats(void *arg, const struct kv_slice *bodies, unsigned shard_count)
{
    struct exchange *exchange = arg;
    struct server *server = exchange->thread->server;
    struct kv_buf page = {0};
    char why[256];
    exchange->call = NULL;
    struct metrics_view view = {.page = server->counters,
                                .metrics = server->metrics,
                                .bodies = bodies,
                                .shard_count = shard_count,
                                .ready = backend_ready(exchange->thread->backend, why, sizeof(why)),
                                .epoch = server->settings->epoch,
                                .started_s = server->started_s};
    metrics_write(&view, &page);
    answer_header(exchange, "cache-control", kv_slice_text("no-store"));
    answer_body(exchange, 200, "text/plain; version=0.0.4; charset=utf-8", kv_buf_peek(&page));
    kv_buf_free(&page);
}

void api_metrics(struct exchange *exchange)
{
    exchange->call = backend_stats(exchange->thread->backend, METRICS_WAIT_MS, on_stats, exchange);
}
