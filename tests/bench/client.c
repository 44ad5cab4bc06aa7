/* tests/bench/client.c -- see client.h. All frames of a turn go out in one write per connection, as a busy proxy would. */
#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "kv/clock.h"
#include "kv/log.h"

enum {
    READ_BYTES = 256 * 1024,
    WRITE_BYTES = 256 * 1024,
    WINDOW_BYTES = 16 * 1024 * 1024,
    EVENTS = 64,
    END_WAIT_MS = 30000
};

struct client;
struct connection;

/* A place for one request at a time. */
struct slot {
    struct connection *connection;
    struct request request;
    size_t body_sent;
    uint64_t begun_ns;
    uint64_t body_received;
    uint64_t first; /* the first 8 bytes of the answer's body */
    int status;
    struct slot *next_idle;
};

struct connection {
    struct client *client;
    int fd;
    nghttp2_session *session;
    struct slot *slots;
    struct slot *idle;
    uint8_t *out;
    size_t out_begin, out_end;
    bool wants_write;
};

struct client {
    const struct client_options *options;
    struct client_result *result;
    struct connection *connections;
    int epoll_fd;
    uint64_t begun; /* requests */
    uint64_t busy;
    uint64_t measure_from_ns;
    uint64_t end_ns;
    bool ended;
    uint8_t input[READ_BYTES];
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "kv-load: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- answers ------------------------------------------------------------------------------------------------------ */

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_bytes,
                     const uint8_t *value, size_t value_bytes, uint8_t flags, void *arg)
{
    (void)flags;
    (void)arg;
    if (name_bytes != 7 || memcmp(name, ":status", 7) != 0 || value_bytes != 3)
        return 0;
    struct slot *slot = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (slot != NULL)
        slot->status = (value[0] - '0') * 100 + (value[1] - '0') * 10 + (value[2] - '0');
    return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream_id, const uint8_t *data, size_t bytes,
                   void *arg)
{
    (void)flags;
    (void)arg;
    struct slot *slot = nghttp2_session_get_stream_user_data(session, stream_id);
    if (slot == NULL)
        return 0;
    if (slot->body_received < sizeof slot->first) {
        size_t room = sizeof slot->first - slot->body_received;
        memcpy((uint8_t *)&slot->first + slot->body_received, data, bytes < room ? bytes : room);
    }
    slot->body_received += bytes;
    return 0;
}

static void complain(const struct slot *slot, uint32_t error_code)
{
    fprintf(stderr, "kv-load: %s %s: status %d, stream error %u, %lu body bytes, stamp %lx for %lx\n",
            slot->request.method, slot->request.path, slot->status, error_code, slot->body_received, slot->first,
            slot->request.stamp);
}

static void submit_idle(struct connection *connection);

static int on_stream_close(nghttp2_session *session, int32_t stream_id, uint32_t error_code, void *arg)
{
    struct connection *connection = arg;
    struct client *client = connection->client;
    struct client_result *result = client->result;
    struct slot *slot = nghttp2_session_get_stream_user_data(session, stream_id);
    if (slot == NULL)
        return 0;
    bool good = error_code == 0 && slot->status >= 200 && slot->status < 300 &&
                (!slot->request.checked || slot->first == slot->request.stamp);
    if (!good && result->errors++ == 0)
        complain(slot, error_code);
    uint64_t now_ns = kv_clock_ns();
    if (good && slot->begun_ns >= client->measure_from_ns && now_ns <= client->end_ns) {
        result->requests++;
        result->ops += slot->request.ops;
        result->body_bytes += slot->body_received + request_body_bytes(&slot->request);
        histogram_add(&result->latency, now_ns - slot->begun_ns);
    }
    client->busy--;
    slot->next_idle = connection->idle;
    connection->idle = slot;
    return 0;
}

/* ---- requests ----------------------------------------------------------------------------------------------------- */

static ssize_t read_body(nghttp2_session *session, int32_t stream_id, uint8_t *out, size_t bytes, uint32_t *flags,
                         nghttp2_data_source *source, void *arg)
{
    (void)session;
    (void)stream_id;
    (void)arg;
    struct slot *slot = source->ptr;
    size_t copied = request_body_copy(&slot->request, slot->body_sent, bytes, out);
    slot->body_sent += copied;
    if (slot->body_sent == request_body_bytes(&slot->request))
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)copied;
}

