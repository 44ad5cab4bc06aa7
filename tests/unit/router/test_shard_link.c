/* Goal: a router thread's link greets, moves frames of any size both ways, and survives every way a shard can leave.
 * Method: real h2o loop and Unix sockets in a temporary directory; the shard is a blocking socket in the same
 * thread, played by hand between bounded runs of the loop. */
#include <criterion/criterion.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <h2o.h>

#include "kv/clock.h"
#include "shard_link.h"
#include "wire/messages.h"

#define WAIT_MS_MAX 60000

struct rig {
    char dir[32];
    int dir_fd;
    int listen_fd;
    int peer_fd; /* the shard's end */
    struct kv_buf got;
    h2o_globalconf_t config;
    h2o_context_t context;
    struct shard_links *links;
    struct calls *calls;
    unsigned ups, downs, answers;
    uint64_t piece_bytes;
};

static void on_change(void *arg, unsigned shard_index, bool up)
{
    struct rig *rig = arg;
    cr_expect_eq(shard_index, 0u);
    cr_expect_eq(calls_link_is_up(rig->calls, 0), up, "calls.h was told first");
    rig->ups += up;
    rig->downs += !up;
}

static void listen_at(struct rig *rig)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/shard-0", rig->dir);
    rig->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(rig->listen_fd, (struct sockaddr *)&address, sizeof(address)), 0);
    cr_assert_eq(listen(rig->listen_fd, 8), 0);
}

static struct rig *rig_new(bool listening)
{
    static struct rig the_rig; /* a test is a process: the h2o context stays reachable and ends with it */
    struct rig *rig = &the_rig;
    signal(SIGPIPE, SIG_IGN);
    strcpy(rig->dir, "/tmp/kv-link-XXXXXX");
    cr_assert_not_null(mkdtemp(rig->dir));
    rig->dir_fd = open(rig->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rig->listen_fd = rig->peer_fd = -1;
    if (listening)
        listen_at(rig);
    h2o_config_init(&rig->config);
    h2o_config_register_host(&rig->config, h2o_iovec_init(H2O_STRLIT("default")), 65535);
    h2o_context_init(&rig->context, h2o_evloop_create(), &rig->config);
    rig->links = shard_links_new(&(struct shard_links_options){.context = &rig->context,
                                                               .sockets_fd = rig->dir_fd,
                                                               .shard_count = 1,
                                                               .epoch = 5,
                                                               .on_change = on_change,
                                                               .arg = rig},
                                 &rig->calls);
    return rig;
}

static void rig_free(struct rig *rig)
{
    char path[64];
    shard_links_free(&rig->links);
    snprintf(path, sizeof(path), "%s/shard-0", rig->dir);
    unlink(path);
    rmdir(rig->dir);
    close(rig->dir_fd);
    if (rig->listen_fd >= 0)
        close(rig->listen_fd);
    if (rig->peer_fd >= 0)
        close(rig->peer_fd);
    kv_buf_free(&rig->got);
}

static void turn(struct rig *rig)
{
    h2o_evloop_run(rig->context.loop, 5);
}

static bool readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1;
}

