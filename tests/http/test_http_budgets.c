/* Goal: what a client may take of a router has an end: cancelled and open requests, contents that wait for it, connections, time for
 * headers, bodies and answers, open files; and who stays within it meets none of this.
 * Method: a router in a process of its own, without and with the guard; frames by hand; its counters, and what its backend was asked. */
#include "attack.h"

static void setup(void)
{
    http_defaults();
    http_settings.router_threads = 1;
    http_settings.access_log = 0;
}

TestSuite(budgets, .init = setup);

/* ---- cancelled requests ------------------------------------------------------------------------------------------- */

enum { REQUESTS = 3000 };

typedef void (*cancel)(struct kv_buf *out, uint32_t stream);

static void by_reset(struct kv_buf *out, uint32_t stream)
{
    frame32(out, RST_STREAM, stream, 8);
}

/* A fault that makes the server reset it ("MadeYouReset"). */
static void by_fault(struct kv_buf *out, uint32_t stream)
{
    frame32(out, WINDOW_UPDATE, stream, 0);
}

/* DELETEs, since GETs that are followed by their end would never be looked up (gets.h). */
static int cancel_many(const char *address, unsigned count, cancel end)
{
    struct kv_buf out = {0};
    int fd = h2_connect_from(address, false);
    for (uint32_t i = 0; i < count; i++) {
        request(&out, "DELETE", "/value", END_STREAM | END_HEADERS, 2 * i + 1);
        end(&out, 2 * i + 1);
    }
    give(fd, &out);
    return fd;
}

/* `allowed`: of a budget that fills up again meanwhile, however long the victim takes. */
static size_t calls_after_cancels(bool guarded, cancel end, size_t *allowed)
{
    struct victim victim = victim_start(guarded);
    victim.shared->hold = true;
    victim_settle(&victim);
    uint64_t begin_ms = kv_clock_ms();
    int fd = cancel_many("127.0.0.1", REQUESTS, end);
    http_wait_until(guarded ? victim.shared->counters[METRICS_CUT_CANCELS] == 1 : victim.shared->calls == REQUESTS);
    uint64_t took_ms = kv_clock_ms() - begin_ms;
    *allowed = http_settings.cancels_max + http_settings.cancels_max * took_ms / (H2O_GUARD_WINDOW_S * 1000) + 1;
    victim_settle(&victim);
    size_t calls = victim.shared->calls;
    cr_expect_eq(victim.shared->counters[METRICS_CUT_CANCELS], guarded);
    cr_expect(is_serving());
    close(fd);
    victim_end(&victim);
    return calls;
}

Test(budgets, cancelled_requests_reach_the_backend_to_a_limit)
{
    static const cancel ends[] = {by_reset, by_fault};
    for (unsigned i = 0; i < 2; i++) {
        size_t allowed;
        cr_expect_eq(calls_after_cancels(false, ends[i], &allowed), REQUESTS, "all of them without the guard");
        size_t calls = calls_after_cancels(true, ends[i], &allowed);
        cr_expect_leq(calls, allowed, "%zu calls, %zu allowed", calls, allowed);
    }
}

/* They never reach a handler: each is an upload that is taken back. */
static bool are_unfinished_cancels_cut(bool guarded)
{
    struct kv_buf out = {0};
    struct victim victim = victim_start(guarded);
    int fd = h2_connect();
    for (uint32_t i = 0; i < REQUESTS; i++) {
        request(&out, "PUT", "/value", END_HEADERS, 2 * i + 1);
        by_reset(&out, 2 * i + 1);
    }
    give(fd, &out);
    bool cut = is_closed(fd, guarded ? HTTP_WAIT_MS : 500);
    http_wait_until(victim.shared->counters[METRICS_CUT_CANCELS] == cut);
    cr_expect(is_serving());
    close(fd);
    victim_end(&victim);
    return cut;
}

Test(budgets, requests_that_are_taken_back_unfinished_count_too)
{
    cr_expect_not(are_unfinished_cancels_cut(false), "not without the guard");
    cr_expect(are_unfinished_cancels_cut(true));
}

