/* router/routes.c -- see routes.h. */
#include "routes.h"

#include "api.h"

static const struct route reserved[] = {
    {"-/healthy", HTTP_GET | HTTP_HEAD, "GET, HEAD", true, api_healthy},
    {"-/ready", HTTP_GET | HTTP_HEAD, "GET, HEAD", true, api_ready},
    {"keys", HTTP_GET | HTTP_HEAD, "GET, HEAD", false, NULL},
    {"batch", HTTP_POST, "POST", false, NULL},
    {"metrics", HTTP_GET | HTTP_HEAD, "GET, HEAD", false, NULL},
};

static const struct route unknown_reserved = {"-/", HTTP_GET | HTTP_HEAD, "GET, HEAD", false, NULL};

static const struct route value = {"", HTTP_GET | HTTP_HEAD | HTTP_PUT | HTTP_DELETE, "GET, HEAD, PUT, DELETE", false,
                                   api_value};

const struct route *routes_find(struct kv_slice key)
{
    for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++)
        if (kv_slice_equal(key, kv_slice_text(reserved[i].path)))
            return &reserved[i];
    return kv_slice_starts_with(key, kv_slice_text(unknown_reserved.path)) ? &unknown_reserved : &value;
}
