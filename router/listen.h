/* router/listen.h -- how connections come in, for one loop.
 * Does:     duplicates the inherited listening sockets into the loop, accepts, counts connections.
 * Promises: at most server->connections_max connections per loop: at the brim, or without descriptors, the listeners pause (the
 *           kernel's backlog holds what comes) and go on when a connection has ended, or 100 ms later. At the brim, connections
 *           that have been idle for a while are ended for those that may be waiting.
 * Tests:    http/test_http_connections.c. */
#ifndef KV_ROUTER_LISTEN_H
#define KV_ROUTER_LISTEN_H

#include <h2o.h>
#include <stdbool.h>

struct router_thread;

struct listener {
    h2o_socket_t *socket; /* NULL: not open */
    h2o_accept_ctx_t accept;
    struct listeners *all;
};

struct listeners {
    struct router_thread *thread;
    struct listener plain;
    struct listener tls;
    _Atomic size_t connections;
    bool paused;
    h2o_timeout_entry_t resume; /* linked while paused for want of descriptors */
};

/* Before the router gives up the right to large buffers (confine.h). Does nothing with what is no socket. */
void listeners_set_options(int fd, uint64_t client_wait_ms);
void listeners_open(struct listeners *listeners, struct router_thread *thread);
/* For connections to come; those that are open keep theirs. Takes the reference over. */
void listeners_use_tls(struct listeners *listeners, SSL_CTX *tls);
/* For good; not from within a callback of the loop. Repeating it does nothing. */
void listeners_close(struct listeners *listeners);

#endif