Test(budgets, an_address_cancels_over_all_its_connections)
{
    http_settings.cancels_max = 20;
    struct victim victim = victim_start(true);
    victim.shared->hold = true;
    victim_settle(&victim);
    int fds[20];
    for (unsigned i = 0; i < 20; i++)
        fds[i] = cancel_many("127.0.0.1", 15, by_reset);
    http_wait_until(
        victim.shared->counters[METRICS_REQUESTS_CANCELLED] + 15 * victim.shared->counters[METRICS_CUT_CANCELS] >= 300);
    cr_expect_gt(victim.shared->counters[METRICS_CUT_CANCELS], 0,
                 "15 of one connection are fine, 300 of an address not");
    uint64_t cut = victim.shared->counters[METRICS_CUT_CANCELS];
    uint64_t cancelled = victim.shared->counters[METRICS_REQUESTS_CANCELLED];
    int other = cancel_many("127.0.0.2", 15, by_reset);
    http_wait_until(victim.shared->counters[METRICS_REQUESTS_CANCELLED] == cancelled + 15);
    cr_expect_eq(victim.shared->counters[METRICS_CUT_CANCELS], cut, "another address has its own");
    close(other);
    for (unsigned i = 0; i < 20; i++)
        close(fds[i]);
    victim_end(&victim);
}

/* ---- abandoned requests ------------------------------------------------------------------------------------------- */

static int ask_many(const char *address, unsigned count)
{
    struct kv_buf out = {0};
    int fd = h2_connect_from(address, false);
    for (uint32_t i = 0; i < count; i++)
        request(&out, "GET", "/value", END_STREAM | END_HEADERS, 2 * i + 1);
    give(fd, &out);
    is_closed(fd, 300);
    return fd;
}

/* Twice 40 GETs and a client that leaves, then 40 more and some from elsewhere, while the shards do not answer. How many waited. */
static uint64_t waiting_after_leaving(bool guarded)
{
    struct victim victim = victim_start(guarded);
    victim.shared->hold = true;
    victim_settle(&victim);
    for (unsigned i = 1; i <= 2; i++) {
        int fd = ask_many("127.0.0.1", 40);
        http_wait_until(victim.shared->calls == 40 * i);
        close(fd);
        http_wait_until(victim.shared->connections == 0);
    }
    int fd = ask_many("127.0.0.1", 40), other = ask_many("127.0.0.2", 4);
    http_wait_until(victim.shared->calls >= 84);
    http_wait_until(victim.shared->calls == 124); /* at last, whatever the shards do */
    uint64_t waited = victim.shared->counters[METRICS_ANSWERS_DELAYED];
    victim.shared->hold = false;
    cr_expect(is_serving());
    close(fd);
    close(other);
    victim_end(&victim);
    return waited;
}

/* What a client that has left asked for keeps the shards busy: whoever comes from there waits until they are through. */
Test(budgets, an_address_waits_for_what_it_has_abandoned)
{
    http_settings.abandoned_per_address_max = 60;
    cr_expect_eq(waiting_after_leaving(false), 0);
    cr_expect_geq(waiting_after_leaving(true), 40);
}

/* ---- open requests ------------------------------------------------------------------------------------------------ */

static int open_uploads(const char *address, unsigned count)
{
    struct kv_buf out = {0};
    int fd = h2_connect_from(address, false);
    for (uint32_t i = 0; i < count; i++)
        request(&out, "PUT", "/up", END_HEADERS, 2 * i + 1);
    give(fd, &out);
    return fd;
}

