/* router/api_get.c -- GET and HEAD /{key}.
 * Does:     reads the row and up to KV_INLINE_BYTES_MAX of the content, decides conditions, range and encoding, then streams: one
 *           chunk (about 256 KiB) is out at a time, the next piece is fetched when the client has taken what was at hand.
 * Owns:     struct get, in the memory of the exchange; a hold on the object, closed when through or when the client leaves.
 * Promises: headers leave only when the first frame has proved good; later damage breaks the answer off, so that no client
 *           takes a part for the whole.
 * Fails:    content gone before the first byte (overwritten meanwhile): read again, GET_TRIES_MAX times, then 503.
 * Tests:    http/test_http_values.c, http/test_http_large.c, http/test_http_disconnects.c. */
#include <time.h>

#include "accept.h"
#include "answer.h"
#include "api.h"
#include "condition.h"
#include "digest.h"
#include "kv/log.h"
#include "reader.h"
#include "thread.h"

enum { GET_TRIES_MAX = 5 };

struct get {
    struct exchange *exchange;
    h2o_generator_t generator;
    struct condition condition;
    struct kv_row row; /* its content type lives in the exchange */
    struct kv_object object;
    struct guard_share share; /* of the memory that answers may take */
    struct backend_hold hold;
    bool holding; /* backend_close is due */
    bool reading; /* `reader` is to be freed */
    bool started; /* headers are out */
    bool compressed;
    unsigned tries;
    enum range_kind range_kind;
    struct range range;
    struct reader reader;
    struct kv_buf chunk; /* what the client is taking */
};

static void read_value(struct get *get);
static void on_room(struct guard_share *share);
static void go_on(struct get *get);

static void let_go(struct get *get)
{
    if (get->holding)
        backend_close(get->exchange->thread->backend, &get->hold);
    get->holding = false;
    if (get->reading)
        reader_free(&get->reader);
    get->reading = false;
}

static void on_gone(void *state)
{
    struct get *get = state;
    let_go(get);
    kv_buf_free(&get->chunk);
    h2o_guard_share_end(&get->share);
}

/* ---- headers ------------------------------------------------------------------------------------------------------ */

/* Values written in the same second come one after the other: the text of the last one is kept per thread. */
static void add_last_modified(struct exchange *exchange, uint64_t created_s)
{
    static __thread uint64_t written_s = UINT64_MAX;
    static __thread char text[H2O_TIMESTR_RFC1123_LEN + 1];
    if (written_s != created_s) {
        time_t seconds = (time_t)created_s;
        struct tm tm;
        h2o_time2str_rfc1123(text, gmtime_r(&seconds, &tm));
        written_s = created_s;
    }
    answer_field(exchange, HPACK_LAST_MODIFIED, answer_copy(exchange, kv_slice(text, H2O_TIMESTR_RFC1123_LEN)));
}

/* What tells caches which representation this is: on 200, 206 and 304. */
static void add_validators(struct get *get)
{
    char tag[ETAG_BYTES_MAX];
    struct kv_slice written = kv_slice(tag, etag_write(&get->row.hash, get->compressed, tag));
    answer_field(get->exchange, HPACK_ETAG, answer_copy(get->exchange, written));
    answer_field(get->exchange, HPACK_VARY, kv_slice_text("Accept-Encoding"));
    add_last_modified(get->exchange, get->row.created_s);
}

static void add_headers(struct get *get)
{
    struct exchange *exchange = get->exchange;
    char hex[DIGEST_HEX_BYTES];
    digest_hex(&get->row.hash, hex);
    struct kv_slice digits = answer_copy(exchange, kv_slice(hex, sizeof(hex)));
    answer_field(exchange, HPACK_CONTENT_TYPE, get->row.content_type);
    add_validators(get);
    answer_field(exchange, HPACK_ACCEPT_RANGES, kv_slice_text("bytes"));
    answer_field(exchange, HPACK_X_CONTENT_SHA256, digits);
    answer_field(exchange, HPACK_X_HASH, digits);
    answer_field(exchange, HPACK_X_HASH_ALGORITHM, kv_slice_text("sha256"));
    answer_field(exchange, HPACK_X_REFS, answer_number(exchange, get->object.refs));
    answer_field(exchange, HPACK_X_CREATED_AT, answer_number(exchange, get->row.created_s));
    if (get->compressed)
        answer_field(exchange, HPACK_CONTENT_ENCODING, kv_slice_text("zstd"));
    if (get->range_kind == RANGE_PART)
        answer_header(exchange, "content-range",
                      answer_format(exchange, "bytes %lu-%lu/%lu", get->range.first,
                                    get->range.first + get->range.bytes - 1, get->row.size));
}

