/* Goal: none of libh2o 2.2.5's known holes is open, and each was.
 * Method: a router in a process of its own, without and with the guard; frames by hand; look at how it ended, at its CPU time, its
 * memory, its standard error and what it asked of the backend. */
#include "attack.h"

static void setup(void)
{
    http_defaults();
    http_settings.router_threads = 1;
    http_settings.access_log = 0;
}

TestSuite(guard, .init = setup);

static void store(const char *path, size_t bytes)
{
    struct kv_buf content = http_content(bytes, true);
    struct answer put = http_put(H1, path, kv_buf_peek(&content), NULL);
    cr_assert_eq(put.status, 201);
    answer_free(&put);
    kv_buf_free(&content);
}

/* ---- issue #1951: the abort --------------------------------------------------------------------------------------- */

/* A step of an attack: what to send now. Streams up to `last` were opened. */
typedef void (*step)(struct kv_buf *out, uint32_t last);
enum { ROUNDS = 100, STREAMS = 100, READ_BYTES = 400000, VALUE_BYTES = 15000 };

/* Closes and opens the windows of streams that are written out and wait for their last bytes to leave. */
static void toggle_setting(struct kv_buf *out, uint32_t last)
{
    (void)last;
    window_setting(out, 0);
    window_setting(out, 65535);
}

/* The same for streams whose window was used up to the last byte. */
static void update_each(struct kv_buf *out, uint32_t last)
{
    for (uint32_t id = last > 2 * STREAMS ? last - 2 * STREAMS : 1; id <= last; id += 2)
        frame32(out, WINDOW_UPDATE, id, 1);
}

/* Half-written streams, reset; then as above. */
static void reset_some(struct kv_buf *out, uint32_t last)
{
    for (uint32_t id = last > STREAMS ? last - STREAMS : 1; id <= last; id += 6)
        frame32(out, RST_STREAM, id, 8);
    toggle_setting(out, last);
}

static void read_some(int fd)
{
    static char bytes[65536];
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    for (size_t left = READ_BYTES; left > 0 && poll(&poller, 1, 5) == 1;) {
        ssize_t got = recv(fd, bytes, left < sizeof(bytes) ? left : sizeof(bytes), 0);
        if (got <= 0)
            return;
        left -= (size_t)got;
    }
}

/* Asks for more than it reads: soon a write stays unfinished, with the ends of many answers in it, and meanwhile it sends. */
static int ask_and_read_slowly(const struct victim *victim, uint32_t window, step attack)
{
    struct kv_buf out = {0};
    int fd = h2_connect_from("127.0.0.1", true), by = 0;
    uint32_t next = 1;
    frame32(&out, WINDOW_UPDATE, 0, 1u << 30);
    window_setting(&out, window);
    for (unsigned round = 0; round < ROUNDS && by == 0; round++) {
        for (unsigned i = 0; i < (round == 0 ? STREAMS : STREAMS / 3); i++, next += 2)
            request(&out, "GET", "/value", END_STREAM | END_HEADERS, next);
        give(fd, &out);
        http_nap(5);
        attack(&out, next - 2);
        give(fd, &out);
        http_nap(2);
        read_some(fd);
        by = victim_signal(victim, 0);
    }
    close(fd);
    return by != 0 ? by : victim_signal(victim, 100);
}

static int signal_after(bool guarded, uint32_t window, step attack)
{
    struct victim victim = victim_start_with(guarded, true);
    store("/value", VALUE_BYTES);
    int by = ask_and_read_slowly(&victim, window, attack);
    cr_expect(!guarded || is_serving());
    victim_end(&victim);
    return by;
}

Test(guard, windows_that_open_on_finished_streams_abort_nothing)
{
    cr_expect_eq(signal_after(false, 65535, toggle_setting), SIGABRT, "the hole is open without the guard");
    cr_expect_eq(signal_after(true, 65535, toggle_setting), 0);
}

