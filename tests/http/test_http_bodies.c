/* Goal: bodies of any size arrive whole or are refused in words, and neither memory nor the upload folder fills up with them.
 * Method: PUTs of all sizes over both protocols, chunked and counted; bodies above every limit, without a token, beyond
 * UPLOAD_BYTES_MAX; a client that pipelines behind a body in a file; the sums of body.h and what the process has mapped watched
 * before, in between and after. */
#include "harness.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "body.h"
#include "digest.h"
#include "server.h"
#include "work.h"
/* behind harness.h, which has the token */
#include "../attack/frames.h"

enum { MIB = 1024 * 1024 };

static void setup(void)
{
    http_defaults();
    http_settings.value_bytes_max = 24 * MIB;
    http_settings.batch_bytes_max = MIB;
    http_settings.upload_bytes_max = 64 * MIB;
    http_start();
}

static void finish(void)
{
    http_stop();
    cr_expect_eq(body_file_bytes(), 0, "%lu bytes of files are left", body_file_bytes());
}

TestSuite(bodies, .init = setup, .fini = finish);

static void expect_stored(enum version version, const char *path, const struct kv_buf *content, const char *header)
{
    char hex[DIGEST_HEX_BYTES + 1] = "";
    struct kv_hash hash = digest_of(kv_buf_peek(content));
    digest_hex(&hash, hex);
    struct answer put = http_put(version, path, kv_buf_peek(content), header);
    cr_assert(put.status == 201 || put.status == 200, "%ld %s", put.status, put.body.data);
    cr_expect_str_eq(http_value(&put, "x-content-sha256"), hex);
    struct answer get = http_get(version, path, NULL);
    cr_expect(get.status == 200 && kv_slice_equal(kv_buf_peek(&get.body), kv_buf_peek(content)), "%zu bytes of %s",
              content->bytes, path);
    answer_free(&put);
    answer_free(&get);
}

/* Around each size at which a body changes its place. */
Test(bodies, arrive_whole_whatever_their_size)
{
    static const size_t sizes[] = {
        65535,   65537,    262145,  BODY_MEMORY_BYTES_MAX - 300, BODY_MEMORY_BYTES_MAX + 1, MIB + 70000,
        5000000, 17000001, 24 * MIB};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (int random = 0; random < 2; random++) {
            struct kv_buf content = http_content(sizes[i], random);
            for (size_t v = 0; v < 2; v++)
                expect_stored(http_versions[v], random ? "/random" : "/text", &content, NULL);
            expect_stored(H1, "/chunked", &content, "Transfer-Encoding: chunked");
            kv_buf_free(&content);
        }
    }
    http_wait_until(body_file_bytes() == 0);
}

/* Raw frames, compressed frames and a tail in one file that they are written back to. */
Test(bodies, of_mixed_content_come_back_exactly)
{
    struct kv_buf content = {0};
    for (int part = 0; part < 12; part++) {
        struct kv_buf bytes = http_content(900000 + (size_t)part * 1000, part % 3 == 1);
        kv_buf_append(&content, kv_buf_peek(&bytes));
        kv_buf_free(&bytes);
    }
    for (size_t v = 0; v < 2; v++)
        expect_stored(http_versions[v], "/mixed", &content, NULL);
    kv_buf_free(&content);
    struct kv_buf zeros = {0};
    memset(kv_buf_reserve(&zeros, 9 * MIB), 0, 9 * MIB);
    zeros.bytes = 9 * MIB; /* the stored form is a small one again */
    for (size_t v = 0; v < 2; v++)
        expect_stored(http_versions[v], "/zeros", &zeros, NULL);
    kv_buf_free(&zeros);
}

