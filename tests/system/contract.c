/* tests/system/contract.c -- see contract.h. */
#include "contract.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/* ---- transports ----------------------------------------------------------------------------------------------- */

static const struct transport {
    const char *name, *scheme;
    long asked, version;
    bool
        anew; /* a connection for each request: libcurl 7.88 fails at the second with prior knowledge (curl issue 10634) */
} transports[] = {
    {"h11", "http", CURL_HTTP_VERSION_1_1, CURL_HTTP_VERSION_1_1, false},
    {"h2c", "http", CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE, CURL_HTTP_VERSION_2_0, true},
    {"upg", "http", CURL_HTTP_VERSION_2_0, CURL_HTTP_VERSION_2_0, true}, /* by Upgrade: h2c */
    {"tls", "https", CURL_HTTP_VERSION_2TLS, CURL_HTTP_VERSION_2_0, false},
    {"ts1", "https", CURL_HTTP_VERSION_1_1, CURL_HTTP_VERSION_1_1, false},
};

static unsigned tls_port;

static void make_pair(const char *folder, char cert_setting[128], char key_setting[128])
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = X509_new();
    X509_gmtime_adj(X509_getm_notBefore(cert), -60);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_sign(cert, key, EVP_sha256());
    snprintf(cert_setting, 128, "TLS_CERT=%s/cert.pem", folder);
    snprintf(key_setting, 128, "TLS_KEY=%s/key.pem", folder);
    FILE *file = fopen(strchr(cert_setting, '/'), "w");
    CHECK(file != NULL && PEM_write_X509(file, cert) == 1);
    fclose(file);
    file = fopen(strchr(key_setting, '/'), "w");
    CHECK(file != NULL && PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1);
    fclose(file);
    EVP_PKEY_free(key);
    X509_free(cert);
}

/* ---- placeholders --------------------------------------------------------------------------------------------- */

struct place {
    const char *transport;
    char hash[65];
};

/* malloc'ed: "{}" becomes the transport, "$S" the hash, "#<n>" at the end n letters. */
static char *fill_in(const char *text, const struct place *place)
{
    struct kv_buf out = {0};
    for (const char *at = text; *at != '\0';) {
        if (strncmp(at, "{}", 2) == 0) {
            kv_buf_append(&out, kv_slice_text(place->transport));
            at += 2;
        } else if (strncmp(at, "$S", 2) == 0) {
            kv_buf_append(&out, kv_slice_text(place->hash));
            at += 2;
        } else if (*at == '#') {
            size_t count = strtoul(at + 1, (char **)(uintptr_t)&at, 10);
            memset(kv_buf_reserve(&out, count), 'x', count);
            out.bytes += count;
        } else {
            kv_buf_append(&out, kv_slice(at++, 1));
        }
    }
    kv_buf_append(&out, kv_slice("", 1));
    return (char *)out.data;
}

/* The text once, or as often as it takes to have `bytes` of it. */
static struct kv_buf filled(const char *pattern, size_t bytes, const struct place *place)
{
    struct kv_buf out = {0};
    char *text = fill_in(pattern == NULL ? "" : pattern, place);
    if (bytes == 0)
        kv_buf_append(&out, kv_slice_text(text));
    while (out.bytes < bytes) {
        size_t left = bytes - out.bytes;
        kv_buf_append(&out, kv_slice(text, strlen(text) < left ? strlen(text) : left));
    }
    free(text);
    return out;
}

/* ---- one row -------------------------------------------------------------------------------------------------- */

struct asked {
    struct kv_buf body;
    size_t sent;
    struct kv_buf headers, answer;
    long status, version;
    CURLcode code;
};

static size_t on_send(char *space, size_t size, size_t count, void *arg)
{
    struct asked *asked = arg;
    size_t left = asked->body.bytes - asked->sent, bytes = size * count < left ? size * count : left;
    if (bytes > 0)
        memcpy(space, asked->body.data + asked->sent, bytes);
    asked->sent += bytes;
    return bytes;
}

