/* Goal: a stop answers what is under way on both protocols, cuts what is idle, and ends even when a client hangs.
 * Method: requests held in the backend, uploads half sent and idle connections at the moment of the drain. */
#include "harness.h"

#include <pthread.h>
#include <unistd.h>

#include "../attack/frames.h"

struct parallel {
    pthread_t thread;
    enum version version;
    struct request request;
    struct answer answer;
};

static void *ask(void *arg)
{
    struct parallel *parallel = arg;
    parallel->answer = http_ask(parallel->version, &parallel->request);
    return NULL;
}

static void setup(void)
{
    http_defaults();
    http_start();
}

TestSuite(drain, .init = setup);

static void *let_go_later(void *arg)
{
    (void)arg;
    http_nap(400);
    fake_hold(false);
    return NULL;
}

Test(drain, requests_under_way_are_answered)
{
    struct parallel all[8];
    pthread_t later;
    fake_hold(true);
    for (size_t i = 0; i < 8; i++) {
        all[i] = (struct parallel){
            .version = i % 2 == 0 ? H1 : H2,
            .request = {
                .method = "PUT", .path = i % 4 < 2 ? "/a" : "/b", .body = kv_slice_text("abc"), .has_body = true}};
        pthread_create(&all[i].thread, NULL, ask, &all[i]);
    }
    http_wait_until(fake_waiting() == 8);
    pthread_create(&later, NULL, let_go_later, NULL);
    http_stop();
    for (size_t i = 0; i < 8; i++) {
        pthread_join(all[i].thread, NULL);
        cr_expect(all[i].answer.status == 200 || all[i].answer.status == 201, "%zu: %ld, curl %d", i,
                  all[i].answer.status, (int)all[i].answer.curl_error);
        answer_free(&all[i].answer);
    }
    pthread_join(later, NULL);
}

Test(drain, idle_connections_do_not_hold_it_up)
{
    int idle[4];
    http_stop();
    http_settings.client_wait_ms = http_settings.header_wait_ms = 2 * HTTP_WAIT_MS; /* the drain has less time */
    http_start();
    for (size_t i = 0; i < 4; i++)
        idle[i] = http_connect();
    http_send(idle[1], "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"); /* then keep-alive */
    http_send(idle[2], "GET /-/hea");                                 /* never complete */
    http_send(idle[3], "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    struct kv_buf answer = http_receive_until(idle[1], "\r\n\r\nok\n");
    cr_expect(strstr((char *)answer.data, " 200 OK") != NULL);
    kv_buf_free(&answer);
    http_stop();
    for (size_t i = 0; i < 4; i++)
        close(idle[i]);
}

/* The server has read its head, since it asks for more. */
static void begin_upload_h1(int fd)
{
    http_send(fd, "PUT /up HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN
                  "\r\nExpect: 100-continue\r\nContent-Length: 6\r\n\r\n");
    struct kv_buf invitation = http_receive_until(fd, "\r\n\r\n");
    cr_assert_str_eq((char *)invitation.data, "HTTP/1.1 100 Continue\r\n\r\n");
    kv_buf_free(&invitation);
    http_send(fd, "abc");
}

Test(drain, uploads_under_way_end_well)
{
    int fd = http_connect();
    begin_upload_h1(fd);
    cr_expect_not(server_drain(http_server, 300), "the upload holds it up");
    http_send(fd, "def");
    struct kv_buf answer = http_receive(fd, HTTP_WAIT_MS); /* closed behind it */
    cr_expect(strstr((char *)answer.data, " 201 Created") != NULL, "%s", answer.data);
    cr_expect(strcasestr((char *)answer.data, "connection: close") != NULL, "%s", answer.data);
    kv_buf_free(&answer);
    close(fd);
    http_wait_until(fake_unreleased() == 0);
}

Test(drain, new_connections_are_refused)
{
    int fd = http_connect();
    begin_upload_h1(fd);
    cr_expect_not(server_drain(http_server, 200));
    int late = http_connect(); /* into the backlog, which is the supervisor's: the next router takes it */
    http_send(late, "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n");
    struct kv_buf answer = http_receive(late, 300);
    cr_expect_eq(answer.bytes, 0);
    kv_buf_free(&answer);
    close(late);
    close(fd);
}

/* An HTTP/2 connection with an upload that has begun: a PING behind it was answered. */
static int begin_upload(void)
{
    struct kv_buf out = {0};
    int fd = http_connect();
    hello(&out);
    request(&out, "PUT", "/up", END_HEADERS, 1);
    frame(&out, PING, 0, 0, raw("12345678", 8));
    cr_assert_eq(write(fd, out.data, out.bytes), (ssize_t)out.bytes);
    kv_buf_free(&out);
    struct kv_buf in = http_receive_until(fd, "12345678");
    cr_assert(memmem(in.data, in.bytes, "12345678", 8) != NULL);
    kv_buf_free(&in);
    return fd;
}

static void end_upload(int fd)
{
    struct kv_buf out = {0};
    frame(&out, DATA, END_STREAM, 1, kv_slice_text("abc"));
    cr_assert_eq(write(fd, out.data, out.bytes), (ssize_t)out.bytes);
    kv_buf_free(&out);
}

static void *drain(void *arg)
{
    *(bool *)arg = server_drain(http_server, 20000);
    return NULL;
}

/* Over a connection that stays. `status` is the whole status line behind the version. */
static bool answers(int fd, const char *request, const char *status, const char *header)
{
    http_send(fd, request);
    struct kv_buf answer = http_receive_until(fd, "\r\n\r\n"); /* behind the body of the one before */
    bool as_expected = strstr((char *)answer.data, status) != NULL && strcasestr((char *)answer.data, header) != NULL;
    kv_buf_free(&answer);
    return as_expected;
}

#define HEALTHY "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"

/* While an HTTP/2 upload holds a loop's drain up, its kept connections stay open: what they ask now is refused, so that nobody thinks that
 * it was done. */
static void setup_one_loop(void)
{
    http_defaults();
    http_settings.router_threads = 1;
    http_start();
}

Test(drain_later, requests_are_sent_away, .init = setup_one_loop)
{
    pthread_t drainer;
    bool drained = false, away = false;
    int kept[2] = {http_connect(), http_connect()};
    cr_expect(answers(kept[0], HEALTHY, " 200 OK\r\n", "content-length: 3\r\n"));
    cr_expect(answers(kept[1], HEALTHY, " 200 OK\r\n", "content-length: 3\r\n"));
    int upload = begin_upload();
    pthread_create(&drainer, NULL, drain, &drained);
    http_wait_until(away = away ||
                           answers(kept[0], "GET /a HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN "\r\n\r\n",
                                   " 503 Service Unavailable\r\n",
                                   "retry-after: 1\r\n")); /* 404 until the loop hears of it */
    cr_expect(answers(kept[1], HEALTHY, " 200 OK\r\n", "content-length: 3\r\n"));
    end_upload(upload);
    pthread_join(drainer, NULL);
    cr_expect(drained);
    cr_expect_eq(fake_keys(), 1, "the upload was stored");
    close(upload);
    close(kept[0]);
    close(kept[1]);
}