Test(budgets, an_address_has_so_many_open_requests)
{
    http_settings.requests_per_address_max = 150;
    struct victim victim = victim_start(true);
    int first = open_uploads("127.0.0.1", 100), other = open_uploads("127.0.0.2", 100);
    cr_expect(is_taken(first));
    int second = open_uploads("127.0.0.1", 51);
    cr_expect(is_closed(second, HTTP_WAIT_MS), "151 of one address");
    cr_expect(is_taken(first));
    cr_expect(is_taken(other), "another address has its own");
    http_wait_until(victim.shared->counters[METRICS_CUT_REQUESTS] == 1);
    close(first);
    http_wait_until(victim.shared->connections == 1);
    int third = open_uploads("127.0.0.1", 100);
    cr_expect(is_taken(third), "there is room again");
    cr_expect(is_serving(), "and for one more");
    close(second);
    close(third);
    close(other);
    victim_end(&victim);
}

/* Unfinished, with a field of `bytes` (16,254 or less). */
static int open_large(const char *address, unsigned count, unsigned bytes)
{
    static uint8_t value[16384];
    struct kv_buf out = {0};
    int fd = h2_connect_from(address, false);
    for (uint32_t i = 0; i < count; i++) {
        struct kv_buf block = fields("PUT", "/up");
        uint8_t head[6] = {0, 1, 'z', 0x7f, (uint8_t)(0x80 | ((bytes - 127) & 0x7f)), (uint8_t)((bytes - 127) >> 7)};
        memset(value, 'v', sizeof(value));
        kv_buf_append(&block, raw(head, sizeof(head)));
        kv_buf_append(&block, raw(value, bytes));
        frame(&out, HEADERS, END_HEADERS, 2 * i + 1, kv_buf_peek(&block));
        kv_buf_free(&block);
    }
    give(fd, &out);
    return fd;
}

Test(budgets, an_address_has_so_many_bytes_of_headers)
{
    http_settings.header_bytes_per_address_max = 1 << 20;
    struct victim victim = victim_start(true);
    int first = open_large("127.0.0.1", 60, 16000), other = open_large("127.0.0.2", 60, 16000);
    int small = open_large("127.0.0.1", 100, 3500);
    cr_expect(is_taken(first));
    int second = open_large("127.0.0.1", 10, 16000);
    cr_expect(is_closed(second, HTTP_WAIT_MS));
    cr_expect(is_taken(other), "another address has its own");
    cr_expect(is_taken(small), "small ones are not counted");
    http_wait_until(victim.shared->counters[METRICS_CUT_HEADER_BYTES] == 1);
    close(first);
    http_wait_until(victim.shared->connections == 2);
    int third = open_large("127.0.0.1", 60, 16000);
    cr_expect(is_taken(third), "there is room again");
    close(second);
    close(third);
    close(other);
    close(small);
    victim_end(&victim);
}

/* Before its end nobody decodes a block; HTTP/1: a head without an end. */
static bool are_endless_headers_cut(bool guarded, enum version version)
{
    struct kv_buf out = {0}, content = http_content(16000, false);
    struct victim victim = victim_start(guarded);
    int fd = version == H1 ? http_connect() : h2_connect();
    kv_buf_append(&out, kv_slice_text(version == H1 ? "GET /value HTTP/1.1\r\nx: " : ""));
    if (version == H2)
        request(&out, "GET", "/value", END_STREAM, 1);
    for (unsigned i = 0; i < 10 && version == H2; i++)
        frame(&out, CONTINUATION, 0, 1, kv_buf_peek(&content));
    for (unsigned i = 0; i < 10 && version == H1; i++)
        kv_buf_append(&out, kv_buf_peek(&content));
    kv_buf_free(&content);
    give(fd, &out);
    bool cut = is_closed(fd, guarded ? HTTP_WAIT_MS : 800);
    close(fd);
    victim_end(&victim);
    return cut;
}

Test(budgets, headers_without_an_end_are_not_waited_for)
{
    cr_expect_not(are_endless_headers_cut(false, H1), "not without the guard");
    cr_expect_not(are_endless_headers_cut(false, H2), "not without the guard");
    cr_expect(are_endless_headers_cut(true, H1));
    cr_expect(are_endless_headers_cut(true, H2));
}