static nghttp2_nv header(const char *name, const char *value)
{
    return (nghttp2_nv){(uint8_t *)(uintptr_t)name, (uint8_t *)(uintptr_t)value, strlen(name), strlen(value),
                        NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
}

static void submit(struct connection *connection, struct slot *slot)
{
    struct client *client = connection->client;
    char length[24];
    nghttp2_nv headers[8];
    size_t count = 0;
    headers[count++] = header(":method", slot->request.method);
    headers[count++] = header(":scheme", "http");
    headers[count++] = header(":authority", client->options->host);
    headers[count++] = header(":path", slot->request.path);
    if (client->options->token != NULL)
        headers[count++] = header("authorization", client->options->token);
    if (slot->request.content_type != NULL)
        headers[count++] = header("content-type", slot->request.content_type);
    bool body = slot->request.method[0] == 'P';
    if (body) {
        snprintf(length, sizeof length, "%zu", request_body_bytes(&slot->request));
        headers[count] = header("content-length", length);
        headers[count++].flags = 0; /* the number dies with this function */
    }
    nghttp2_data_provider provider = {.source.ptr = slot, .read_callback = read_body};
    slot->body_sent = slot->body_received = slot->first = 0;
    slot->status = 0;
    slot->begun_ns = kv_clock_ns();
    int32_t id = nghttp2_submit_request(connection->session, NULL, headers, count, body ? &provider : NULL, slot);
    if (id < 0) {
        fprintf(stderr, "kv-load: cannot submit: %s\n", nghttp2_strerror(id));
        exit(1);
    }
    client->busy++;
    client->begun++;
}

static void submit_idle(struct connection *connection)
{
    struct client *client = connection->client;
    while (connection->idle != NULL && !client->ended) {
        struct slot *slot = connection->idle;
        bool enough = client->options->requests != 0 && client->begun == client->options->requests;
        if (enough || !workload_next(client->options->workload, &slot->request)) {
            client->ended = true;
            return;
        }
        connection->idle = slot->next_idle;
        submit(connection, slot);
    }
}

/* ---- sockets ------------------------------------------------------------------------------------------------------ */

/* Moves frames into the output buffer until it is full or there are none. */
static void gather(struct connection *connection)
{
    if (connection->out_begin == connection->out_end)
        connection->out_begin = connection->out_end = 0;
    while (connection->out_end < WRITE_BYTES / 2) {
        const uint8_t *frames;
        ssize_t bytes = nghttp2_session_mem_send(connection->session, &frames);
        if (bytes < 0) {
            fprintf(stderr, "kv-load: %s\n", nghttp2_strerror((int)bytes));
            exit(1);
        }
        if (bytes == 0)
            return;
        kv_assert((size_t)bytes <= WRITE_BYTES - connection->out_end);
        memcpy(connection->out + connection->out_end, frames, (size_t)bytes);
        connection->out_end += (size_t)bytes;
    }
}

static void watch(struct connection *connection, bool write)
{
    if (connection->wants_write == write)
        return;
    connection->wants_write = write;
    struct epoll_event event = {.events = EPOLLIN | (write ? (uint32_t)EPOLLOUT : 0), .data.ptr = connection};
    if (epoll_ctl(connection->client->epoll_fd, EPOLL_CTL_MOD, connection->fd, &event) != 0)
        die("epoll");
}

static void send_out(struct connection *connection)
{
    for (;;) {
        gather(connection);
        size_t bytes = connection->out_end - connection->out_begin;
        if (bytes == 0)
            break;
        ssize_t sent = write(connection->fd, connection->out + connection->out_begin, bytes);
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0)
            die("connection broke while writing");
        connection->out_begin += (size_t)sent;
    }
    watch(connection, connection->out_begin < connection->out_end);
}

