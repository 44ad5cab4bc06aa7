/* supervisor/address.c -- text to TCP sockets. See address.h.
 * Promises: a socket is bound with SO_REUSEADDR and listens before anything is forked, so that a restart of the router
 *           refuses no connection.
 * Fails:    KV_INVALID and one sentence that begins with the variable's name.
 * Tests:    unit/supervisor/test_address.c. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "address.h"
#include "kv/clock.h"

#define BACKLOG 4096
#define BUSY_WAIT_MS 1000u
#define BUSY_STEP_US 50000u

static bool parse_port(const char *text, char out[6])
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 5 || text[digits] != '\0' || strtoul(text, NULL, 10) > 65535)
        return false;
    memcpy(out, text, digits + 1);
    return true;
}

enum kv_err address_parse(const char *variable, const char *text, struct address *out, struct why *why)
{
    struct address address = {.off = strcmp(text, "off") == 0};
    if (!address.off) {
        bool brackets = text[0] == '[';
        const char *host = brackets ? text + 1 : text;
        const char *end = brackets ? strchr(host, ']') : strrchr(host, ':');
        const char *colon = end != NULL && brackets ? end + 1 : end;
        if (end == NULL || *colon != ':' || !parse_port(colon + 1, address.port))
            return why_not(why, "%s: \"%.128s\" is not host:port, [v6]:port or off", variable, text);
        size_t bytes = (size_t)(end - host);
        if (bytes == 0 || bytes >= sizeof(address.host))
            return why_not(why, "%s: \"%.128s\" has no host name of 1 to 255 bytes", variable, text);
        if (!brackets && memchr(host, ':', bytes) != NULL)
            return why_not(why, "%s: \"%.128s\": write an IPv6 address in brackets", variable, text);
        memcpy(address.host, host, bytes);
    }
    *out = address;
    return KV_OK;
}

static enum kv_err resolve(const char *variable, const struct address *address, int flags, struct addrinfo **out,
                           struct why *why)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
    int code = getaddrinfo(address->host, address->port, &hints, out);
    if (code != 0)
        return why_not(why, "%s: %s cannot be resolved: %s", variable, address->host, gai_strerror(code));
    return KV_OK;
}

/* A listening socket, or -1 with errno. */
static int listen_once(const struct addrinfo *info)
{
    int one = 1;
    int fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, info->ai_protocol);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
        bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

static int listen_patiently(const struct addrinfo *info)
{
    uint64_t until_ms = kv_clock_ms() + BUSY_WAIT_MS;
    for (;;) {
        int fd = listen_once(info);
        if (fd >= 0 || errno != EADDRINUSE || kv_clock_ms() >= until_ms)
            return fd;
        usleep(BUSY_STEP_US);
    }
}

enum kv_err address_listen(const char *variable, const struct address *address, int *fd, struct why *why)
{
    struct addrinfo *list;
    enum kv_err err = resolve(variable, address, AI_PASSIVE, &list, why);
    if (err != KV_OK)
        return err;
    int listening = -1, reason = 0;
    for (const struct addrinfo *info = list; info != NULL && listening < 0; info = info->ai_next) {
        listening = listen_patiently(info);
        reason = errno;
    }
    freeaddrinfo(list);
    if (listening < 0)
        return why_not(why, "%s: cannot listen on %s port %s: %s", variable, address->host, address->port,
                       strerror(reason));
    *fd = listening;
    return KV_OK;
}

static int connect_once(const struct addrinfo *info, unsigned wait_ms)
{
    struct timeval wait = {.tv_sec = wait_ms / 1000, .tv_usec = (suseconds_t)(wait_ms % 1000) * 1000};
    int fd = socket(info->ai_family, info->ai_socktype | SOCK_CLOEXEC, info->ai_protocol);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) == 0 && /* bounds connect too */
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) == 0 &&
        connect(fd, info->ai_addr, info->ai_addrlen) == 0)
        return fd;
    int saved = errno;
    close(fd);
    errno = saved;
    return -1;
}

enum kv_err address_connect(const char *variable, const struct address *address, unsigned wait_ms, int *fd,
                            struct why *why)
{
    struct address target = *address;
    if (strcmp(target.host, "0.0.0.0") == 0)
        snprintf(target.host, sizeof(target.host), "127.0.0.1");
    else if (strcmp(target.host, "::") == 0)
        snprintf(target.host, sizeof(target.host), "::1");
    struct addrinfo *list;
    enum kv_err err = resolve(variable, &target, 0, &list, why);
    if (err != KV_OK)
        return err;
    int connected = -1, reason = 0;
    for (const struct addrinfo *info = list; info != NULL && connected < 0; info = info->ai_next) {
        connected = connect_once(info, wait_ms);
        reason = errno;
    }
    freeaddrinfo(list);
    if (connected < 0)
        return why_not(why, "%s port %s does not answer: %s", target.host, target.port, strerror(reason));
    *fd = connected;
    return KV_OK;
}

void address_of_socket(int fd, char *out, unsigned out_bytes)
{
    struct sockaddr_storage bound = {0};
    socklen_t bytes = sizeof(bound);
    char host[NI_MAXHOST], port[NI_MAXSERV];
    if (getsockname(fd, (struct sockaddr *)&bound, &bytes) != 0 ||
        getnameinfo((struct sockaddr *)&bound, bytes, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        snprintf(out, out_bytes, "?");
    else
        snprintf(out, out_bytes, bound.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
}
