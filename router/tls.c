/* router/tls.c -- see tls.h. */
#include "tls.h"

#include <h2o.h>
#include <openssl/err.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

static enum kv_err load_pair(SSL_CTX *context, const char *cert_path, const char *key_path, char *why, size_t why_bytes)
{
    const char *what = NULL;
    const char *path = cert_path;
    ERR_clear_error();
    if (SSL_CTX_use_certificate_chain_file(context, cert_path) != 1) {
        what = "TLS_CERT holds no certificate chain in PEM";
    } else if (SSL_CTX_use_PrivateKey_file(context, key_path, SSL_FILETYPE_PEM) != 1) {
        /* OpenSSL compares the pair while it loads the key */
        bool mismatch = ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH;
        what =
            mismatch ? "TLS_KEY does not belong to the certificate in TLS_CERT" : "TLS_KEY holds no private key in PEM";
        path = key_path;
    } else if (SSL_CTX_check_private_key(context) != 1) {
        what = "TLS_KEY does not belong to the certificate in TLS_CERT";
        path = key_path;
    }
    if (what == NULL)
        return KV_OK;
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    snprintf(why, why_bytes, "%s: %s (%s)", what, path, reason == NULL ? "unknown reason" : reason);
    ERR_clear_error();
    return KV_INVALID;
}

/* No handshake ends without a certificate of one of these authorities. Sessions are bound to a name of ours: OpenSSL refuses
 * to resume sessions of verified clients without one. */
static enum kv_err load_client_ca(SSL_CTX *context, const char *path, char *why, size_t why_bytes)
{
    static const unsigned char session_name[] = "kv-storage";
    if (*path == '\0')
        return KV_OK;
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(path);
    if (names == NULL || SSL_CTX_load_verify_locations(context, path, NULL) != 1) {
        snprintf(why, why_bytes, "TLS_CLIENT_CA holds no certificate in PEM: %s", path);
        ERR_clear_error();
        return KV_INVALID;
    }
    SSL_CTX_set_client_CA_list(context, names); /* takes the names over */
    SSL_CTX_set_session_id_context(context, session_name, sizeof(session_name) - 1);
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return KV_OK;
}

enum kv_err tls_new(const char *cert_path, const char *key_path, const char *client_ca_path, SSL_CTX **out, char *why,
                    size_t why_bytes)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    if (context == NULL || SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) != 1) {
        snprintf(why, why_bytes, "OpenSSL offers no TLS 1.2, which TLS_CERT and TLS_KEY need");
        SSL_CTX_free(context);
        return KV_INVALID;
    }
    /* a renegotiation costs the server more than the client; h2o closes on it anyway */
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
    enum kv_err err = load_pair(context, cert_path, key_path, why, why_bytes);
    if (err == KV_OK)
        err = load_client_ca(context, client_ca_path, why, why_bytes);
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
