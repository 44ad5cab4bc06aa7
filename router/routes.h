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
    unsigned rights;                  /* one of these is needed at least (tokens.h); of a value: by its method */
};

/* Never NULL. */
const struct route *routes_find(struct kv_slice key);
/* Does it stand for the keys themselves? */
bool routes_is_value(const struct route *route);
/* The rights of a token of which one is needed; 0: none is, or the method is not the route's. */
unsigned routes_rights(const struct route *route, enum http_method method);
enum metrics_operation routes_operation(const struct route *route, enum http_method method);

#endif