Test(guard, updates_of_used_up_windows_abort_nothing)
{
    cr_expect_eq(signal_after(false, VALUE_BYTES, update_each), SIGABRT, "the hole is open without the guard");
    cr_expect_eq(signal_after(true, VALUE_BYTES, update_each), 0);
}

Test(guard, resets_of_half_written_streams_abort_nothing)
{
    http_settings.cancels_max = 0; /* this is about the assertion, not about budgets */
    cr_expect_eq(signal_after(false, 65535, reset_some), SIGABRT, "the hole is open without the guard");
    cr_expect_eq(signal_after(true, 65535, reset_some), 0);
}

/* ---- header blocks ------------------------------------------------------------------------------------------------ */

/* 400,000 fields of one byte each: `accept-encoding: gzip, deflate` from the static table. The request stays without a body. */
static void bomb(struct kv_buf *out, uint32_t stream)
{
    struct kv_buf block = fields("PUT", "/bomb");
    for (unsigned i = 0; i < 400000; i++)
        kv_buf_append(&block, raw("\x90", 1));
    for (size_t at = 0; at < block.bytes; at += 16384) {
        size_t bytes = block.bytes - at < 16384 ? block.bytes - at : 16384;
        frame(out, at == 0 ? HEADERS : CONTINUATION, at + bytes == block.bytes ? END_HEADERS : 0, stream,
              raw(block.data + at, bytes));
    }
    kv_buf_free(&block);
}

static uint64_t memory_after_bombs(bool guarded)
{
    struct kv_buf out = {0};
    struct victim victim = victim_start(guarded);
    uint64_t before_mb = victim_rss_mb(&victim);
    int fd = h2_connect();
    for (uint32_t i = 0; i < 5; i++)
        bomb(&out, 2 * i + 1);
    give(fd, &out);
    bool closed = !is_taken(fd);
    uint64_t grown_mb = victim_rss_mb(&victim) - before_mb;
    cr_expect_eq(closed, guarded);
    cr_expect(is_serving());
    close(fd);
    victim_end(&victim);
    return grown_mb;
}

Test(guard, small_header_blocks_do_not_become_large)
{
    uint64_t open_mb = memory_after_bombs(false);
    uint64_t guarded_mb = memory_after_bombs(true);
    cr_expect_gt(open_mb, 80, "2 MB became %lu MB", open_mb);
    cr_expect_lt(guarded_mb, 20, "2 MB became %lu MB", guarded_mb);
}

Test(guard, a_block_of_many_fields_within_the_size_ends_the_connection)
{
    struct victim victim = victim_start(true);
    for (unsigned count = 100; count <= 300; count += 200) {
        struct kv_buf out = {0}, block = fields("GET", "/few");
        int fd = h2_connect();
        for (unsigned i = 0; i < count; i++)
            kv_buf_append(&block, raw("\x90", 1));
        frame(&out, HEADERS, END_HEADERS | END_STREAM, 1, kv_buf_peek(&block));
        kv_buf_free(&block);
        give(fd, &out);
        cr_expect_eq(is_taken(fd), count <= H2O_GUARD_FIELDS_MAX);
        close(fd);
    }
    http_wait_until(victim.shared->counters[METRICS_HEADER_BLOCKS_REFUSED] == 1);
    http_wait_until(victim.shared->counters[METRICS_HEADERS_REFUSED] == 1);
    victim_end(&victim);
}

/* ---- CONTINUATION ------------------------------------------------------------------------------------------------- */

static bool survives_empty_continuations(bool guarded)
{
    struct kv_buf out = {0};
    struct victim victim = victim_start(guarded);
    int fd = h2_connect();
    request(&out, "GET", "/-/healthy", END_STREAM, 1);
    for (unsigned i = 0; i < 200000; i++)
        frame(&out, CONTINUATION, 0, 1, raw(NULL, 0));
    give(fd, &out);
    bool closed = is_closed(fd, guarded ? HTTP_WAIT_MS : 1000);
    cr_expect(is_serving());
    if (guarded)
        http_wait_until(victim.shared->counters[METRICS_CONTINUATIONS_REFUSED] == 1);
    close(fd);
    victim_end(&victim);
    return !closed;
}

