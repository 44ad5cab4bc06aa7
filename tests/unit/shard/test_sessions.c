/* Goal: who may speak to a shard, in which order and how much; and that answers leave when they may.
 * Method: a real loop and Unix sockets; the test plays both the routers (non-blocking sockets) and the core (a handler that
 * records, and answers as the test says). */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <sys/mman.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../captures.h"
#include "kv/clock.h"
#include "loop.h"
#include "sessions.h"
#include "wire/messages.h"

#define TURNS_MAX 2000

struct rig {
    struct loop *loop;
    struct sessions *sessions;
    struct sockaddr_un address;
    int listen_fd;
    uint64_t durable;
    /* what the handler saw */
    unsigned messages, closed, files;
    size_t input_bytes; /* of frames that were told before they were handled, */
    unsigned messages_before;
    uint64_t session_last, closed_last;
    /* what the handler does */
    size_t answer_bytes; /* answers FETCH with this many, at `answer_position` */
    uint64_t answer_position;
    enum kv_err verdict;
    uint64_t staging_bytes; /* every message claims so many */
};

struct peer {
    struct rig *rig;
    int fd;
    struct kv_buf got;
};

static void on_input(void *ctx, struct kv_slice frames)
{
    struct rig *rig = ctx;
    rig->input_bytes = frames.bytes;
    rig->messages_before = rig->messages;
}

static enum kv_err on_message(void *ctx, uint64_t session, enum kv_msg type, uint64_t request_id, struct kv_slice body)
{
    struct rig *rig = ctx;
    (void)body;
    rig->messages++;
    rig->session_last = session;
    sessions_staging(rig->sessions, session, rig->staging_bytes, false);
    if (type == KV_MSG_STAGE_FILE && rig->files++ == 0)
        close(sessions_take_file(rig->sessions)); /* the first is taken, others are not */
    if (type != KV_MSG_FETCH)
        return rig->verdict;
    struct kv_buf *buf = sessions_answer_begin(rig->sessions, session, KV_MSG_PIECE, request_id, rig->answer_position);
    uint8_t *content = kv_alloc_zero(1, rig->answer_bytes);
    kv_put_piece(buf, &(struct kv_msg_piece){.err = KV_OK, .bytes = kv_slice(content, rig->answer_bytes)});
    free(content);
    sessions_answer_end(rig->sessions);
    return rig->verdict;
}

static void on_closed(void *ctx, uint64_t session)
{
    struct rig *rig = ctx;
    rig->closed++;
    rig->closed_last = session;
}

static void on_turn_end(void *arg)
{
    struct rig *rig = arg;
    sessions_flush(rig->sessions, rig->durable);
}

static struct rig *rig_of_epoch(uint64_t epoch)
{
    struct rig *rig = kv_alloc_zero(1, sizeof(*rig));
    signal(SIGPIPE, SIG_IGN);
    rig->loop = loop_new();
    rig->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    rig->address.sun_family = AF_UNIX; /* bound to the family alone: the kernel picks an abstract name */
    cr_assert_eq(bind(rig->listen_fd, (struct sockaddr *)&rig->address, sizeof(sa_family_t)), 0);
    cr_assert_eq(listen(rig->listen_fd, 300), 0);
    rig->sessions = sessions_new(&(struct sessions_options){.loop = rig->loop,
                                                            .listen_fd = rig->listen_fd,
                                                            .shard_index = 1,
                                                            .shard_count = 2,
                                                            .epoch = epoch,
                                                            .ctx = rig,
                                                            .on_input = on_input,
                                                            .on_message = on_message,
                                                            .on_closed = on_closed});
    loop_on_turn_end(rig->loop, on_turn_end, rig);
    return rig;
}

static struct rig *rig_new(void)
{
    return rig_of_epoch(0);
}

static void rig_free(struct rig *rig)
{
    sessions_free(&rig->sessions);
    loop_free(&rig->loop);
    close(rig->listen_fd);
    free(rig);
}

static void turn(struct rig *rig)
{
    loop_turn(rig->loop, 2);
}

