/* router/api_metrics.c -- GET /metrics: asks every shard that can be reached, then writes the page.
 * Promises: answers within METRICS_WAIT_MS, with what there is; a shard that did not answer has kv_storage_shard_up 0, and one
 *           that is down or was silent before is not waited for. Never from a cache. Parameters in the URL are passed over: scrapers
 *           may add some.
 * Tests:    http/test_http_metrics.c, system/test_metrics.c. */
#include "answer.h"
#include "api.h"
#include "body.h"
#include "gauges.h"
#include "metrics.h"
#include "task.h"
#include "thread.h"
#include "work.h"

#define METRICS_WAIT_MS 1000u

static struct metrics_queues queues_of(struct server *server)
{
    struct work_load work = work_load(server->work);
    struct metrics_queues queues = {.content_waiting = work.waiting,
                                    .content_jobs = work.jobs,
                                    .content_bytes = work.bytes,
                                    .upload_file_bytes = body_file_bytes(),
                                    .upload_file_bytes_max = server->settings->upload_bytes_max,
                                    .upload_memory_bytes = body_memory_bytes(),
                                    .connections_max = server->connections_max * server->thread_count,
                                    .fds_max = server->fds_max};
    queues.batch_jobs = tasks_load(server->tasks, &queues.batch_bytes);
    return queues;
}

static void on_stats(void *arg, const struct kv_slice *bodies, unsigned shard_count)
{
    struct exchange *exchange = arg;
    struct server *server = exchange->thread->server;
    struct kv_buf page = {0};
    char why[256];
    exchange->call = NULL;
    gauges_read(exchange->thread);
    struct metrics_view view = {.page = server->counters,
                                .metrics = server->metrics,
                                .bodies = bodies,
                                .shard_count = shard_count,
                                .ready = backend_ready(exchange->thread->backend, why, sizeof(why)),
                                .epoch = server->settings->epoch,
                                .started_s = server->started_s,
                                .certificate_expires_s = server->certificate_expires_s,
                                .durable = server->settings->durability == KV_DURABILITY_SYNC,
                                .queues = queues_of(server)};
    metrics_write(&view, &page);
    answer_header(exchange, "cache-control", kv_slice_text("no-store"));
    answer_body(exchange, 200, "text/plain; version=0.0.4; charset=utf-8", kv_buf_peek(&page));
    kv_buf_free(&page);
}

void api_metrics(struct exchange *exchange)
{
    exchange->call = backend_stats(exchange->thread->backend, METRICS_WAIT_MS, on_stats, exchange);
}
