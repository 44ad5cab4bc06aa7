/* router/value_stream.c -- see value_stream.h. */
#include "value_stream.h"

#include "answer.h"
#include "thread.h"

static void go_on(struct value_stream *stream);

static void let_go(struct value_stream *stream)
{
    if (stream->holding)
        backend_close(stream->exchange->thread->backend, &stream->hold);
    stream->holding = false;
}

void value_stream_end(struct value_stream *stream)
{
    let_go(stream);
    if (stream->reading)
        reader_free(&stream->reader);
    stream->reading = false;
    if (value_stream_borrows(stream))
        frames_let_go(stream->exchange->thread->frames, &stream->lent);
    stream->lent.first = stream->lent.end;
}

static void on_piece(void *arg, enum kv_err err, struct kv_slice bytes, struct arena_slot *slot)
{
    struct value_stream *stream = arg;
    uint64_t offset, asked;
    stream->exchange->call = NULL;
    reader_needs(&stream->reader, &offset, &asked);
    if (err == KV_OK && (bytes.bytes == 0 || bytes.bytes > asked))
        err = KV_CORRUPT;
    if (err == KV_OK)
        reader_feed(&stream->reader, bytes, slot);
    if (stream->taking) {
        reader_keep(&stream->reader);
        stream->ahead_err = err;
    } else if (err != KV_OK) {
        stream->on_failed(stream, err);
    } else {
        go_on(stream);
    }
}

static void fetch(struct value_stream *stream)
{
    uint64_t offset, bytes;
    reader_needs(&stream->reader, &offset, &bytes);
    stream->exchange->call =
        backend_fetch(stream->exchange->thread->backend, &stream->hold, offset, bytes, on_piece, stream);
}

/* What is at hand dies with its callback. */
static void fetch_next(struct value_stream *stream)
{
    reader_keep(&stream->reader);
    if (stream->holding)
        fetch(stream);
    else /* the first read said that everything came along, and yet bytes are missing */
        stream->on_failed(stream, KV_CORRUPT);
}

/* While the client takes a chunk the shard shall not idle. */
static void fetch_ahead(struct value_stream *stream)
{
    bool lacks = reader_lacks(&stream->reader);
    reader_keep(&stream->reader);
    stream->taking = true;
    stream->ahead_err = KV_OK;
    if (stream->holding && lacks)
        fetch(stream);
}

/* After the last chunk the stream may be gone. */
static void send_chunk(struct value_stream *stream, struct kv_slice chunk, bool last)
{
    if (!stream->started) {
        stream->started = true;
        stream->on_ready(stream);
    }
    answer_send(stream->exchange, chunk, last);
}

static void give(struct value_stream *stream, struct kv_slice chunk)
{
    const struct reader *reader = &stream->reader;
    bool last = reader_through(reader);
    if (!reader->compressed && reader->frame > 0)
        frames_offer(stream->exchange->thread->frames, &stream->hash, reader->frame - 1, reader->whole);
    if (last)
        let_go(stream);
    else
        fetch_ahead(stream);
    send_chunk(stream, chunk, last);
}

/* Sends the next chunk, or fetches what it needs. */
static void go_on(struct value_stream *stream)
{
    struct kv_slice chunk = {NULL, 0};
    switch (reader_next(&stream->reader, stream->exchange->thread->codec, &chunk)) {
    case READER_NEED:
        fetch_next(stream);
        break;
    case READER_CORRUPT:
        stream->on_failed(stream, KV_CORRUPT);
        break;
    default: /* an empty value is at its end at once */
        give(stream, chunk);
    }
}

/* ---- from memory -------------------------------------------------------------------------------------------------- */

bool value_stream_borrows(const struct value_stream *stream)
{
    return stream->lent.first < stream->lent.end;
}

/* After the last one the stream may be gone. */
static void lend_one(struct value_stream *stream)
{
    const struct frames_span *lent = &stream->lent;
    struct kv_slice whole = frames_peek(stream->exchange->thread->frames, &lent->hash, lent->first);
    struct kv_slice chunk = range_cut(stream->range, lent->first * KV_CONTENT_FRAME_BYTES, whole);
    send_chunk(stream, chunk, lent->first + 1 == lent->end);
}

static void lend_next(struct value_stream *stream)
{
    struct frames_span taken = stream->lent;
    taken.end = ++stream->lent.first;
    frames_let_go(stream->exchange->thread->frames, &taken);
    lend_one(stream);
}

bool value_stream_lend(struct value_stream *stream, struct range range)
{
    struct router_thread *thread = stream->exchange->thread;
    struct frames_span span = {stream->hash, range.first / KV_CONTENT_FRAME_BYTES,
                               codec_frame_count(range.first + range.bytes)};
    if (thread->frames == NULL)
        return false;
    bool held = frames_hold(thread->frames, &span);
    metrics_add(thread->metrics, held ? METRICS_CACHE_FRAME_HITS : METRICS_CACHE_FRAME_MISSES, span.end - span.first);
    if (!held)
        return false;
    let_go(stream);
    stream->lent = span;
    stream->range = range;
    lend_one(stream);
    return true;
}

/* ---- life --------------------------------------------------------------------------------------------------------- */

static void on_taken(h2o_generator_t *generator, h2o_req_t *req)
{
    struct value_stream *stream = H2O_STRUCT_FROM_MEMBER(struct value_stream, generator, generator);
    (void)req;
    http_unwatch(stream->exchange);
    stream->taking = false;
    if (value_stream_borrows(stream))
        lend_next(stream);
    else if (stream->ahead_err != KV_OK)
        stream->on_failed(stream, stream->ahead_err);
    else if (stream->exchange->call == NULL)
        go_on(stream); /* else on_piece does */
}

void value_stream_init(struct value_stream *stream, struct exchange *exchange, const struct backend_value *value,
                       void (*on_ready)(struct value_stream *stream),
                       void (*on_failed)(struct value_stream *stream, enum kv_err err))
{
    *stream = (struct value_stream){.exchange = exchange,
                                    .on_ready = on_ready,
                                    .on_failed = on_failed,
                                    .generator = {.proceed = on_taken},
                                    .hold = value->hold,
                                    .hash = value->row.hash,
                                    .holding = value->object.held};
}

void value_stream_run(struct value_stream *stream, const struct backend_value *value, struct range range,
                      bool compressed)
{
    reader_begin(&stream->reader, &value->object, range, compressed);
    reader_start(&stream->reader, value->object.bytes, value->slot);
    stream->reading = true;
    go_on(stream);
}
