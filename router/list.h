/* router/list.h -- walks the comma- and semicolon-separated lists that HTTP headers are made of (RFC 9110, 5.6).
 * Pure, borrows from its input. Tests: unit/router/test_accept.c. */
#ifndef KV_ROUTER_LIST_H
#define KV_ROUTER_LIST_H

#include "kv/slice.h"

/* Without white space (space, tab) on both sides. */
struct kv_slice list_trim(struct kv_slice text);
/* Takes the next element off `rest`, trimmed; separators within "quoted strings" do not count. Empty elements are given
 * out as they are. False at the end. Start with the whole text; `rest` needs no other care. */
bool list_next(struct kv_slice *rest, char separator, struct kv_slice *out);
/* Whether `text` is `word`, ASCII letters compared without case. */
bool list_is(struct kv_slice text, const char *word);

#endif
