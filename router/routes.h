/* router/routes.h -- which names the server keeps for itself, and who answers what: one row each, of a key one for each method.
 * A row's path is the decoded key (`batch` is /batch), empty for all keys that are not reserved. Names that begin with `-/` are
 * reserved even without a row. A row without a handler is a reserved name that answers 404 to its own methods.
 * Tests: http/test_http_errors.c. */
#ifndef KV_ROUTER_ROUTES_H
#define KV_ROUTER_ROUTES_H

#include "http.h"

struct route {
    const char *path;
    unsigned methods;  /* sum of enum http_method: others get 405, */
    const char *allow; /* with this in `Allow` */
    bool is_public;    /* no token needed for its methods */
    void (*handle)(struct exchange *exchange);
    enum metrics_operation operation;
    unsigned rights; /* of enum token_right: a token needs one of them at least; 0: none */
};

/* Never NULL; the method may not be one of the route's. */
const struct route *routes_find(struct kv_slice key, enum http_method method);
/* Does it stand for the keys themselves? */
bool routes_is_value(const struct route *route);

#endif
