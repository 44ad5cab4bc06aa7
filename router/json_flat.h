/* router/json_flat.h -- the usual operation of a batch: a JSON object whose members are all strings.
 * Does:     reads such an object in one pass, eight bytes at a time; strings without escapes stay where they are.
 * Owns:     the strings with escapes, in memory that is used again.
 * Promises: what it takes, jansson would take and read alike: control characters, malformed UTF-8 and unknown escapes are not
 *           taken. It refuses nothing: what it does not take (`\u`, nesting, a number, a fault) is left to jansson.
 * Tests:    unit/router/test_json_flat.c (against jansson). */
#ifndef KV_ROUTER_JSON_FLAT_H
#define KV_ROUTER_JSON_FLAT_H

#include "kv/buf.h"

#define JSON_FLAT_MEMBERS_MAX 8u /* one more: not taken */

struct json_flat_member {
    struct kv_slice name; /* has no escapes */
    struct kv_slice value;
    struct kv_buf unescaped;
};

/* Zero-initialised is empty. */
struct json_flat {
    size_t count;
    struct json_flat_member members[JSON_FLAT_MEMBERS_MAX];
};

/* The object at the front of `text` (white space may come first). `used`: up to behind its closing brace. Slices point into `text`
 * or into `flat`, and are valid until the next call. False: not taken. Names may repeat. */
bool json_flat_read(struct json_flat *flat, struct kv_slice text, size_t *used);
void json_flat_free(struct json_flat *flat);

#endif
