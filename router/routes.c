/* router/routes.c -- see routes.h. */
#include "routes.h"

#include "api.h"
#include "tokens.h"

#define VALUE_METHODS "GET, HEAD, PUT, DELETE"

static const struct route reserved[] = {
    {"-/healthy", HTTP_GET | HTTP_HEAD, "GET, HEAD", true, api_healthy, METRICS_OTHER, 0},
    {"-/ready", HTTP_GET | HTTP_HEAD, "GET, HEAD", true, api_ready, METRICS_OTHER, 0},
    {"keys", HTTP_GET | HTTP_HEAD, "GET, HEAD", false, api_list, METRICS_LIST, TOKEN_READ},
    {"batch", HTTP_POST, "POST", false, api_batch, METRICS_BATCH, TOKEN_KEYS},
    {"metrics", HTTP_GET | HTTP_HEAD, "GET, HEAD", false, api_metrics, METRICS_OTHER, TOKEN_METRICS},
};

static const struct route unknown_reserved = {"-/", HTTP_GET | HTTP_HEAD, "GET, HEAD", false, NULL, METRICS_OTHER, 0};

static const struct route values[] = {
    {"", HTTP_GET, VALUE_METHODS, false, api_get, METRICS_GET, TOKEN_READ},
    {"", HTTP_HEAD, VALUE_METHODS, false, api_get, METRICS_HEAD, TOKEN_READ},
    {"", HTTP_PUT, VALUE_METHODS, false, api_put, METRICS_PUT, TOKEN_WRITE},
    {"", HTTP_DELETE, VALUE_METHODS, false, api_delete, METRICS_DELETE, TOKEN_DELETE},
};

static const struct route other_method = {"", 0, VALUE_METHODS, false, NULL, METRICS_OTHER, 0};

const struct route *routes_find(struct kv_slice key, enum http_method method)
{
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
        if (kv_slice_equal(key, kv_slice_text(reserved[i].path)))
            return &reserved[i];
    if (kv_slice_starts_with(key, kv_slice_text(unknown_reserved.path)))
        return &unknown_reserved;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        if (values[i].methods == method)
            return &values[i];
    return &other_method;
}

bool routes_is_value(const struct route *route)
{
    return route->path[0] == '\0';
}