static size_t on_bytes(char *data, size_t size, size_t count, void *arg)
{
    kv_buf_append(arg, kv_slice(data, size * count));
    return size * count;
}

/* Headers of the last answer only: a 100 may come before it. */
static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
    struct kv_buf *headers = arg;
    if (size * count > 5 && strncmp(data, "HTTP/", 5) == 0)
        headers->bytes = 0;
    return on_bytes(data, size, count, arg);
}

static struct curl_slist *headers_of(const struct row *row, const struct place *place)
{
    struct curl_slist *list = curl_slist_append(NULL, row->expects_100 ? "Expect: 100-continue" : "Expect:");
    bool own_token = false;
    for (size_t i = 0; i < CONTRACT_LINES_MAX && row->sent[i] != NULL; i++) {
        char *line = fill_in(row->sent[i], place);
        own_token = own_token || strncmp(line, "Authorization:", 14) == 0;
        list = curl_slist_append(list, line);
        free(line);
    }
    if (!row->no_token && !own_token)
        list = curl_slist_append(list, "Authorization: Bearer " TOKEN);
    return list;
}

static void set_method(CURL *easy, const struct row *row, struct asked *asked)
{
    if (row->body != NULL) {
        curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(easy, CURLOPT_READFUNCTION, on_send);
        curl_easy_setopt(easy, CURLOPT_READDATA, asked);
        curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, row->chunked ? -1 : (curl_off_t)asked->body.bytes);
        curl_easy_setopt(easy, CURLOPT_EXPECT_100_TIMEOUT_MS, 20000L); /* no answer but a 100 makes curl go on */
    }
    if (strcmp(row->method, "HEAD") == 0)
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    else
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, row->method);
}

static void ask(const struct server *server, const struct transport *transport, CURL *easy, const struct row *row,
                const struct place *place, struct asked *asked)
{
    char *target = fill_in(row->target, place), *url = NULL;
    struct curl_slist *headers = headers_of(row, place);
    unsigned port = strcmp(transport->scheme, "https") == 0 ? tls_port : server->port;
    CHECK(asprintf(&url, "%s://127.0.0.1:%u%s", transport->scheme, port, target) > 0);
    curl_easy_reset(easy);
    curl_easy_setopt(easy, CURLOPT_URL, url);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, transport->asked);
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, transport->anew ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, transport->anew ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT, 30L);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, &asked->answer);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, &asked->headers);
    set_method(easy, row, asked);
    asked->code = curl_easy_perform(easy);
    curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &asked->status);
    curl_easy_getinfo(easy, CURLINFO_HTTP_VERSION, &asked->version);
    kv_buf_append(&asked->headers, kv_slice("", 1));
    kv_buf_append(&asked->answer, kv_slice("", 1));
    asked->answer.bytes--;
    curl_slist_free_all(headers);
    free(target);
    free(url);
}

/* The header's value, NULL when it is not there; "name" up to `name_bytes`. */
static const char *find_header(const struct asked *asked, const char *name, size_t name_bytes)
{
    for (const char *line = (const char *)asked->headers.data; line != NULL && *line != '\0';
         line = strchr(line, '\n') == NULL ? NULL : strchr(line, '\n') + 1)
        if (strncasecmp(line, name, name_bytes) == 0 && line[name_bytes] == ':')
            return line + name_bytes + 1 + strspn(line + name_bytes + 1, " ");
    return NULL;
}

/* One line of `came`. */
static bool holds(const struct asked *asked, const char *line)
{
    const char *body = (const char *)asked->answer.data;
    if (line[0] == '~')
        return strstr(body, line + 1) != NULL;
    if (line[0] == '!' && line[1] == '~')
        return strstr(body, line + 2) == NULL;
    if (line[0] == '!')
        return find_header(asked, line + 1, strlen(line + 1)) == NULL;
    const char *colon = strchr(line, ':');
    const char *value = find_header(asked, line, (size_t)(colon - line));
    const char *wanted = colon + 1 + strspn(colon + 1, " ");
    size_t bytes = strlen(wanted);
    if (value == NULL || strncmp(value, wanted, bytes) != 0)
        return false;
    /* "bytes 1-3/" and "bytes 6-" go on; everything else is the whole value */
    return bytes == 0 || value[bytes] == '\r' || strchr("/-", wanted[bytes - 1]) != NULL;
}

