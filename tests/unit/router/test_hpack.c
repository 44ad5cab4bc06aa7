/* Goal: header blocks say what the answer says, whatever the connection's table holds; a client's own table size is kept.
 * Method: libh2o's decoder, which is not ours, reads block after block as one connection; header by header the same. */
#include <criterion/criterion.h>

#include "hpack.h"
#include "h2o_guard.h"
#include "kv/buf.h"

/* Both ends of a connection. */
struct wire {
    h2o_hpack_header_table_t ours, theirs;
    uint32_t table_bytes_max;
    uint8_t block[HPACK_BLOCK_BYTES_MAX];
    size_t bytes;
    unsigned resized; /* times, at the block's beginning */
};

static struct wire *wire_new(void)
{
    struct wire *wire = kv_alloc_zero(1, sizeof *wire);
    wire->table_bytes_max = HPACK_TABLE_BYTES_MAX;
    wire->theirs.hpack_capacity = wire->theirs.hpack_max_capacity = HPACK_TABLE_BYTES_MAX;
    return wire;
}

static void wire_free(struct wire *wire)
{
    h2o_hpack_dispose_header_table(&wire->ours);
    h2o_hpack_dispose_header_table(&wire->theirs);
    free(wire);
}

static h2o_iovec_t text(const char *string)
{
    return h2o_iovec_init(string, strlen(string));
}

static void add(h2o_req_t *req, enum hpack_field field, const char *value)
{
    hpack_add(req, field, value, strlen(value));
}

static const int one_byte[] = {200, 204, 206, 304, 400, 404, 500};

static bool is_one_byte(int status)
{
    for (unsigned i = 0; i < sizeof one_byte / sizeof *one_byte; i++)
        if (one_byte[i] == status)
            return true;
    return false;
}

static size_t number_bytes(const uint8_t *at, unsigned bits)
{
    size_t bytes = 1;
    if ((at[0] & ((1u << bits) - 1)) == (1u << bits) - 1)
        while (at[bytes++] >= 0x80)
            ;
    return bytes;
}

/* The decoder is one for requests: it takes no :status, which is looked at here. */
static void take_status(struct wire *wire, int status)
{
    size_t at = 0, bytes = 1;
    for (wire->resized = 0; (wire->block[at] & 0xe0) == 0x20; wire->resized++)
        at += number_bytes(wire->block + at, 5);
    if (status == 200)
        cr_assert_eq(wire->block[at], 0x88);
    else {
        char literal[6];
        snprintf(literal, sizeof literal, "\x08\x03%d", status);
        bytes = 5;
        cr_assert_arr_eq(wire->block + at, literal, bytes);
    }
    wire->bytes -= bytes;
    memmove(wire->block + at, wire->block + at + bytes, wire->bytes - at);
}

static void check_header(const h2o_header_t *got, h2o_iovec_t name, h2o_iovec_t value)
{
    cr_assert(h2o_memis(got->name->base, got->name->len, name.base, name.len), "%.*s for %.*s", (int)got->name->len,
              got->name->base, (int)name.len, name.base);
    cr_assert(h2o_memis(got->value.base, got->value.len, value.base, value.len), "%.*s: %.*s for %.*s", (int)name.len,
              name.base, (int)got->value.len, got->value.base, (int)value.len, value.base);
}

/* The guard, which stands before the decoder, asks for it. */
static h2o_socket_t *no_socket(h2o_conn_t *conn)
{
    (void)conn;
    return NULL;
}

/* Over the wire and back; returns the bytes of the block. */
static size_t pass(struct wire *wire, h2o_req_t *req, const char *date)
{
    static const h2o_conn_callbacks_t callbacks = {.get_socket = no_socket};
    h2o_conn_t conn = {.callbacks = &callbacks};
    h2o_req_t got = {.conn = &conn};
    const char *err = NULL;
    size_t length = 0;
    int exists = 0; /* headers, not trailers, which the guard drops */
    h2o_mem_init_pool(&got.pool);
    const uint8_t *end =
        hpack_encode(&wire->ours, wire->table_bytes_max, &req->res, text("kv-storage"), text(date), 1024, wire->block);
    size_t bytes = wire->bytes = (size_t)(end - wire->block);
    take_status(wire, req->res.status);
    cr_assert_eq(h2o_hpack_parse_headers(&got, &wire->theirs, wire->block, wire->bytes, &exists, &length, NULL, &err),
                 0, "%s", err);
    cr_assert_eq(length, 1024);
    cr_assert_eq(got.headers.size, req->res.headers.size + 2);
    check_header(&got.headers.entries[0], text("server"), text("kv-storage"));
    check_header(&got.headers.entries[1], text("date"), text(date));
    for (size_t i = 0; i < req->res.headers.size; i++)
        check_header(&got.headers.entries[i + 2], *req->res.headers.entries[i].name, req->res.headers.entries[i].value);
    h2o_mem_clear_pool(&got.pool);
    return bytes;
}

static void begin(h2o_req_t *req, int status)
{
    memset(req, 0, sizeof *req);
    h2o_mem_init_pool(&req->pool);
    req->res.status = status;
}

