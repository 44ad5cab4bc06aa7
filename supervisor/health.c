/* supervisor/health.c -- one HTTP/1.1 request to the store that runs with the same configuration. See health.h.
 * Tests:    unit/supervisor/test_health.c. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "address.h"
#include "health.h"

#define ANSWER_BYTES_MAX 1024

static enum kv_err ask(int fd, const struct address *address, char answer[ANSWER_BYTES_MAX], struct why *why)
{
    char request[512];
    int bytes = snprintf(request, sizeof(request), "GET /-/ready HTTP/1.1\r\nHost: %s:%s\r\nConnection: close\r\n\r\n",
                         address->host, address->port);
    if (send(fd, request, (size_t)bytes, MSG_NOSIGNAL) != (ssize_t)bytes)
        return why_not(why, "the request could not be sent: %s", strerror(errno));
    size_t held = 0;
    ssize_t got = 0;
    while (held < ANSWER_BYTES_MAX - 1 && (got = recv(fd, answer + held, ANSWER_BYTES_MAX - 1 - held, 0)) > 0)
        held += (size_t)got;
    answer[held] = '\0';
    if (held == 0)
        return why_not(why, "no answer: %s", got < 0 ? strerror(errno) : "the connection was closed");
    return KV_OK;
}

static enum kv_err judge(const char *answer, struct why *why)
{
    int status = 0;
    if (sscanf(answer, "HTTP/1.%*1[01] %3d", &status) != 1)
        return why_not(why, "the answer is not HTTP/1.1");
    if (status == 200)
        return KV_OK;
    const char *body = strstr(answer, "\r\n\r\n");
    body = body == NULL ? "" : body + 4;
    return why_not(why, "not ready: status %d %.*s", status, (int)strcspn(body, "\r\n"), body);
}

enum kv_err health_check(const struct kv_settings *settings, struct why *why)
{
    struct address address;
    char answer[ANSWER_BYTES_MAX];
    int fd;
    enum kv_err err = address_parse("BIND_ADDR", settings->bind_addr, &address, why);
    bool plain = err == KV_OK && !address.off;
    if (err == KV_OK && !plain)
        err = address_parse("TLS_BIND_ADDR", settings->tls_bind_addr, &address, why);
    if (err == KV_OK && address.off)
        err = why_not(why, "BIND_ADDR and TLS_BIND_ADDR are both off");
    if (err == KV_OK)
        err = address_connect(plain ? "BIND_ADDR" : "TLS_BIND_ADDR", &address, HEALTH_WAIT_MS, &fd, why);
    if (err != KV_OK)
        return err;
    if (plain && (err = ask(fd, &address, answer, why)) == KV_OK)
        err = judge(answer, why);
    close(fd);
    return err;
}