Test(guard, empty_continuations_have_an_end)
{
    cr_expect(survives_empty_continuations(false), "the hole is open without the guard");
    cr_expect_not(survives_empty_continuations(true));
}

/* Whether it burns 150 ms of CPU within `wait_ms`: the machine may be busy. */
static bool is_spinning(const struct victim *victim, unsigned wait_ms)
{
    uint64_t before_ms = victim_cpu_ms(victim), after_ms = before_ms;
    for (unsigned waited = 0; waited < wait_ms && after_ms - before_ms < 150; waited += 10) {
        http_nap(10);
        after_ms = victim_cpu_ms(victim);
    }
    return after_ms - before_ms >= 150;
}

/* The first one names no stream, and has a text. */
static const char second_goaway[] = {0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, 0, 0, 0, 3};

/* After a CONTINUATION came behind the second GOAWAY while another stream was still at work. */
static bool spins_while_draining(bool guarded)
{
    struct kv_buf out = {0};
    struct victim victim = victim_start(guarded);
    store("/value", 100);
    victim.shared->hold = true;
    victim_settle(&victim);
    int fd = h2_connect();
    request(&out, "GET", "/value", END_STREAM | END_HEADERS, 1);
    request(&out, "GET", "/value", END_STREAM, 3);
    give(fd, &out);
    http_wait_until(victim.shared->calls == 1);
    victim.shared->drain = true;
    cr_expect(http_receives(fd, raw(second_goaway, sizeof(second_goaway))));
    out = (struct kv_buf){0};
    frame(&out, CONTINUATION, END_HEADERS, 3, raw("\x90", 1));
    give(fd, &out);
    http_nap(100);
    bool spins = is_spinning(&victim, guarded ? 1000 : 20000);
    close(fd);
    victim_end(&victim);
    return spins;
}

Test(guard, a_continuation_behind_goaway_does_not_spin)
{
    cr_expect(spins_while_draining(false), "the hole is open without the guard");
    cr_expect_not(spins_while_draining(true));
}

/* ---- unknown frames ----------------------------------------------------------------------------------------------- */

static off_t stderr_after_unknown_frames(bool guarded)
{
    struct kv_buf out = {0};
    struct victim victim = victim_start(guarded);
    int fd = h2_connect();
    for (unsigned i = 0; i < 20000; i++)
        frame(&out, 10 + i % 200, 0xff, i % 7, raw("junk", i % 5));
    request(&out, "GET", "/-/healthy", END_STREAM | END_HEADERS, 1);
    cr_expect(give(fd, &out));
    cr_expect(http_receives(fd, kv_slice_text("ok\n")), "they are to be ignored");
    if (guarded)
        http_wait_until(victim.shared->counters[METRICS_FRAMES_IGNORED] == 20000);
    int file = open(victim.stderr_path, O_RDONLY | O_CLOEXEC);
    off_t bytes = lseek(file, 0, SEEK_END);
    close(file);
    close(fd);
    victim_end(&victim);
    return bytes;
}

Test(guard, unknown_frames_are_ignored_in_silence)
{
    cr_expect_gt(stderr_after_unknown_frames(false), 400000, "the hole is open without the guard");
    cr_expect_eq(stderr_after_unknown_frames(true), 0);
}

/* ---- the client's header table ------------------------------------------------------------------------------------ */

