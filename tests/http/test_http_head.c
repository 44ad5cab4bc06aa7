/* Goal: heads of HTTP/1 requests that are malformed, ambiguous or not worth their body are refused in the contract's words, after
 * the token where one can be read; the connection ends with them, so that nothing behind them is taken for a request.
 * Method: raw sockets; a table of heads; each is followed by a request that must not be answered. */
#include "harness.h"

#include <stdlib.h>
#include <unistd.h>

#include "kv/limits.h"

static void setup(void)
{
    http_defaults();
    http_settings.value_bytes_max = 100000;
    http_settings.batch_bytes_max = 50000;
    http_start();
}

TestSuite(head, .init = setup, .fini = http_stop);

#define HOST "Host: x\r\n"
#define AUTH "Authorization: Bearer " TOKEN "\r\n"
#define JSON "Accept: application/json\r\n"
#define GOOD HOST AUTH JSON
#define EXPECT "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
#define LAST "GET /-/healthy HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n"
#define ABC_HASH "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define BEHIND "GET /-/healthy HTTP/1.1\r\n" HOST "\r\n"

static size_t count_of(const struct kv_buf *answers, const char *text)
{
    size_t count = 0;
    for (const char *at = (char *)answers->data; (at = strstr(at, text)) != NULL; at++)
        count++;
    return count;
}

/* One answer, an error in our words, and the end of the connection. */
static void expect_refused(const char *head, const char *status, const char *code)
{
    int fd = http_connect();
    http_send(fd, head);
    http_send(fd, BEHIND);
    struct kv_buf answer = http_receive(fd, HTTP_WAIT_MS);
    char body[96];
    snprintf(body, sizeof(body), code == NULL ? "\r\n\r\nError: " : "{\"error\":{\"code\":\"%s\",\"message\":\"", code);
    cr_expect(strncmp((char *)answer.data, "HTTP/1.1 ", 9) == 0 && strncmp((char *)answer.data + 9, status, 3) == 0,
              "%.300s -> %.300s", head, (char *)answer.data);
    cr_expect_eq(count_of(&answer, "HTTP/1.1 "), 1, "%.300s -> %.600s", head, (char *)answer.data);
    cr_expect(strstr((char *)answer.data, body) != NULL, "%.300s -> %.600s", head, (char *)answer.data);
    cr_expect(strcasestr((char *)answer.data, "connection: close") != NULL, "%.300s -> %.600s", head,
              (char *)answer.data);
    kv_buf_free(&answer);
    close(fd);
}

