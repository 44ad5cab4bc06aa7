/* Goal: a client that keeps its socket full gets no more of a turn of the loop than others may wait for.
 * Method: `read` and `epoll_wait` of this program win over libc's also for libh2o: the loop naps before each turn, so that the socket is
 * full, and what it reads of a socket in one turn is counted, for each way to upload. */
#include "harness.h"

#include <dlfcn.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "turn.h"

enum {
    MIB = 1024 * 1024,
    NAP_US = 2000,
    FULL_BYTES = 128 * 1024, /* at least so much is there after a nap */
    OTHER_BYTES = 64 * 1024, /* of everything else that a turn reads */
};

static _Atomic bool watching;
static _Atomic size_t turn_bytes_max;
static __thread size_t turn_bytes;
static __thread bool is_loop;

ssize_t read(int fd, void *out, size_t bytes)
{
    static ssize_t (*_Atomic found)(int, void *, size_t);
    ssize_t (*real)(int, void *, size_t) = found; /* gcc would call it without an atomic read */
    if (real == NULL)
        found = real = (ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
    ssize_t got = real(fd, out, bytes);
    if (is_loop && got > 0)
        turn_bytes += (size_t)got;
    if (watching && turn_bytes > turn_bytes_max)
        turn_bytes_max = turn_bytes;
    return got;
}

int epoll_wait(int fd, struct epoll_event *events, int count, int wait_ms)
{
    static int (*_Atomic found)(int, struct epoll_event *, int, int);
    int (*real)(int, struct epoll_event *, int, int) = found;
    if (real == NULL)
        found = real = (int (*)(int, struct epoll_event *, int, int))dlsym(RTLD_NEXT, "epoll_wait");
    is_loop = true;
    turn_bytes = 0;
    if (watching)
        usleep(NAP_US);
    return real(fd, events, count, wait_ms);
}

static void setup(void)
{
    http_defaults();
    http_settings.value_bytes_max = 24 * MIB;
    http_start();
}

TestSuite(turns, .init = setup, .fini = http_stop);

/* The most that a turn read. */
static size_t upload(enum version version, const char *header)
{
    struct kv_buf content = http_content(20 * MIB, true);
    turn_bytes_max = 0;
    watching = true;
    struct answer put = http_put(version, "/k", kv_buf_peek(&content), header);
    watching = false;
    cr_assert(put.status == 201 || put.status == 200, "%ld", put.status);
    answer_free(&put);
    kv_buf_free(&content);
    fprintf(stderr, "%zu bytes in a turn\n", (size_t)turn_bytes_max);
    cr_expect_geq(turn_bytes_max, FULL_BYTES, "the socket was never full");
    return turn_bytes_max;
}

Test(turns, of_uploads_end_after_a_step)
{
    cr_expect_leq(upload(H1, NULL), 2 * TURN_BYTES + OTHER_BYTES);
    cr_expect_leq(upload(H1, "Transfer-Encoding: chunked"), 2 * TURN_BYTES + OTHER_BYTES);
    cr_expect_leq(upload(H2, NULL), 2 * TURN_BYTES + OTHER_BYTES);
}

/* A key and its certificate in one file. */
static void write_identity(const char *path)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    FILE *file = fopen(path, "w");
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    cr_assert_neq(X509_sign(cert, key, EVP_sha256()), 0);
    cr_assert(file != NULL && PEM_write_X509(file, cert) == 1);
    cr_assert_eq(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(file);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static void put_with_tls(CURL *curl, const char *path, struct kv_buf *content)
{
    char url[64];
    struct curl_slist *headers = curl_slist_append(NULL, "Authorization: Bearer " TOKEN);
    snprintf(url, sizeof(url), "https://127.0.0.1:%u%s", http_tls_port, path);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 0L);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, "PUT");
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, (char *)content->data);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)content->bytes);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, stderr);
    cr_expect_eq(curl_easy_perform(curl), CURLE_OK);
    curl_slist_free_all(headers);
}

Test(turns, of_uploads_with_tls_end_after_a_step)
{
    char path[] = "/tmp/kv-turns.XXXXXX", why[256];
    struct kv_buf content = http_content(20 * MIB, true);
    close(mkstemp(path));
    write_identity(path);
    http_stop();
    kv_settings_set(&http_settings, "TLS_CERT", path, why, sizeof(why));
    kv_settings_set(&http_settings, "TLS_KEY", path, why, sizeof(why));
    http_start_tls();
    for (long version = CURL_HTTP_VERSION_1_1; version <= CURL_HTTP_VERSION_2TLS; version += 2) {
        CURL *curl = curl_easy_init();
        curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, version);
        turn_bytes_max = 0;
        watching = true;
        put_with_tls(curl, "/k", &content);
        watching = false;
        curl_easy_cleanup(curl);
        cr_expect_geq(turn_bytes_max, FULL_BYTES, "the socket was never full");
        cr_expect_leq(turn_bytes_max, 2 * TURN_BYTES + OTHER_BYTES);
    }
    struct answer get = http_get(H1, "/k", NULL);
    cr_expect(kv_slice_equal(kv_buf_peek(&get.body), kv_buf_peek(&content)));
    answer_free(&get);
    kv_buf_free(&content);
    unlink(path);
}