static void accept_link(struct rig *rig)
{
    uint64_t end = kv_clock_ms() + WAIT_MS_MAX;
    while (!readable(rig->listen_fd) && kv_clock_ms() < end)
        turn(rig);
    rig->peer_fd = accept4(rig->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    cr_assert_geq(rig->peer_fd, 0);
    rig->got.bytes = 0;
}

/* Turns until the shard's end has a whole frame, which stays at the front of rig->got. */
static struct kv_frame next_frame(struct rig *rig, size_t *used)
{
    struct kv_frame frame = {0};
    uint64_t end = kv_clock_ms() + WAIT_MS_MAX;
    while (kv_frame_peek(kv_buf_peek(&rig->got), KV_ROLE_ROUTER, &frame, used) == KV_NOT_FOUND) {
        cr_assert_lt(kv_clock_ms(), end, "no frame came");
        turn(rig);
        ssize_t got = read(rig->peer_fd, kv_buf_reserve(&rig->got, 65536), 65536);
        if (got > 0)
            rig->got.bytes += (size_t)got;
    }
    return frame;
}

static void send_bytes(struct rig *rig, const struct kv_buf *bytes)
{
    uint64_t end = kv_clock_ms() + WAIT_MS_MAX;
    for (size_t sent = 0; sent < bytes->bytes;) {
        cr_assert_lt(kv_clock_ms(), end);
        ssize_t n = write(rig->peer_fd, bytes->data + sent, bytes->bytes - sent);
        if (n > 0)
            sent += (size_t)n;
        turn(rig);
    }
    turn(rig);
}

static void send_hello(struct rig *rig, struct kv_msg_hello hello)
{
    struct kv_buf buf = {0};
    size_t begin = kv_frame_begin(&buf, KV_MSG_HELLO, 0);
    kv_put_hello(&buf, &hello);
    kv_frame_end(&buf, begin);
    send_bytes(rig, &buf);
    kv_buf_free(&buf);
}

static const struct kv_msg_hello good = {
    .version = KV_WIRE_VERSION, .role = KV_ROLE_SHARD, .shard_count = 1, .epoch = 5};

static void expect_hello(struct rig *rig)
{
    struct kv_msg_hello hello;
    size_t used;
    struct kv_frame frame = next_frame(rig, &used);
    cr_assert_eq(frame.type, KV_MSG_HELLO);
    cr_assert_eq(kv_get_hello(frame.body, &hello), KV_OK);
    cr_expect_eq(hello.version, KV_WIRE_VERSION);
    cr_expect_eq(hello.role, KV_ROLE_ROUTER);
    cr_expect_eq(hello.shard_index, 0u);
    cr_expect_eq(hello.shard_count, 1u);
    cr_expect_eq(hello.epoch, 5u);
    cr_expect_eq(rig->got.bytes, used, "nothing but HELLO before the shard's own");
    kv_buf_consume(&rig->got, used);
}

static void bring_up(struct rig *rig)
{
    accept_link(rig);
    expect_hello(rig);
    send_hello(rig, good);
    cr_assert(calls_link_is_up(rig->calls, 0));
}

static void write_fetch(void *arg, struct kv_buf *buf)
{
    (void)arg;
    kv_put_fetch(buf, &(struct kv_msg_fetch){.object_id = 9, .bytes_max = KV_PIECE_BYTES_MAX});
}

static void write_large(void *arg, struct kv_buf *buf)
{
    (void)arg;
    uint8_t *bytes = kv_alloc_zero(1, KV_PIECE_BYTES_MAX);
    kv_put_stage_data(buf, &(struct kv_msg_stage_data){.object_id = 9, .bytes = kv_slice(bytes, KV_PIECE_BYTES_MAX)});
    free(bytes);
}

static void on_piece(void *arg, struct kv_slice body)
{
    struct rig *rig = arg;
    struct kv_msg_piece piece;
    cr_assert_eq(kv_get_piece(body, &piece), KV_OK);
    rig->answers++;
    rig->piece_bytes += piece.bytes.bytes;
}

static void on_done(void *arg, struct kv_slice body)
{
    (void)body;
    ((struct rig *)arg)->answers++;
}

static void answer_piece(struct rig *rig, uint64_t request_id, size_t bytes)
{
    struct kv_buf buf = {0};
    uint8_t *content = kv_alloc_zero(1, bytes);
    size_t begin = kv_frame_begin(&buf, KV_MSG_PIECE, request_id);
    kv_put_piece(&buf, &(struct kv_msg_piece){.err = KV_OK, .bytes = kv_slice(content, bytes)});
    kv_frame_end(&buf, begin);
    send_bytes(rig, &buf);
    kv_buf_free(&buf);
    free(content);
}

static void until_answers(struct rig *rig, unsigned count)
{
    uint64_t end = kv_clock_ms() + WAIT_MS_MAX;
    while (rig->answers < count && kv_clock_ms() < end)
        turn(rig);
    cr_assert_eq(rig->answers, count);
}

Test(shard_link, greets_asks_and_is_answered)
{
    struct rig *rig = rig_new(true);
    size_t used;
    calls_send(rig->calls, 0, KV_MSG_FETCH, false, write_fetch, on_piece, rig);
    bring_up(rig);
    cr_expect_eq(rig->ups, 1u);
    struct kv_frame frame = next_frame(rig, &used);
    cr_assert_eq(frame.type, KV_MSG_FETCH);
    answer_piece(rig, frame.request_id, 3);
    until_answers(rig, 1);
    cr_expect_eq(rig->piece_bytes, 3u);
    rig_free(rig);
}

Test(shard_link, pieces_of_a_mebibyte_flow_both_ways)
{
    struct rig *rig = rig_new(true);
    size_t used;
    bring_up(rig);
    for (int i = 0; i < 8; i++) {
        calls_send(rig->calls, 0, KV_MSG_STAGE_DATA, false, write_large, on_done, rig);
        calls_send(rig->calls, 0, KV_MSG_FETCH, false, write_fetch, on_piece, rig);
    }
    for (unsigned i = 0; i < 8; i++) {
        struct kv_msg_stage_data data;
        struct kv_frame frame = next_frame(rig, &used);
        cr_assert_eq(frame.type, KV_MSG_STAGE_DATA);
        cr_assert_eq(kv_get_stage_data(frame.body, &data), KV_OK);
        cr_expect_eq(data.bytes.bytes, KV_PIECE_BYTES_MAX);
        kv_buf_consume(&rig->got, used);
        frame = next_frame(rig, &used);
        cr_assert_eq(frame.type, KV_MSG_FETCH);
        uint64_t id = frame.request_id;
        kv_buf_consume(&rig->got, used);
        answer_piece(rig, id, KV_PIECE_BYTES_MAX);
        until_answers(rig, i + 1);
    }
    cr_expect_eq(rig->piece_bytes, 8u * KV_PIECE_BYTES_MAX);
    rig_free(rig);
}

struct file_piece {
    struct rig *rig;
    struct body_file *file;
};

static void write_file_piece(void *arg, struct kv_buf *buf)
{
    const struct file_piece *piece = arg;
    kv_put_stage_file(buf, &(struct kv_msg_stage_file){.object_id = 9, .file_bytes = 1});
    calls_attach(piece->rig->calls, 0, piece->file);
}

/* What comes in one message; its descriptor, or -1. */
static int receive(struct rig *rig)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct iovec iov = {kv_buf_reserve(&rig->got, 65536), 65536};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    int fd = -1;
    turn(rig);
    ssize_t got = recvmsg(rig->peer_fd, &message, MSG_CMSG_CLOEXEC);
    if (got <= 0)
        return -1;
    rig->got.bytes += (size_t)got;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL)
        memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    return fd;
}

