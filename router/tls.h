/* router/tls.h -- the TLS side of the router: one OpenSSL context for all threads. No file is opened here (kv/files.h).
 * Does:     loads chain and key, TLS 1.2 and later, ALPN h2 and http/1.1; with TLS_CLIENT_CA asks every client for a certificate.
 * Fails:    with one sentence that names TLS_CERT, TLS_KEY or TLS_CLIENT_CA; the start is wrong, nothing is served.
 * Tests:    http/test_http_tls.c. */
#ifndef KV_ROUTER_TLS_H
#define KV_ROUTER_TLS_H

#include <openssl/ssl.h>
#include <stddef.h>
#include <stdint.h>

#include "kv/files.h"

/* Of the bytes of three files; no tls_client_ca: clients need no certificate. KV_INVALID: `why` says what is wrong with which
 * variable. */
enum kv_err tls_new(const struct kv_files *files, SSL_CTX **out, char *why, size_t why_bytes);

/* When the certificate that is shown to clients ends, Unix seconds; 0: it does not say. */
uint64_t tls_expires_s(const SSL_CTX *context);

#endif
