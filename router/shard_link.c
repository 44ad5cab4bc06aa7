/* router/shard_link.c -- see shard_link.h.
 * Does:     per shard: connect, greet, then move frames between an h2o socket and calls.h. Frames gather in calls_output until
 *           they are worth a system call or the loop's turn ends (a timer of zero milliseconds): a shard that waited for the end of
 *           a long turn would idle during it, and the router after it. What the socket has no room for waits until it has.
 * Promises: nothing but the HELLO leaves before the shard's HELLO was checked.
 * Surprise: the supervisor holds the shard's listening socket, so connecting to a dead shard succeeds and the HELLO
 *           waits in the backlog until the shard is back: that wait costs nothing and needs no retry. */
#include "shard_link.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <h2o.h>

#include "kv/limits.h"
#include "kv/log.h"
#include "wire/messages.h"

#define PAUSE_TICK_MS 20u          /* pauses are counted in these */
#define PAUSE_TICKS_MAX 10u        /* 200 ms */
#define BUFFER_KEEP_BYTES 4194304u /* a larger idle buffer is given back */
#define HELLO_REQUEST_ID 0u        /* calls.h counts from 1 */
/* A PIECE for a GET and what follows it: h2o frees what is empty, and doubles by copying. */
#define INPUT_BYTES_MIN (3u * 131072)

enum link_phase { LINK_DOWN, LINK_GREETING, LINK_UP };

struct shard_link {
    struct shard_links *links;
    unsigned shard_index;
    enum link_phase phase;
    h2o_socket_t *socket;
    h2o_timeout_entry_t flush;     /* on zero_timeout: the end of the turn */
    h2o_timeout_entry_t reconnect; /* on the tick */
    unsigned pause_ticks;          /* length of the pause now running */
    unsigned pause_ticks_left;
    bool complained; /* about this outage: one line, not one per attempt */
};

struct shard_links {
    struct shard_links_options options;
    struct calls *calls;
    h2o_timeout_t tick;
    struct shard_link link[KV_SHARDS_MAX];
};

/* Buffers of our own for what shards say: body.h bounds and spills those that clients fill. One per thread, as recycled memory
 * must be. */
static __thread h2o_buffer_prototype_t input_prototype = {.allocator = {.max = 16},
                                                          ._initial_buf = {.capacity = INPUT_BYTES_MIN}};

static void link_connect(struct shard_link *link);

/* ---- down ----------------------------------------------------------------------------------------------------- */

static void link_complain(struct shard_link *link, const char *what)
{
    if (!link->complained)
        kv_warn("link to shard %u: %s", link->shard_index, what);
    link->complained = true;
}

static void link_pause(struct shard_link *link)
{
    unsigned doubled = link->pause_ticks == 0 ? 1 : link->pause_ticks * 2;
    link->pause_ticks = doubled < PAUSE_TICKS_MAX ? doubled : PAUSE_TICKS_MAX;
    link->pause_ticks_left = link->pause_ticks;
    h2o_timeout_link(link->links->options.context->loop, &link->links->tick, &link->reconnect);
}

static void on_tick(h2o_timeout_entry_t *entry)
{
    struct shard_link *link = H2O_STRUCT_FROM_MEMBER(struct shard_link, reconnect, entry);
    if (--link->pause_ticks_left > 0)
        h2o_timeout_link(link->links->options.context->loop, &link->links->tick, &link->reconnect);
    else
        link_connect(link);
}

/* Drops the socket with all that it holds, tells calls.h, and tries again: at once when the link was up, else after a
 * pause, so that a shard that keeps hanging up is not called without end. */
static void link_lost(struct shard_link *link, const char *why)
{
    enum link_phase phase = link->phase;
    link->phase = LINK_DOWN;
    h2o_socket_close(link->socket);
    link->socket = NULL;
    h2o_timeout_unlink(&link->flush);
    link_complain(link, why);
    if (phase != LINK_UP) {
        link_pause(link);
        return;
    }
    calls_link_down(link->links->calls, link->shard_index);
    if (link->links->options.on_change != NULL)
        link->links->options.on_change(link->links->options.arg, link->shard_index, false);
    link_connect(link);
}

/* ---- writing -------------------------------------------------------------------------------------------------- */

static void link_flush(struct shard_link *link);

static void on_writable(h2o_socket_t *socket, const char *err)
{
    struct shard_link *link = socket->data;
    if (err != NULL)
        link_lost(link, "closed while writing");
    else
        link_flush(link);
}