static const struct row {
    const char *head, *status;
    const char *code; /* in JSON; NULL: in text, since no Accept can be read either */
} rows[] = {
    {"nonsense\r\n\r\n", "400", NULL},
    {"GET /a HTTP/1.1 more\r\n" GOOD "\r\n", "400", NULL},
    {"GET /a HTTP/3.0\r\n" HOST "\r\n", "400", NULL},
    {"GET /a HTTP/1.1\r\nBad Header: x\r\n" HOST "\r\n", "400", NULL},
    {"GET /a HTTP/1.1\r\n" GOOD "Content-Length : 3\r\n\r\nabc", "400", NULL},
    {"GET /a HTTP/1.1\r\n" GOOD "X-Folded: a\r\n b\r\n\r\n", "400", "invalid_request"},
    {"GET /a HTTP/1.1\r\n" AUTH JSON "\r\n", "400", "invalid_request"},
    {"GET /a HTTP/1.1\r\n" GOOD "Host: y\r\n\r\n", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Content-Length: 3, 3\r\n\r\nabc", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Content-Length: +3\r\n\r\nabc", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Content-Length: -3\r\n\r\nabc", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Content-Length: 0x3\r\n\r\nabc", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Content-Length:\r\n\r\nabc", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Content-Length: 99999999999999999999999\r\n\r\nabc", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400",
     "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400",
     "invalid_request"},
    {"PUT /a HTTP/1.0\r\n" GOOD "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: chunked\r\n\r\n3;a\n\r\nabc\r\n0\r\n\r\n", "400",
     "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n0\r\n\r\n", "400",
     "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\n0\r\n\r\n", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\r\n0\r\n\r\n", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: chunked\r\n\r\n\r\nabc\r\n0\r\n\r\n", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\n\n", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\n\r\n", "400",
     "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: chunked\r\n\r\n11111111111111111\r\nabc", "400", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Expect: 200-ok\r\nContent-Length: 3\r\n\r\nabc", "417", "invalid_request"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Content-Length: 9000000000\r\n\r\n", "413", "too_large"},
    {"PUT /a HTTP/1.1\r\n" GOOD "Expect: 100-continue\r\nContent-Length: 100001\r\n\r\n", "413", "too_large"},
    {"POST /batch HTTP/1.1\r\n" GOOD "Expect: 100-continue\r\nContent-Length: 50001\r\n\r\n", "413", "too_large"},
    {"PUT /a HTTP/1.1\r\n" HOST JSON "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n", "401", "unauthorized"},
    {"PUT /a HTTP/1.1\r\n" HOST JSON "Authorization: Bearer no\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n",
     "401", "unauthorized"},
    {"PUT / HTTP/1.1\r\n" GOOD EXPECT, "404", "not_found"},
    {"PUT /keys HTTP/1.1\r\n" GOOD EXPECT, "405", "method_not_allowed"},
    {"PUT /-/ready HTTP/1.1\r\n" GOOD EXPECT, "405", "method_not_allowed"},
    {"POST /a HTTP/1.1\r\n" GOOD EXPECT, "405", "method_not_allowed"},
    {"POST /%62atch/ HTTP/1.1\r\n" GOOD EXPECT, "405", "method_not_allowed"},
    {"PUT /%zz HTTP/1.1\r\n" GOOD EXPECT, "400", "invalid_key"},
    {"PUT /%00 HTTP/1.1\r\n" GOOD EXPECT, "400", "invalid_key"},
    {"PUT a HTTP/1.1\r\n" GOOD EXPECT, "400", "invalid_request"},
    {"PUT /keys HTTP/1.1\r\n" HOST JSON EXPECT, "401", "unauthorized"},
    {"PUT /keys HTTP/1.1\r\n" GOOD "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n", "405",
     "method_not_allowed"},
    {"PUT /a HTTP/1.1\r\n" HOST JSON "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "401", "unauthorized"},
    {"PUT /a HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: gzip\r\n\r\n0\r\n\r\n", "401", "unauthorized"},
    {"PUT /a HTTP/1.1\r\n" HOST JSON "Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n", "401", "unauthorized"},
    {"DELETE /a HTTP/1.1\r\n" GOOD "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n", "404", "not_found"},
};

Test(head, what_must_not_be_served)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        expect_refused(rows[i].head, rows[i].status, rows[i].code);
    cr_expect_eq(fake_keys(), 0, "nothing was stored");
}

/* What only looks odd is served, and so is what comes behind it. */
Test(head, what_is_fine)
{
    static const char *const heads[] = {
        "PUT /a HTTP/1.1\r\n" GOOD "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "PUT /a HTTP/1.1\r\n" GOOD "Content-Length: 003\r\n\r\nabc",
        "PUT /a HTTP/1.1\r\n" GOOD "transfer-encoding:CHUNKED\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "PUT /a HTTP/1.1\r\n" GOOD "Expect: 100-Continue\r\nContent-Length: 3\r\n\r\nabc",
        "PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: chunked \r\n\r\n"
        "0000000000000002;a=\"b;c\";d\r\nab\r\n1 \t;e\r\nc\r\n0\r\nA: b\r\nC:\r\n\r\n",
        "PUT /a HTTP/1.1\r\n" GOOD "Content-Length: 3 \t\r\nExpect: 100-continue \r\n\r\nabc",
        "PUT /a HTTP/1.0\r\nConnection: keep-alive\r\nExpect: else\r\n" AUTH "Content-Length: 3\r\n\r\nabc",
        "\r\nPUT /a HTTP/1.1\r\n" GOOD "Content-Length: 3\r\n\r\nabc",
        "PUT /a HTTP/1.1\nHost:x\nAuthorization:Bearer " TOKEN "\nContent-Length: 3\n\nabc",
        "PUT /a HTTP/1.0\r\nConnection: keep-alive\r\n" AUTH "Content-Length: 3\r\n\r\nabc",
    };
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        int fd = http_connect();
        http_send(fd, heads[i]);
        http_send(fd, BEHIND);
        struct kv_buf answers = http_receive_until(fd, "\r\n\r\nok\n");
        cr_expect_eq(count_of(&answers, i == 0 ? " 201 Created" : " 200 OK"), i == 0 ? 1 : 2, "%s -> %s", heads[i],
                     (char *)answers.data);
        cr_expect_eq(count_of(&answers, "\r\n\r\nok\n"), 1, "%s -> %s", heads[i], (char *)answers.data);
        kv_buf_free(&answers);
        close(fd);
    }
}

