/* tests/system/bulk.h -- many requests at once over one connection: HTTP/2 streams (curl multi).
 * The first request opens the connection and is answered alone, then up to `in_flight` (at most 100) share it.
 * `make` fills in the request with number `i` (target and body must live until `done` for it was called); `done` sees its answer.
 * Both run in the calling thread. Returns false when an exchange could not even be started. */
#ifndef KV_SYSTEM_BULK_H
#define KV_SYSTEM_BULK_H

#include "client.h"

struct bulk {
    const struct server *server;
    enum http http;
    size_t count;     /* requests in all */
    size_t in_flight; /* at once */
    void (*make)(void *arg, size_t i, struct request *out);
    void (*done)(void *arg, size_t i, const struct response *response);
    void *arg;
};

bool bulk_run(const struct bulk *bulk);

#endif
