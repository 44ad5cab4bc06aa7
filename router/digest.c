/* router/digest.c -- see digest.h. A fetch of the algorithm for every digest would cost more than hashing 1 KiB. */
#include "digest.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>

#include "digits.h"
#include "kv/buf.h"
#include "kv/log.h"

static EVP_MD *sha256;
static pthread_key_t context_key; /* frees a thread's context when the thread ends */
static pthread_once_t once = PTHREAD_ONCE_INIT;
static __thread EVP_MD_CTX *context;

static void free_context(void *arg)
{
    EVP_MD_CTX_free(arg);
}

static void fetch(void)
{
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (sha256 == NULL || pthread_key_create(&context_key, free_context) != 0)
        kv_fatal("OpenSSL has no SHA-256");
}

struct digest {
    EVP_MD_CTX *context;
};

static void begin(EVP_MD_CTX *with)
{
    if (with == NULL || EVP_DigestInit_ex2(with, sha256, NULL) != 1)
        kv_fatal("SHA-256 does not start");
}

static void add(EVP_MD_CTX *with, struct kv_slice bytes)
{
    if (bytes.bytes != 0 && EVP_DigestUpdate(with, bytes.data, bytes.bytes) != 1)
        kv_fatal("SHA-256 does not go on");
}

static struct kv_hash end(EVP_MD_CTX *with)
{
    struct kv_hash hash;
    unsigned bytes = 0;
    if (EVP_DigestFinal_ex(with, hash.bytes, &bytes) != 1)
        kv_fatal("SHA-256 does not end");
    kv_assert(bytes == KV_HASH_BYTES);
    return hash;
}

struct kv_hash digest_of(struct kv_slice bytes)
{
    pthread_once(&once, fetch);
    if (context == NULL) {
        context = EVP_MD_CTX_new();
        pthread_setspecific(context_key, context);
    }
    begin(context);
    add(context, bytes);
    return end(context);
}

struct digest *digest_new(void)
{
    struct digest *digest = kv_alloc(sizeof(*digest));
    pthread_once(&once, fetch);
    digest->context = EVP_MD_CTX_new();
    begin(digest->context);
    return digest;
}

void digest_add(struct digest *digest, struct kv_slice bytes)
{
    add(digest->context, bytes);
}

struct kv_hash digest_end(struct digest *digest)
{
    return end(digest->context);
}

void digest_free(struct digest **digest)
{
    if (*digest == NULL)
        return;
    EVP_MD_CTX_free((*digest)->context);
    free(*digest);
    *digest = NULL;
}

void digest_hex(const struct kv_hash *hash, char out[DIGEST_HEX_BYTES])
{
    for (size_t i = 0; i < KV_HASH_BYTES; i += 4) {
        const uint8_t *at = hash->bytes + i;
        digits_write_hex((uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3], out + 2 * i);
    }
}

enum kv_err digest_parse(struct kv_slice hex, struct kv_hash *out)
{
    struct kv_hash hash;
    if (hex.bytes != DIGEST_HEX_BYTES)
        return KV_INVALID;
    for (size_t i = 0; i < KV_HASH_BYTES; i++) {
        int high = digits_hex_value(hex.data[2 * i]);
        int low = digits_hex_value(hex.data[2 * i + 1]);
        if (high < 0 || low < 0)
            return KV_INVALID;
        hash.bytes[i] = (uint8_t)(high << 4 | low);
    }
    *out = hash;
    return KV_OK;
}