static struct peer peer_new(struct rig *rig)
{
    struct sockaddr_un address;
    socklen_t bytes = sizeof(address);
    struct peer peer = {.rig = rig, .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    cr_assert_eq(getsockname(rig->listen_fd, (struct sockaddr *)&address, &bytes), 0);
    cr_assert_eq(connect(peer.fd, (struct sockaddr *)&address, bytes), 0);
    return peer;
}

static void peer_free(struct peer *peer)
{
    close(peer->fd);
    kv_buf_free(&peer->got);
}

static void send_all(struct peer *peer, const struct kv_buf *buf)
{
    for (size_t sent = 0; sent < buf->bytes;) {
        ssize_t n = send(peer->fd, buf->data + sent, buf->bytes - sent, MSG_DONTWAIT);
        cr_assert(n > 0 || errno == EAGAIN);
        sent += n > 0 ? (size_t)n : 0;
        if (n < 0)
            turn(peer->rig);
    }
}

static void say_hello(struct peer *peer, struct kv_msg_hello hello)
{
    struct kv_buf buf = {0};
    size_t begin = kv_frame_begin(&buf, KV_MSG_HELLO, 42);
    kv_put_hello(&buf, &hello);
    kv_frame_end(&buf, begin);
    send_all(peer, &buf);
    kv_buf_free(&buf);
}

static struct kv_msg_hello hello_of(uint64_t epoch)
{
    static uint64_t thread_index; /* each peer is another thread, unless a test says otherwise */
    return (struct kv_msg_hello){.version = KV_WIRE_VERSION,
                                 .role = KV_ROLE_ROUTER,
                                 .shard_index = 1,
                                 .shard_count = 2,
                                 .epoch = epoch,
                                 .thread_index = thread_index++};
}

static void put_fetch(struct kv_buf *buf, uint64_t request_id)
{
    size_t begin = kv_frame_begin(buf, KV_MSG_FETCH, request_id);
    kv_put_fetch(buf, &(struct kv_msg_fetch){.object_id = 1, .bytes_max = 1});
    kv_frame_end(buf, begin);
}

static void say_fetch(struct peer *peer, uint64_t request_id)
{
    struct kv_buf buf = {0};
    put_fetch(&buf, request_id);
    send_all(peer, &buf);
    kv_buf_free(&buf);
}

/* Reads what is there. False: the shard hung up. */
static bool hear(struct peer *peer)
{
    ssize_t got = recv(peer->fd, kv_buf_reserve(&peer->got, 1 << 20), 1 << 20, MSG_DONTWAIT);
    if (got > 0)
        peer->got.bytes += (size_t)got;
    return got > 0 || (got < 0 && errno == EAGAIN);
}

/* Turns until a whole frame is there. False: hung up, or nothing came within `turns`. */
static bool next_frame(struct peer *peer, unsigned turns, struct kv_frame *frame, size_t *used)
{
    for (unsigned i = 0; i < turns; i++) {
        bool open = hear(peer);
        if (kv_frame_peek(kv_buf_peek(&peer->got), KV_ROLE_SHARD, frame, used) == KV_OK)
            return true;
        if (!open)
            return false;
        turn(peer->rig);
    }
    return false;
}

static uint64_t next_id(struct peer *peer, unsigned turns)
{
    struct kv_frame frame;
    size_t used;
    if (!next_frame(peer, turns, &frame, &used))
        return 0;
    uint64_t id = frame.request_id;
    kv_buf_consume(&peer->got, used);
    return id;
}

static struct kv_msg_hello hear_hello(struct peer *peer)
{
    struct kv_frame frame;
    struct kv_msg_hello hello = {0};
    size_t used;
    cr_assert(next_frame(peer, TURNS_MAX, &frame, &used));
    cr_assert_eq(frame.type, KV_MSG_HELLO);
    cr_assert_eq(frame.request_id, 42u);
    cr_assert_eq(kv_get_hello(frame.body, &hello), KV_OK);
    kv_buf_consume(&peer->got, used);
    return hello;
}

static bool hung_up(struct peer *peer)
{
    for (int i = 0; i < 50; i++) {
        if (!hear(peer))
            return true;
        turn(peer->rig);
    }
    return false;
}

static struct peer greeted(struct rig *rig, uint64_t epoch)
{
    struct peer peer = peer_new(rig);
    say_hello(&peer, hello_of(epoch));
    cr_assert_eq(hear_hello(&peer).epoch, epoch);
    return peer;
}

Test(sessions, hello_is_answered_with_who_we_are)
{
    struct rig *rig = rig_new();
    struct peer peer = peer_new(rig);
    say_hello(&peer, hello_of(3));
    struct kv_msg_hello hello = hear_hello(&peer);
    cr_expect_eq(hello.version, KV_WIRE_VERSION);
    cr_expect_eq(hello.role, KV_ROLE_SHARD);
    cr_expect_eq(hello.shard_index, 1u);
    cr_expect_eq(hello.shard_count, 2u);
    cr_expect_eq(hello.epoch, 3u);
    cr_expect_eq(sessions_epoch(rig->sessions), 3u);
    cr_expect_eq(sessions_count(rig->sessions), 1u);
    peer_free(&peer);
    turn(rig);
    cr_expect_eq(rig->closed, 1u);
    cr_expect_eq(sessions_count(rig->sessions), 0u);
    rig_free(rig);
}

Test(sessions, anything_but_hello_first_is_hung_up_on)
{
    struct rig *rig = rig_new();
    struct peer peer = peer_new(rig);
    say_fetch(&peer, 1);
    cr_expect(hung_up(&peer));
    cr_expect_eq(rig->messages, 0u);
    cr_expect_eq(rig->closed, 0u, "the core never heard of it");
    peer_free(&peer);
    rig_free(rig);
}

Test(sessions, a_peer_for_another_shard_or_version_is_told_and_hung_up_on)
{
    struct rig *rig = rig_new();
    struct kv_msg_hello wrong[] = {hello_of(1), hello_of(1), hello_of(1)};
    wrong[0].version++;
    wrong[1].shard_index = 0;
    wrong[2].shard_count = 3;
    for (size_t i = 0; i < 3; i++) {
        struct peer peer = peer_new(rig);
        say_hello(&peer, wrong[i]);
        cr_expect_eq(hear_hello(&peer).shard_count, 2u);
        cr_expect(hung_up(&peer));
        peer_free(&peer);
    }
    struct peer peer = peer_new(rig);
    struct kv_msg_hello shard = hello_of(1);
    shard.role = KV_ROLE_SHARD;
    say_hello(&peer, shard);
    cr_expect(hung_up(&peer));
    cr_expect_eq(peer.got.bytes, 0u);
    peer_free(&peer);
    rig_free(rig);
}

Test(sessions, garbage_is_hung_up_on)
{
    struct rig *rig = rig_new();
    struct peer peer = greeted(rig, 1);
    struct kv_buf junk = {0};
    memset(kv_buf_reserve(&junk, 64), 0xff, 64);
    junk.bytes = 64;
    int saved, reader;
    send_all(&peer, &junk);
    capture_begin(&saved, &reader);
    cr_expect(hung_up(&peer));
    capture_end(saved, reader);
    cr_expect(strstr(line, "closed: it sent bytes that are no frame\n") != NULL, "%s", line);
    cr_expect_eq(rig->closed, 1u);
    kv_buf_free(&junk);
    peer_free(&peer);
    rig_free(rig);
}

Test(sessions, a_newer_router_fences_the_older_one_before_it_is_answered)
{
    struct rig *rig = rig_new();
    struct peer old = greeted(rig, 1), second = greeted(rig, 1);
    say_fetch(&old, 7);
    turn(rig);
    cr_expect_eq(rig->messages, 1u);
    uint64_t old_session = rig->session_last;
    struct peer new = greeted(rig, 2);
    cr_expect_eq(rig->closed, 2u, "both sessions of epoch 1 are gone by the time HELLO is answered");
    cr_expect_eq(sessions_count(rig->sessions), 1u);
    cr_expect(hung_up(&second));
    sessions_answer_begin(rig->sessions, old_session, KV_MSG_DONE, 8, 0);
    sessions_answer_end(rig->sessions); /* an answer to a session that is gone goes nowhere */
    say_fetch(&new, 9);
    cr_expect_eq(next_id(&new, TURNS_MAX), 9u);
    peer_free(&old);
    peer_free(&second);
    peer_free(&new);
    rig_free(rig);
}

Test(sessions, what_an_older_router_had_sent_is_not_read_any_more)
{
    struct rig *rig = rig_new();
    struct peer old = greeted(rig, 1), new = peer_new(rig);
    say_hello(&new, hello_of(2));
    turn(rig); /* accepts */
    say_fetch(&old, 7);
    turn(rig); /* both are readable: whichever is first, the older one hears nothing afterwards */
    unsigned before = rig->messages;
    cr_expect_eq(hear_hello(&new).epoch, 2u);
    cr_expect_leq(before, 1u);
    for (int i = 0; i < 20; i++)
        turn(rig);
    cr_expect_eq(rig->messages, before);
    peer_free(&old);
    peer_free(&new);
    rig_free(rig);
}

Test(sessions, a_new_link_of_a_thread_ends_its_last_one)
{
    struct rig *rig = rig_new();
    struct kv_msg_hello hello = hello_of(1);
    struct peer first = peer_new(rig), other = greeted(rig, 1);
    say_hello(&first, hello);
    cr_assert_eq(hear_hello(&first).epoch, 1u);
    struct peer again = peer_new(rig);
    say_hello(&again, hello);
    cr_assert_eq(hear_hello(&again).epoch, 1u);
    cr_expect_eq(rig->closed, 1u, "before the new link was answered");
    cr_expect(hung_up(&first));
    say_fetch(&other, 8);
    cr_expect_eq(next_id(&other, TURNS_MAX), 8u, "other threads are not disturbed");
    say_fetch(&again, 9);
    cr_expect_eq(next_id(&again, TURNS_MAX), 9u);
    peer_free(&first);
    peer_free(&other);
    peer_free(&again);
    rig_free(rig);
}

Test(sessions, an_older_router_is_told_the_newer_epoch)
{
    struct rig *rig = rig_new();
    struct peer new = greeted(rig, 5), old = peer_new(rig);
    say_hello(&old, hello_of(4));
    cr_expect_eq(hear_hello(&old).epoch, 5u);
    cr_expect(hung_up(&old));
    cr_expect_eq(rig->closed, 0u);
    say_fetch(&new, 9);
    cr_expect_eq(next_id(&new, TURNS_MAX), 9u, "the newer one is not disturbed");
    peer_free(&old);
    peer_free(&new);
    rig_free(rig);
}

/* A shard that has just been started has seen no router, but the supervisor told it who was the last. */
Test(sessions, an_older_router_is_refused_before_the_newer_one_came)
{
    struct rig *rig = rig_of_epoch(5);
    struct peer old = peer_new(rig);
    say_hello(&old, hello_of(4));
    cr_expect_eq(hear_hello(&old).epoch, 5u);
    cr_expect(hung_up(&old));
    struct peer same = greeted(rig, 5), next = greeted(rig, 6);
    cr_expect_eq(sessions_epoch(rig->sessions), 6u);
    peer_free(&old);
    peer_free(&same);
    peer_free(&next);
    rig_free(rig);
}

Test(sessions, an_answer_waits_for_its_record_and_for_nobody_elses)
{
    struct rig *rig = rig_new();
    struct peer peer = greeted(rig, 1);
    rig->answer_position = 5;
    say_fetch(&peer, 1);
    turn(rig);
    rig->answer_position = 0;
    say_fetch(&peer, 2);
    cr_expect_eq(next_id(&peer, TURNS_MAX), 2u);
    cr_expect_eq(next_id(&peer, 20), 0u);
    rig->durable = 5;
    cr_expect_eq(next_id(&peer, TURNS_MAX), 1u);
    peer_free(&peer);
    rig_free(rig);
}

/* What comes together is looked through before the first of it is handled. */
Test(sessions, frames_are_told_before_they_are_messages)
{
    struct rig *rig = rig_new();
    struct peer peer = greeted(rig, 1);
    struct kv_buf frames = {0};
    for (uint64_t id = 1; id <= 3; id++)
        put_fetch(&frames, id);
    send_all(&peer, &frames);
    for (unsigned i = 0; i < 10 && rig->messages < 3; i++)
        turn(rig);
    cr_expect_eq(rig->messages, 3);
    cr_expect_eq(rig->messages_before, 0);
    cr_expect_eq(rig->input_bytes, frames.bytes);
    kv_buf_free(&frames);
    peer_free(&peer);
    rig_free(rig);
}

Test(sessions, a_reader_that_does_not_read_is_not_read_from)
{
    enum { FETCHES = 400 };
    struct rig *rig = rig_new();
    struct peer slow = greeted(rig, 1), other = greeted(rig, 1);
    struct kv_buf requests = {0};
    rig->answer_bytes = 1 << 20;
    for (uint64_t i = 1; i <= FETCHES; i++)
        put_fetch(&requests, i);
    send_all(&slow, &requests);
    for (int i = 0; i < 20; i++)
        turn(rig);
    cr_expect_lt(rig->messages, 70u, "64 MiB of answers, not 400");
    struct sessions_load load;
    sessions_load(rig->sessions, &load);
    cr_expect_eq(load.paused, 1u);
    cr_expect_gt(load.input_bytes, (FETCHES - 70) * 8u);
    cr_expect_gt(load.output_bytes, 32u << 20);
    say_fetch(&other, 1000);
    cr_expect_eq(next_id(&other, TURNS_MAX), 1000u, "others are served");
    for (uint64_t i = 1; i <= FETCHES; i++)
        cr_assert_eq(next_id(&slow, TURNS_MAX), i);
    cr_expect_eq(rig->messages, FETCHES + 1u);
    sessions_load(rig->sessions, &load);
    cr_expect(load.paused == 0 && load.input_bytes == 0 && load.output_bytes == 0);
    kv_buf_free(&requests);
    peer_free(&slow);
    peer_free(&other);
    rig_free(rig);
}

Test(sessions, staged_content_that_waits_for_the_disk_stops_the_reading)
{
    struct rig *rig = rig_new();
    struct peer peer = greeted(rig, 1);
    rig->staging_bytes = SESSION_STAGING_BYTES_MAX + 1;
    say_fetch(&peer, 1);
    say_fetch(&peer, 2);
    for (int i = 0; i < 10; i++)
        turn(rig);
    cr_expect_eq(rig->messages, 1u);
    sessions_staging(rig->sessions, rig->session_last, rig->staging_bytes, true);
    rig->staging_bytes = 0;
    cr_expect_eq(next_id(&peer, TURNS_MAX), 1u);
    cr_expect_eq(next_id(&peer, TURNS_MAX), 2u);
    peer_free(&peer);
    rig_free(rig);
}

static void say_stage_file(struct peer *peer, uint64_t request_id, int fd)
{
    struct kv_buf buf = {0};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    size_t begin = kv_frame_begin(&buf, KV_MSG_STAGE_FILE, request_id);
    kv_put_stage_file(&buf, &(struct kv_msg_stage_file){.object_id = 1, .file_bytes = 1});
    kv_frame_end(&buf, begin);
    struct iovec iov = {buf.data, buf.bytes};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
    }
    cr_assert_eq(sendmsg(peer->fd, &message, 0), (ssize_t)buf.bytes);
    kv_buf_free(&buf);
}

