/* router/digest.h -- SHA-256 by OpenSSL, fetched once per process, with one reused context per thread.
 * Fails: OpenSSL without SHA-256 is fatal. Tests: unit/router/test_codec.c (codec_hash), test_auth.c. */
#ifndef KV_ROUTER_DIGEST_H
#define KV_ROUTER_DIGEST_H

#include "kv/err.h"
#include "kv/model.h"

struct kv_hash digest_of(struct kv_slice bytes);

/* In pieces, by whatever threads, one after the other. */
struct digest;
struct digest *digest_new(void);
void digest_add(struct digest *digest, struct kv_slice bytes);
struct kv_hash digest_end(struct digest *digest); /* then only digest_free */
void digest_free(struct digest **digest);

#define DIGEST_HEX_BYTES 64u
/* Lower-case hex, no terminating zero. */
void digest_hex(const struct kv_hash *hash, char out[DIGEST_HEX_BYTES]);
/* KV_INVALID: not exactly 64 hex digits (either case). */
enum kv_err digest_parse(struct kv_slice hex, struct kv_hash *out);

#endif