/* As send(), with a descriptor unless `fd` is -1. */
static ssize_t send_with(int socket_fd, struct kv_slice bytes, int fd)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec iov = {(void *)(uintptr_t)bytes.data, bytes.bytes};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
    }
    return sendmsg(socket_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* False: nothing left. A broken socket is hung up on, which shows when it is read. */
static bool send_some(struct shard_link *link)
{
    int fd;
    struct kv_slice bytes = calls_next_output(link->links->calls, link->shard_index, &fd);
    ssize_t sent = send_with(h2o_socket_get_fd(link->socket), bytes, fd);
    if (sent > 0)
        calls_sent(link->links->calls, link->shard_index, (size_t)sent);
    else if (errno == EAGAIN)
        h2o_socket_notify_write(link->socket, on_writable);
    else
        shutdown(h2o_socket_get_fd(link->socket), SHUT_RDWR);
    return sent > 0;
}

static void link_flush(struct shard_link *link)
{
    if (link->phase != LINK_UP || h2o_socket_is_writing(link->socket))
        return; /* on_writable comes back here */
    struct kv_buf *output = calls_output(link->links->calls, link->shard_index);
    while (output->bytes > 0 && send_some(link))
        ;
    if (output->bytes == 0 && output->capacity > BUFFER_KEEP_BYTES)
        kv_buf_free(output);
}

static void on_turn_end(h2o_timeout_entry_t *entry)
{
    link_flush(H2O_STRUCT_FROM_MEMBER(struct shard_link, flush, entry));
}

static void on_calls_wake(void *ctx, unsigned shard_index)
{
    struct shard_links *links = ctx;
    struct shard_link *link = &links->link[shard_index];
    if (!h2o_timeout_is_linked(&link->flush))
        h2o_timeout_link(links->options.context->loop, &links->options.context->zero_timeout, &link->flush);
}

static void on_calls_full(void *ctx, unsigned shard_index)
{
    struct shard_links *links = ctx;
    link_flush(&links->link[shard_index]);
}

/* ---- greeting ------------------------------------------------------------------------------------------------- */

static void link_greet(struct shard_link *link)
{
    const struct shard_links_options *options = &link->links->options;
    struct kv_buf hello = {0};
    size_t begin = kv_frame_begin(&hello, KV_MSG_HELLO, HELLO_REQUEST_ID);
    kv_put_hello(&hello, &(struct kv_msg_hello){.version = KV_WIRE_VERSION,
                                                .role = KV_ROLE_ROUTER,
                                                .shard_index = link->shard_index,
                                                .shard_count = options->shard_count,
                                                .epoch = options->epoch,
                                                .thread_index = options->thread_index});
    kv_frame_end(&hello, begin);
    int fd = h2o_socket_get_fd(link->socket);
    if (send_with(fd, kv_buf_peek(&hello), -1) != (ssize_t)hello.bytes) /* an empty socket has room for it */
        shutdown(fd, SHUT_RDWR);
    kv_buf_free(&hello);
}

/* NULL, or what is wrong with the shard's HELLO. */
static const char *hello_fault(const struct shard_link *link, const struct kv_msg_hello *hello)
{
    const struct shard_links_options *options = &link->links->options;
    if (hello->version != KV_WIRE_VERSION)
        return "the shard speaks another version of the protocol";
    if (hello->role != KV_ROLE_SHARD)
        return "the peer is not a shard";
    if (hello->shard_index != link->shard_index || hello->shard_count != options->shard_count)
        return "another shard answered";
    if (hello->epoch > options->epoch)
        kv_fatal("shard %u has seen a router of epoch %llu, this one is of epoch %llu: it must end", link->shard_index,
                 (unsigned long long)hello->epoch, (unsigned long long)options->epoch);
    return hello->epoch == options->epoch ? NULL : "the shard answered with an older epoch";
}

static void link_came_up(struct shard_link *link)
{
    link->phase = LINK_UP;
    link->pause_ticks = 0;
    if (link->complained)
        kv_info("link to shard %u: up again", link->shard_index);
    link->complained = false;
    calls_link_up(link->links->calls, link->shard_index);
    if (link->links->options.on_change != NULL)
        link->links->options.on_change(link->links->options.arg, link->shard_index, true);
}

/* Takes the HELLO off the input. False: not complete yet, or the link is lost. */
static bool link_take_hello(struct shard_link *link)
{
    struct kv_frame frame;
    struct kv_msg_hello hello;
    size_t used = 0;
    struct kv_slice input = kv_slice(link->socket->input->bytes, link->socket->input->size);
    enum kv_err err = kv_frame_peek(input, KV_ROLE_SHARD, &frame, &used);
    if (err == KV_NOT_FOUND)
        return false;
    const char *fault = "the shard did not begin with HELLO";
    if (err == KV_OK && frame.type == KV_MSG_HELLO && kv_get_hello(frame.body, &hello) == KV_OK)
        fault = hello_fault(link, &hello);
    if (fault != NULL) {
        link_lost(link, fault);
        return false;
    }
    h2o_buffer_consume(&link->socket->input, used);
    link_came_up(link);
    return true;
}

/* ---- reading -------------------------------------------------------------------------------------------------- */

static void give_back_input(h2o_socket_t *socket, size_t keep_bytes)
{
    if (socket->input->size > 0 || socket->input->capacity <= keep_bytes)
        return;
    h2o_buffer_dispose(&socket->input);
    h2o_buffer_init(&socket->input, &input_prototype);
}

static void on_read(h2o_socket_t *socket, const char *err)
{
    struct shard_link *link = socket->data;
    if (err != NULL) {
        link_lost(link, "closed by the shard");
        return;
    }
    if (link->phase == LINK_GREETING && !link_take_hello(link))
        return;
    size_t used = 0;
    struct kv_slice input = kv_slice(socket->input->bytes, socket->input->size);
    enum kv_err broken = calls_input(link->links->calls, link->shard_index, input, &used);
    if (broken != KV_OK) {
        link_lost(link, "the shard broke the protocol");
        return;
    }
    h2o_buffer_consume(&socket->input, used);
    give_back_input(socket, BUFFER_KEEP_BYTES);
}

/* ---- connecting ----------------------------------------------------------------------------------------------- */

/* A connected descriptor or -1 with errno. A Unix socket connects at once, or not: EAGAIN is a full backlog. */
static int connect_to(int sockets_fd, unsigned shard_index)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int path_bytes = sockets_fd == AT_FDCWD
                         ? snprintf(address.sun_path, sizeof(address.sun_path), "shard-%u", shard_index)
                         : snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/shard-%u", sockets_fd,
                                    shard_index);
    /* No byte more than there is: a confined router may connect to short addresses only (confine_seccomp.c). */
    socklen_t address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)path_bytes + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    /* Above net.core.wmem_max only with CAP_NET_ADMIN: the first call may fail, the second takes what there is. */
    int bytes = SHARD_LINK_BUFFER_BYTES;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) != 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    if (connect(fd, (const struct sockaddr *)&address, address_bytes) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

static void link_connect(struct shard_link *link)
{
    struct shard_links *links = link->links;
    int fd = connect_to(links->options.sockets_fd, link->shard_index);
    if (fd < 0) {
        link_complain(link, strerror(errno));
        link_pause(link);
        return;
    }
    link->socket = h2o_evloop_socket_create(links->options.context->loop, fd, 0);
    h2o_buffer_set_prototype(&link->socket->input, &input_prototype);
    link->socket->data = link;
    link->phase = LINK_GREETING;
    h2o_socket_read_start(link->socket, on_read);
    link_greet(link);
}

struct shard_links *shard_links_new(const struct shard_links_options *options, struct calls **calls_out)
{
    struct shard_links *links = kv_alloc_zero(1, sizeof(*links));
    links->options = *options;
    links->calls = calls_new(options->shard_count, &(struct calls_world){links, on_calls_wake, on_calls_full});
    h2o_timeout_init(options->context->loop, &links->tick, PAUSE_TICK_MS);
    for (unsigned i = 0; i < options->shard_count; i++) {
        struct shard_link *link = &links->link[i];
        link->links = links;
        link->shard_index = i;
        link->flush.cb = on_turn_end;
        link->reconnect.cb = on_tick;
        link_connect(link);
    }
    *calls_out = links->calls;
    return links;
}

void shard_links_trim(struct shard_links *links)
{
    for (unsigned i = 0; i < links->options.shard_count; i++) {
        struct shard_link *link = &links->link[i];
        struct kv_buf *output = calls_output(links->calls, i);
        if (link->phase != LINK_UP)
            continue;
        if (output->bytes == 0)
            kv_buf_free(output);
        give_back_input(link->socket, INPUT_BYTES_MIN);
    }
}

void shard_links_free(struct shard_links **links)
{
    if (*links == NULL)
        return;
    for (unsigned i = 0; i < (*links)->options.shard_count; i++) {
        struct shard_link *link = &(*links)->link[i];
        h2o_timeout_unlink(&link->flush);
        h2o_timeout_unlink(&link->reconnect);
        if (link->socket != NULL)
            h2o_socket_close(link->socket);
    }
    h2o_timeout_dispose((*links)->options.context->loop, &(*links)->tick);
    calls_free(&(*links)->calls);
    free(*links);
    *links = NULL;
}