static int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 256; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

Test(sessions, a_descriptor_is_for_its_message)
{
    struct rig *rig = rig_new();
    struct peer peer = greeted(rig, 1);
    int fd = memfd_create("content", MFD_CLOEXEC), before = open_descriptors();
    say_stage_file(&peer, 1, fd);
    say_stage_file(&peer, 2, fd);
    say_fetch(&peer, 3);
    cr_expect_eq(next_id(&peer, TURNS_MAX), 3u);
    cr_expect_eq(rig->messages, 3u);
    cr_expect_eq(rig->files, 2u);
    cr_expect_eq(open_descriptors(), before, "taken or not");
    peer_free(&peer);
    rig_free(rig);
}

Test(sessions, a_piece_of_a_file_without_a_file_closes_the_session)
{
    struct rig *rig = rig_new();
    struct peer peer = greeted(rig, 1);
    say_stage_file(&peer, 1, -1);
    cr_expect(hung_up(&peer));
    cr_expect_eq(rig->messages, 0u);
    peer_free(&peer);
    rig_free(rig);
}

Test(sessions, a_descriptor_that_is_no_file_closes_the_session)
{
    struct rig *rig = rig_new();
    struct peer peer = greeted(rig, 1);
    say_stage_file(&peer, 1, rig->listen_fd);
    cr_expect(hung_up(&peer));
    cr_expect_eq(rig->messages, 0u);
    peer_free(&peer);
    rig_free(rig);
}