/* Among frames that fill the socket several times: each descriptor comes no later than its frame's last byte. */
Test(shard_link, descriptors_leave_with_their_frames)
{
    enum { FILES = 5 };
    struct rig *rig = rig_new(true);
    struct file_piece pieces[FILES];
    unsigned files = 0, frames = 0;
    bring_up(rig);
    for (int i = 0; i < FILES; i++) {
        pieces[i] = (struct file_piece){rig, body_file_new(1, 1)};
        cr_assert_not_null(pieces[i].file);
        calls_send(rig->calls, 0, KV_MSG_STAGE_DATA, false, write_large, on_done, rig);
        calls_send(rig->calls, 0, KV_MSG_STAGE_FILE, false, write_file_piece, on_done, &pieces[i]);
    }
    for (uint64_t end = kv_clock_ms() + WAIT_MS_MAX; frames < FILES && kv_clock_ms() < end;) {
        struct kv_frame frame;
        size_t used;
        int fd = receive(rig);
        files += fd >= 0;
        if (fd >= 0)
            close(fd);
        while (kv_frame_peek(kv_buf_peek(&rig->got), KV_ROLE_ROUTER, &frame, &used) == KV_OK) {
            frames += frame.type == KV_MSG_STAGE_FILE;
            cr_assert_leq(frames, files);
            kv_buf_consume(&rig->got, used);
        }
    }
    cr_expect_eq(frames, FILES);
    cr_expect_eq(files, FILES);
    for (int i = 0; i < FILES; i++) {
        int fd = body_file_fd(pieces[i].file);
        body_file_free(&pieces[i].file);
        cr_expect_eq(fcntl(fd, F_GETFD), -1, "the link holds it no longer");
    }
    rig_free(rig);
}

