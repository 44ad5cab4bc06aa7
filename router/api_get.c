/* router/api_get.c -- GET and HEAD /{key}: which answer it is.
 * Does:     answers from the cache when it can (cache.h); else reads the row with READ_BYTES of the content, decides conditions,
 *           range and encoding; value_stream.h brings the bytes. What came whole is kept.
 * Owns:     struct get, in the memory of the exchange.
 * Promises: headers leave only when the first frame has proved good; later damage breaks the answer off, so that no client
 *           takes a part for the whole.
 * Fails:    content gone before the first byte (overwritten meanwhile): read again, GET_TRIES_MAX times, then 503.
 * Tests:    http/test_http_values.c, http/test_http_large.c, http/test_http_disconnects.c. */
#include "accept.h"
#include "answer.h"
#include "api.h"
#include "cache.h"
#include "condition.h"
#include "digest.h"
#include "kv/log.h"
#include "thread.h"
#include "value_headers.h"
#include "value_stream.h"

enum {
    GET_TRIES_MAX = 5,
    READ_BYTES = BACKEND_MESSAGE_BYTES_MAX, /* come along with the row: the whole of what the cache takes */
};
_Static_assert(READ_BYTES > CACHE_CONTENT_BYTES_MAX + 12, "with its index");

struct get {
    struct exchange *exchange;
    struct condition condition;
    struct kv_row row; /* its content type lives in the exchange */
    struct kv_object object;
    struct guard_share share; /* of the memory that answers may take */
    struct value_text text;
    struct cache_entry *entry; /* what all of it is from, or NULL */
    bool keep;                 /* the cache may have what is read */
    bool lacking;              /* its frames were looked up, and not all were there */
    uint64_t since;            /* as cache.h wants it */
    bool compressed;
    unsigned tries;
    enum range_kind range_kind;
    struct range range;
    struct value_stream stream;
};

static void read_value(struct get *get);
static void read_instead(struct get *get);
static void on_room(struct guard_share *share);

static void on_gone(void *state)
{
    struct get *get = state;
    value_stream_end(&get->stream);
    h2o_guard_share_end(&get->share);
    if (get->entry != NULL)
        cache_let_go(get->entry);
}

/* ---- beginning ---------------------------------------------------------------------------------------------------- */

/* After a HEAD the exchange may be gone. */
static void begin(struct get *get)
{
    uint64_t bytes = get->compressed ? get->object.stored_bytes - codec_index_bytes(get->row.size) : get->range.bytes;
    value_headers(get->exchange, get->row.content_type, &get->text, get->compressed);
    if (get->range_kind == RANGE_PART)
        answer_header(get->exchange, "content-range",
                      answer_format(get->exchange, "bytes %lu-%lu/%lu", get->range.first,
                                    get->range.first + get->range.bytes - 1, get->row.size));
    answer_begin(get->exchange, get->range_kind == RANGE_PART ? 206 : 200, bytes, &get->stream.generator);
}

static void on_ready(struct value_stream *stream)
{
    struct get *get = H2O_STRUCT_FROM_MEMBER(struct get, stream, stream);
    if (value_stream_borrows(stream))
        h2o_guard_share_end(&get->share);
    begin(get);
}

/* ---- what may go wrong -------------------------------------------------------------------------------------------- */

static void report_damage(struct get *get)
{
    struct exchange *exchange = get->exchange;
    char hex[DIGEST_HEX_BYTES];
    metrics_add(exchange->thread->metrics, METRICS_CHECKSUM_FAILURES, 1);
    digest_hex(&get->row.hash, hex);
    if (get->stream.reading)
        kv_log_request(KV_LOG_ERROR, exchange->request_id, "damaged content %.64s at frame %lu", hex,
                       get->stream.reader.frame);
    else
        kv_log_request(KV_LOG_ERROR, exchange->request_id, "damaged row or content of a key");
}

static void fail(struct get *get, enum kv_err err)
{
    struct exchange *exchange = get->exchange;
    if (err == KV_CORRUPT)
        report_damage(get);
    bool started = get->stream.started;
    value_stream_end(&get->stream);
    if (started)
        answer_break(exchange);
    else if (err == KV_STALE && get->tries < GET_TRIES_MAX)
        read_value(get);
    else
        answer_failure(exchange, err == KV_STALE ? KV_UNAVAILABLE : err);
}

static void on_failed(struct value_stream *stream, enum kv_err err)
{
    fail(H2O_STRUCT_FROM_MEMBER(struct get, stream, stream), err);
}

/* ---- decisions ---------------------------------------------------------------------------------------------------- */

/* Of these the cache has no bytes. */
static bool is_large(const struct kv_object *object)
{
    return object->size > CACHE_CONTENT_BYTES_MAX;
}

