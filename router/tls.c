/* router/tls.c -- see tls.h. */
#include "tls.h"

#include <h2o.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

#include "kv/log.h"

/* A file's bytes as OpenSSL reads them; NULL only when memory is gone. An encrypted key gets no password: nobody is there to ask. */
static BIO *open_bytes(const struct kv_buf *bytes)
{
    BIO *bio = BIO_new_mem_buf(bytes->data, (int)bytes->bytes);
    kv_assert(bio != NULL);
    return bio;
}

static int no_password(char *space, int space_bytes, int writing, void *arg)
{
    (void)space;
    (void)space_bytes;
    (void)writing;
    (void)arg;
    return 0;
}

/* The first certificate is the server's, those behind it lead to an authority. */
static bool use_chain(SSL_CTX *context, const struct kv_buf *file)
{
    BIO *bio = open_bytes(file);
    X509 *certificate = PEM_read_bio_X509_AUX(bio, NULL, no_password, NULL);
    bool good = certificate != NULL && SSL_CTX_use_certificate(context, certificate) == 1;
    X509_free(certificate);
    while (good && (certificate = PEM_read_bio_X509(bio, NULL, no_password, NULL)) != NULL) {
        good = SSL_CTX_add0_chain_cert(context, certificate) == 1; /* takes it over */
        if (!good)
            X509_free(certificate);
    }
    if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        good = false; /* something worse than the end of the file */
    if (good)
        ERR_clear_error();
    BIO_free(bio);
    return good;
}

static bool use_key(SSL_CTX *context, const struct kv_buf *file)
{
    BIO *bio = open_bytes(file);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    bool good = key != NULL && SSL_CTX_use_PrivateKey(context, key) == 1;
    EVP_PKEY_free(key);
    BIO_free(bio);
    return good;
}

static enum kv_err load_pair(SSL_CTX *context, const struct kv_files *files, char *why, size_t why_bytes)
{
    static const char other_key[] = "TLS_KEY does not belong to the certificate in TLS_CERT";
    const char *what = NULL;
    ERR_clear_error();
    if (!use_chain(context, &files->tls_cert)) {
        what = "TLS_CERT holds no certificate chain in PEM";
    } else if (!use_key(context, &files->tls_key)) {
        /* OpenSSL compares the pair while it takes the key */
        bool mismatch = ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH;
        what = mismatch ? other_key : "TLS_KEY holds no private key in PEM";
    } else if (SSL_CTX_check_private_key(context) != 1) {
        what = other_key;
    }
    if (what == NULL)
        return KV_OK;
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    snprintf(why, why_bytes, "%s (%s)", what, reason == NULL ? "unknown reason" : reason);
    ERR_clear_error();
    return KV_INVALID;
}

/* The authorities as those whom we trust, and their names, which clients are told. NULL: there is none in the file. */
static STACK_OF(X509_NAME) * add_authorities(SSL_CTX *context, const struct kv_buf *file)
{
    BIO *bio = open_bytes(file);
    STACK_OF(X509_NAME) *names = sk_X509_NAME_new_null();
    X509 *certificate;
    while ((certificate = PEM_read_bio_X509(bio, NULL, no_password, NULL)) != NULL) {
        X509_STORE_add_cert(SSL_CTX_get_cert_store(context), certificate); /* one that comes twice is fine */
        sk_X509_NAME_push(names, X509_NAME_dup(X509_get_subject_name(certificate)));
        X509_free(certificate);
    }
    BIO_free(bio);
    ERR_clear_error();
    if (sk_X509_NAME_num(names) > 0)
        return names;
    sk_X509_NAME_free(names);
    return NULL;
}

/* No handshake ends without a certificate of one of these authorities. Sessions are bound to a name of ours: OpenSSL refuses
 * to resume sessions of verified clients without one. */
static enum kv_err load_client_ca(SSL_CTX *context, const struct kv_buf *file, char *why, size_t why_bytes)
{
    static const unsigned char session_name[] = "kv-storage";
    if (file->bytes == 0)
        return KV_OK;
    STACK_OF(X509_NAME) *names = add_authorities(context, file);
    if (names == NULL) {
        snprintf(why, why_bytes, "TLS_CLIENT_CA holds no certificate in PEM");
        return KV_INVALID;
    }
    SSL_CTX_set_client_CA_list(context, names); /* takes the names over */
    SSL_CTX_set_session_id_context(context, session_name, sizeof(session_name) - 1);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return KV_OK;
}

enum kv_err tls_new(const struct kv_files *files, SSL_CTX **out, char *why, size_t why_bytes)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (context == NULL || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1) {
        snprintf(why, why_bytes, "OpenSSL offers no TLS 1.2, which TLS_CERT and TLS_KEY need");
        SSL_CTX_free(context);
        return KV_INVALID;
    }
    /* a renegotiation costs the server more than the client; h2o closes on it anyway */
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    enum kv_err err = load_pair(context, files, why, why_bytes);
    if (err == KV_OK)
        err = load_client_ca(context, &files->tls_client_ca, why, why_bytes);
    if (err != KV_OK) {
        SSL_CTX_free(context);
        return err;
    }
    h2o_ssl_register_alpn_protocols(context, h2o_alpn_protocols);
    *out = context;
    return KV_OK;
}

uint64_t tls_expires_s(const SSL_CTX *context)
{
    const X509 *certificate = SSL_CTX_get0_certificate(context);
    struct tm end = {0};
    if (certificate == NULL || ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) != 1)
        return 0;
    time_t end_s = timegm(&end);
    return end_s < 0 ? 0 : (uint64_t)end_s;
}