Test(shard_link, a_file_that_did_not_leave_is_let_go_of_with_the_link)
{
    struct rig *rig = rig_new(true);
    struct file_piece piece = {rig, body_file_new(1, 1)};
    int fd = body_file_fd(piece.file);
    bring_up(rig);
    calls_send(rig->calls, 0, KV_MSG_STAGE_FILE, false, write_file_piece, on_done, &piece);
    body_file_free(&piece.file);
    cr_expect_neq(fcntl(fd, F_GETFD), -1, "held");
    rig_free(rig);
    cr_expect_eq(fcntl(fd, F_GETFD), -1);
}

Test(shard_link, a_shard_that_dies_is_asked_again_when_it_is_back)
{
    struct rig *rig = rig_new(true);
    size_t used;
    bring_up(rig);
    calls_send(rig->calls, 0, KV_MSG_STAGE_DATA, false, write_large, on_done, rig);
    calls_send(rig->calls, 0, KV_MSG_FETCH, false, write_fetch, on_piece, rig);
    turn(rig);
    close(rig->peer_fd); /* in the middle of a write of 1 MiB */
    bring_up(rig);
    cr_expect_eq(rig->ups, 2u);
    cr_expect_eq(rig->downs, 1u);
    cr_expect_eq(next_frame(rig, &used).type, KV_MSG_STAGE_DATA);
    kv_buf_consume(&rig->got, used);
    struct kv_frame frame = next_frame(rig, &used);
    cr_expect_eq(frame.type, KV_MSG_FETCH);
    answer_piece(rig, frame.request_id, 1);
    until_answers(rig, 1);
    rig_free(rig);
}

Test(shard_link, keeps_trying_when_there_is_no_socket_yet)
{
    struct rig *rig = rig_new(false);
    uint64_t start = kv_clock_ms();
    while (kv_clock_ms() < start + 100)
        turn(rig);
    listen_at(rig);
    bring_up(rig);
    cr_expect_eq(rig->downs, 0u, "a link that never was up does not go down");
    rig_free(rig);
}

Test(shard_link, a_wrong_hello_is_hung_up_on)
{
    struct rig *rig = rig_new(true);
    struct kv_msg_hello wrong[] = {good, good, good, good};
    wrong[0].version = KV_WIRE_VERSION + 1;
    wrong[1].shard_index = 1;
    wrong[2].shard_count = 2;
    wrong[3].role = KV_ROLE_ROUTER;
    for (size_t i = 0; i < 4; i++) {
        accept_link(rig);
        expect_hello(rig);
        send_hello(rig, wrong[i]);
        uint8_t byte;
        ssize_t got = read(rig->peer_fd, &byte, 1);
        cr_expect(got == 0 || (got < 0 && errno != EAGAIN), "hello %zu was accepted", i);
        cr_expect_not(calls_link_is_up(rig->calls, 0));
        close(rig->peer_fd);
    }
    bring_up(rig);
    cr_expect_eq(rig->ups, 1u);
    rig_free(rig);
}

Test(shard_link, a_protocol_break_closes_the_link)
{
    struct rig *rig = rig_new(true);
    bring_up(rig);
    answer_piece(rig, 4711, 1); /* never asked */
    cr_expect_eq(rig->downs, 1u);
    close(rig->peer_fd);
    bring_up(rig);
    cr_expect_eq(rig->ups, 2u);
    rig_free(rig);
}

Test(shard_link, a_fenced_router_ends, .exit_code = 3)
{
    struct rig *rig = rig_new(true);
    struct kv_msg_hello newer = good;
    newer.epoch = 6;
    accept_link(rig);
    expect_hello(rig);
    char path[64];
    snprintf(path, sizeof(path), "%s/shard-0", rig->dir);
    unlink(path);
    rmdir(rig->dir);
    send_hello(rig, newer);
}