Test(budgets, requests_that_end_make_room)
{
    http_settings.requests_per_address_max = 10;
    struct kv_buf out = {0};
    struct victim victim = victim_start(true);
    int fd = h2_connect();
    for (uint32_t i = 0; i < 200; i++) {
        request(&out, "GET", "/-/healthy", END_STREAM | END_HEADERS, 2 * i + 1);
        if (i % 5 == 4) {
            give(fd, &out);
            cr_expect_not(is_closed(fd, 20));
        }
    }
    cr_expect_eq(victim.shared->counters[METRICS_CUT_REQUESTS], 0);
    close(fd);
    victim_end(&victim);
}

/* ---- answers that wait -------------------------------------------------------------------------------------------- */

enum { LARGE_BYTES = 300000, LARGE_COUNT = 60 };

/* A request for an answer of about LARGE_BYTES. */
typedef void (*ask_large)(struct kv_buf *out, uint32_t stream);

static void by_get(struct kv_buf *out, uint32_t stream)
{
    request(out, "GET", "/large", END_STREAM | END_HEADERS, stream);
}

static void by_batch(struct kv_buf *out, uint32_t stream)
{
    request(out, "POST", "/batch", END_HEADERS, stream);
    frame(out, DATA, END_STREAM, stream, kv_slice_text("[{\"op\":\"get\",\"key\":\"large\"}]"));
}

static void by_listing(struct kv_buf *out, uint32_t stream)
{
    request(out, "GET", "/keys?limit=100", END_STREAM | END_HEADERS, stream);
}

static void store(const char *path, size_t bytes)
{
    struct kv_buf content = http_content(bytes, true);
    struct answer put = http_put(H1, path, kv_buf_peek(&content), NULL);
    cr_assert_eq(put.status, 201);
    answer_free(&put);
    kv_buf_free(&content);
}

static void store_long_keys(void)
{
    char path[3000];
    for (int i = 0; i < 100; i++) {
        memset(path, 'k', sizeof(path));
        snprintf(path, 16, "/%014d", i);
        path[15] = 'k';
        path[sizeof(path) - 1] = '\0';
        store(path, 1);
    }
}

static size_t calls_for_closed_windows(bool guarded, ask_large ask, int *fd, struct victim *victim)
{
    struct kv_buf out = {0};
    *victim = victim_start(guarded);
    store("/large", LARGE_BYTES);
    if (ask == by_listing)
        store_long_keys();
    victim_settle(victim);
    size_t before = victim->shared->calls;
    *fd = h2_connect();
    frame32(&out, WINDOW_UPDATE, 0, 1u << 30);
    window_setting(&out, 0);
    for (uint32_t i = 0; i < LARGE_COUNT; i++)
        ask(&out, 2 * i + 1);
    give(*fd, &out);
    if (guarded)
        is_closed(*fd, 1000);
    else
        http_wait_until(victim->shared->calls - before >= LARGE_COUNT);
    return victim->shared->calls - before;
}

static void expect_no_pile(ask_large ask)
{
    http_settings.answer_bytes_per_address_max = 1 << 20;
    struct kv_buf out = {0};
    struct victim victim;
    int fd;
    cr_expect_geq(calls_for_closed_windows(false, ask, &fd, &victim), LARGE_COUNT, "all of them without the guard");
    close(fd);
    victim_end(&victim);
    cr_expect_leq(calls_for_closed_windows(true, ask, &fd, &victim), LARGE_COUNT / 2);
    http_wait_until(victim.shared->counters[METRICS_ANSWERS_DELAYED] >= LARGE_COUNT / 2);
    cr_expect(is_serving());
    window_setting(&out, 1u << 24);
    give(fd, &out);
    for (int tries = 0;
         victim.shared->counters[METRICS_RESPONSE_BYTES] < LARGE_COUNT * LARGE_BYTES && tries < HTTP_WAIT_MS / 20;
         tries++)
        cr_assert_not(is_closed(fd, 20));
    cr_expect_geq(victim.shared->counters[METRICS_RESPONSE_BYTES], LARGE_COUNT * LARGE_BYTES,
                  "all come when they are taken");
    close(fd);
    victim_end(&victim);
}