/* True: it was a HEAD, and the exchange may be gone. */
static bool begin(struct get *get)
{
    uint64_t bytes = get->compressed ? get->object.stored_bytes - codec_index_bytes(get->row.size) : get->range.bytes;
    get->started = true;
    add_headers(get);
    return answer_begin(get->exchange, get->range_kind == RANGE_PART ? 206 : 200, bytes, &get->generator);
}

/* ---- the body ----------------------------------------------------------------------------------------------------- */

static void report_damage(struct get *get)
{
    struct exchange *exchange = get->exchange;
    char hex[DIGEST_HEX_BYTES];
    exchange->thread->frames_corrupt++;
    metrics_add(exchange->thread->metrics, METRICS_CHECKSUM_FAILURES, 1);
    digest_hex(&get->row.hash, hex);
    if (get->reading)
        kv_log_request(KV_LOG_ERROR, exchange->request_id, "damaged content %.64s at frame %lu", hex,
                       get->reader.frame);
    else
        kv_log_request(KV_LOG_ERROR, exchange->request_id, "damaged row or content of a key");
}

static void fail(struct get *get, enum kv_err err)
{
    struct exchange *exchange = get->exchange;
    if (err == KV_CORRUPT)
        report_damage(get);
    let_go(get);
    if (get->started)
        answer_break(exchange);
    else if (err == KV_STALE && get->tries < GET_TRIES_MAX)
        read_value(get);
    else
        answer_failure(exchange, err == KV_STALE ? KV_UNAVAILABLE : err);
}

static void on_piece(void *arg, enum kv_err err, struct kv_slice bytes)
{
    struct get *get = arg;
    uint64_t offset, asked;
    get->exchange->call = NULL;
    reader_needs(&get->reader, &offset, &asked);
    if (err == KV_OK && (bytes.bytes == 0 || bytes.bytes > asked))
        err = KV_CORRUPT;
    if (err != KV_OK) {
        fail(get, err);
        return;
    }
    reader_feed(&get->reader, bytes);
    go_on(get);
}

static void fetch(struct get *get)
{
    uint64_t offset, bytes;
    reader_needs(&get->reader, &offset, &bytes);
    if (!get->holding) { /* the first read said that everything came along, and yet bytes are missing */
        fail(get, KV_CORRUPT);
        return;
    }
    get->exchange->call = backend_fetch(get->exchange->thread->backend, &get->hold, offset, bytes, on_piece, get);
}

/* Sends the next chunk, or fetches what it needs. */
static void go_on(struct get *get)
{
    get->chunk.bytes = 0;
    enum reader_step step = reader_next(&get->reader, get->exchange->thread->codec, &get->chunk);
    if (step == READER_NEED) {
        reader_keep(&get->reader);
        fetch(get);
        return;
    }
    if (step == READER_CORRUPT) {
        fail(get, KV_CORRUPT);
        return;
    }
    bool last = reader_through(&get->reader);
    if (last)
        let_go(get);
    else
        reader_keep(&get->reader); /* what the first read brought dies with its callback */
    if (!get->started)
        begin(get);
    answer_send(get->exchange, kv_buf_peek(&get->chunk), last); /* after the last one `get` may be gone */
}

static void on_taken(h2o_generator_t *generator, h2o_req_t *req)
{
    struct get *get = H2O_STRUCT_FROM_MEMBER(struct get, generator, generator);
    (void)req;
    http_unwatch(get->exchange);
    go_on(get);
}

/* ---- decisions ---------------------------------------------------------------------------------------------------- */

/* If-Range: the range counts only if the client's copy is of this content, as it is (RFC 9110, 13.1.5). */
static bool range_applies(struct get *get)
{
    bool found;
    struct kv_slice value = http_header(get->exchange, H2O_TOKEN_IF_RANGE, &found);
    struct etag tag;
    uint64_t date_s;
    char own[ETAG_BYTES_MAX];
    if (!found)
        return true;
    if (condition_date(value, &date_s) == KV_OK)
        return date_s == get->row.created_s;
    if (etag_next(&value, &tag) != KV_OK || tag.weak)
        return false;
    size_t bytes = etag_write(&get->row.hash, false, own);
    return kv_slice_equal(tag.opaque, kv_slice(own + 1, bytes - 2));
}