/* 413 just above the limit, and as far above it as anybody may go on sending: in words, on both protocols, at no cost. */
Test(bodies, too_large_ones_are_refused_in_words)
{
    static const size_t sizes[] = {24 * MIB + 1, 25 * MIB, 100 * MIB};
    struct kv_buf content = http_content(100 * MIB, true);
    for (size_t i = 0; i < 3; i++) {
        for (size_t v = 0; v < 2; v++) {
            struct kv_slice body = kv_slice(content.data, sizes[i]);
            struct answer put = http_put(http_versions[v], "/large", body, "Accept: application/json");
            cr_expect_eq(put.status, 413, "%zu bytes: %ld, %s", sizes[i], put.status,
                         curl_easy_strerror(put.curl_error));
            cr_expect(strstr((const char *)put.body.data, "\"too_large\"") != NULL, "%s", put.body.data);
            cr_expect(strstr((const char *)put.body.data, "MAX_VALUE_BYTES") != NULL, "%s", put.body.data);
            answer_free(&put);
            put = http_ask(http_versions[v],
                           &(struct request){.method = "POST", .path = "/batch", .body = body, .has_body = true});
            cr_expect_eq(put.status, 413, "batch of %zu bytes: %ld", sizes[i], put.status);
            answer_free(&put);
        }
    }
    struct answer chunked = http_put(H1, "/large", kv_slice(content.data, 60 * MIB), "Transfer-Encoding: chunked");
    cr_expect_eq(chunked.status, 413);
    answer_free(&chunked);
    kv_buf_free(&content);
    cr_expect_eq(fake_calls(), 0);
    struct answer get = http_get(H2, "/large", NULL);
    cr_expect_eq(get.status, 404);
    answer_free(&get);
}

/* Who has no right to send gets no file, and no memory worth speaking of. */
Test(bodies, without_a_token_take_no_room)
{
    struct kv_buf content = http_content(20 * MIB, true);
    for (size_t v = 0; v < 2; v++) {
        struct request request = {
            .method = "PUT", .path = "/k", .body = kv_buf_peek(&content), .has_body = true, .no_token = true};
        struct answer put = http_ask(http_versions[v], &request);
        cr_expect_eq(put.status, 401, "%ld", put.status);
        cr_expect_eq(body_file_bytes(), 0);
        answer_free(&put);
    }
    kv_buf_free(&content);
    int fd = http_connect();
    http_send(fd, "PUT /k HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n");
    char *bytes = kv_alloc_zero(1, MIB);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(write(fd, bytes, MIB), MIB);
    http_nap(200);
    cr_expect_eq(body_file_bytes(), 0);
    free(bytes);
    close(fd);
    http_wait_until(body_memory_bytes() == 0);
}

static int begin_upload(size_t declared, size_t sent)
{
    char head[256];
    int fd = http_connect();
    snprintf(head, sizeof(head),
             "PUT /slow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN "\r\nContent-Length: %zu\r\n\r\n",
             declared);
    http_send(fd, head);
    char *bytes = kv_alloc_zero(1, sent);
    for (size_t at = 0; at < sent;) {
        ssize_t put = write(fd, bytes + at, sent - at);
        cr_assert_gt(put, 0);
        at += (size_t)put;
    }
    free(bytes);
    return fd;
}

/* Beyond UPLOAD_BYTES_MAX: those under way go on, new ones get 429, and room that is given back is used again. */
Test(bodies, beyond_the_budget_are_overloaded)
{
    int slow[3];
    struct kv_buf content = http_content(20 * MIB, true);
    for (int i = 0; i < 3; i++)
        slow[i] = begin_upload(20 * MIB, 19 * MIB);
    http_wait_until(body_file_bytes() >= 3 * 19 * (uint64_t)MIB);
    for (size_t v = 0; v < 2; v++) {
        struct answer put = http_put(http_versions[v], "/more", kv_buf_peek(&content), NULL);
        cr_expect_eq(put.status, 429, "%ld", put.status);
        cr_expect_str_neq(http_value(&put, "retry-after"), "");
        cr_expect(strstr((const char *)put.body.data, "UPLOAD_BYTES_MAX") != NULL, "%s", put.body.data);
        answer_free(&put);
        put = http_put(http_versions[v], "/small", kv_slice("small", 5), NULL);
        cr_expect(put.status == 200 || put.status == 201, "small ones need no file");
        answer_free(&put);
    }
    char *rest = kv_alloc_zero(1, MIB);
    cr_assert_eq(write(slow[0], rest, MIB), MIB);
    struct kv_buf answer = http_receive_until(slow[0], "\r\n\r\n");
    cr_expect(strncmp((const char *)answer.data, "HTTP/1.1 201", 12) == 0, "%s", answer.data);
    kv_buf_free(&answer);
    for (int i = 0; i < 3; i++)
        close(slow[i]);
    http_wait_until(body_file_bytes() == 0);
    expect_stored(H2, "/more", &content, NULL);
    kv_buf_free(&content);
    free(rest);
}