/* An answer of its own for every `number`. */
static size_t pass_value(struct wire *wire, unsigned number, const char *date)
{
    h2o_req_t req;
    char digits[65];
    begin(&req, 200);
    snprintf(digits, sizeof digits, "%064x", number * 2654435761u);
    add(&req, HPACK_X_REQUEST_ID, digits);
    add(&req, HPACK_CONTENT_TYPE, number % 7 == 0 ? "text/plain" : "application/octet-stream");
    add(&req, HPACK_ETAG, digits);
    add(&req, HPACK_VARY, "Accept-Encoding");
    add(&req, HPACK_X_HASH, digits);
    add(&req, HPACK_X_CONTENT_SHA256, digits);
    add(&req, HPACK_X_HASH_ALGORITHM, "sha256");
    add(&req, HPACK_X_REFS, number % 5 == 0 ? "12" : "1");
    size_t bytes = pass(wire, &req, date);
    h2o_mem_clear_pool(&req.pool);
    return bytes;
}

Test(hpack, what_repeats_is_sent_once)
{
    struct wire *wire = wire_new();
    size_t first = pass_value(wire, 1, "Sun, 22 Nov 2026 20:00:00 GMT");
    size_t second = pass_value(wire, 2, "Sun, 22 Nov 2026 20:00:00 GMT");
    cr_expect_lt(second + 100, first);
    cr_expect_lt(second, 4 * (64 + 4) + 20, "four values of 64 bytes are new, all else is a byte or two: %zu", second);
    wire_free(wire);
}

Test(hpack, thousands_of_answers_and_seconds)
{
    struct wire *wire = wire_new();
    for (unsigned i = 0; i < 5000; i++) {
        char date[30];
        snprintf(date, sizeof date, "Sun, 22 Nov 2026 20:%02u:%02u GMT", i / 180 % 60, i / 3 % 60);
        pass_value(wire, i, date);
    }
    wire_free(wire);
}

Test(hpack, clients_choose_the_size_of_the_table)
{
    static const uint32_t sizes[] = {4096, 0, 0, 100, 300, 64, 4096, 65536, 4096, 1};
    struct wire *wire = wire_new();
    uint32_t last = HPACK_TABLE_BYTES_MAX;
    for (unsigned i = 0; i < 10 * sizeof sizes / sizeof *sizes; i++) {
        uint32_t size = sizes[i / 10], used = size < HPACK_TABLE_BYTES_MAX ? size : HPACK_TABLE_BYTES_MAX;
        wire->table_bytes_max = size;
        wire->theirs.hpack_max_capacity = size;
        pass_value(wire, i, "Sun, 22 Nov 2026 20:00:00 GMT");
        cr_expect_eq(wire->resized, used != last, "block %u", i);
        cr_expect_eq(wire->theirs.hpack_capacity, used);
        cr_expect_leq(wire->theirs.hpack_size, used);
        last = used;
    }
    wire_free(wire);
}

/* A decoder that was told of a smaller table has evicted for it, even if the next block finds it as large as before. */
Test(hpack, a_smaller_table_is_told_of_even_if_it_has_grown_again)
{
    static const struct {
        uint32_t sizes[3];
        unsigned resized;
    } changes[] = {{{0, 4096, 4096}, 2}, {{4096, 65536, 4096}, 0}, {{200, 100, 300}, 2},   {{50, 20, 50}, 2},
                   {{20, 50, 20}, 1},    {{20, 4096, 20}, 0},      {{4096, 4096, 4096}, 1}};
    struct wire *wire = wire_new();
    for (unsigned i = 0; i < 3 * sizeof changes / sizeof *changes; i++) {
        bool is_first = i % 3 == 0;
        for (unsigned each = 0; is_first && each < 3; each++) {
            wire->table_bytes_max = changes[i / 3].sizes[each];
            hpack_resized(&wire->ours, wire->table_bytes_max);
        }
        wire->theirs.hpack_max_capacity = wire->table_bytes_max;
        pass_value(wire, 5, "Sun, 22 Nov 2026 20:00:00 GMT");
        cr_expect_eq(wire->resized, is_first ? changes[i / 3].resized : 0, "block %u: %u", i, wire->resized);
        cr_expect_leq(wire->theirs.hpack_capacity, wire->table_bytes_max);
    }
    wire_free(wire);
}

Test(hpack, other_headers_and_statuses)
{
    static const h2o_iovec_t own = {H2O_STRLIT("accept-post")};
    struct wire *wire = wire_new();
    char longest[1025];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    for (int status = 100; status <= 599; status += status < 500 ? 1 : 7) {
        if (is_one_byte(status))
            continue;
        h2o_req_t req;
        begin(&req, status);
        add(&req, HPACK_CONTENT_TYPE, longest);
        add(&req, HPACK_X_REFS, "");
        h2o_add_header(&req.pool, &req.res.headers, H2O_TOKEN_ALLOW, NULL, H2O_STRLIT("GET, HEAD"));
        h2o_add_header_by_str(&req.pool, &req.res.headers, own.base, own.len, 1, NULL, H2O_STRLIT("text/plain"));
        pass(wire, &req, "Sun, 22 Nov 2026 20:00:00 GMT");
        h2o_mem_clear_pool(&req.pool);
    }
    wire_free(wire);
}

Test(hpack, statuses_of_a_byte)
{
    for (unsigned i = 0; i < sizeof one_byte / sizeof *one_byte; i++) {
        struct wire *wire = wire_new();
        h2o_req_t req;
        begin(&req, one_byte[i]);
        hpack_encode(&wire->ours, HPACK_TABLE_BYTES_MAX, &req.res, text(""), text("now"), SIZE_MAX, wire->block);
        cr_expect_eq(wire->block[0], 0x80 + 8 + i);
        h2o_mem_clear_pool(&req.pool);
        wire_free(wire);
    }
}

Test(hpack, the_library_calls_it)
{
    cr_expect(h2o_guard_catches("h2o_hpack_flatten_response", (const void *)h2o_hpack_flatten_response));
}