/* RFC 7541, 4.2: the client has thrown its entries away, so that the answer begins with both sizes. */
Test(guard, a_header_table_that_was_smaller_for_a_moment_is_noticed)
{
    static const char none_then_4096[] = "\0\x01\0\0\0\0\0\x01\0\0\x10\0";
    static const char answer[] =
        "\x01\x04\0\0\0\x01\x20\x3f\xe1\x1f\x88"; /* HEADERS of stream 1: 0, 4096, status 200 */
    struct kv_buf out = {0};
    struct victim victim = victim_start(true);
    int fd = h2_connect();
    frame(&out, SETTINGS, 0, 0, raw(none_then_4096, sizeof(none_then_4096) - 1));
    request(&out, "GET", "/-/healthy", END_STREAM | END_HEADERS, 1);
    cr_expect(give(fd, &out));
    cr_expect(http_receives(fd, raw(answer, sizeof(answer) - 1)));
    close(fd);
    victim_end(&victim);
}

/* ---- trailers ----------------------------------------------------------------------------------------------------- */

/* A PUT of "abc" with a trailer that would refuse it: whether the answer holds `text`. */
static bool answers_trailed_put(bool guarded, const char *text)
{
    struct kv_buf out = {0}, trailers = {0};
    struct victim victim = victim_start(guarded);
    int fd = h2_connect();
    request(&out, "PUT", "/trailed", END_HEADERS, 1);
    frame(&out, DATA, 0, 1, kv_slice_text("abc"));
    kv_buf_append(&trailers, raw("\0", 1));
    short_string(&trailers, "x-content-sha256");
    short_string(&trailers, "no hash");
    frame(&out, HEADERS, END_STREAM | END_HEADERS, 1, kv_buf_peek(&trailers));
    kv_buf_free(&trailers);
    cr_expect(give(fd, &out));
    bool found = http_receives(fd, kv_slice_text(text));
    close(fd);
    victim_end(&victim);
    return found;
}

Test(guard, trailers_are_no_headers)
{
    cr_expect(answers_trailed_put(false, "is not 64 hex digits"), "the hole is open without the guard");
    cr_expect(answers_trailed_put(true, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
}

/* ---- a body that never came --------------------------------------------------------------------------------------- */

/* `method` of /announced, whose head ends the stream and says this of its body: whether the answer holds `text`. */
static bool answers_announced(const char *method, const char *content_length, const char *text)
{
    struct kv_buf out = {0}, block = fields(method, "/announced");
    int fd = h2_connect();
    kv_buf_append(&block, raw("\x0f\x0d", 2)); /* content-length */
    short_string(&block, content_length);
    frame(&out, HEADERS, END_STREAM | END_HEADERS, 1, kv_buf_peek(&block));
    kv_buf_free(&block);
    cr_expect(give(fd, &out));
    bool found = http_receives(fd, kv_slice_text(text));
    close(fd);
    return found;
}

/* It would have become the value of nothing, in the place of what the key had. */
Test(guard, a_body_that_was_announced_and_never_came_is_no_value)
{
    static const char refusal[] = "announces a body that never came";
    struct victim victim = victim_start(true);
    cr_expect(answers_announced("PUT", "5", refusal));
    cr_expect(answers_announced("GET", "0", "The key does not exist"));
    cr_expect(answers_announced("POST", "5", refusal));
    cr_expect(answers_announced("GET", "5", refusal));
    cr_expect(answers_announced("PUT", "0", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    victim_end(&victim);
}

/* ---- is the guard there ------------------------------------------------------------------------------------------- */

Test(guard, knows_its_library)
{
    char why[512] = "";
    cr_expect_eq(h2o_guard_check(why, sizeof(why)), KV_OK, "%s", why);
    cr_expect(h2o_guard_knows("h2o/2.2.5", 9));
    cr_expect_not(h2o_guard_knows("h2o/2.2.6", 9));
    cr_expect_not(h2o_guard_knows("h2o/2.2.50", 10));
    cr_expect_not(h2o_guard_knows("h2o/2.2", 7));
    cr_expect_not(h2o_guard_catches("h2o_socket_write", (const void *)kv_clock_ms), "nobody took its place");
    cr_expect_not(h2o_guard_catches("h2o_no_such_function", (const void *)kv_clock_ms));
}