/* If-Range: the range counts only if the client's copy is of this content, as it is (RFC 9110, 13.1.5). */
static bool range_applies(struct get *get)
{
    size_t count;
    struct kv_slice value = http_header(get->exchange, H2O_TOKEN_IF_RANGE, &count);
    struct etag tag;
    uint64_t date_s;
    char own[ETAG_BYTES_MAX];
    if (count == 0)
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
        value_stream_end(&get->stream);
        answer_failure(exchange, err);
    } else if (err == KV_END) {
        value_stream_end(&get->stream);
        value_validators(exchange, &get->text, get->compressed);
        answer_empty(exchange, 304);
    } else if (get->range_kind == RANGE_UNSATISFIABLE) {
        value_stream_end(&get->stream);
        answer_header(exchange, "content-range", answer_format(exchange, "bytes */%lu", get->row.size));
        answer_error(exchange, 416, "range_not_satisfiable", "The range lies outside of the value's %lu bytes.",
                     get->row.size);
    } else if (exchange->method == HTTP_HEAD) {
        value_stream_end(&get->stream);
        begin(get);
    } else {
        return false;
    }
    return true;
}

/* Small contents are in memory as a whole until they are taken; of large ones a chunk, and what the next one is made from. */
static size_t memory_needed(const struct get *get)
{
    const size_t max = 3 * KV_CONTENT_FRAME_BYTES;
    return get->range_kind != RANGE_UNSATISFIABLE && get->range.bytes < max ? (size_t)get->range.bytes : max;
}

/* False: what came is forgotten, and read again when there is room for as much as it turned out to be. */
static bool has_room(struct get *get)
{
    size_t bytes = get->exchange->method == HTTP_HEAD ? 0 : memory_needed(get);
    if (h2o_guard_share_change(&get->share, bytes, on_room))
        return true;
    value_stream_end(&get->stream);
    return false;
}

/* All that is asked for lies in memory: it goes out from there. The exchange may be gone. */
static bool lend(struct get *get)
{
    if (get->compressed || get->lacking || !is_large(&get->object))
        return false;
    get->lacking = true; /* else the exchange is gone, and nobody looks */
    return value_stream_lend(&get->stream, get->range);
}

/* Answers with this value, whose bytes at hand live until the call returns, or, from the cache, until the exchange ends. */
static void serve(struct get *get, const struct backend_value *value)
{
    get->row = value->row;
    get->row.content_type = answer_copy(get->exchange, value->row.content_type);
    get->object = value->object;
    get->object.bytes = kv_slice(NULL, 0);
    value_stream_init(&get->stream, get->exchange, value, on_ready, on_failed);
    if (value->object.size != value->row.size || value->object.stored_bytes < codec_index_bytes(value->row.size)) {
        fail(get, KV_CORRUPT);
        return;
    }
    value_text_write(&get->row, get->object.refs, &get->text);
    choose_representation(get);
    if (!has_room(get))
        return;
    struct router_thread *thread = get->exchange->thread;
    bool has_row_only = get->entry != NULL && is_large(&get->object);
    if (answer_without_content(get) || lend(get))
        metrics_add(thread->metrics, METRICS_CACHE_HITS, has_row_only);
    else if (has_row_only)
        read_instead(get);
    else
        value_stream_run(&get->stream, value, get->range, get->compressed);
}

/* ---- the cache ---------------------------------------------------------------------------------------------------- */

/* Nothing in the request chooses among representations or asks for conditions: the whole value goes out as it is. */
static bool is_plain(const struct exchange *exchange)
{
    const h2o_headers_t *headers = &exchange->req->headers;
    if (exchange->method != HTTP_GET)
        return false;
    for (size_t i = 0; i < headers->size; i++) {
        const h2o_iovec_t *name = headers->entries[i].name;
        if (name == &H2O_TOKEN_RANGE->buf || name == &H2O_TOKEN_IF_RANGE->buf || name == &H2O_TOKEN_IF_MATCH->buf ||
            name == &H2O_TOKEN_IF_NONE_MATCH->buf || name == &H2O_TOKEN_IF_MODIFIED_SINCE->buf ||
            name == &H2O_TOKEN_IF_UNMODIFIED_SINCE->buf || name == &H2O_TOKEN_ACCEPT_ENCODING->buf)
            return false;
    }
    return true;
}

/* The exchange holds the entry already: that takes no memory of the request's own. */
static void serve_plain(struct exchange *exchange, const struct cache_entry *entry)
{
    value_headers(exchange, entry->row.content_type, &entry->text, false);
    answer_borrowed(exchange, 200, entry->content);
}

