/* Goal: GETs that come in one piece (gets.h) are each answered with their own value, wherever the piece ends and whoever of them
 * dies meanwhile.
 * Method: HTTP/2 frames by hand, as many as one send takes to the router whole; the DATA of each stream is compared. */
#include "harness.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gets.h"
/* behind harness.h, which has the token */
#include "../attack/frames.h"

enum { KEYS = 100, HEAD_BYTES = 9 }; /* more than are kept at once */

static char bodies[KEYS][64]; /* by stream: what its DATA frames brought */
static bool ended[KEYS];

static void path_of(unsigned number, char out[32])
{
    snprintf(out, 32, "/together/%u", number);
}

static void value_of(unsigned number, char out[32])
{
    snprintf(out, 32, "value of %u", number * 7);
}

static void setup(void)
{
    char path[32], value[32];
    http_defaults();
    http_settings.router_threads = 1;
    http_start();
    fake_may_keep(true);
    for (unsigned i = 0; i < KEYS; i++) {
        path_of(i, path);
        value_of(i, value);
        struct answer answer = http_put(H2, path, kv_slice_text(value), NULL);
        cr_assert_eq(answer.status, 201);
        answer_free(&answer);
    }
}

TestSuite(together, .init = setup, .fini = http_stop);

static uint32_t stream_of(unsigned number)
{
    return 2 * number + 1;
}

static void ask(struct kv_buf *out, unsigned number)
{
    char path[32];
    path_of(number, path);
    request(out, "GET", path, END_STREAM | END_HEADERS, stream_of(number));
}

static struct kv_buf ask_all(void)
{
    struct kv_buf out = {0};
    hello(&out);
    for (unsigned i = 0; i < KEYS; i++)
        ask(&out, i);
    return out;
}

static void send_part(int fd, const struct kv_buf *out, size_t from, size_t to)
{
    cr_assert_eq(send(fd, out->data + from, to - from, MSG_NOSIGNAL), (ssize_t)(to - from));
}

/* One frame from the front of what has come. False: it is not there yet. */
static bool take_frame(const struct kv_buf *in, size_t *at)
{
    const uint8_t *head = in->data + *at;
    if (in->bytes - *at < HEAD_BYTES)
        return false;
    size_t bytes = (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
    size_t number = ((size_t)head[7] << 8 | head[8]) / 2;
    if (in->bytes - *at < HEAD_BYTES + bytes)
        return false;
    if (head[3] == DATA) {
        size_t used = strlen(bodies[number]);
        cr_assert_lt(used + bytes, sizeof bodies[number]);
        memcpy(bodies[number] + used, head + HEAD_BYTES, bytes);
    }
    if (head[3] == DATA || head[3] == HEADERS)
        ended[number] = ended[number] || (head[4] & END_STREAM) != 0;
    *at += HEAD_BYTES + bytes;
    return true;
}

static unsigned count_ended(void)
{
    unsigned count = 0;
    for (unsigned i = 0; i < KEYS; i++)
        count += ended[i];
    return count;
}

/* Until so many streams have ended. */
static void receive_answers(int fd, unsigned wanted)
{
    struct kv_buf in = {0};
    size_t at = 0;
    memset(bodies, 0, sizeof bodies);
    memset(ended, 0, sizeof ended);
    while (count_ended() < wanted) {
        struct pollfd poller = {.fd = fd, .events = POLLIN};
        cr_assert_eq(poll(&poller, 1, HTTP_WAIT_MS), 1, "%u of %u answers", count_ended(), wanted);
        ssize_t got = recv(fd, kv_buf_reserve(&in, 65536), 65536, 0);
        cr_assert_gt(got, 0);
        in.bytes += (size_t)got;
        while (take_frame(&in, &at))
            continue;
    }
    kv_buf_free(&in);
}

static void expect_value(unsigned number)
{
    char value[32];
    value_of(number, value);
    cr_expect_str_eq(bodies[number], value, "stream %u", stream_of(number));
}

static void expect_all(void)
{
    for (unsigned i = 0; i < KEYS; i++)
        expect_value(i);
}

/* First from the shards, then from the cache; nothing, or another frame, is behind the last GET. */
Test(together, each_has_its_own_value)
{
    for (unsigned round = 0; round < 4; round++) {
        int fd = http_connect();
        size_t before = fake_calls();
        struct kv_buf out = ask_all();
        if (round >= 2)
            frame(&out, PING, 0, 0, kv_slice_text("12345678"));
        send_part(fd, &out, 0, out.bytes);
        receive_answers(fd, KEYS);
        expect_all();
        cr_expect_eq(fake_calls() - before, round == 0 ? KEYS : 0);
        kv_buf_free(&out);
        close(fd);
    }
}

Test(together, a_piece_may_end_anywhere)
{
    struct kv_buf out = ask_all();
    size_t last = out.bytes / KEYS * (GETS_MAX / 2); /* about the middle of those that are kept at once */
    for (size_t cut = last; cut < last + 2 * out.bytes / KEYS; cut += 5) {
        int fd = http_connect();
        send_part(fd, &out, 0, cut);
        http_nap(2);
        send_part(fd, &out, cut, out.bytes);
        receive_answers(fd, KEYS);
        expect_all();
        close(fd);
    }
    kv_buf_free(&out);
}

Test(together, who_is_taken_back_is_never_looked_up)
{
    enum { TAKEN_BACK = 10 };
    struct kv_buf out = {0};
    int fd = http_connect();
    size_t before = fake_calls();
    hello(&out);
    for (unsigned i = 0; i < TAKEN_BACK; i++)
        ask(&out, i);
    for (unsigned i = 0; i < TAKEN_BACK; i += 2)
        frame32(&out, RST_STREAM, stream_of(i), 8);
    ask(&out, TAKEN_BACK);
    send_part(fd, &out, 0, out.bytes);
    receive_answers(fd, TAKEN_BACK / 2 + 1);
    for (unsigned i = 1; i < TAKEN_BACK; i += 2)
        expect_value(i);
    expect_value(TAKEN_BACK);
    for (unsigned i = 0; i < TAKEN_BACK; i += 2)
        cr_expect_not(ended[i]);
    cr_expect_eq(fake_calls() - before, TAKEN_BACK / 2 + 1);
    kv_buf_free(&out);
    close(fd);
}

/* http_stop and the sanitizers see what is left. */
Test(together, a_fault_behind_them_ends_them_all)
{
    struct kv_buf out = ask_all();
    int fd = http_connect();
    frame32(&out, WINDOW_UPDATE, 0, 0); /* an increment of 0 ends the connection (RFC 9113, 6.9) */
    send_part(fd, &out, 0, out.bytes);
    struct kv_buf in = http_receive(fd, HTTP_WAIT_MS);
    cr_expect_gt(in.bytes, 0, "GOAWAY at least");
    kv_buf_free(&in);
    kv_buf_free(&out);
    close(fd);
    struct answer answer = http_get(H2, "/together/1", NULL);
    cr_expect_eq(answer.status, 200);
    answer_free(&answer);
}
