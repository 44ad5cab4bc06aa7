/* supervisor/address.h -- BIND_ADDR and TLS_BIND_ADDR: from text to a listening TCP socket. */
#ifndef KV_ADDRESS_H
#define KV_ADDRESS_H

#include <stdbool.h>

#include "why.h"

#define ADDRESS_HOST_BYTES 256

/* `host:port` or `[v6]:port` taken apart; port 0 lets the kernel choose. */
struct address {
    bool off;
    char host[ADDRESS_HOST_BYTES]; /* a name or a number, without brackets */
    char port[6];
};

/* `variable` is the name that the sentence begins with. */
enum kv_err address_parse(const char *variable, const char *text, struct address *out, struct why *why);

/* Resolves and listens on the first result that can be bound; non-blocking, close-on-exec, backlog 4096. A busy port
 * is tried for a second, since after a kill -9 the old router may hold it for a moment. */
enum kv_err address_listen(const char *variable, const struct address *address, int *fd, struct why *why);

/* Connects; 0.0.0.0 and :: mean this machine. Blocking socket with send and receive timeouts of `wait_ms`. */
enum kv_err address_connect(const char *variable, const struct address *address, unsigned wait_ms, int *fd,
                            struct why *why);

/* What a listening socket is bound to, `127.0.0.1:3000` or `[::1]:3000`: the real port. */
void address_of_socket(int fd, char *out, unsigned out_bytes);

#endif
