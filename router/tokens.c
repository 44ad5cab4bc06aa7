/* router/tokens.c -- see tokens.h. */
#include "tokens.h"

#include <openssl/crypto.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "digest.h"
#include "key.h"
#include "kv/limits.h"
#include "kv/log.h"

struct token {
    struct kv_hash hash;
    struct grant grant; /* its prefix is a copy */
};

struct tokens {
    atomic_uint holders;
    size_t count;
    struct token list[TOKENS_MAX];
};

struct reading {
    struct tokens *tokens;
    unsigned line; /* of TOKENS_FILE, counted from 1 */
    char *why;
    size_t why_bytes;
};

/* ---- one line ----------------------------------------------------------------------------------------------------- */

static enum kv_err refuse(struct reading *reading, const char *what)
{
    snprintf(reading->why, reading->why_bytes, "TOKENS_FILE: line %u: %s", reading->line, what);
    return KV_INVALID;
}

static bool is_name(struct kv_slice name)
{
    for (size_t i = 0; i < name.bytes; i++) {
        uint8_t byte = name.data[i], letter = byte | 0x20;
        if (!(letter >= 'a' && letter <= 'z') && !(byte >= '0' && byte <= '9') && byte != '.' && byte != '_' &&
            byte != '-')
            return false;
    }
    return name.bytes >= 1 && name.bytes <= TOKENS_NAME_BYTES_MAX;
}

static bool read_rights(struct kv_slice text, unsigned *out)
{
    static const char letters[] = "rwdm"; /* in the order of enum token_right's bits */
    unsigned rights = 0;
    for (size_t i = 0; i < text.bytes; i++) {
        const char *at = memchr(letters, text.data[i], sizeof(letters) - 1);
        unsigned right = at == NULL ? 0 : 1u << (at - letters);
        if (right == 0 || (rights & right) != 0)
            return false;
        rights |= right;
    }
    *out = rights;
    return rights != 0;
}

static bool read_prefix(struct kv_slice text, struct kv_slice *out)
{
    uint8_t *space = kv_alloc(KV_KEY_BYTES_MAX + 1);
    struct kv_slice prefix;
    bool good = key_unescape(text, space, KV_KEY_BYTES_MAX, &prefix) == KV_OK && key_is_utf8(prefix) &&
                (prefix.bytes == 0 || memchr(prefix.data, 0, prefix.bytes) == NULL);
    if (good)
        *out = kv_slice(kv_copy(prefix), prefix.bytes);
    free(space);
    return good;
}

static const struct token *find_hash(const struct tokens *tokens, const struct kv_hash *hash)
{
    for (size_t i = 0; i < tokens->count; i++)
        if (kv_hash_equal(&tokens->list[i].hash, hash))
            return &tokens->list[i];
    return NULL;
}

/* Takes the prefix over when it succeeds. */
static enum kv_err add(struct reading *reading, const struct kv_hash *hash, struct grant grant)
{
    struct tokens *tokens = reading->tokens;
    if (find_hash(tokens, hash) != NULL)
        return refuse(reading, "this token stands in an earlier line, or is TOKEN or in TOKEN_FILE");
    if (tokens->count == TOKENS_MAX)
        return refuse(reading, "more than 256 tokens");
    tokens->list[tokens->count++] = (struct token){*hash, grant};
    return KV_OK;
}

/* The bytes up to the next ':', which is passed over; false: there is none. */
static bool cut(struct kv_slice *rest, struct kv_slice *out)
{
    const uint8_t *colon = rest->bytes == 0 ? NULL : memchr(rest->data, ':', rest->bytes);
    if (colon == NULL)
        return false;
    *out = kv_slice(rest->data, (size_t)(colon - rest->data));
    *rest = kv_slice(colon + 1, rest->bytes - out->bytes - 1);
    return true;
}

static enum kv_err read_fields(struct reading *reading, struct kv_slice line)
{
    struct kv_slice name, rights;
    struct grant grant;
    struct kv_hash hash;
    const size_t tail_bytes = DIGEST_HEX_BYTES + 1; /* the last colon, behind which the digits are */
    if (!cut(&line, &name) || !cut(&line, &rights) || line.bytes < tail_bytes ||
        line.data[line.bytes - tail_bytes] != ':')
        return refuse(reading, "not of the form name:rights:prefix:sha256-of-token");
    if (!is_name(name))
        return refuse(reading, "the name is not 1 to 64 letters, digits, '.', '_' or '-'");
    if (!read_rights(rights, &grant.rights))
        return refuse(reading, "the rights are not one or more of r, w, d and m");
    if (digest_parse(kv_slice(line.data + line.bytes - DIGEST_HEX_BYTES, DIGEST_HEX_BYTES), &hash) != KV_OK)
        return refuse(reading, "the hash is not 64 hex digits");
    if (!read_prefix(kv_slice(line.data, line.bytes - tail_bytes), &grant.prefix))
        return refuse(reading, "the prefix is not percent-encoded UTF-8 of at most 4096 bytes");
    enum kv_err err = add(reading, &hash, grant);
    if (err != KV_OK)
        free((void *)(uintptr_t)grant.prefix.data);
    return err;
}

/* ---- sources ------------------------------------------------------------------------------------------------------ */

