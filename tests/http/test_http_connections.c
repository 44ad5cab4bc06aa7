/* Goal: connections stay within their limit, come back when others go, and a client that stops reading is let go.
 * Method: more connections than allowed; HTTP/1 and h2c upgrade on the same port; a reader that stalls. */
#include "harness.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

#include "thread.h"

static size_t connections(void)
{
    size_t count = 0;
    for (unsigned i = 0; i < http_server->thread_count; i++)
        count += http_server->threads[i].listeners.connections;
    return count;
}

#define HEALTHY "GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n"

static bool is_healthy(int fd)
{
    http_send(fd, HEALTHY);
    struct kv_buf answer = http_receive_until(fd, "\r\n\r\nok\n");
    bool healthy = strstr((char *)answer.data, " 200 OK") != NULL;
    kv_buf_free(&answer);
    return healthy;
}

/* How many of them have been answered; the answers stay where they are. */
static size_t answered(const int *fds, size_t count)
{
    size_t healthy = 0;
    for (size_t i = 0; i < count; i++) {
        char answer[512] = "";
        ssize_t ignored = recv(fds[i], answer, sizeof(answer) - 1, MSG_PEEK | MSG_DONTWAIT);
        (void)ignored; /* nothing yet */
        healthy += strstr(answer, " 200 OK") != NULL;
    }
    return healthy;
}

Test(connections, are_capped_and_resumed)
{
    int fds[6];
    http_defaults();
    http_settings.connections_max = 4;
    http_start();
    for (size_t i = 0; i < 6; i++)
        fds[i] = http_connect();
    for (size_t i = 0; i < 6; i++)
        http_send(fds[i], HEALTHY);
    http_wait_until(answered(fds, 4) == 4);
    http_nap(150);
    cr_expect_eq(answered(fds + 4, 2), 0);
    cr_expect_eq(connections(), 4);
    for (size_t i = 0; i < 4; i++)
        close(fds[i]);
    http_wait_until(answered(fds + 4, 2) == 2); /* what was sent while they waited */
    close(fds[4]);
    close(fds[5]);
    http_stop();
}

/* Somebody opens all there are and says nothing. */
Test(connections, idle_ones_give_way)
{
    int fds[4];
    http_defaults();
    http_settings.connections_max = 4;
    http_settings.router_threads = 1;
    http_start();
    for (size_t i = 0; i < 4; i++)
        fds[i] = http_connect();
    http_wait_until(connections() == 4);
    struct answer late = http_get(H1, "/-/healthy", NULL);
    cr_expect_eq(late.status, 200, "it waits for some seconds, not for CLIENT_WAIT_MS");
    answer_free(&late);
    for (size_t i = 0; i < 4; i++)
        close(fds[i]);
    http_stop();
}

Test(connections, upgrade_to_h2c)
{
    http_defaults();
    http_start();
    CURL *curl = curl_easy_init();
    char url[64];
    long version = 0, status = 0;
    snprintf(url, sizeof(url), "http://127.0.0.1:%u/-/healthy", http_port);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2_0);
    curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    cr_expect_eq(curl_easy_perform(curl), CURLE_OK);
    curl_easy_getinfo(curl, CURLINFO_HTTP_VERSION, &version);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    cr_expect_eq(version, CURL_HTTP_VERSION_2_0);
    cr_expect_eq(status, 200);
    curl_easy_cleanup(curl);
    http_stop();
}

Test(connections, a_client_that_stops_reading_is_let_go)
{
    http_defaults();
    http_settings.client_wait_ms = 400;
    http_start();
    struct kv_buf content = http_content(32 << 20, true);
    http_settings.client_wait_ms = 400;
    struct answer put = http_put(H2, "/large", kv_buf_peek(&content), NULL);
    cr_assert_eq(put.status, 201);
    answer_free(&put);
    kv_buf_free(&content);
    int fd = http_connect();
    http_send(fd, "GET /large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN "\r\n\r\n");
    http_wait_until(fake_holds() == 1);
    http_wait_until(fake_holds() == 0);
    close(fd);
    http_stop();
}

Test(connections, accepted_sockets_inherit_their_options)
{
    http_defaults();
    http_settings.router_threads = 1;
    http_settings.client_wait_ms = 12345;
    http_start();
    int listening = http_server->plain_fd;
    unsigned wait_ms = 0;
    int send_bytes = 0;
    socklen_t bytes = sizeof(wait_ms);
    int client = http_connect();
    cr_expect(is_healthy(client));
    int accepted = -1;
    for (int fd = 3; fd < 256; fd++) { /* the only socket whose peer is our client */
        struct sockaddr_in own, peer;
        socklen_t own_bytes = sizeof(own), peer_bytes = sizeof(peer);
        if (fd != client && getsockname(client, (struct sockaddr *)&own, &own_bytes) == 0 &&
            getpeername(fd, (struct sockaddr *)&peer, &peer_bytes) == 0 && own.sin_port == peer.sin_port)
            accepted = fd;
    }
    cr_assert_geq(accepted, 0);
    cr_assert_neq(accepted, listening);
    cr_expect_eq(getsockopt(accepted, IPPROTO_TCP, TCP_USER_TIMEOUT, &wait_ms, &bytes), 0);
    cr_expect_eq(wait_ms, 12345);
    bytes = sizeof(send_bytes);
    cr_expect_eq(getsockopt(accepted, SOL_SOCKET, SO_SNDBUF, &send_bytes, &bytes), 0);
    cr_expect_geq(send_bytes, 200 * 1024);
    close(client);
    http_stop();
}