/* Sixteen times 64 KiB are asked for, then three are large and in memory: the others wait. */
Test(budgets, contents_that_nobody_takes_do_not_pile_up)
{
    expect_no_pile(by_get);
}

/* The first ones find more than was expected of them, and begin again, one after the other. */
Test(budgets, batches_that_nobody_takes_do_not_pile_up)
{
    expect_no_pile(by_batch);
}

Test(budgets, pages_of_keys_that_nobody_takes_do_not_pile_up)
{
    expect_no_pile(by_listing);
}

/* Those that wait leave without having been served. */
Test(budgets, who_waits_for_room_may_leave)
{
    http_settings.answer_bytes_per_address_max = 1 << 20;
    struct victim victim;
    int fd;
    calls_for_closed_windows(true, by_get, &fd, &victim);
    close(fd);
    http_wait_until(victim.shared->connections == 0);
    struct answer answer = http_get(H2, "/large", NULL);
    cr_expect_eq(answer.status, 200);
    cr_expect_eq(answer.body.bytes, LARGE_BYTES);
    answer_free(&answer);
    victim_end(&victim);
}

/* ---- connections -------------------------------------------------------------------------------------------------- */

Test(budgets, an_address_has_so_many_connections)
{
    int fds[8];
    http_settings.connections_per_address_max = 5;
    struct victim victim = victim_start(true);
    for (unsigned i = 0; i < 8; i++)
        fds[i] = h2_connect();
    http_wait_until(victim.shared->counters[METRICS_CONNECTIONS_REFUSED] == 3);
    int other = h2_connect_from("127.0.0.2", false);
    cr_expect(is_taken(other));
    unsigned closed = 0;
    for (unsigned i = 0; i < 8; i++)
        closed += !is_taken(fds[i]); /* not always the last ones: two loops accept */
    cr_expect_eq(closed, 3);
    for (unsigned i = 0; i < 8; i++)
        close(fds[i]);
    http_wait_until(victim.shared->connections == 1);
    cr_expect(is_serving(), "there is room again");
    close(other);
    victim_end(&victim);
}

Test(budgets, without_descriptors_nothing_spins)
{
    int fds[40];
    struct victim victim = victim_start(true);
    cr_expect(is_serving());
    victim.shared->files_max = 24;
    victim_settle(&victim);
    for (unsigned i = 0; i < 40; i++)
        fds[i] = h2_connect();
    http_wait_until(victim.shared->counters[METRICS_ACCEPT_PAUSES] > 0);
    uint64_t before_ms = victim_cpu_ms(&victim);
    http_nap(1000);
    cr_expect_lt(victim_cpu_ms(&victim) - before_ms, 150);
    for (unsigned i = 0; i < 40; i++)
        close(fds[i]);
    cr_expect(is_serving(), "it goes on by itself");
    victim_end(&victim);
}

/* ---- time --------------------------------------------------------------------------------------------------------- */

/* Sends `what` every 100 ms for 2.5 s, for as long as it takes where an end is expected. True: the victim closed. */
static bool is_cut_when_slow(int fd, struct kv_slice what, bool expected)
{
    for (unsigned i = 0; i < (expected ? HTTP_WAIT_MS / 100 : 25); i++) {
        send(fd, what.data, what.bytes, MSG_NOSIGNAL);
        if (is_closed(fd, 100))
            return true;
    }
    return false;
}

static bool are_slow_headers_cut(bool guarded, enum version version)
{
    http_settings.header_wait_ms = 500;
    struct kv_buf out = {0}, more = {0};
    struct victim victim = victim_start(guarded);
    int fd = version == H1 ? http_connect() : h2_connect();
    if (version == H2)
        request(&out, "GET", "/value", END_STREAM, 1);
    else
        kv_buf_append(&out, kv_slice_text("GET /value HTTP/1.1\r\nHost: "));
    give(fd, &out);
    frame(&more, CONTINUATION, 0, 1, raw("\x90", 1));
    bool cut = is_cut_when_slow(fd, version == H1 ? kv_slice_text("x") : kv_buf_peek(&more), guarded);
    victim_settle(&victim);
    cr_expect_eq(victim.shared->counters[METRICS_CUT_HEADERS], cut);
    kv_buf_free(&more);
    close(fd);
    victim_end(&victim);
    return cut;
}