static void serve_entry(struct get *get)
{
    if (is_plain(get->exchange) && !is_large(&get->entry->object))
        serve_plain(get->exchange, get->entry);
    else
        serve(get, &(struct backend_value){.row = get->entry->row, .object = get->entry->object});
}

static void keep_row(struct get *get, const struct backend_value *value)
{
    struct cache *cache = get->exchange->thread->cache;
    struct kv_object object = value->object;
    object.bytes = kv_slice(NULL, 0);
    object.held = false;
    if (cache_wants(cache, &object))
        cache_put(cache, get->since, get->exchange->key, &value->row, &object, kv_slice(NULL, 0));
}

/* Offers the cache what was read, once the checksums have held, and takes the entry. False: there is none with the content. */
static bool keep(struct get *get, const struct backend_value *value)
{
    struct router_thread *thread = get->exchange->thread;
    const struct kv_object *object = &value->object;
    if (!get->keep || object->size != value->row.size)
        return false;
    if (is_large(object)) {
        keep_row(get, value);
        return false;
    }
    if (!cache_wants(thread->cache, object))
        return false;
    struct kv_buf decoded = {0};
    struct kv_slice content;
    enum kv_err err = codec_peek(thread->codec, object->bytes, object->size, &decoded, &content);
    if (err == KV_OK) { /* else whoever serves it reports it */
        cache_put(thread->cache, get->since, get->exchange->key, &value->row, object, content);
        get->entry = cache_get(thread->cache, get->exchange->key);
    }
    kv_buf_free(&decoded);
    if (get->entry == NULL)
        return false;
    h2o_guard_share_end(&get->share);
    return true;
}

static void on_value(void *arg, enum kv_err err, const struct backend_value *value)
{
    struct get *get = arg;
    get->exchange->call = NULL;
    if (err != KV_OK)
        fail(get, err);
    else if (keep(get, value))
        serve_entry(get);
    else
        serve(get, value);
}

/* With the row: of a range what the index needs, and of small contents the whole. */
static uint64_t bytes_wanted(struct exchange *exchange)
{
    bool has_range = http_header(exchange, H2O_TOKEN_RANGE, NULL).bytes != 0;
    return exchange->method == HTTP_HEAD ? 0 : has_range ? READ_BYTES : KV_SLOT_BYTES_MAX;
}

static void read_value(struct get *get)
{
    struct router_thread *thread = get->exchange->thread;
    get->tries++;
    get->keep = backend_may_keep(thread->backend);
    get->since = cache_now(thread->cache);
    get->exchange->call = backend_read(thread->backend, get->exchange->key, bytes_wanted(get->exchange), on_value, get);
}

/* The cache has its row, and not all that is asked for of its content is in memory. */
static void read_instead(struct get *get)
{
    value_stream_end(&get->stream);
    cache_let_go(get->entry);
    get->entry = NULL;
    metrics_add(get->exchange->thread->metrics, METRICS_CACHE_MISSES, 1);
    read_value(get);
}

static void on_room(struct guard_share *share)
{
    struct get *get = H2O_STRUCT_FROM_MEMBER(struct get, share, share);
    if (get->entry != NULL)
        serve_entry(get);
    else
        read_value(get);
}

static void on_entry_gone(void *state)
{
    cache_let_go(state);
}

/* The short way through most requests. False: not this one; `out` is the entry, if there is one. */
static bool answer_from_cache(struct exchange *exchange, struct cache_entry **out)
{
    struct router_thread *thread = exchange->thread;
    struct cache_entry *entry = cache_get(thread->cache, exchange->key);
    bool has_row_only = entry != NULL && is_large(&entry->object); /* to be seen whether that is enough */
    metrics_op(thread->metrics, METRICS_OP_GET, 1);
    if (thread->cache != NULL && !has_row_only)
        metrics_add(thread->metrics, entry != NULL ? METRICS_CACHE_HITS : METRICS_CACHE_MISSES, 1);
    *out = entry;
    if (entry == NULL || has_row_only || !is_plain(exchange))
        return false;
    exchange->state = entry;
    exchange->on_gone = on_entry_gone;
    serve_plain(exchange, entry);
    return true;
}

void api_get_now(struct exchange *exchange)
{
    struct cache_entry *entry;
    if (answer_from_cache(exchange, &entry))
        return;
    struct get *get = http_alloc(exchange, sizeof(*get));
    const char *why;
    *get = (struct get){.exchange = exchange, .entry = entry};
    exchange->state = get;
    exchange->on_gone = on_gone;
    if (condition_read(exchange, &get->condition, &why) != KV_OK)
        answer_error(exchange, 400, "invalid_request", "%s", why);
    else
        h2o_guard_share_take(&get->share, exchange->req, exchange->method == HTTP_HEAD ? 0 : READ_BYTES, on_room);
}