Test(sessions, a_session_whose_message_is_refused_is_closed)
{
    struct rig *rig = rig_new();
    struct peer peer = greeted(rig, 1);
    rig->verdict = KV_INVALID;
    int saved, reader;
    say_fetch(&peer, 1);
    capture_begin(&saved, &reader);
    cr_expect(hung_up(&peer));
    capture_end(saved, reader);
    cr_expect(strstr(line, "closed: its FETCH breaks the protocol\n") != NULL, "%s", line);
    cr_expect_eq(rig->closed, 1u);
    cr_expect_eq(rig->closed_last, rig->session_last);
    peer_free(&peer);
    rig_free(rig);
}

Test(sessions, what_was_said_before_leaving_counts)
{
    struct rig *rig = rig_new();
    struct peer peer = greeted(rig, 1);
    say_fetch(&peer, 1);
    say_fetch(&peer, 2);
    peer_free(&peer);
    for (int i = 0; i < 10; i++)
        turn(rig);
    cr_expect_eq(rig->messages, 2u);
    cr_expect_eq(rig->closed, 1u);
    rig_free(rig);
}

Test(sessions, the_silent_are_closed)
{
    struct rig *rig = rig_new();
    struct peer silent = peer_new(rig), ours = greeted(rig, 1);
    turn(rig);
    cr_expect_eq(sessions_count(rig->sessions), 2u);
    sessions_tick(rig->sessions, kv_clock_ms() + SESSION_HELLO_WAIT_MS - 1000);
    cr_expect_eq(sessions_count(rig->sessions), 2u);
    sessions_tick(rig->sessions, kv_clock_ms() + SESSION_HELLO_WAIT_MS + 1000);
    cr_expect_eq(sessions_count(rig->sessions), 1u);
    peer_free(&silent);
    peer_free(&ours);
    rig_free(rig);
}