static unsigned judge(const struct transport *transport, const struct row *row, const struct place *place,
                      const struct asked *asked)
{
    /* who asks for an upgrade and is refused beforehand stays where he is */
    bool stays = transport->asked == CURL_HTTP_VERSION_2_0 && row->expects_100 && row->status >= 400;
    unsigned faults = asked->code != CURLE_OK || asked->status != row->status ||
                      asked->version != (stays ? (long)CURL_HTTP_VERSION_1_1 : transport->version);
    for (size_t i = 0; i < CONTRACT_LINES_MAX && row->came[i] != NULL; i++) {
        char *line = fill_in(row->came[i], place);
        if (strcmp(row->method, "HEAD") == 0 && line[0] == '~')
            line[0] = '\0';
        if (line[0] != '\0' && !holds(asked, line)) {
            fprintf(stderr, "  missing: %s\n", line);
            faults++;
        }
        free(line);
    }
    char *answer = row->answer == NULL ? NULL : fill_in(row->answer, place);
    if (answer != NULL && !kv_slice_equal(kv_slice_text(answer), kv_buf_peek(&asked->answer))) {
        fprintf(stderr, "  wanted the body: %s\n", answer);
        faults++;
    }
    free(answer);
    return faults;
}

static void print(const struct transport *transport, const struct row *row, const struct asked *asked, bool good)
{
    const char *answer = (const char *)asked->answer.data;
    int bytes = (int)strcspn(answer, "\n");
    fprintf(stderr, "%s | %s | %s | %s %.80s | %ld, wanted %ld | %s%.*s\n", good ? "ok " : "BAD", transport->name,
            row->says, row->method, row->target, asked->status, row->status,
            asked->code == CURLE_OK ? "" : curl_easy_strerror(asked->code), bytes < 200 ? bytes : 200, answer);
    if (!good)
        fprintf(stderr, "%s\n", (const char *)asked->headers.data);
}

static bool run_row(const struct server *server, const struct transport *transport, CURL *easy, const struct row *row)
{
    struct place place = {.transport = transport->name};
    struct asked asked = {.body = filled(row->body, row->body_bytes, &place)};
    struct kv_buf content = row->content == NULL ? filled(row->body, row->body_bytes, &place)
                                                 : filled(row->content, row->content_bytes, &place);
    sha256_hex(kv_buf_peek(&content), place.hash);
    ask(server, transport, easy, row, &place, &asked);
    bool good = judge(transport, row, &place, &asked) == 0;
    print(transport, row, &asked, good);
    kv_buf_free(&content);
    kv_buf_free(&asked.body);
    kv_buf_free(&asked.headers);
    kv_buf_free(&asked.answer);
    return good;
}

static struct server *start(void)
{
    static char cert[128], key[128], bind[64];
    tls_port = free_port();
    snprintf(bind, sizeof bind, "TLS_BIND_ADDR=127.0.0.1:%u", tls_port);
    make_pair(temp_folder(), cert, key);
    return server_start(
        (struct server_opts){.shards = 2, .settings = {cert, key, bind, "MAX_VALUE_BYTES=1M", "MAX_BATCH_BYTES=1M"}});
}

void contract_check(const struct row *rows, size_t count)
{
    const struct server *server = start();
    unsigned bad = 0;
    for (size_t t = 0; t < sizeof transports / sizeof *transports; t++) {
        CURL *easy = curl_easy_init();
        for (size_t i = 0; i < count; i++)
            bad += !run_row(server, &transports[t], easy, &rows[i]);
        curl_easy_cleanup(easy);
    }
    CHECK(bad == 0, "%u of %zu rows are not as they say, counted over %zu transports", bad, count,
          sizeof transports / sizeof *transports);
}
