/* router/value_headers.h -- the headers that tell of a value. What they hold lives as long as `text` and `content_type` do.
 * Tests: http/test_http_values.c. */
#ifndef KV_ROUTER_VALUE_HEADERS_H
#define KV_ROUTER_VALUE_HEADERS_H

#include "http.h"
#include "value_text.h"

/* What tells caches which representation this is: on 200, 206 and 304. */
void value_validators(struct exchange *exchange, const struct value_text *text, bool compressed);
/* All that 200 and 206 have but the length: on GET and HEAD. */
void value_headers(struct exchange *exchange, struct kv_slice content_type, const struct value_text *text,
                   bool compressed);

#endif