Test(budgets, headers_come_in_time)
{
    cr_expect_not(are_slow_headers_cut(false, H1), "not without the guard");
    cr_expect_not(are_slow_headers_cut(false, H2), "not without the guard");
    cr_expect(are_slow_headers_cut(true, H1));
    cr_expect(are_slow_headers_cut(true, H2));
}

static bool is_slow_body_cut(bool guarded, size_t bytes)
{
    http_settings.client_wait_ms = bytes == 1 ? 600 : 2000;
    struct kv_buf out = {0}, more = {0}, content = http_content(bytes, false);
    struct victim victim = victim_start(guarded);
    int fd = h2_connect();
    request(&out, "PUT", "/value", END_HEADERS, 1);
    give(fd, &out);
    frame(&more, DATA, 0, 1, kv_buf_peek(&content));
    bool cut = is_cut_when_slow(fd, kv_buf_peek(&more), guarded && bytes == 1);
    kv_buf_free(&more);
    kv_buf_free(&content);
    close(fd);
    victim_end(&victim);
    return cut;
}

Test(budgets, bodies_keep_a_rate)
{
    cr_expect_not(is_slow_body_cut(false, 1), "not without the guard");
    cr_expect(is_slow_body_cut(true, 1));
    cr_expect_not(is_slow_body_cut(true, 1000), "10,000 bytes a second are more than the 1,024 that are asked for");
}

/* HTTP/1 had one deadline for all of a request, however large and however fast it came. */
Test(budgets, a_long_upload_that_moves_is_no_slow_one)
{
    http_settings.client_wait_ms = 1000;
    struct kv_buf out = {0};
    struct victim victim = victim_start(true);
    int fd = http_connect();
    http_send(fd, "PUT /up HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN "\r\nContent-Length: 20000\r\n\r\n");
    for (unsigned i = 0; i < 20; i++) {
        struct kv_buf part = http_content(1000, false);
        cr_expect(give(fd, &part));
        http_nap(120);
    }
    out = http_receive_until(fd, "\r\n\r\n");
    cr_expect(strstr((char *)out.data, " 201 ") != NULL);
    kv_buf_free(&out);
    cr_expect(is_closed(fd, HTTP_WAIT_MS), "idle now");
    http_wait_until(victim.shared->counters[METRICS_CUT_IDLE] == 1);
    close(fd);
    victim_end(&victim);
}

/* libh2o's own answer to a forbidden byte in a header, which no handler of ours watches, to a client without a window. */
static bool is_held_answer_cut(bool guarded)
{
    http_settings.client_wait_ms = 500;
    struct kv_buf out = {0}, ping = {0}, block = fields("GET", "/value");
    struct victim victim = victim_start(guarded);
    int fd = h2_connect();
    kv_buf_append(&block, raw("\x00\x01"
                              "a\x01\x02",
                              5));
    window_setting(&out, 0);
    frame(&out, HEADERS, END_STREAM | END_HEADERS, 1, kv_buf_peek(&block));
    kv_buf_free(&block);
    give(fd, &out);
    frame(&ping, PING, 0, 0, raw("12345678", 8)); /* keeps libh2o's idle timeout away */
    bool cut = is_cut_when_slow(fd, kv_buf_peek(&ping), guarded);
    kv_buf_free(&ping);
    victim_settle(&victim);
    cr_expect_eq(victim.shared->counters[METRICS_CUT_ANSWERS], cut);
    close(fd);
    victim_end(&victim);
    return cut;
}

Test(budgets, answers_are_read_in_time)
{
    cr_expect_not(is_held_answer_cut(false), "not without the guard");
    cr_expect(is_held_answer_cut(true));
}
