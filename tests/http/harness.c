/* tests/http/harness.c -- see harness.h. */
#include "harness.h"

#include <arpa/inet.h>
#include <poll.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <strings.h>
#include <unistd.h>

#include "thread.h"

struct kv_settings http_settings;
struct server *http_server;
unsigned short http_port;
unsigned short http_tls_port;

void http_defaults(void)
{
    char why[256];
    signal(SIGPIPE, SIG_IGN);
    kv_settings_init(&http_settings);
    cr_assert_eq(kv_settings_set(&http_settings, "TOKEN", TOKEN, why, sizeof(why)), KV_OK);
    http_settings.router_threads = 2;
    http_settings.drain_wait_ms = 5000;
    http_settings.access_log = 1; /* exercised throughout; its lines tell what happened when a test fails */
}

static int listen_on_any_port(unsigned short *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && bind(fd, (struct sockaddr *)&address, bytes) == 0 && listen(fd, 128) == 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static void start(int tls_fd)
{
    char why[512] = "";
    struct kv_files files = {0};
    struct server_options options = {.settings = &http_settings,
                                     .files = &files,
                                     .plain_fd = listen_on_any_port(&http_port),
                                     .tls_fd = tls_fd,
                                     .sockets_fd = -1};
    cr_assert_eq(kv_files_load(&http_settings, &files, why, sizeof(why)), KV_OK, "%s", why);
    cr_assert_eq(server_new(&options, &http_server, why, sizeof(why)), KV_OK, "%s", why);
    kv_files_free(&files);
    server_start(http_server);
}

struct fence {
    h2o_multithread_receiver_t receiver;
    h2o_multithread_message_t message;
    sem_t passed;
};

static void on_fence(h2o_multithread_receiver_t *receiver, h2o_linklist_t *messages)
{
    struct fence *fence = H2O_STRUCT_FROM_MEMBER(struct fence, receiver, receiver);
    h2o_linklist_unlink(messages->next);
    sem_post(&fence->passed);
}

/* Until the loop has taken in what was sent to it before. */
static void pass(const struct router_thread *thread)
{
    struct fence fence = {0};
    sem_init(&fence.passed, 0, 0);
    h2o_multithread_register_receiver(thread->context.queue, &fence.receiver, on_fence);
    h2o_multithread_send_message(&fence.receiver, &fence.message);
    sem_wait(&fence.passed);
    h2o_multithread_unregister_receiver(thread->context.queue, &fence.receiver);
    sem_destroy(&fence.passed);
}

enum kv_err http_reload(char *why, size_t why_bytes)
{
    struct kv_files files = {0};
    enum kv_err err = kv_files_load(&http_settings, &files, why, why_bytes);
    if (err == KV_OK)
        err = server_reload(http_server, &files, why, why_bytes);
    for (unsigned i = 0; i < http_server->thread_count; i++)
        pass(&http_server->threads[i]);
    kv_files_free(&files);
    return err;
}

void http_start(void)
{
    start(-1);
}

void http_start_tls(void)
{
    start(listen_on_any_port(&http_tls_port));
}

void http_stop(void)
{
    cr_expect(server_drain(http_server, HTTP_WAIT_MS), "the drain does not end");
    for (unsigned i = 0; i < http_server->thread_count; i++) {
        cr_expect_eq(http_server->threads[i].exchanges, 0);
        cr_expect_eq(http_server->threads[i].listeners.connections, 0);
    }
    cr_expect_eq(fake_holds(), 0);
    cr_expect_eq(fake_unreleased(), 0);
    close(http_server->plain_fd);
}

/* ---- libcurl ------------------------------------------------------------------------------------------------------ */

static size_t on_bytes(char *data, size_t size, size_t count, void *arg)
{
    kv_buf_append(arg, kv_slice(data, size * count));
    return size * count;
}

struct upload {
    struct kv_slice left;
};

static size_t on_upload(char *space, size_t size, size_t count, void *arg)
{
    struct upload *upload = arg;
    size_t bytes = size * count < upload->left.bytes ? size * count : upload->left.bytes;
    if (bytes != 0)
        memcpy(space, upload->left.data, bytes);
    upload->left = kv_slice(upload->left.data + bytes, upload->left.bytes - bytes);
    return bytes;
}

static struct curl_slist *header_list(const struct request *request)
{
    struct curl_slist *list = curl_slist_append(NULL, "Expect:");
    if (!request->no_token)
        list = curl_slist_append(list, "Authorization: Bearer " TOKEN);
    for (size_t i = 0; i < 8 && request->headers[i] != NULL; i++)
        list = curl_slist_append(list, request->headers[i]);
    return list;
}

static void set_body(CURL *curl, struct upload *upload)
{
    curl_easy_setopt(curl, CURLOPT_UPLOAD, 1L);
    curl_easy_setopt(curl, CURLOPT_READFUNCTION, on_upload);
    curl_easy_setopt(curl, CURLOPT_READDATA, upload);
    curl_easy_setopt(curl, CURLOPT_INFILESIZE_LARGE, (curl_off_t)upload->left.bytes);
}

static void set_target(CURL *curl, enum version version, const char *path)
{
    static const long versions[] = {[H1] = CURL_HTTP_VERSION_1_1,
                                    [H2] = CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE,
                                    [H1_TLS] = CURL_HTTP_VERSION_1_1,
                                    [H2_TLS] = CURL_HTTP_VERSION_2TLS};
    char url[16384];
    bool tls = version == H1_TLS || version == H2_TLS;
    snprintf(url, sizeof(url), "%s://127.0.0.1:%u%s", tls ? "https" : "http", tls ? http_tls_port : http_port, path);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, versions[version]);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L); /* the certificate is its own authority */
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
}

