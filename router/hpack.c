/* router/hpack.c -- see hpack.h. */
#include "hpack.h"

#include "digits.h"
#include "h2o_guard.h"
#include "kv/log.h"

enum {
    ENTRY_BYTES = 32,   /* what the RFC charges for an entry beside name and value */
    STATIC_COUNT = 61,  /* entries of the static table: the newest dynamic one is the next */
    STATIC_LENGTH = 28, /* content-length */
    STATIC_STATUS = 8,  /* :status 200 */
    LITERAL = 0x00,     /* patterns of RFC 7541, 6, and the bits of the number behind them */
    LITERAL_BITS = 4,
    INDEXING = 0x40,
    INDEXING_BITS = 6,
    INDEXED = 0x80,
    INDEXED_BITS = 7,
    RESIZE = 0x20,
    RESIZE_BITS = 5,
    STRING_BITS = 7,
};

enum kind { KIND_FRESH, KIND_SAME, KIND_TIMED };

static const enum kind kinds[] = {
#define FRESH(field, text, index) KIND_FRESH,
#define SAME(field, text, index) KIND_SAME,
#define TIMED(field, text, index) KIND_TIMED,
    HPACK_FIELDS(FRESH, SAME, TIMED)
#undef FRESH
#undef SAME
#undef TIMED
};

/* Which one a header has, its address tells. None is a token of libh2o, which would look up a content type's attributes. */
static h2o_iovec_t names[] = {
#define X(field, text, index) {(char *)(uintptr_t)text, sizeof(text) - 1},
    HPACK_FIELDS(X, X, X)
#undef X
};

static const uint8_t static_indices[] = {
#define X(field, text, index) index,
    HPACK_FIELDS(X, X, X)
#undef X
};

/* ---- a connection's table ----------------------------------------------------------------------------------------- */

struct known {
    uint32_t number; /* of its insertion, from 1; 0: not in the table */
    uint8_t bytes;
    char value[HPACK_VALUE_BYTES_MAX];
};

/* What we know of the client's table. Rather than to follow evictions, table_forget drops all when it may be full: what is known was
 * inserted since then, and none of it is evicted. */
struct table {
    uint32_t inserted;    /* entries, ever */
    uint32_t bytes;       /* of those inserted since table_forget */
    uint32_t bytes_max;   /* as the client was told last */
    uint32_t bytes_least; /* that it has chosen since it was told */
    struct known known[HPACK_FIELD_COUNT];
};

static void table_forget(struct table *table)
{
    table->bytes = 0;
    for (unsigned i = 0; i < HPACK_FIELD_COUNT; i++)
        table->known[i].number = 0;
}

/* libh2o leaves the output table alone but for us, and at the end frees what `entries` points to. */
static struct table *table_of(h2o_hpack_header_table_t *header_table)
{
    if (header_table->entries == NULL) {
        struct table *table = h2o_mem_alloc(sizeof *table);
        *table = (struct table){.bytes_max = HPACK_TABLE_BYTES_MAX, .bytes_least = HPACK_TABLE_BYTES_MAX};
        header_table->entries = (void *)table;
    }
    return (void *)header_table->entries;
}

/* False: too large for the table. Else the next answers may refer to it. */
static bool table_insert(struct table *table, enum hpack_field field, h2o_iovec_t value)
{
    size_t bytes = ENTRY_BYTES + names[field].len + value.len;
    if (bytes > table->bytes_max)
        return false;
    if (table->bytes + bytes > table->bytes_max)
        table_forget(table);
    struct known *known = &table->known[field];
    table->bytes += (uint32_t)bytes;
    known->number = ++table->inserted;
    known->bytes = value.len <= HPACK_VALUE_BYTES_MAX ? (uint8_t)value.len : 0;
    memcpy(known->value, value.base, known->bytes);
    return true;
}

static uint32_t table_index(const struct table *table, enum hpack_field field)
{
    return STATIC_COUNT + 1 + table->inserted - table->known[field].number;
}

/* ---- RFC 7541, 5 and 6 -------------------------------------------------------------------------------------------- */

