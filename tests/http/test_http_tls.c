/* Goal: TLS serves both protocols by ALPN; a wrong pair stops the start with a sentence that names the variable; a
 * new one is taken up while connections stay; large values that are lent from memory arrive whole.
 * Method: a key and a certificate made by OpenSSL at run time. */
#include "harness.h"

#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "metrics_internal.h"
#include "thread.h"
#include "tls.h"

static char folder[] = "/tmp/kv-test-tls-XXXXXX";
static char cert_path[64], key_path[64], other_key_path[64];

static void write_key(EVP_PKEY *key, const char *path)
{
    FILE *file = fopen(path, "w");
    cr_assert(file != NULL && PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1);
    fclose(file);
}

static void write_certificate(EVP_PKEY *key, const char *path, long serial)
{
    X509 *cert = X509_new();
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1,
                               -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    cr_assert_neq(X509_sign(cert, key, EVP_sha256()), 0);
    FILE *file = fopen(path, "w");
    cr_assert(file != NULL && PEM_write_X509(file, cert) == 1);
    fclose(file);
    X509_free(cert);
}

static void setup(void)
{
    cr_assert_not_null(mkdtemp(folder));
    snprintf(cert_path, sizeof(cert_path), "%s/cert.pem", folder);
    snprintf(key_path, sizeof(key_path), "%s/key.pem", folder);
    snprintf(other_key_path, sizeof(other_key_path), "%s/other.pem", folder);
    EVP_PKEY *key = EVP_EC_gen("P-256"), *other = EVP_EC_gen("P-256");
    write_key(key, key_path);
    write_key(other, other_key_path);
    write_certificate(key, cert_path, 1);
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
}

static void clean(void)
{
    unlink(cert_path);
    unlink(key_path);
    unlink(other_key_path);
    rmdir(folder);
}

TestSuite(tls, .init = setup, .fini = clean);

static void set(const char *name, const char *value)
{
    char why[256];
    cr_assert_eq(kv_settings_set(&http_settings, name, value, why, sizeof(why)), KV_OK, "%s", why);
}

static void ask(long wanted_version, long wanted_tls, long expected_version)
{
    CURL *curl = curl_easy_init();
    char url[64];
    long version = 0, status = 0;
    snprintf(url, sizeof(url), "https://127.0.0.1:%u/-/healthy", http_tls_port);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
    curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, wanted_version);
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, wanted_tls);
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_HTTP_VERSION, &version);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (expected_version == 0) {
        cr_expect_eq(code, CURLE_SSL_CONNECT_ERROR, "%d", (int)code);
    } else {
        cr_expect_eq(status, 200, "curl %d", (int)code);
        cr_expect_eq(version, expected_version);
    }
    curl_easy_cleanup(curl);
}

Test(tls, both_protocols)
{
    http_defaults();
    set("TLS_CERT", cert_path);
    set("TLS_KEY", key_path);
    http_start_tls();
    ask(CURL_HTTP_VERSION_2TLS, CURL_SSLVERSION_DEFAULT, CURL_HTTP_VERSION_2_0);
    ask(CURL_HTTP_VERSION_1_1, CURL_SSLVERSION_DEFAULT, CURL_HTTP_VERSION_1_1);
    ask(CURL_HTTP_VERSION_2TLS, CURL_SSLVERSION_TLSv1_2 | CURL_SSLVERSION_MAX_TLSv1_2, CURL_HTTP_VERSION_2_0);
    ask(CURL_HTTP_VERSION_2TLS, CURL_SSLVERSION_TLSv1_1 | CURL_SSLVERSION_MAX_TLSv1_1, 0);
    struct answer answer = http_get(H1, "/-/healthy", NULL); /* the plaintext address beside it */
    cr_expect_eq(answer.status, 200);
    answer_free(&answer);
    http_stop();
}

/* ---- large values ------------------------------------------------------------------------------------------------- */

enum { LARGE_BYTES = 3 * KV_CONTENT_FRAME_BYTES + 1000 };

static void start_with_frames(void)
{
    http_defaults();
    set("TLS_CERT", cert_path);
    set("TLS_KEY", key_path);
    http_settings.router_threads = 1; /* each has frames of its own */
    http_settings.cache_bytes = 32 * KV_CONTENT_FRAME_BYTES;
    http_start_tls();
    fake_may_keep(true);
}

static void put_large(const struct kv_buf *content)
{
    struct answer answer = http_put(H2_TLS, "/large", kv_buf_peek(content), NULL);
    cr_assert(answer.status == 200 || answer.status == 201, "%ld", answer.status);
    answer_free(&answer);
}