static void receive(struct connection *connection)
{
    struct client *client = connection->client;
    ssize_t got = read(connection->fd, client->input, sizeof client->input);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got == 0)
        errno = ECONNRESET;
    if (got <= 0)
        die("connection broke while reading");
    ssize_t used = nghttp2_session_mem_recv(connection->session, client->input, (size_t)got);
    if (used < 0) {
        fprintf(stderr, "kv-load: %s\n", nghttp2_strerror((int)used));
        exit(1);
    }
}

/* Headers are not judged: that would be a tenth of this program's time, which the servers want. */
static void begin_session(struct connection *connection)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    nghttp2_option_new(&option);
    nghttp2_option_set_no_http_messaging(option, 1);
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_BYTES},
                                         {NGHTTP2_SETTINGS_ENABLE_PUSH, 0}};
    if (nghttp2_session_client_new2(&connection->session, callbacks, connection, option) != 0 ||
        nghttp2_submit_settings(connection->session, NGHTTP2_FLAG_NONE, settings, 2) != 0 ||
        nghttp2_session_set_local_window_size(connection->session, NGHTTP2_FLAG_NONE, 0, WINDOW_BYTES) != 0)
        die("nghttp2");
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_option_del(option);
}

static void open_socket(struct connection *connection)
{
    const struct client_options *options = connection->client->options;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options->port)};
    int on = 1;
    if (inet_pton(AF_INET, options->host, &address.sin_addr) != 1)
        die("host");
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0 || connect(connection->fd, (struct sockaddr *)&address, sizeof address) != 0)
        die("cannot connect");
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(connection->client->epoll_fd, EPOLL_CTL_ADD, connection->fd, &event) != 0)
        die("epoll");
}

static void connection_open(struct client *client, struct connection *connection)
{
    connection->client = client;
    open_socket(connection);
    begin_session(connection);
    connection->out = kv_alloc(WRITE_BYTES);
    connection->slots = kv_alloc_zero(client->options->streams, sizeof *connection->slots);
    for (unsigned i = 0; i < client->options->streams; i++) {
        connection->slots[i].connection = connection;
        connection->slots[i].next_idle = connection->idle;
        connection->idle = &connection->slots[i];
    }
}

static void connection_close(struct connection *connection)
{
    nghttp2_session_del(connection->session);
    close(connection->fd);
    for (unsigned i = 0; i < connection->client->options->streams; i++)
        request_free(&connection->slots[i].request);
    free(connection->slots);
    free(connection->out);
}

/* ---- the run ------------------------------------------------------------------------------------------------------ */

/* Also after nothing happened: whatever hangs shall not hang the benchmark. */
static void turn(struct client *client)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(client->epoll_fd, events, EVENTS, END_WAIT_MS);
    if (count == 0) {
        fprintf(stderr, "kv-load: nothing was answered for %d s, %lu requests are open\n", END_WAIT_MS / 1000,
                client->busy);
        exit(1);
    }
    client->ended |= kv_clock_ns() >= client->end_ns;
    for (int i = 0; i < count; i++) {
        struct connection *connection = events[i].data.ptr;
        if ((events[i].events & (uint32_t)~EPOLLOUT) != 0)
            receive(connection);
        submit_idle(connection);
        send_out(connection);
    }
}

void client_run(const struct client_options *options, struct client_result *out)
{
    struct client *client = kv_alloc_zero(1, sizeof *client);
    *out = (struct client_result){0};
    client->options = options;
    client->result = out;
    client->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    client->connections = kv_alloc_zero(options->connections, sizeof *client->connections);
    for (unsigned i = 0; i < options->connections; i++)
        connection_open(client, &client->connections[i]);
    client->measure_from_ns = kv_clock_ns() + options->warm_ns;
    client->end_ns = options->duration_ns == 0 ? UINT64_MAX : client->measure_from_ns + options->duration_ns;
    for (unsigned i = 0; i < options->connections; i++) {
        submit_idle(&client->connections[i]);
        send_out(&client->connections[i]);
    }
    while (client->busy > 0)
        turn(client);
    uint64_t now_ns = kv_clock_ns();
    out->duration_ns = (now_ns < client->end_ns ? now_ns : client->end_ns) - client->measure_from_ns;
    for (unsigned i = 0; i < options->connections; i++)
        connection_close(&client->connections[i]);
    close(client->epoll_fd);
    free(client->connections);
    free(client);
}