/* However a body in chunks is cut into segments, it is the same. */
Test(head, chunks_in_pieces)
{
    static const char body[] = "2;a=b\r\nab\r\n1\r\nc\r\n0\r\nA: b\r\n\r\n";
    for (size_t cut = 1; cut < sizeof(body) - 1; cut++) {
        char front[sizeof(body)];
        int fd = http_connect();
        snprintf(front, sizeof(front), "%.*s", (int)cut, body);
        http_send(fd, "PUT /a HTTP/1.1\r\n" GOOD "Transfer-Encoding: chunked\r\n\r\n");
        http_send(fd, front);
        struct kv_buf early = http_receive(fd, 20);
        cr_expect_eq(early.bytes, 0, "cut at %zu: %s", cut, (char *)early.data);
        http_send(fd, body + cut);
        http_send(fd, LAST);
        struct kv_buf answers = http_receive(fd, HTTP_WAIT_MS);
        cr_expect(strstr((char *)answers.data, ABC_HASH) != NULL, "cut at %zu: %s", cut, (char *)answers.data);
        cr_expect_eq(count_of(&answers, "\r\n\r\nok\n"), 1, "cut at %zu: %s", cut, (char *)answers.data);
        kv_buf_free(&early);
        kv_buf_free(&answers);
        close(fd);
    }
}

Test(head, http_1_0_is_not_invited)
{
    int fd = http_connect();
    http_send(fd, "PUT /a HTTP/1.0\r\n" GOOD "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc");
    struct kv_buf answer = http_receive(fd, HTTP_WAIT_MS);
    cr_expect(strstr((char *)answer.data, "100 Continue") == NULL, "%s", (char *)answer.data);
    cr_expect_eq(count_of(&answer, " 201 Created"), 1, "%s", (char *)answer.data);
    kv_buf_free(&answer);
    close(fd);
}

Test(head, a_good_token_is_invited)
{
    int fd = http_connect();
    http_send(fd, "PUT /a HTTP/1.1\r\n" GOOD "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    struct kv_buf invitation = http_receive_until(fd, "\r\n\r\n");
    cr_expect_str_eq((char *)invitation.data, "HTTP/1.1 100 Continue\r\n\r\n");
    http_send(fd, "abc");
    struct kv_buf answer = http_receive_until(fd, "\r\n\r\n");
    cr_expect(strstr((char *)answer.data, " 201 Created") != NULL, "%s", (char *)answer.data);
    kv_buf_free(&invitation);
    kv_buf_free(&answer);
    close(fd);
}

static void send_long(const char *before, size_t bytes, const char *behind, const char *status, const char *code)
{
    struct kv_buf head = {0};
    kv_buf_append(&head, kv_slice_text(before));
    memset(kv_buf_reserve(&head, bytes), 'x', bytes);
    head.bytes += bytes;
    kv_buf_append(&head, kv_slice(behind, strlen(behind) + 1));
    expect_refused((const char *)head.data, status, code);
    kv_buf_free(&head);
}

Test(head, long_ones)
{
    send_long("GET /", 40000, " HTTP/1.1\r\n" GOOD "Connection: close\r\n\r\n", "414", "key_too_long");
    send_long("PUT /", 4097, " HTTP/1.1\r\n" GOOD EXPECT, "414", "key_too_long");
    send_long("GET /keys?prefix=", 40000, " HTTP/1.1\r\n" GOOD "Connection: close\r\n\r\n", "414", "key_too_long");
    send_long("GET /a HTTP/1.1\r\n" GOOD "Connection: close\r\nX-Long: ", 40000, "\r\n\r\n", "431", "invalid_request");
    send_long("GET /", 500000, "", "414", NULL);
    send_long("GET /a HTTP/1.1\r\nX-Long: ", 500000, "", "431", NULL);
}

Test(head, more_than_100_headers)
{
    struct kv_buf head = {0};
    kv_buf_append(&head, kv_slice_text("GET /a HTTP/1.1\r\n" HOST));
    for (unsigned i = 0; i < 100; i++)
        kv_buf_append(&head, kv_slice_text("X-H: 1\r\n"));
    kv_buf_append(&head, kv_slice("\r\n", 3));
    expect_refused((const char *)head.data, "431", NULL);
    kv_buf_free(&head);
}
