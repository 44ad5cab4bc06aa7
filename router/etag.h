/* router/etag.h -- entity tags: `"<sha256>"`, and `"<sha256>-zstd"` for the compressed form (RFC 9110, 8.8.3).
 * Pure, borrows from the header. Tests: unit/router/test_etag.c. */
#ifndef KV_ROUTER_ETAG_H
#define KV_ROUTER_ETAG_H

#include "kv/err.h"
#include "kv/model.h"

/* The value of If-Match or If-None-Match; zero-initialised: there was none. */
struct etag_list {
    bool present;
    bool any; /* `*` */
    struct kv_slice tags;
};

struct etag {
    bool weak;
    struct kv_slice opaque; /* without the quotes */
};

#define ETAG_BYTES_MAX 72u
/* Writes the tag with its quotes; returns its length. */
size_t etag_write(const struct kv_hash *hash, bool zstd, char out[ETAG_BYTES_MAX]);

/* KV_INVALID: neither `*` nor a list of entity tags. An empty value is invalid too. */
enum kv_err etag_list_parse(struct kv_slice value, struct etag_list *out);
/* Takes the next tag off `rest` (start with list->tags). KV_END, KV_INVALID. */
enum kv_err etag_next(struct kv_slice *rest, struct etag *out);
/* Whether the opaque part names this content, in either form. */
bool etag_names(struct kv_slice opaque, const struct kv_hash *hash);
/* Whether a tag of the list names this content; `strong`: weak tags never match. `*` matches everything. */
bool etag_list_matches(const struct etag_list *list, const struct kv_hash *hash, bool strong);
/* The content of the only tag in the list that can match strongly. KV_NOT_FOUND: none can. KV_TOO_LARGE: several. */
enum kv_err etag_list_only(const struct etag_list *list, struct kv_hash *out);

#endif
