/* router/json.h -- writes JSON piece by piece into a buffer: answers of up to MAX_BATCH_BYTES are never built as a tree.
 * Does:     strings with everything escaped that RFC 8259 wants escaped; numbers; base64 for what is not text.
 * Promises: what comes out is valid JSON in UTF-8. Reading JSON is jansson's business (batch_json.c).
 * Tests:    unit/router/test_json.c (read back by jansson). */
#ifndef KV_ROUTER_JSON_H
#define KV_ROUTER_JSON_H

#include "kv/buf.h"
#include "kv/model.h"

/* As it is: punctuation and names of our own. */
void json_raw(struct kv_buf *buf, const char *text);
/* A string; `text` is valid UTF-8 (key_is_utf8). */
void json_text(struct kv_buf *buf, struct kv_slice text);
/* How many bytes json_text would write. */
uint64_t json_text_bytes(struct kv_slice text);
/* A string of a header's value: what is not UTF-8 is taken for Latin-1, as RFC 9110, 5.5 has it. */
void json_header_text(struct kv_buf *buf, struct kv_slice text);
void json_number(struct kv_buf *buf, uint64_t number);
void json_bool(struct kv_buf *buf, bool value);
/* A string of 64 lower-case hex digits. */
void json_hash(struct kv_buf *buf, const struct kv_hash *hash);
/* A string in base64, with padding. */
void json_base64(struct kv_buf *buf, struct kv_slice bytes);

/* The UTF-8 text of a header's value, appended. */
void json_header_to_utf8(struct kv_buf *buf, struct kv_slice text);

#endif