static uint8_t *put_number(uint8_t *out, uint8_t pattern, unsigned bits, size_t number)
{
    size_t prefix_max = ((size_t)1 << bits) - 1;
    if (number < prefix_max) {
        *out++ = (uint8_t)(pattern | number);
        return out;
    }
    *out++ = (uint8_t)(pattern | prefix_max);
    for (number -= prefix_max; number >= 128; number >>= 7)
        *out++ = (uint8_t)(0x80 | (number & 0x7f));
    *out++ = (uint8_t)number;
    return out;
}

static uint8_t *put_string(uint8_t *out, h2o_iovec_t string)
{
    out = put_number(out, 0, STRING_BITS, string.len);
    memcpy(out, string.base, string.len);
    return out + string.len;
}

/* `index` 0: the name goes out, too. */
static uint8_t *put_literal(uint8_t *out, uint8_t pattern, unsigned bits, size_t index, h2o_iovec_t name,
                            h2o_iovec_t value)
{
    out = put_number(out, pattern, bits, index);
    if (index == 0)
        out = put_string(out, name);
    return put_string(out, value);
}

static uint8_t *put_status(uint8_t *out, int status)
{
    static const uint16_t statuses[] = {200, 204, 206, 304, 400, 404, 500};
    for (unsigned i = 0; i < sizeof statuses / sizeof *statuses; i++)
        if (statuses[i] == status)
            return put_number(out, INDEXED, INDEXED_BITS, STATIC_STATUS + i);
    char digits[] = {(char)('0' + status / 100 % 10), (char)('0' + status / 10 % 10), (char)('0' + status % 10)};
    h2o_iovec_t none = {NULL, 0};
    return put_literal(out, LITERAL, LITERAL_BITS, STATIC_STATUS, none, h2o_iovec_init(digits, sizeof digits));
}

static uint8_t *put_length(uint8_t *out, size_t length)
{
    char digits[DIGITS_DECIMAL_MAX];
    size_t bytes = digits_write(length, digits);
    h2o_iovec_t none = {NULL, 0};
    return put_literal(out, LITERAL, LITERAL_BITS, STATIC_LENGTH, none, h2o_iovec_init(digits, bytes));
}

/* ---- fields ------------------------------------------------------------------------------------------------------- */

static bool is_same(const struct known *known, h2o_iovec_t value)
{
    return known->bytes == value.len && memcmp(known->value, value.base, value.len) == 0;
}

/* Worth an entry: a value that will come again, or a name that the static table does not have. */
static bool is_worth(enum hpack_field field, h2o_iovec_t value)
{
    if (kinds[field] == KIND_FRESH)
        return static_indices[field] == 0;
    return value.len > 0 && value.len <= HPACK_VALUE_BYTES_MAX;
}

static uint8_t *put_field(struct table *table, uint8_t *out, enum hpack_field field, h2o_iovec_t value)
{
    const struct known *known = &table->known[field];
    size_t index = static_indices[field];
    if (known->number != 0) {
        uint32_t dynamic = table_index(table, field);
        if (kinds[field] != KIND_FRESH && is_same(known, value))
            return put_number(out, INDEXED, INDEXED_BITS, dynamic);
        if (index == 0)
            index = dynamic;
        if (kinds[field] != KIND_TIMED)
            return put_literal(out, LITERAL, LITERAL_BITS, index, names[field], value);
    }
    if (is_worth(field, value) && table_insert(table, field, value))
        return put_literal(out, INDEXING, INDEXING_BITS, index, names[field], value);
    return put_literal(out, LITERAL, LITERAL_BITS, index, names[field], value);
}

/* A header that we did not add comes from the library, in an answer of its own. */
static uint8_t *put_header(struct table *table, uint8_t *out, const h2o_header_t *header)
{
    if (header->name >= names && header->name < names + HPACK_FIELD_COUNT)
        return put_field(table, out, (enum hpack_field)(header->name - names), header->value);
    size_t index = 0;
    if (h2o_iovec_is_token(header->name))
        index = (size_t)H2O_STRUCT_FROM_MEMBER(const h2o_token_t, buf, header->name)->http2_static_table_name_index;
    return put_literal(out, LITERAL, LITERAL_BITS, index, *header->name, header->value);
}

static uint8_t *put_size(struct table *table, uint8_t *out, uint32_t bytes_max)
{
    if (bytes_max == table->bytes_max)
        return out;
    table_forget(table);
    table->bytes_max = bytes_max;
    return put_number(out, RESIZE, RESIZE_BITS, bytes_max);
}

