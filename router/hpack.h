/* router/hpack.h -- header blocks of HTTP/2 answers (RFC 7541), in place of libh2o's encoder.
 * Does:     takes h2o_hpack_flatten_response over, as h2o_guard.c does with other functions. libh2o 2.2.5 puts every value into the
 *           dynamic table, Huffman-coded: three new texts of 64 digits per answer evict all that could be used again, and cost
 *           both sides more than the answer's body. Here values that repeat and names are indexed once per connection, and what
 *           is new with each answer goes out as it is.
 * Owns:     the output table of a connection: its `entries` point to a struct of ours, which libh2o frees with the connection.
 * Promises: the client's SETTINGS_HEADER_TABLE_SIZE is kept, which libh2o forgets; each change of it, however short (h2o_guard.c
 *           sees them).
 * Limits:   HPACK_BLOCK_BYTES_MAX for a block: our own headers are far below it.
 * Tests:    unit/router/test_hpack.c (libh2o decodes), http/ (libcurl decodes). */
#ifndef KV_ROUTER_HPACK_H
#define KV_ROUTER_HPACK_H

#include <h2o.h>
#include <h2o/http2.h>
#include <h2o/http2_internal.h>
#include <stdbool.h>

#define HPACK_BLOCK_BYTES_MAX 16384u /* one HEADERS frame: the least that any peer takes */
#define HPACK_TABLE_BYTES_MAX 4096u  /* more is not used */
#define HPACK_VALUE_BYTES_MAX 40u    /* longer values are not looked for in the table */

/* Headers that the encoder knows. FRESH: the value is new with each answer; SAME: it mostly is the last one; TIMED: it is the last
 * one for a second. The number is the name's in the static table. */
#define HPACK_FIELDS(FRESH, SAME, TIMED)                                                                               \
    SAME(SERVER, "server", 54)                                                                                         \
    TIMED(DATE, "date", 33)                                                                                            \
    SAME(CONTENT_TYPE, "content-type", 31)                                                                             \
    FRESH(ETAG, "etag", 34)                                                                                            \
    SAME(VARY, "vary", 59)                                                                                             \
    SAME(LAST_MODIFIED, "last-modified", 44)                                                                           \
    SAME(ACCEPT_RANGES, "accept-ranges", 18)                                                                           \
    SAME(CONTENT_ENCODING, "content-encoding", 26)                                                                     \
    FRESH(X_CONTENT_SHA256, "x-content-sha256", 0)                                                                     \
    FRESH(X_HASH, "x-hash", 0)                                                                                         \
    SAME(X_HASH_ALGORITHM, "x-hash-algorithm", 0)                                                                      \
    SAME(X_REFS, "x-refs", 0)                                                                                          \
    SAME(X_CREATED_AT, "x-created-at", 0)                                                                              \
    SAME(X_DEDUPLICATED, "x-deduplicated", 0)                                                                          \
    FRESH(X_REQUEST_ID, "x-request-id", 0)

enum hpack_field {
#define X(field, text, index) HPACK_##field,
    HPACK_FIELDS(X, X, X)
#undef X
        HPACK_FIELD_COUNT,
};

/* Appends the header to the answer; `value` lives as long as the request. No look-up of the name, no copy. */
void hpack_add(h2o_req_t *req, enum hpack_field field, const char *value, size_t bytes);
/* The client has set the size of its table, maybe not for the last time before the next block. */
void hpack_resized(h2o_hpack_header_table_t *table, uint32_t table_bytes_max);

/* What h2o_hpack_flatten_response does but for the frame's header: returns the end of the block, at `out` or behind. There must be
 * room for HPACK_BLOCK_BYTES_MAX. `table_bytes_max` is what the client set. For tests. */
uint8_t *hpack_encode(h2o_hpack_header_table_t *table, uint32_t table_bytes_max, const h2o_res_t *res,
                      h2o_iovec_t server, h2o_iovec_t date, size_t content_length, uint8_t *out);

#endif