/* A disk that does not keep up holds up whoever sends, and nobody else. */
Test(bodies, wait_for_their_files_alone)
{
    struct kv_buf content = http_content(20 * MIB, true);
    static const char head[] = "PUT /slow HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN
                               "\r\nConnection: close\r\nContent-Length: 20971520\r\n\r\n";
    int fd = http_connect();
    size_t sent = 0;
    body_files_stall(true);
    http_send(fd, head);
    for (int quiet = 0; quiet < 100; quiet++) {
        ssize_t bytes = send(fd, content.data + sent, content.bytes - sent, MSG_DONTWAIT);
        sent += bytes > 0 ? (size_t)bytes : 0;
        quiet = bytes > 0 ? 0 : quiet;
        struct answer small = http_put(http_versions[quiet % 2], "/small", kv_slice("small", 5), NULL);
        cr_expect(small.status == 200 || small.status == 201, "%ld", small.status);
        answer_free(&small);
    }
    cr_expect_lt(sent, content.bytes, "nobody reads it");
    body_files_stall(false);
    while (sent < content.bytes) {
        ssize_t bytes = send(fd, content.data + sent, content.bytes - sent, 0);
        cr_assert_gt(bytes, 0);
        sent += (size_t)bytes;
    }
    struct kv_buf answer = http_receive(fd, HTTP_WAIT_MS);
    cr_expect(strncmp((const char *)answer.data, "HTTP/1.1 201", 12) == 0, "%s", answer.data);
    close(fd);
    struct answer get = http_get(H1, "/slow", NULL);
    cr_expect(kv_slice_equal(kv_buf_peek(&get.body), kv_buf_peek(&content)), "%zu bytes", get.body.bytes);
    answer_free(&get);
    kv_buf_free(&answer);
    kv_buf_free(&content);
    http_wait_until(body_file_bytes() == 0);
}

/* The same, but it never does: who waits is told that it is not his fault, or leaves. */
Test(bodies, do_not_wait_for_ever_for_their_files)
{
    http_stop();
    http_settings.client_wait_ms = 1500;
    http_start();
    body_files_stall(true);
    int late = begin_upload(20 * MIB, 3 * MIB), gone = begin_upload(20 * MIB, 3 * MIB);
    shutdown(gone, SHUT_RDWR);
    close(gone);
    struct kv_buf answer = http_receive(late, HTTP_WAIT_MS);
    cr_expect_str_eq((const char *)answer.data,
                     "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nServer: kv-storage\r\nConnection: close\r\n"
                     "Content-Type: text/plain; charset=utf-8\r\nContent-Length: 69\r\n\r\n"
                     "Error: The disk that uploads wait on stands still; nothing was done.\n");
    kv_buf_free(&answer);
    close(late);
    body_files_stall(false);
    http_wait_until(body_file_bytes() == 0);
}

static uint64_t resident_bytes(const char *name)
{
    char line[256];
    unsigned long kib = 0;
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(line, sizeof(line), status) != NULL)
        if (strncmp(line, name, strlen(name)) == 0)
            kib = strtoul(line + strlen(name), NULL, 10);
    fclose(status);
    return kib * 1024;
}

static uint64_t resident_files(void)
{
    return resident_bytes("RssFile:") + resident_bytes("RssShmem:");
}