/* RFC 7541, 4.2: of several sizes since the last block the smallest is said, too, since the client has evicted for it. */
static uint8_t *put_resize(struct table *table, uint8_t *out, uint32_t bytes_max)
{
    if (bytes_max > HPACK_TABLE_BYTES_MAX)
        bytes_max = HPACK_TABLE_BYTES_MAX;
    if (table->bytes_least < table->bytes_max && table->bytes_least < bytes_max)
        out = put_size(table, out, table->bytes_least);
    table->bytes_least = HPACK_TABLE_BYTES_MAX;
    return put_size(table, out, bytes_max);
}

void hpack_resized(h2o_hpack_header_table_t *header_table, uint32_t table_bytes_max)
{
    if (table_bytes_max >= HPACK_TABLE_BYTES_MAX)
        return;
    struct table *table = table_of(header_table);
    if (table_bytes_max < table->bytes_least)
        table->bytes_least = table_bytes_max;
}

uint8_t *hpack_encode(h2o_hpack_header_table_t *header_table, uint32_t table_bytes_max, const h2o_res_t *res,
                      h2o_iovec_t server, h2o_iovec_t date, size_t content_length, uint8_t *out)
{
    struct table *table = table_of(header_table);
    out = put_resize(table, out, table_bytes_max);
    out = put_status(out, res->status);
    if (server.len > 0)
        out = put_field(table, out, HPACK_SERVER, server);
    out = put_field(table, out, HPACK_DATE, date);
    for (size_t i = 0; i < res->headers.size; i++)
        out = put_header(table, out, &res->headers.entries[i]);
    return content_length == SIZE_MAX ? out : put_length(out, content_length);
}

/* ---- the library's part ------------------------------------------------------------------------------------------- */

void hpack_add(h2o_req_t *req, enum hpack_field field, const char *value, size_t bytes)
{
    h2o_headers_t *headers = &req->res.headers;
    if (headers->size == headers->capacity)
        h2o_vector_reserve(&req->pool, headers, headers->capacity == 0 ? 16 : headers->size + 1);
    headers->entries[headers->size++] = (h2o_header_t){&names[field], NULL, {(char *)(uintptr_t)value, bytes}};
}

/* Upper bound of a block: lengths and indices take at most 5 bytes each. */
static size_t block_bytes_max(const h2o_res_t *res, const h2o_iovec_t *server)
{
    size_t bytes = 128 + server->len; /* two sizes, status, length, server and date */
    for (size_t i = 0; i < res->headers.size; i++)
        bytes += 15 + res->headers.entries[i].name->len + res->headers.entries[i].value.len;
    return bytes;
}

void h2o_hpack_flatten_response(h2o_buffer_t **buf, h2o_hpack_header_table_t *header_table, uint32_t stream_id,
                                size_t max_frame_size, h2o_res_t *res, h2o_timestamp_t *ts,
                                const h2o_iovec_t *server_name, size_t content_length)
{
    const h2o_http2_conn_t *conn = H2O_STRUCT_FROM_MEMBER(h2o_http2_conn_t, _output_header_table, header_table);
    size_t bytes_max = block_bytes_max(res, server_name);
    kv_assert(bytes_max <= HPACK_BLOCK_BYTES_MAX && bytes_max <= max_frame_size && res->status >= 100 &&
              res->status <= 999);
    uint8_t *frame = (uint8_t *)h2o_buffer_reserve(buf, H2O_HTTP2_FRAME_HEADER_SIZE + bytes_max).base;
    uint8_t *block = frame + H2O_HTTP2_FRAME_HEADER_SIZE;
    h2o_iovec_t date = {ts->str->rfc1123, H2O_TIMESTR_RFC1123_LEN};
    uint8_t *end = hpack_encode(header_table, conn->peer_settings.header_table_size, res, *server_name, date,
                                content_length, block);
    h2o_http2_encode_frame_header(frame, (size_t)(end - block), H2O_HTTP2_FRAME_TYPE_HEADERS,
                                  H2O_HTTP2_FRAME_FLAG_END_HEADERS, (int32_t)stream_id);
    (*buf)->size += (size_t)(end - frame);
}
