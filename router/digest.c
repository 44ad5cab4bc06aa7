/* router/digest.c -- see digest.h. A fetch of the algorithm for every digest would cost more than hashing 1 KiB. */
#include "digest.h"

#include <openssl/evp.h>
#include <pthread.h>

#include "hex.h"
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

static EVP_MD_CTX *own_context(void)
{
    if (context == NULL) {
        pthread_once(&once, fetch);
        context = EVP_MD_CTX_new();
        if (context == NULL || pthread_setspecific(context_key, context) != 0)
            kv_fatal("no memory for a digest context");
    }
    return context;
}

void digest_begin(void)
{
    EVP_MD_CTX *own = own_context();
    if (EVP_DigestInit_ex2(own, sha256, NULL) != 1)
        kv_fatal("SHA-256 does not start");
}

void digest_add(struct kv_slice bytes)
{
    if (bytes.bytes != 0 && EVP_DigestUpdate(own_context(), bytes.data, bytes.bytes) != 1)
        kv_fatal("SHA-256 does not go on");
}

struct kv_hash digest_end(void)
{
    struct kv_hash hash;
    unsigned bytes = 0;
    if (EVP_DigestFinal_ex(own_context(), hash.bytes, &bytes) != 1)
        kv_fatal("SHA-256 does not end");
    kv_assert(bytes == KV_HASH_BYTES);
    return hash;
}

struct kv_hash digest_of(struct kv_slice bytes)
{
    digest_begin();
    digest_add(bytes);
    return digest_end();
}

void digest_hex(const struct kv_hash *hash, char out[DIGEST_HEX_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < KV_HASH_BYTES; i++) {
        out[2 * i] = digits[hash->bytes[i] >> 4];
        out[2 * i + 1] = digits[hash->bytes[i] & 15];
    }
}

enum kv_err digest_parse(struct kv_slice hex, struct kv_hash *out)
{
    struct kv_hash hash;
    if (hex.bytes != DIGEST_HEX_BYTES)
        return KV_INVALID;
    for (size_t i = 0; i < KV_HASH_BYTES; i++) {
        int high = hex_value(hex.data[2 * i]);
        int low = hex_value(hex.data[2 * i + 1]);
        if (high < 0 || low < 0)
            return KV_INVALID;
        hash.bytes[i] = (uint8_t)(high << 4 | low);
    }
    *out = hash;
    return KV_OK;
}