/* Uploads of 10 MiB stand still: their bytes are on the disk, not here, but for what waits for the next bodies. */
Test(bodies, that_wait_are_not_in_memory)
{
    int slow[3];
    slow[0] = begin_upload(12 * MIB, 10 * MIB);
    http_nap(200);
    body_files_trim();
    http_wait_until(resident_bytes("RssShmem:") < MIB); /* of a $TMPDIR in memory the last pages count as well */
    uint64_t before = resident_files();
    for (int i = 1; i < 3; i++)
        slow[i] = begin_upload(12 * MIB, 10 * MIB);
    http_wait_until(body_file_bytes() >= 30 * (uint64_t)MIB);
    http_nap(300);
    body_files_trim();
    http_wait_until(resident_files() < before + 4 * MIB);
    for (int i = 0; i < 3; i++)
        close(slow[i]);
    http_wait_until(body_file_bytes() == 0);
    http_wait_until(body_memory_bytes() == 0);
}

/* Smaller ones are files in memory as long as there is room for that, then on the disk. */
Test(bodies, in_memory_have_a_budget)
{
    int slow[16];
    for (int i = 0; i < 16; i++)
        slow[i] = begin_upload(4 * MIB, 3 * MIB);
    http_wait_until(body_file_bytes() >= 16 * 3 * (uint64_t)MIB);
    uint64_t resident = resident_bytes("RssShmem:");
    cr_expect(resident > 3 * MIB && resident <= BODY_FILE_MEMORY_SUM_MAX, "%lu bytes", resident);
    for (int i = 0; i < 16; i++)
        close(slow[i]);
    http_wait_until(body_file_bytes() == 0);
    http_wait_until(body_memory_bytes() == 0);
}

/* The answer to an upload, and behind it what a value of 5 bytes was stored as. Closes the connection. */
static void expect_then_after(int fd, const char *status)
{
    struct kv_buf answers = http_receive(fd, HTTP_WAIT_MS);
    const char *text = (const char *)answers.data;
    cr_expect(strncmp(text, status, strlen(status)) == 0, "%s", text);
    cr_expect_str_eq(text + answers.bytes - 5, "after");
    kv_buf_free(&answers);
    close(fd);
}

