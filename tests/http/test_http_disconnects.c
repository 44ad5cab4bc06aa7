/* Goal: a client that leaves at any moment takes everything of its request with it: no leak, no use after free, no callback
 * for nobody; a write that was under way still happens.
 * Method: the backend is held, clients (raw HTTP/1, HTTP/2 by libcurl) are cut off in each phase, then it is let go; AddressSanitizer
 * and the twin's own assertions watch; http_stop counts what is left. */
#include "harness.h"

#include <unistd.h>

#include "kv/clock.h"

static void setup(void)
{
    http_defaults();
    http_start();
}

TestSuite(disconnects, .init = setup, .fini = http_stop);

/* One request on an HTTP/2 connection of its own, cut off by closing the connection when `seen` says so. */
struct cut {
    CURL *easy;
    CURLM *multi;
    struct curl_slist *headers;
};

/* What curl has taken of a body; at `stop_at` it gets no more. */
struct body {
    const struct kv_buf *content;
    size_t taken;
    size_t stop_at;
};

static size_t give_bytes(char *space, size_t size, size_t count, void *arg)
{
    struct body *body = arg;
    size_t left = body->stop_at - body->taken;
    size_t bytes = size * count < left ? size * count : left;
    if (bytes == 0 && body->stop_at < body->content->bytes)
        return CURL_READFUNC_PAUSE;
    memcpy(space, body->content->data + body->taken, bytes);
    body->taken += bytes;
    return bytes;
}

static size_t drop_bytes(char *data, size_t size, size_t count, void *arg)
{
    (void)data;
    *(size_t *)arg += size * count;
    return size * count;
}

static struct cut begin(const char *method, const char *path, struct body *body, size_t *received)
{
    char url[256];
    struct cut cut = {curl_easy_init(), curl_multi_init(), curl_slist_append(NULL, "Authorization: Bearer " TOKEN)};
    snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", http_port, path);
    curl_easy_setopt(cut.easy, CURLOPT_URL, url);
    curl_easy_setopt(cut.easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE);
    curl_easy_setopt(cut.easy, CURLOPT_HTTPHEADER, cut.headers);
    curl_easy_setopt(cut.easy, CURLOPT_WRITEFUNCTION, drop_bytes);
    curl_easy_setopt(cut.easy, CURLOPT_WRITEDATA, received);
    curl_easy_setopt(cut.easy, CURLOPT_CUSTOMREQUEST, method);
    if (body != NULL) {
        curl_easy_setopt(cut.easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(cut.easy, CURLOPT_READFUNCTION, give_bytes);
        curl_easy_setopt(cut.easy, CURLOPT_READDATA, body);
        curl_easy_setopt(cut.easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)body->content->bytes);
    }
    curl_multi_add_handle(cut.multi, cut.easy);
    return cut;
}

static void perform(struct cut *cut)
{
    int running;
    curl_multi_perform(cut->multi, &running);
    curl_multi_poll(cut->multi, NULL, 0, 5, NULL);
}

static void end(struct cut *cut)
{
    curl_multi_remove_handle(cut->multi, cut->easy); /* resets the stream */
    curl_easy_cleanup(cut->easy);
    curl_multi_cleanup(cut->multi); /* closes the connection */
    curl_slist_free_all(cut->headers);
}

#define perform_until(cut, condition)                                                                                  \
    do {                                                                                                               \
        uint64_t give_up_ms = kv_clock_ms() + HTTP_WAIT_MS;                                                            \
        while (!(condition) && kv_clock_ms() < give_up_ms)                                                             \
            perform(cut);                                                                                              \
        cr_assert((condition), "waited for " #condition);                                                              \
    } while (0)

Test(disconnects, while_the_backend_thinks)
{
    static const char *const methods[] = {"GET", "PUT", "DELETE"};
    struct kv_buf small = http_content(1000, false);
    for (size_t i = 0; i < 3; i++) {
        size_t received = 0, before = fake_calls();
        struct body body = {&small, 0, small.bytes};
        fake_hold(true);
        struct cut cut = begin(methods[i], "/cut", i == 1 ? &body : NULL, &received);
        perform_until(&cut, fake_calls() > before);
        end(&cut);
        http_nap(50);
        fake_hold(false);
        http_wait_until(fake_waiting() == 0 && fake_unreleased() == 0);
        cr_expect_eq(received, 0);
        if (i == 1)
            cr_expect_eq(fake_keys(), 1, "a write under way goes on");
    }
    cr_expect_eq(fake_keys(), 0);
    kv_buf_free(&small);
}

Test(disconnects, http1_while_the_backend_thinks)
{
    fake_hold(true);
    for (int i = 0; i < 8; i++) {
        size_t before = fake_calls();
        int fd = http_connect();
        http_send(fd,
                  "PUT /one HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN "\r\nContent-Length: 3\r\n\r\nabc");
        http_wait_until(fake_calls() > before);
        close(fd);
    }
    fake_hold(false);
    http_wait_until(fake_waiting() == 0 && fake_unreleased() == 0);
    cr_expect_eq(fake_keys(), 1);
}

Test(disconnects, while_a_large_content_is_encoded)
{
    struct kv_buf content = http_content(24 << 20, false);
    for (int i = 0; i < 6; i++) {
        size_t received = 0;
        struct body body = {&content, 0, content.bytes};
        struct cut cut = begin("PUT", "/cut", &body, &received);
        perform_until(&cut, body.taken == content.bytes);
        for (int turns = 0; turns < i; turns++)
            perform(&cut); /* a little later each time */
        end(&cut);
    }
    struct answer answer =
        http_put(H1, "/after", kv_buf_peek(&content), NULL); /* the worker is through with them by then */
    cr_expect_eq(answer.status, 201);
    answer_free(&answer);
    kv_buf_free(&content);
}

Test(disconnects, in_the_middle_of_an_upload)
{
    struct kv_buf content = http_content(8 << 20, false);
    size_t received = 0, before = fake_calls();
    struct body body = {&content, 0, 1000000};
    struct cut cut = begin("PUT", "/cut", &body, &received);
    perform_until(&cut, body.taken == 1000000);
    perform(&cut);
    end(&cut);
    int fd = http_connect();
    http_send(fd, "PUT /cut HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN "\r\nContent-Length: 100\r\n\r\nabc");
    http_nap(50);
    close(fd);
    http_nap(100);
    cr_expect_eq(fake_calls(), before, "an incomplete body is no request");
    kv_buf_free(&content);
}

Test(disconnects, in_the_middle_of_an_answer)
{
    struct kv_buf content = http_content(32 << 20, true);
    struct answer put = http_put(H2, "/large", kv_buf_peek(&content), NULL);
    cr_assert_eq(put.status, 201);
    answer_free(&put);
    kv_buf_free(&content);
    for (int i = 0; i < 5; i++) {
        size_t received = 0;
        struct cut cut = begin("GET", "/large", NULL, &received);
        perform_until(&cut, received > (size_t)i * 2000000 + 1);
        if (i % 2 == 1)
            fake_hold(true); /* cut while a fetch is out */
        perform(&cut);
        end(&cut);
        http_nap(20);
        fake_hold(false);
        http_wait_until(fake_holds() == 0);
    }
    int fd = http_connect();
    http_send(fd, "GET /large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN "\r\n\r\n");
    http_wait_until(fake_holds() == 1);
    close(fd);
    http_wait_until(fake_holds() == 0);
}
