/* router/content_type.h -- the content type that a PUT, alone or in a batch, stores with its key.
 * Tests:    http/test_http_values.c, unit/router/test_batch_json.c. */
#ifndef KV_ROUTER_CONTENT_TYPE_H
#define KV_ROUTER_CONTENT_TYPE_H

#include "kv/err.h"
#include "kv/slice.h"

/* What is stored for what the client gave: the same, or application/octet-stream if that is empty. Borrowed or static.
 * KV_INVALID: longer than KV_CONTENT_TYPE_BYTES_MAX, or with control characters: it could not be sent back as a header. */
enum kv_err content_type_check(struct kv_slice given, struct kv_slice *out);

#endif
