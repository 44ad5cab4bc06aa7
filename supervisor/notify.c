/* supervisor/notify.c -- sd_notify(3) without libsystemd. See notify.h.
 * Does:     one datagram per state; the socket is opened for it and closed again.
 * Promises: never blocks and never fails a start: a manager that does not listen is its own problem.
 * Fails:    an error the caller may log; the store serves all the same.
 * Tests:    unit/supervisor/test_notify.c. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "notify.h"

static enum kv_err name_of_socket(const char *name, struct sockaddr_un *address, socklen_t *address_bytes)
{
    size_t bytes = strlen(name);
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if ((name[0] != '/' && name[0] != '@') || bytes < 2 || bytes >= sizeof(address->sun_path))
        return KV_INVALID;
    memcpy(address->sun_path, name, bytes);
    if (name[0] == '@')
        address->sun_path[0] = '\0'; /* abstract: the length counts, no zero at the end */
    *address_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + bytes + (name[0] == '/' ? 1 : 0));
    return KV_OK;
}

enum kv_err notify_tell(const char *state)
{
    struct sockaddr_un address;
    socklen_t address_bytes;
    const char *name = getenv("NOTIFY_SOCKET");
    if (name == NULL || *name == '\0')
        return KV_NOT_FOUND;
    enum kv_err err = name_of_socket(name, &address, &address_bytes);
    if (err != KV_OK)
        return err;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return KV_UNAVAILABLE;
    size_t bytes = strlen(state);
    ssize_t sent = sendto(fd, state, bytes, MSG_NOSIGNAL, (const struct sockaddr *)&address, address_bytes);
    close(fd);
    return sent == (ssize_t)bytes ? KV_OK : KV_UNAVAILABLE;
}
