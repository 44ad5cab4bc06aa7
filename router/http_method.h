/* router/http_method.h -- the methods that the server knows. A set of them is their sum. */
#ifndef KV_ROUTER_HTTP_METHOD_H
#define KV_ROUTER_HTTP_METHOD_H

enum http_method {
    HTTP_OTHER = 0,
    HTTP_GET = 1,
    HTTP_HEAD = 2,
    HTTP_PUT = 4,
    HTTP_DELETE = 8,
    HTTP_POST = 16,
};

#endif
