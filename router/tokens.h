/* router/tokens.h -- who may do what: the set of tokens, and what each of them grants.
 * Does:     makes one set of TOKEN, of the first line of TOKEN_FILE (both grant everything), and of the lines of TOKENS_FILE:
 *               name:rights:prefix:sha256-of-token
 *           name:   letters, digits, '.', '_' and '-'; two lines may have the same one, so that an old and a new token hold together
 *           rights: of r (GET, HEAD, /keys), w (PUT), d (DELETE), m (/metrics), each at most once, at least one
 *           prefix: the keys that r, w and d are for, percent-encoded as in a URL; empty: all. It may hold ':'
 *           sha256: 64 hex digits, of the token's bytes without a line feed
 *           Blank lines and lines that begin with '#' are passed over.
 * Owns:     hashes, rights and prefixes: never a token. A set never changes; it is counted, threads share it.
 * Promises: looking up compares the hash of what was presented with all of the set, in the same time whichever fits.
 * Limits:   TOKENS_MAX tokens; KV_FILE_BYTES_MAX of file.
 * Fails:    KV_INVALID with one sentence that names the variable and the line, never what stands there.
 * Tests:    unit/router/test_tokens.c, system/test_tokens.c. */
#ifndef KV_ROUTER_TOKENS_H
#define KV_ROUTER_TOKENS_H

#include "kv/files.h"
#include "kv/model.h"
#include "kv/slice.h"

#define TOKENS_MAX 256u
#define TOKENS_NAME_BYTES_MAX 64u

enum token_right {
    TOKEN_READ = 1,
    TOKEN_WRITE = 2,
    TOKEN_DELETE = 4,
    TOKEN_METRICS = 8,
    TOKEN_KEYS = TOKEN_READ | TOKEN_WRITE | TOKEN_DELETE,
    TOKEN_ALL = TOKEN_KEYS | TOKEN_METRICS,
};

struct grant {
    unsigned rights; /* of enum token_right; 0: nothing */
    struct kv_slice prefix;
};

struct tokens;

/* `token` is the hash of TOKEN, NULL when that is not set. There must be at least one token in all of it. */
enum kv_err tokens_new(const struct kv_hash *token, const struct kv_files *files, struct tokens **out, char *why,
                       size_t why_bytes);
struct tokens *tokens_hold(struct tokens *tokens);
/* Sets NULL; accepts NULL. The last one frees the set. */
void tokens_release(struct tokens **tokens);

/* NULL: no such token. Valid as long as the set. */
const struct grant *tokens_find(const struct tokens *tokens, struct kv_slice presented);

/* May it know whether other keys hold a content, and how many? With a prefix it may not: it could ask what others store. */
bool grant_sees_all(const struct grant *grant);
/* Why none of `rights` holds, in words to go on with; NULL: one of them does, or 0 are asked for. */
const char *grant_lacks(const struct grant *grant, unsigned rights);
/* The same for one right and a key. */
const char *grant_refuses(const struct grant *grant, unsigned right, struct kv_slice key);

#endif