static void choose_representation(struct get *get)
{
    struct exchange *exchange = get->exchange;
    struct kv_slice range = http_header(exchange, H2O_TOKEN_RANGE, NULL);
    get->range_kind = RANGE_WHOLE;
    if (exchange->method == HTTP_GET && range.bytes != 0 && range_applies(get))
        get->range_kind = range_parse(range, get->row.size, &get->range);
    if (get->range_kind == RANGE_WHOLE)
        get->range = (struct range){0, get->row.size};
    get->compressed = get->range_kind == RANGE_WHOLE && get->object.codec == KV_CODEC_ZSTD &&
                      accept_prefers_zstd(http_header(exchange, H2O_TOKEN_ACCEPT_ENCODING, NULL));
}

/* Answers what needs no content; false: it does. */
static bool answer_without_content(struct get *get)
{
    struct exchange *exchange = get->exchange;
    enum kv_err err = condition_check_read(&get->condition, &get->row);
    if (err == KV_PRECONDITION) {
        let_go(get);
        answer_failure(exchange, err);
    } else if (err == KV_END) {
        let_go(get);
        add_validators(get);
        answer_empty(exchange, 304);
    } else if (get->range_kind == RANGE_UNSATISFIABLE) {
        let_go(get);
        answer_header(exchange, "content-range", answer_format(exchange, "bytes */%lu", get->row.size));
        answer_error(exchange, 416, "range_not_satisfiable", "The range lies outside of the value's %lu bytes.",
                     get->row.size);
    } else if (exchange->method == HTTP_HEAD) {
        let_go(get);
        begin(get);
    } else {
        return false;
    }
    return true;
}

/* Small contents are in memory as a whole until they are taken; of large ones a chunk, and what it is made from. */
static size_t memory_needed(const struct get *get)
{
    const size_t max = 2 * KV_CONTENT_FRAME_BYTES;
    return get->range_kind != RANGE_UNSATISFIABLE && get->range.bytes < max ? (size_t)get->range.bytes : max;
}

/* False: what came is forgotten, and read again when there is room for as much as it turned out to be. */
static bool has_room(struct get *get)
{
    size_t bytes = get->exchange->method == HTTP_HEAD ? 0 : memory_needed(get);
    if (h2o_guard_share_change(&get->share, bytes, on_room))
        return true;
    let_go(get);
    return false;
}

static void on_value(void *arg, enum kv_err err, const struct backend_value *value)
{
    struct get *get = arg;
    get->exchange->call = NULL;
    if (err != KV_OK) {
        fail(get, err);
        return;
    }
    get->row = value->row;
    get->row.content_type = answer_copy(get->exchange, value->row.content_type);
    get->object = value->object;
    get->object.bytes = kv_slice(NULL, 0);
    get->hold = value->hold;
    get->holding = value->object.held;
    if (value->object.size != value->row.size || value->object.stored_bytes < codec_index_bytes(value->row.size)) {
        fail(get, KV_CORRUPT);
        return;
    }
    choose_representation(get);
    if (!has_room(get))
        return;
    if (answer_without_content(get))
        return;
    reader_begin(&get->reader, &get->object, get->range, get->compressed);
    reader_start(&get->reader, value->object.bytes);
    get->reading = true;
    go_on(get);
}

static void on_room(struct guard_share *share)
{
    read_value(H2O_STRUCT_FROM_MEMBER(struct get, share, share));
}

static void read_value(struct get *get)
{
    uint64_t bytes = get->exchange->method == HTTP_HEAD ? 0 : KV_INLINE_BYTES_MAX;
    get->tries++;
    get->exchange->call = backend_read(get->exchange->thread->backend, get->exchange->key, bytes, on_value, get);
}

void api_get(struct exchange *exchange)
{
    struct get *get = http_alloc(exchange, sizeof(*get));
    const char *why;
    *get = (struct get){.exchange = exchange, .generator = {.proceed = on_taken}};
    if (condition_read(exchange, &get->condition, &why) != KV_OK) {
        answer_error(exchange, 400, "invalid_request", "%s", why);
        return;
    }
    exchange->state = get;
    exchange->on_gone = on_gone;
    h2o_guard_share_take(&get->share, exchange->req, exchange->method == HTTP_HEAD ? 0 : KV_INLINE_BYTES_MAX, on_room);
}
