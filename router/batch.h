/* router/batch.h -- POST /batch: from a body to the operations of one transaction, and from its results to a body.
 * Does:     reads JSON (batch_json.c) or MessagePack (batch_msgpack.c) into members, checks them (batch.c), hashes and encodes the
 *           values, identical ones once; writes the results in the same format.
 * Owns:     everything that the operations point to: the body may die after batch_read.
 * Promises: a body is refused as a whole, before anything happened, with a sentence that names the index of the operation. No more
 *           memory than a few times the body: depth and members are counted before jansson builds trees.
 * Pure: no HTTP, no loop; runs on either (api_batch.c).
 * Tests:    unit/router/test_batch_json.c, test_batch_msgpack.c; http/test_http_batch.c. */
#ifndef KV_ROUTER_BATCH_H
#define KV_ROUTER_BATCH_H

#include "backend.h"
#include "codec.h"
#include "kv/buf.h"

#define BATCH_DEPTH_MAX 8u         /* arrays and objects within each other; deeper: 400 */
#define BATCH_MEMBERS_MAX 32u      /* separators within one operation; more: 400 */
#define BATCH_TEXT_BYTES_MIN 1024u /* longer values leave as base64 when that is shorter than their JSON string */

enum batch_format { BATCH_JSON, BATCH_MSGPACK };

/* Why a body was refused: an answer of the HTTP contract. */
struct batch_refusal {
    int status;
    const char *code;
    char sentence[256];
};

struct batch_content {
    struct backend_content content;
    struct kv_buf stored;
    struct batch_content *next;
};

struct batch {
    enum batch_format format;
    bool hides_refs; /* of heads */
    struct backend_op *ops;
    size_t count;
    size_t capacity;
    struct batch_content **contents; /* hash table, chained; BATCH_BUCKETS of them */
};

struct batch_limits {
    uint64_t value_bytes_max;
    struct codec *codec;
};

/* What a body with this Content-Type is, and so its answer: JSON for application/json, anything+json and what clients say that were
 * not told, or nothing; MessagePack for application/msgpack, x-msgpack, vnd.msgpack. KV_INVALID: another type. */
enum kv_err batch_format_of(struct kv_slice content_type, enum batch_format *out);

void batch_init(struct batch *batch, enum batch_format format);
void batch_free(struct batch *batch);

/* KV_INVALID or KV_TOO_LARGE: `refusal` says why. An empty array gives no operations. */
enum kv_err batch_read(struct batch *batch, struct kv_slice body, const struct batch_limits *limits,
                       struct batch_refusal *refusal);
/* Appends the body of the answer. `results` may be NULL when there are no operations. */
void batch_write(const struct batch *batch, const struct backend_op_result *results, struct kv_buf *out);
const char *batch_content_type(enum batch_format format);

/* Results that outlive their callback: one allocation. */
struct batch_results {
    struct backend_op_result *results;
    struct kv_buf bytes;
};
/* The content bytes that copying would move. */
uint64_t batch_results_bytes(const struct batch *batch, const struct backend_op_result *results);
void batch_results_copy(const struct batch *batch, const struct backend_op_result *results, struct batch_results *out);
void batch_results_free(struct batch_results *results);

/* ---- between batch.c and the formats ------------------------------------------------------------------------------ */

/* MEMBER(name in C, name in the body, which operations may have it) */
#define BATCH_MEMBERS(MEMBER)                                                                                          \
    MEMBER(OP, "op", "put get head delete")                                                                            \
    MEMBER(KEY, "key", "put get head delete")                                                                          \
    MEMBER(VALUE, "value", "put")                                                                                      \
    MEMBER(ENCODING, "encoding", "put")                                                                                \
    MEMBER(CONTENT_TYPE, "content_type", "put")                                                                        \
    MEMBER(IF_MATCH, "if_match", "put delete")                                                                         \
    MEMBER(IF_NONE_MATCH, "if_none_match", "put delete")

enum batch_member {
#define MEMBER(name, text, ops) BATCH_##name,
    BATCH_MEMBERS(MEMBER)
#undef MEMBER
        BATCH_MEMBER_COUNT
};

/* The strings of one operation, borrowed while batch_add runs. */
struct batch_fields {
    bool present[BATCH_MEMBER_COUNT];
    struct kv_slice text[BATCH_MEMBER_COUNT];
};

/* BATCH_MEMBER_COUNT when there is none of that name; in MessagePack there is no encoding. */
enum batch_member batch_member_of(const struct batch *batch, struct kv_slice name);
const char *batch_member_name(enum batch_member member);
/* Checks the fields and appends the operation. */
enum kv_err batch_add(struct batch *batch, const struct batch_fields *fields, const struct batch_limits *limits,
                      struct batch_refusal *refusal);
/* Fill in a refusal; each returns the error to return. The first names operation batch->count. */
enum kv_err batch_refuse(const struct batch *batch, struct batch_refusal *refusal, const char *code,
                         const char *sentence, ...) __attribute__((format(printf, 4, 5)));
enum kv_err batch_refuse_body(struct batch_refusal *refusal, const char *code, const char *sentence);
enum kv_err batch_refuse_count(struct batch_refusal *refusal);
enum kv_err batch_refuse_unknown(const struct batch *batch, struct batch_refusal *refusal, struct kv_slice name);

enum kv_err batch_read_json(struct batch *batch, struct kv_slice body, const struct batch_limits *limits,
                            struct batch_refusal *refusal);
enum kv_err batch_read_msgpack(struct batch *batch, struct kv_slice body, const struct batch_limits *limits,
                               struct batch_refusal *refusal);
void batch_write_json(const struct batch *batch, const struct backend_op_result *results, struct kv_buf *out);
void batch_write_msgpack(const struct batch *batch, const struct backend_op_result *results, struct kv_buf *out);

#endif
