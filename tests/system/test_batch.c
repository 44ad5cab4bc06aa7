/* Goal: a batch of tens of megabytes is one transaction of the real store, and while it is read, stored and answered other clients
 * are served as if it were not there.
 * Method: one event loop; a batch with large, compressible, random and repeated values (in line, staged, deduplicated) over 4 shards
 * is written and read back in one get batch while another thread asks /-/healthy all the time and notes the longest wait. */
#include <criterion/criterion.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "batch.h"
#include "client.h"
#include "kv/clock.h"

#define VALUES 24u
#define WAIT_MS_MAX 1500u /* on a machine that does nothing else it is below 100 */

TestSuite(batch, .fini = harness_close, .timeout = 600);

struct watcher {
    const struct server *server;
    atomic_bool stop;
    uint64_t asked, longest_ms;
    pthread_t thread;
};

static void *watch(void *arg)
{
    struct watcher *watcher = arg;
    struct client *client = client_new(watcher->server, HTTP_1);
    while (!atomic_load(&watcher->stop)) {
        uint64_t begin_ms = kv_clock_ms();
        if (client_get(client, "/-/healthy")->status != 200)
            break;
        uint64_t took_ms = kv_clock_ms() - begin_ms;
        watcher->longest_ms = took_ms > watcher->longest_ms ? took_ms : watcher->longest_ms;
        watcher->asked++;
        sleep_ms(2);
    }
    client_free(&client);
    return NULL;
}

/* Value `i`: text or noise, from 1 byte to 8 MiB; every third one is the same. */
static struct kv_buf value_of(unsigned i)
{
    struct kv_buf value = {0};
    size_t bytes = i % 3 == 2 ? 100000 : (size_t)1 << (i * 25 / VALUES);
    uint64_t seed = i % 3 == 2 ? 7 : i + 1;
    kv_buf_reserve(&value, bytes);
    for (; value.bytes < bytes; value.bytes++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        value.data[value.bytes] = i % 2 == 0 ? (uint8_t)(seed >> 56) : (uint8_t)("etaoin shr"[(seed >> 56) % 10]);
    }
    return value;
}

static void key_of(unsigned i, char out[24])
{
    snprintf(out, 24, "large/%u", i);
}

static void write_all(struct client *client)
{
    struct batch batch = {0};
    struct batch_results results;
    for (unsigned i = 0; i < VALUES; i++) {
        char key[24];
        struct kv_buf value = value_of(i);
        key_of(i, key);
        batch_put(&batch, key, kv_buf_peek(&value), i % 2 == 0, (struct match){.kind = MATCH_ABSENT});
        kv_buf_free(&value);
    }
    const struct response *response = batch_send(client, &batch);
    CHECK(response->status == 200, "POST /batch of %zu bytes: %ld %s", batch.text.bytes, response->status,
          response->problem);
    CHECK(batch_results_read(response, VALUES, &results));
    for (unsigned i = 0; i < VALUES; i++)
        CHECK(!results.results[i].found, "operation %u", i);
    batch_results_free(&results);
    response = client_send(client, &(struct request){.method = "POST",
                                                     .target = "/batch",
                                                     .body = kv_buf_peek(&batch.text), /* closed by now */
                                                     .has_body = true});
    CHECK(response->status == 412, "again: %ld", response->status);
    batch_free(&batch);
}

static void read_all(struct client *client)
{
    struct batch batch = {0};
    struct batch_results results;
    for (unsigned i = 0; i < VALUES; i++) {
        char key[24];
        key_of(i, key);
        batch_get(&batch, key);
    }
    const struct response *response = batch_send(client, &batch);
    CHECK(response->status == 200 && batch_results_read(response, VALUES, &results), "%ld %s", response->status,
          response->problem);
    for (unsigned i = 0; i < VALUES; i++) {
        struct kv_buf value = value_of(i);
        CHECK(results.results[i].found && kv_slice_equal(kv_buf_peek(&results.results[i].value), kv_buf_peek(&value)),
              "value %u", i);
        kv_buf_free(&value);
    }
    batch_results_free(&results);
    batch_free(&batch);
}

Test(batch, large_ones_do_not_hold_up_others)
{
    struct server *server = server_start((struct server_opts){.shards = 4, .settings = {"ROUTER_THREADS=1"}});
    struct watcher watcher = {.server = server};
    struct client *client = client_new(server, HTTP_2);
    CHECK(pthread_create(&watcher.thread, NULL, watch, &watcher) == 0);
    write_all(client);
    read_all(client);
    atomic_store(&watcher.stop, true);
    pthread_join(watcher.thread, NULL);
    cr_log_info("%llu questions meanwhile, the longest wait %llu ms", (unsigned long long)watcher.asked,
                (unsigned long long)watcher.longest_ms);
    cr_expect_gt(watcher.asked, 20);
    cr_expect_lt(watcher.longest_ms, WAIT_MS_MAX, "%llu ms", (unsigned long long)watcher.longest_ms);
    client_free(&client);
}
