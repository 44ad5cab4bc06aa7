/* shard/session.c -- see session.h. */
#include "session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kv/log.h"
#include "wire/messages.h"

#define INPUT_KEEP_BYTES ((size_t)4 * 1024 * 1024) /* a larger input buffer is given back once it is empty */

/* ---- an end --------------------------------------------------------------------------------------------------- */

void session_close(struct session *session)
{
    struct sessions *sessions = session->sessions;
    bool greeted = session->greeted;
    uint64_t id = session->id;
    int fd = session->watch.fd;
    loop_remove(sessions->options.loop, &session->watch);
    close(fd);
    sessions->places[id % SESSIONS_MAX] = NULL;
    sessions->count--;
    inbox_free(&session->inbox);
    outbox_free(&session->outbox);
    slots_unmap(&session->slots);
    free(session);
    if (greeted)
        sessions->options.on_closed(sessions->options.ctx, id);
}

void session_refuse(struct session *session, const char *why)
{
    kv_warn("session %llu closed: %s", (unsigned long long)session->id, why);
    session_close(session);
}

/* ---- back-pressure -------------------------------------------------------------------------------------------- */

static bool congested(const struct session *session, unsigned divisor)
{
    return outbox_bytes(&session->outbox) > SESSION_OUTPUT_BYTES_MAX / divisor ||
           session->staging_bytes > SESSION_STAGING_BYTES_MAX / divisor;
}

void session_watch(struct session *session)
{
    bool stopped = session->sessions->stopped || session->leaving;
    bool resume = session->paused && !congested(session, 2) && !stopped;
    bool output = outbox_peek(&session->outbox).bytes > 0;
    uint32_t events =
        (!session->paused && !stopped ? (uint32_t)EPOLLIN : 0) | (output || resume ? (uint32_t)EPOLLOUT : 0);
    loop_modify(session->sessions->options.loop, &session->watch, events);
}

/* ---- HELLO ---------------------------------------------------------------------------------------------------- */

static void answer_hello(struct session *session, uint64_t request_id)
{
    const struct sessions_options *options = &session->sessions->options;
    struct kv_buf *buf = outbox_begin(&session->outbox, KV_MSG_HELLO, request_id, 0);
    kv_put_hello(buf, &(struct kv_msg_hello){.version = KV_WIRE_VERSION,
                                             .role = KV_ROLE_SHARD,
                                             .shard_index = options->shard_index,
                                             .shard_count = options->shard_count,
                                             .epoch = session->sessions->epoch});
    outbox_end(&session->outbox);
}

static bool is_superseded(const struct session *session, const struct kv_msg_hello *hello)
{
    return session->greeted && (session->epoch < hello->epoch ||
                                (session->epoch == hello->epoch && session->thread_index == hello->thread_index));
}

/* Before the newcomer hears from us, older routers and the thread's own last link are gone: frames that they left in a
 * socket can never come behind this (a PREPARE read after its ABORT would stay for ever). */
static void fence(struct sessions *sessions, const struct kv_msg_hello *hello)
{
    unsigned closed = 0;
    bool newer = hello->epoch > sessions->epoch;
    sessions->epoch = hello->epoch;
    kv_log_epoch(hello->epoch);
    for (unsigned i = 0; i < SESSIONS_MAX; i++) {
        struct session *session = sessions->places[i];
        if (session != NULL && is_superseded(session, hello)) {
            session_close(session);
            closed++;
        }
    }
    if (newer)
        kv_info("router of epoch %llu connected, %u sessions of older ones closed", (unsigned long long)hello->epoch,
                closed);
}

/* What is wrong with a peer that would be ours, or NULL. */
static const char *hello_fault(const struct sessions *sessions, const struct kv_msg_hello *hello)
{
    if (hello->version != KV_WIRE_VERSION)
        return "the peer speaks another version of the protocol";
    if (hello->shard_index != sessions->options.shard_index || hello->shard_count != sessions->options.shard_count)
        return "the peer looks for another shard";
    return hello->epoch < sessions->epoch ? "fenced: a router of a newer epoch is here" : NULL;
}

/* A peer that is not ours is told who we are, and what epoch, before it is closed. */
static enum kv_err session_greet(struct session *session, const struct kv_frame *frame)
{
    struct kv_msg_hello hello;
    if (frame->type != KV_MSG_HELLO || kv_get_hello(frame->body, &hello) != KV_OK || hello.role != KV_ROLE_ROUTER ||
        hello.epoch > KV_EPOCH_MAX)
        return KV_INVALID;
    const char *fault = hello_fault(session->sessions, &hello);
    if (fault != NULL) {
        kv_warn("session %llu of epoch %llu refused: %s", (unsigned long long)session->id,
                (unsigned long long)hello.epoch, fault);
        session->leaving = true;
    } else {
        fence(session->sessions, &hello);
        session->epoch = hello.epoch;
        session->thread_index = hello.thread_index;
        session->greeted = true;
    }
    answer_hello(session, frame->request_id);
    return KV_OK;
}

/* ---- out ------------------------------------------------------------------------------------------------------ */

