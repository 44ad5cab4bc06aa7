/* router/routes.h -- which names the server keeps for itself, and who answers what: one row each.
 * A row's path is the decoded key (`batch` is /batch). Names that begin with `-/` are reserved even without a row; every
 * other key is a value. A row without a handler is a reserved name that answers 404 to its own methods.
 * Tests: http/test_http_errors.c. */
#ifndef KV_ROUTER_ROUTES_H
#define KV_ROUTER_ROUTES_H

#include "http.h"

struct route {
    const char *path;
    unsigned methods; /* sum of enum http_method */
    const char *allow;
    bool is_public; /* no token needed for its methods */
    void (*handle)(struct exchange *exchange);
    enum metrics_operation operation; /* of a value: by its method */
};

/* Never NULL. */
const struct route *routes_find(struct kv_slice key);
enum metrics_operation routes_operation(const struct route *route, enum http_method method);

#endif