struct answer http_ask(enum version version, const struct request *request)
{
    struct answer answer = {0};
    struct upload upload = {request->body};
    CURL *curl = curl_easy_init();
    struct curl_slist *headers = header_list(request);
    set_target(curl, version, request->path);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT, 60L);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_bytes);
    curl_easy_setopt(curl, CURLOPT_HEADERDATA, &answer.headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &answer.body);
    if (request->has_body)
        set_body(curl, &upload);
    if (request->method != NULL && strcmp(request->method, "HEAD") == 0)
        curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    else if (request->method != NULL)
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, request->method);
    answer.curl_error = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer.status);
    *kv_buf_reserve(&answer.headers, 1) = 0;
    *kv_buf_reserve(&answer.body, 1) = 0;
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return answer;
}

struct answer http_get(enum version version, const char *path, const char *header)
{
    return http_method(version, NULL, path, header);
}

struct answer http_put(enum version version, const char *path, struct kv_slice body, const char *header)
{
    return http_ask(
        version, &(struct request){.method = "PUT", .path = path, .headers = {header}, .body = body, .has_body = true});
}

struct answer http_method(enum version version, const char *method, const char *path, const char *header)
{
    return http_ask(version, &(struct request){.method = method, .path = path, .headers = {header}});
}

const char *http_value(const struct answer *answer, const char *name)
{
    static char value[2048];
    size_t name_bytes = strlen(name);
    const char *line = (const char *)answer->headers.data;
    value[0] = '\0';
    for (; line != NULL && *line != '\0'; line = strchr(line, '\n') == NULL ? NULL : strchr(line, '\n') + 1) {
        if (strncasecmp(line, name, name_bytes) != 0 || line[name_bytes] != ':')
            continue;
        const char *from = line + name_bytes + 1;
        from += strspn(from, " ");
        snprintf(value, sizeof(value), "%.*s", (int)strcspn(from, "\r\n"), from);
    }
    return value;
}

void answer_free(struct answer *answer)
{
    kv_buf_free(&answer->headers);
    kv_buf_free(&answer->body);
    *answer = (struct answer){0};
}

/* ---- raw sockets -------------------------------------------------------------------------------------------------- */

int http_connect(void)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(http_port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    return fd;
}

void http_send(int fd, const char *text)
{
    size_t bytes = strlen(text);
    cr_assert_eq(send(fd, text, bytes, MSG_NOSIGNAL), (ssize_t)bytes);
}

static bool holds(const struct kv_buf *all, struct kv_slice bytes)
{
    return memmem(all->data, all->bytes, bytes.data, bytes.bytes) != NULL;
}

/* `last` without data: nothing ends it before its time. */
static struct kv_buf receive(int fd, int wait_ms, struct kv_slice last)
{
    struct kv_buf all = {0};
    struct pollfd poller = {.fd = fd, .events = POLLIN};
    bool found = false;
    while (!found && poll(&poller, 1, wait_ms) == 1) {
        ssize_t got = recv(fd, kv_buf_reserve(&all, 65536), 65536, 0);
        if (got <= 0)
            break;
        all.bytes += (size_t)got;
        found = last.data != NULL && holds(&all, last);
    }
    *kv_buf_reserve(&all, 1) = 0;
    return all;
}

struct kv_buf http_receive(int fd, int wait_ms)
{
    return receive(fd, wait_ms, kv_slice(NULL, 0));
}

struct kv_buf http_receive_until(int fd, const char *text)
{
    return receive(fd, HTTP_WAIT_MS, kv_slice_text(text));
}

bool http_receives(int fd, struct kv_slice bytes)
{
    struct kv_buf all = receive(fd, HTTP_WAIT_MS, bytes);
    bool found = holds(&all, bytes);
    kv_buf_free(&all);
    return found;
}

struct kv_buf http_content(size_t bytes, bool random)
{
    struct kv_buf content = {0};
    uint64_t seed = bytes + 1;
    kv_buf_reserve(&content, bytes + 1);
    for (; content.bytes < bytes; content.bytes++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        content.data[content.bytes] = random ? (uint8_t)(seed >> 56) : (uint8_t)("etaoin sr"[(seed >> 56) % 9]);
    }
    return content;
}

void http_nap(int ms)
{
    usleep((useconds_t)ms * 1000);
}