/* Returns how many bytes were fetched from the backend for it. */
static uint64_t expect_part(enum version version, const struct kv_buf *content, size_t first, size_t end)
{
    char range[64];
    uint64_t before = fake_fetched_bytes();
    bool whole = end - first == content->bytes;
    snprintf(range, sizeof(range), "Range: bytes=%zu-%zu", first, end - 1);
    struct answer answer = http_get(version, "/large", whole ? NULL : range);
    cr_expect_eq(answer.status, whole ? 200 : 206, "%ld", answer.status);
    cr_expect(kv_slice_equal(kv_buf_peek(&answer.body), kv_slice(content->data + first, end - first)), "%s", range);
    answer_free(&answer);
    return fake_fetched_bytes() - before;
}

static void expect_lent(enum version version, bool random)
{
    static const size_t parts[][2] = {{0, LARGE_BYTES},
                                      {0, 1},
                                      {KV_CONTENT_FRAME_BYTES - 1, KV_CONTENT_FRAME_BYTES + 1},
                                      {5, LARGE_BYTES - 5},
                                      {LARGE_BYTES - 1, LARGE_BYTES}};
    struct kv_buf content = http_content(LARGE_BYTES, random);
    start_with_frames();
    put_large(&content);
    for (unsigned i = 0; i < 2; i++)
        cr_expect_gt(expect_part(version, &content, 0, LARGE_BYTES), 0);
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        cr_expect_eq(expect_part(version, &content, parts[i][0], parts[i][1]), 0, "part %zu", i);
    http_stop();
    kv_buf_free(&content);
}

Test(tls, large_values_from_memory_h1)
{
    expect_lent(H1_TLS, true);
}

Test(tls, large_values_from_memory_h2)
{
    expect_lent(H2_TLS, true);
    expect_lent(H2_TLS, false);
}

static SSL *connect_tls(SSL_CTX *context);
static void disconnect(SSL *ssl);

/* It has taken nothing yet when the value is written anew and others want the room of its frames. */
Test(tls, a_slow_client_gets_what_it_began_with)
{
    static const char request[] =
        "GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer " TOKEN "\r\n\r\n";
    struct kv_buf content = http_content(LARGE_BYTES, true), other = http_content(LARGE_BYTES, false), all = {0};
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    int few = 32768, got;
    start_with_frames();
    setsockopt(http_server->tls_fd, SOL_SOCKET, SO_SNDBUF, &few, sizeof(few));
    put_large(&content);
    for (unsigned i = 0; i < 2; i++)
        expect_part(H2_TLS, &content, 0, LARGE_BYTES);
    SSL *ssl = connect_tls(context);
    cr_assert_eq(SSL_write(ssl, request, sizeof(request) - 1), (int)sizeof(request) - 1);
    http_wait_until(kv_counter_get(&http_server->threads[0].metrics->counters[METRICS_CACHE_FRAME_HITS]) == 4);
    for (unsigned i = 0; i < 8; i++) {
        memset(other.data, (int)i, 1000);
        put_large(&other);
        for (unsigned each = 0; each < 4; each++)
            expect_part(H1_TLS, &other, 0, LARGE_BYTES);
    }
    while ((got = SSL_read(ssl, kv_buf_reserve(&all, 65536), 65536)) > 0)
        all.bytes += (size_t)got;
    cr_assert_gt(all.bytes, content.bytes);
    cr_expect(kv_slice_equal(kv_slice(all.data + all.bytes - content.bytes, content.bytes), kv_buf_peek(&content)));
    disconnect(ssl);
    http_stop();
    SSL_CTX_free(context);
    kv_buf_free(&content);
    kv_buf_free(&other);
    kv_buf_free(&all);
}

/* ---- pairs -------------------------------------------------------------------------------------------------------- */

static void expect_refused(const char *cert, const char *key, const char *client_ca, const char *sentence)
{
    char why[512] = "";
    SSL_CTX *context = NULL;
    struct kv_files files = {0};
    struct kv_settings settings;
    kv_settings_init(&settings);
    kv_settings_set(&settings, "TLS_CERT", cert, why, sizeof(why));
    kv_settings_set(&settings, "TLS_KEY", key, why, sizeof(why));
    kv_settings_set(&settings, "TLS_CLIENT_CA", client_ca, why, sizeof(why));
    cr_assert_eq(kv_files_load(&settings, &files, why, sizeof(why)), KV_OK, "%s", why);
    cr_expect_eq(tls_new(&files, &context, why, sizeof(why)), KV_INVALID);
    cr_expect_eq(strncmp(why, sentence, strlen(sentence)), 0, "%s", why);
    cr_expect_null(context);
    kv_files_free(&files);
    kv_settings_free(&settings);
}