static struct kv_slice next_line(struct kv_slice *rest)
{
    const uint8_t *end = memchr(rest->data, '\n', rest->bytes);
    size_t bytes = end == NULL ? rest->bytes : (size_t)(end - rest->data);
    struct kv_slice line = kv_slice(rest->data, bytes);
    *rest = end == NULL ? kv_slice(NULL, 0) : kv_slice(end + 1, rest->bytes - bytes - 1);
    while (line.bytes > 0 &&
           (line.data[line.bytes - 1] == '\r' || line.data[line.bytes - 1] == ' ' || line.data[line.bytes - 1] == '\t'))
        line.bytes--;
    return line;
}

static enum kv_err read_lines(struct reading *reading, struct kv_slice rest)
{
    size_t before = reading->tokens->count;
    bool given = rest.bytes > 0;
    enum kv_err err = KV_OK;
    while (err == KV_OK && rest.bytes > 0) {
        struct kv_slice line = next_line(&rest);
        reading->line++;
        if (line.bytes > 0 && line.data[0] != '#')
            err = read_fields(reading, line);
    }
    if (err == KV_OK && given && reading->tokens->count == before)
        return refuse(reading, "the file ends without a token"); /* as one does that is just being written */
    return err;
}

static void add_whole(struct tokens *tokens, const struct kv_hash *hash)
{
    if (find_hash(tokens, hash) == NULL) /* TOKEN and TOKEN_FILE may hold the same one */
        tokens->list[tokens->count++] = (struct token){*hash, {.rights = TOKEN_ALL, .prefix = kv_slice(NULL, 0)}};
}

static enum kv_err read_whole(struct reading *reading, struct kv_slice token)
{
    const char *fault = kv_token_fault(token);
    if (fault != NULL) {
        snprintf(reading->why, reading->why_bytes, "TOKEN_FILE: %s", fault);
        return KV_INVALID;
    }
    struct kv_hash hash = digest_of(token);
    add_whole(reading->tokens, &hash);
    return KV_OK;
}

static enum kv_err read_sources(struct reading *reading, const struct kv_hash *token, const struct kv_files *files)
{
    enum kv_err err = KV_OK;
    if (token != NULL)
        add_whole(reading->tokens, token);
    if (files->token.bytes > 0)
        err = read_whole(reading, kv_files_token(files));
    if (err == KV_OK)
        err = read_lines(reading, kv_buf_peek(&files->tokens));
    if (err == KV_OK && reading->tokens->count == 0) {
        snprintf(reading->why, reading->why_bytes, "TOKEN: required (or TOKEN_FILE, or TOKENS_FILE)");
        return KV_INVALID;
    }
    return err;
}

enum kv_err tokens_new(const struct kv_hash *token, const struct kv_files *files, struct tokens **out, char *why,
                       size_t why_bytes)
{
    struct tokens *tokens = kv_alloc_zero(1, sizeof(*tokens));
    struct reading reading = {.tokens = tokens, .why = why, .why_bytes = why_bytes};
    tokens->holders = 1;
    enum kv_err err = read_sources(&reading, token, files);
    if (err == KV_OK)
        *out = tokens;
    else
        tokens_release(&tokens);
    return err;
}

struct tokens *tokens_hold(struct tokens *tokens)
{
    tokens->holders++;
    return tokens;
}

void tokens_release(struct tokens **tokens)
{
    struct tokens *old = *tokens;
    *tokens = NULL;
    if (old == NULL || atomic_fetch_sub(&old->holders, 1) > 1)
        return;
    for (size_t i = 0; i < old->count; i++)
        free((void *)(uintptr_t)old->list[i].grant.prefix.data);
    OPENSSL_cleanse(old, sizeof(*old));
    free(old);
}

/* ---- asking ------------------------------------------------------------------------------------------------------- */

/* The whole list, whatever fits, and no branch on what does: the place of the one that fits is collected in bits. */
const struct grant *tokens_find(const struct tokens *tokens, struct kv_slice presented)
{
    struct kv_hash hash = digest_of(presented);
    size_t place = 0; /* counted from 1 */
    for (size_t i = 0; i < tokens->count; i++) {
        int differs = CRYPTO_memcmp(hash.bytes, tokens->list[i].hash.bytes, KV_HASH_BYTES);
        size_t fits = (size_t)0 - (size_t)(differs == 0);
        place |= (i + 1) & fits;
    }
    return place == 0 ? NULL : &tokens->list[place - 1].grant;
}

bool grant_sees_all(const struct grant *grant)
{
    return grant->prefix.bytes == 0;
}

const char *grant_lacks(const struct grant *grant, unsigned rights)
{
    if (rights == 0 || (grant->rights & rights) != 0)
        return NULL;
    switch (rights) {
    case TOKEN_READ:
        return "this token has no right to read";
    case TOKEN_WRITE:
        return "this token has no right to write";
    case TOKEN_DELETE:
        return "this token has no right to delete";
    case TOKEN_METRICS:
        return "this token has no right to see metrics";
    default:
        return "this token has no right to do anything here";
    }
}

const char *grant_refuses(const struct grant *grant, unsigned right, struct kv_slice key)
{
    const char *why = grant_lacks(grant, right);
    if (why == NULL && !kv_slice_starts_with(key, grant->prefix))
        why = "the key is outside of the prefix of this token";
    return why;
}
