/* router/value_text.h -- what headers say of a value, as text: written once per value that is read or cached, not once per header.
 * Pure. Tests: unit/router/test_cache.c, http/test_http_values.c. */
#ifndef KV_ROUTER_VALUE_TEXT_H
#define KV_ROUTER_VALUE_TEXT_H

#include "digest.h"
#include "digits.h"
#include "kv/model.h"

#define VALUE_TEXT_DATE_BYTES 29u /* of RFC 9110, 5.6.7 */

struct value_text {
    char tag[DIGEST_HEX_BYTES + 2]; /* in quotes; the digits alone are X-Hash */
    char modified[VALUE_TEXT_DATE_BYTES];
    char created[DIGITS_DECIMAL_MAX], refs[DIGITS_DECIMAL_MAX];
    uint8_t created_bytes, refs_bytes;
};

void value_text_write(const struct kv_row *row, uint64_t refs, struct value_text *out);

static inline struct kv_slice value_text_hex(const struct value_text *text)
{
    return kv_slice(text->tag + 1, DIGEST_HEX_BYTES);
}

#endif
