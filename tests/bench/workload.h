/* tests/bench/workload.h -- which request comes next: keys, values, batches.
 * Does:     makes requests of one kind, from a seed, so that a run can be repeated; says whether an answer is what it must be.
 * Values:   16 bytes that no other value of any run has, then random bytes out of a pool that is made once (or text that zstd
 *           shrinks to a third): making one costs a copy, not a generator. The first 8 are the key's number, which GETs check.
 * Owns:     the pool. A request's body borrows from its own space and from the pool. */
#ifndef KV_BENCH_WORKLOAD_H
#define KV_BENCH_WORKLOAD_H

#include "kv/buf.h"

#define WORKLOAD_PATH_BYTES 128u
#define WORKLOAD_VALUE_BYTES_MAX ((size_t)64 << 20)

enum workload_kind {
    WORKLOAD_FIXED,     /* GET of one path, whatever it answers with 200 */
    WORKLOAD_FILL,      /* PUT of keys 0 to N-1, each once */
    WORKLOAD_GET,       /* GET of a random key of the filled ones */
    WORKLOAD_PUT,       /* PUT of a new key */
    WORKLOAD_OVERWRITE, /* PUT of a random key of the filled ones */
    WORKLOAD_DUPLICATE, /* PUT of a new key with one and the same value */
    WORKLOAD_MIX,       /* 80 % GET, 20 % OVERWRITE */
    WORKLOAD_BATCH,     /* POST of puts of new keys, JSON */
    WORKLOAD_MSGPACK,   /* the same in MessagePack */
    WORKLOAD_LIST,      /* GET /keys: 100 keys behind a random one */
    WORKLOAD_KINDS
};

struct workload_options {
    enum workload_kind kind;
    const char *path;   /* FIXED */
    const char *prefix; /* of the filled keys, which are prefix/0, prefix/1, … */
    uint64_t keys;      /* how many were filled */
    size_t value_bytes;
    size_t batch; /* operations per batch */
    bool text;    /* values that compress */
    uint64_t seed;
};

struct workload;

/* One request; belongs to a stream, filled again for each request. Zero-initialised is empty. */
struct request {
    const char *method;
    char path[WORKLOAD_PATH_BYTES];
    const char *content_type; /* NULL: none */
    struct kv_buf head;       /* first part of the body */
    struct kv_slice rest;     /* second part, in the pool */
    bool checked;             /* the answer begins with `stamp` */
    uint64_t stamp;
    uint64_t ops;
};

/* The kind of that name, WORKLOAD_KINDS when there is none. */
enum workload_kind workload_kind_of(const char *name);
const char *workload_kind_name(enum workload_kind kind);

struct workload *workload_new(const struct workload_options *options);
void workload_free(struct workload **workload);
/* False: there are no more. */
bool workload_next(struct workload *workload, struct request *out);
void request_free(struct request *request);
static inline size_t request_body_bytes(const struct request *request)
{
    return request->head.bytes + request->rest.bytes;
}
/* Copies body bytes from `offset` on, at most `bytes`; returns how many. */
size_t request_body_copy(const struct request *request, size_t offset, size_t bytes, uint8_t *out);

#endif