Test(tls, a_wrong_pair_is_named)
{
    expect_refused(cert_path, other_key_path, "", "TLS_KEY does not belong");
    expect_refused(key_path, key_path, "", "TLS_CERT holds no");
    expect_refused(cert_path, cert_path, "", "TLS_KEY holds no");
    expect_refused(cert_path, key_path, key_path, "TLS_CLIENT_CA holds no");
}

/* The certificate made here is its own authority. curl learns of the refusal with the handshake (TLS 1.2). */
static CURLcode ask_as_client(bool with_certificate)
{
    CURL *curl = curl_easy_init();
    char url[64];
    snprintf(url, sizeof(url), "https://127.0.0.1:%u/-/healthy", http_tls_port);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
    curl_easy_setopt(curl, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(curl, CURLOPT_SSLVERSION, CURL_SSLVERSION_TLSv1_2 | CURL_SSLVERSION_MAX_TLSv1_2);
    if (with_certificate) {
        curl_easy_setopt(curl, CURLOPT_SSLCERT, cert_path);
        curl_easy_setopt(curl, CURLOPT_SSLKEY, key_path);
    }
    CURLcode code = curl_easy_perform(curl);
    curl_easy_cleanup(curl);
    return code;
}

Test(tls, clients_must_show_a_certificate)
{
    http_defaults();
    set("TLS_CERT", cert_path);
    set("TLS_KEY", key_path);
    set("TLS_CLIENT_CA", cert_path);
    http_start_tls();
    cr_expect_eq(ask_as_client(true), CURLE_OK);
    cr_expect_neq(ask_as_client(false), CURLE_OK);
    http_stop();
}

/* ---- loaded again ------------------------------------------------------------------------------------------------- */

static SSL *connect_tls(SSL_CTX *context)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(http_tls_port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    cr_assert_eq(SSL_connect(ssl), 1);
    return ssl;
}

static long serial_of(SSL *ssl)
{
    X509 *cert = SSL_get1_peer_certificate(ssl);
    long serial = ASN1_INTEGER_get(X509_get0_serialNumber(cert));
    X509_free(cert);
    return serial;
}

static void expect_healthy(SSL *ssl)
{
    static const char request[] = "HEAD /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n";
    char answer[1024] = "";
    cr_assert_eq(SSL_write(ssl, request, sizeof(request) - 1), (int)sizeof(request) - 1);
    cr_assert_gt(SSL_read(ssl, answer, sizeof(answer) - 1), 0, "the connection was dropped");
    cr_expect(strncmp(answer, "HTTP/1.1 200", 12) == 0, "%s", answer);
}

static void disconnect(SSL *ssl)
{
    close(SSL_get_fd(ssl));
    SSL_free(ssl);
}

static void expect_serial(SSL_CTX *context, long expected)
{
    SSL *ssl = connect_tls(context);
    cr_expect_eq(serial_of(ssl), expected, "%ld", serial_of(ssl));
    expect_healthy(ssl);
    disconnect(ssl);
}

Test(tls, a_new_pair_is_for_new_connections_and_a_wrong_one_for_none)
{
    char why[512] = "";
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    http_defaults();
    set("TLS_CERT", cert_path);
    set("TLS_KEY", key_path);
    http_start_tls();
    SSL *open = connect_tls(context);
    expect_healthy(open);
    EVP_PKEY *key = EVP_EC_gen("P-256");
    write_certificate(key, cert_path, 2);
    cr_expect_eq(http_reload(why, sizeof(why)), KV_INVALID, "the key is still the old one");
    cr_expect(strstr(why, "TLS_KEY does not belong") != NULL, "%s", why);
    expect_serial(context, 1);
    write_key(key, key_path);
    for (int i = 0; i < 3; i++)
        cr_expect_eq(http_reload(why, sizeof(why)), KV_OK, "%s", why);
    expect_serial(context, 2);
    expect_healthy(open);
    cr_expect_eq(serial_of(open), 1);
    cr_assert_eq(truncate(cert_path, 10), 0);
    cr_expect_eq(http_reload(why, sizeof(why)), KV_INVALID);
    expect_serial(context, 2);
    expect_healthy(open);
    disconnect(open);
    EVP_PKEY_free(key);
    SSL_CTX_free(context);
    http_stop();
}

Test(tls, without_tls_tokens_alone_are_loaded)
{
    char why[512] = "";
    http_defaults();
    http_start();
    cr_expect_eq(http_reload(why, sizeof(why)), KV_OK);
    http_stop();
}