Test(sessions, the_limit_of_connections_holds)
{
    struct rig *rig = rig_new();
    static struct peer peers[SESSIONS_MAX + 1];
    for (unsigned i = 0; i <= SESSIONS_MAX; i++)
        peers[i] = peer_new(rig);
    for (int i = 0; i < 40; i++)
        turn(rig);
    cr_expect_eq(sessions_count(rig->sessions), SESSIONS_MAX);
    cr_expect(hung_up(&peers[SESSIONS_MAX]));
    for (unsigned i = 0; i <= SESSIONS_MAX; i++)
        peer_free(&peers[i]);
    rig_free(rig);
}

Test(sessions, after_stop_nothing_is_read_and_answers_still_leave)
{
    struct rig *rig = rig_new();
    struct peer peer = greeted(rig, 1);
    rig->answer_position = 5;
    say_fetch(&peer, 1);
    turn(rig);
    sessions_stop(rig->sessions);
    say_fetch(&peer, 2);
    for (int i = 0; i < 5; i++)
        turn(rig);
    cr_expect_eq(rig->messages, 1u);
    rig->durable = 5;
    cr_expect_eq(next_id(&peer, TURNS_MAX), 1u);
    cr_expect(sessions_flushed(rig->sessions));
    peer_free(&peer);
    rig_free(rig);
}