bool session_write(struct session *session)
{
    for (struct kv_slice out; (out = outbox_peek(&session->outbox)).bytes > 0;) {
        ssize_t sent = write(session->watch.fd, out.data, out.bytes);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0) {
            shutdown(session->watch.fd, SHUT_RDWR);
            break;
        }
        outbox_consume(&session->outbox, (size_t)sent);
    }
    if (session->leaving) {
        session_close(session);
        return false;
    }
    return true;
}

/* What is worth a system call leaves at once, so that the router works on it while the next answers are made. */
static void write_early(struct session *session)
{
    if (!session->leaving && outbox_peek(&session->outbox).bytes >= SESSION_WRITE_BYTES)
        session_write(session);
}

/* ---- in ------------------------------------------------------------------------------------------------------- */

static enum kv_err session_frame_with_file(struct session *session, const struct kv_frame *frame)
{
    struct sessions *sessions = session->sessions;
    const struct sessions_options *options = &sessions->options;
    sessions->file = inbox_take_file(&session->inbox);
    enum kv_err err = KV_INVALID;
    if (sessions->file >= 0)
        err = options->on_message(options->ctx, session->id, frame->type, frame->request_id, frame->body);
    if (sessions->file >= 0)
        close(sessions->file); /* nobody took it */
    sessions->file = -1;
    return err;
}

/* A second one takes the place of the first. Without memory for it the bytes travel in messages. */
static enum kv_err session_take_arena(struct session *session, const struct kv_frame *frame)
{
    int file = inbox_take_file(&session->inbox);
    if (file < 0)
        return KV_INVALID;
    slots_unmap(&session->slots);
    enum kv_err err = kv_get_empty(frame->body);
    if (err == KV_OK)
        err = slots_map(file, &session->slots);
    close(file);
    if (err == KV_NO_SPACE)
        kv_warn("session %llu: the memory for pieces cannot be mapped: %m", (unsigned long long)session->id);
    return err == KV_INVALID ? err : KV_OK;
}

static enum kv_err session_frame(struct session *session, const struct kv_frame *frame)
{
    const struct sessions_options *options = &session->sessions->options;
    if (!session->greeted)
        return session_greet(session, frame);
    if (frame->type == KV_MSG_HELLO)
        return KV_INVALID;
    if (frame->type == KV_MSG_ARENA)
        return session_take_arena(session, frame);
    if (frame->type == KV_MSG_STAGE_FILE)
        return session_frame_with_file(session, frame);
    return options->on_message(options->ctx, session->id, frame->type, frame->request_id, frame->body);
}

static bool is_heard(const struct session *session)
{
    return !session->leaving && !session->sessions->stopped && !session->paused;
}

/* Takes whole frames off the input until there is none, or the session must wait. False: it is closed. */
static bool session_process(struct session *session)
{
    struct kv_buf *input = &session->inbox.bytes;
    size_t done = 0;
    enum kv_err err = KV_OK;
    char refused[64] = "it sent bytes that are no frame";
    if (is_heard(session))
        session->sessions->options.on_input(session->sessions->options.ctx, kv_buf_peek(input));
    while (is_heard(session)) {
        struct kv_frame frame;
        size_t used = 0;
        err = kv_frame_peek(kv_slice(input->data + done, input->bytes - done), KV_ROLE_ROUTER, &frame, &used);
        if (err != KV_OK)
            break;
        err = session_frame(session, &frame);
        if (err != KV_OK) {
            snprintf(refused, sizeof(refused), "its %s breaks the protocol", kv_msg_name((uint32_t)frame.type));
            err = KV_INVALID; /* whatever it was: KV_NOT_FOUND would mean that the rest is to come */
            break;
        }
        done += used;
        write_early(session);
        session->paused = congested(session, 1);
    }
    if (err != KV_OK && err != KV_NOT_FOUND) {
        session_refuse(session, refused);
        return false;
    }
    kv_buf_consume(input, done);
    if (input->bytes == 0 && input->capacity > INPUT_KEEP_BYTES)
        kv_buf_free(input);
    return true;
}

/* Reads until the socket is empty or the turn's share is used up; what is left makes the next turn. False: it is closed. */
static bool session_read(struct session *session)
{
    size_t total = 0;
    enum kv_err err = KV_OK;
    while (err == KV_OK && total < SESSION_READ_BYTES)
        err = inbox_read(&session->inbox, session->watch.fd, &total);
    if (err == KV_INVALID)
        session_refuse(session, "it sent descriptors that cannot be taken");
    else if (err == KV_UNAVAILABLE && session_process(session)) /* what it said before it left still counts */
        session_close(session);
    return err == KV_OK || err == KV_NOT_FOUND;
}

void session_on_ready(void *arg, uint32_t events)
{
    struct session *session = arg;
    if ((events & EPOLLOUT) != 0 && !session_write(session))
        return;
    if ((events & EPOLLIN) != 0) {
        if (!session_read(session))
            return;
    } else if ((events & (EPOLLHUP | EPOLLERR)) != 0) {
        session_close(session); /* gone while it was not read from */
        return;
    }
    if (session->paused && congested(session, 2))
        return; /* sessions_flush and sessions_staging look again */
    session->paused = false;
    session_process(session);
}
