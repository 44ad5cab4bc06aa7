/* router/routes.c -- see routes.h. */
#include "routes.h"

#include "api.h"
#include "tokens.h"

static const struct route reserved[] = {
    {"-/healthy", HTTP_GET | HTTP_HEAD, "GET, HEAD", true, api_healthy, METRICS_OTHER, 0},
    {"-/ready", HTTP_GET | HTTP_HEAD, "GET, HEAD", true, api_ready, METRICS_OTHER, 0},
    {"keys", HTTP_GET | HTTP_HEAD, "GET, HEAD", false, api_list, METRICS_LIST, TOKEN_READ},
    {"batch", HTTP_POST, "POST", false, api_batch, METRICS_BATCH, TOKEN_KEYS},
    {"metrics", HTTP_GET | HTTP_HEAD, "GET, HEAD", false, api_metrics, METRICS_OTHER, TOKEN_METRICS},
};

static const struct route unknown_reserved = {"-/", HTTP_GET | HTTP_HEAD, "GET, HEAD", false, NULL, METRICS_OTHER, 0};

static const struct route value = {
    "", HTTP_GET | HTTP_HEAD | HTTP_PUT | HTTP_DELETE, "GET, HEAD, PUT, DELETE", false, api_value, METRICS_OTHER, 0};

const struct route *routes_find(struct kv_slice key)
{
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
        if (kv_slice_equal(key, kv_slice_text(reserved[i].path)))
            return &reserved[i];
    return kv_slice_starts_with(key, kv_slice_text(unknown_reserved.path)) ? &unknown_reserved : &value;
}

bool routes_is_value(const struct route *route)
{
    return route == &value;
}

unsigned routes_rights(const struct route *route, enum http_method method)
{
    if (route != &value)
        return route->rights;
    switch (method) {
    case HTTP_GET:
    case HTTP_HEAD:
        return TOKEN_READ;
    case HTTP_PUT:
        return TOKEN_WRITE;
    case HTTP_DELETE:
        return TOKEN_DELETE;
    default:
        return 0;
    }
}

enum metrics_operation routes_operation(const struct route *route, enum http_method method)
{
    if (route != &value)
        return route->operation;
    switch (method) {
    case HTTP_GET:
        return METRICS_GET;
    case HTTP_HEAD:
        return METRICS_HEAD;
    case HTTP_PUT:
        return METRICS_PUT;
    case HTTP_DELETE:
        return METRICS_DELETE;
    default:
        return METRICS_OTHER;
    }
}
