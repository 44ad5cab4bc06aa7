/* Goal: the end of the certificate that clients see is told in Unix seconds, in both of ASN.1's forms of a time.
 * Method: certificates made by OpenSSL in memory; loading of files is in http/test_http_tls.c. */
#include <criterion/criterion.h>

#include "tls.h"

static uint64_t told(time_t end_s)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    ASN1_TIME_set(X509_getm_notBefore(certificate), 0);
    ASN1_TIME_set(X509_getm_notAfter(certificate), end_s);
    X509_set_pubkey(certificate, key);
    cr_assert_gt(X509_sign(certificate, key, EVP_sha256()), 0);
    cr_assert_eq(SSL_CTX_use_certificate(context, certificate), 1);
    uint64_t end = tls_expires_s(context);
    X509_free(certificate);
    EVP_PKEY_free(key);
    SSL_CTX_free(context);
    return end;
}

Test(tls, the_end_of_a_certificate)
{
    cr_expect_eq(told(2000000000), 2000000000u, "UTCTime");
    cr_expect_eq(told(4000000000), 4000000000u, "GeneralizedTime, from 2050 on");
    cr_expect_eq(told(1), 1u, "long ago");
}

Test(tls, no_certificate)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    cr_expect_eq(tls_expires_s(context), 0u);
    SSL_CTX_free(context);
}