/* What comes behind a body in a file on the same connection is a request like any other. */
Test(bodies, in_files_leave_the_next_request_alone)
{
    int fd = begin_upload(3 * MIB, 3 * MIB - 1);
    http_send(fd, "xPUT /next HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN "\r\nContent-Length: 5\r\n\r\nafter"
                  "GET /next HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN "\r\nConnection: close\r\n\r\n");
    expect_then_after(fd, "HTTP/1.1 201");
}

/* A value of known length is in work before it is complete, but for those on the disk; who leaves takes it along. */
Test(bodies, are_hashed_as_they_come)
{
    int gone = begin_upload(BODY_FILE_MEMORY_MAX - 1000, 2 * MIB);
    http_wait_until(work_load(http_server->work).jobs == 1);
    close(gone);
    http_wait_until(work_load(http_server->work).jobs == 0);
    int fd = begin_upload(3 * MIB, 3 * MIB - 1), larger = begin_upload(9 * MIB, 8 * MIB);
    http_wait_until(body_file_bytes() >= 11 * (uint64_t)MIB);
    cr_expect_eq(work_load(http_server->work).jobs, 1);
    http_send(fd, "x");
    struct kv_buf answer = http_receive_until(fd, "\r\n\r\n");
    cr_expect(strncmp((const char *)answer.data, "HTTP/1.1 201", 12) == 0, "%s", answer.data);
    kv_buf_free(&answer);
    http_wait_until(work_load(http_server->work).jobs == 0);
    close(larger);
    close(fd);
    http_wait_until(body_file_bytes() == 0);
}

/* A value that was refused may be in work still: what comes behind it on the connection lies elsewhere. */
Test(bodies, that_are_refused_leave_the_next_request_alone)
{
    char *bytes = kv_alloc_zero(1, 3 * MIB);
    for (int turn = 0; turn < 10; turn++) {
        int fd = http_connect();
        http_send(fd, "PUT /no HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN
                      "\r\nContent-Range: bytes 0-1/2\r\nContent-Length: 3145728\r\n\r\n");
        for (size_t at = 0; at < 3 * MIB;) {
            ssize_t put = write(fd, bytes + at, 3 * MIB - at);
            cr_assert_gt(put, 0);
            at += (size_t)put;
        }
        http_send(fd, "PUT /next HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN
                      "\r\nContent-Length: 5\r\n\r\nafterGET /next HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN
                      "\r\nConnection: close\r\n\r\n");
        expect_then_after(fd, "HTTP/1.1 400");
    }
    free(bytes);
    http_wait_until(work_load(http_server->work).jobs == 0);
}

/* HTTP/2 clients that send more than they said, in memory and on the disk: while the worker reads what has come, it must stay where it
 * is. */
Test(bodies, that_grow_longer_than_they_said_are_given_up)
{
    static const struct {
        const char *declared;
        size_t sent;
    } cases[] = {{"3145728", 9 * MIB}, {"10485760", 12 * MIB}};
    for (size_t i = 0; i < 2; i++) {
        struct kv_buf out = {0}, block = fields("PUT", "/long");
        kv_buf_append(&block, raw("\x0f\x0d", 2)); /* content-length */
        short_string(&block, cases[i].declared);
        hello(&out);
        frame(&out, HEADERS, END_HEADERS, 1, kv_buf_peek(&block));
        uint8_t zeros[16384] = {0};
        for (size_t at = 0; at < cases[i].sent; at += sizeof(zeros))
            frame(&out, DATA, at + sizeof(zeros) < cases[i].sent ? 0 : END_STREAM, 1, raw(zeros, sizeof(zeros)));
        int fd = http_connect();
        for (size_t at = 0; at < out.bytes;) {
            ssize_t put = write(fd, out.data + at, out.bytes - at);
            cr_assert_gt(put, 0);
            at += (size_t)put;
        }
        http_wait_until(work_load(http_server->work).jobs == 0 && body_file_bytes() == 0);
        close(fd);
        kv_buf_free(&out);
        kv_buf_free(&block);
        struct answer get = http_get(H2, "/long", NULL);
        cr_expect_eq(get.status, 404);
        answer_free(&get);
    }
}

/* 408 in words, where the protocol has room for it: HTTP/1, whose client has nothing else to read. */
Test(bodies, that_stop_coming_get_408)
{
    http_stop();
    http_settings.client_wait_ms = 1000;
    http_settings.header_wait_ms = 1000;
    http_start();
    static const struct {
        const char *sent, *received;
    } cases[] = {
        {"PUT /k HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN "\r\nContent-Length: 10\r\n\r\nabc",
         "Error: The request did not arrive in time.\n"},
        {"PUT /k HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " TOKEN
         "\r\nAccept: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
         "{\"error\":{\"code\":\"timeout\",\"message\":\"The request did not arrive in time.\"}}"},
        {"GET /k HTTP/1.1\r\nHost", "Error: The request did not arrive in time.\n"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int fd = http_connect();
        http_send(fd, cases[i].sent);
        struct kv_buf answer = http_receive(fd, HTTP_WAIT_MS);
        const char *text = (const char *)answer.data;
        cr_expect(strncmp(text, "HTTP/1.1 408 ", 13) == 0, "%zu: %s", i, text);
        const char *body = strstr(text, "\r\n\r\n");
        cr_assert_not_null(body);
        cr_expect_str_eq(body + 4, cases[i].received);
        char length[64];
        snprintf(length, sizeof(length), "Content-Length: %zu\r\n", strlen(cases[i].received));
        cr_expect(strstr(text, length) != NULL, "%s", text);
        kv_buf_free(&answer);
        close(fd);
    }
    int idle = http_connect();
    struct kv_buf nothing = http_receive(idle, HTTP_WAIT_MS);
    cr_expect_eq(nothing.bytes, 0, "nothing was asked: closed without a word");
    kv_buf_free(&nothing);
    close(idle);
}
