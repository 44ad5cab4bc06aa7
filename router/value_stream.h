/* router/value_stream.h -- the bytes of one value on their way to a client.
 * Does:     walks the stored form (reader.h), fetches from the shard that holds the object what did not come along, and gives
 *           libh2o one chunk (about 256 KiB) at a time; while the client takes it, a piece of the next one is fetched. Frames
 *           of large contents that are all in memory (frames.h) are given as they lie there, and nothing is fetched.
 * Owns:     the reader, and the hold on the object, which is closed when all was read or the stream ends; a hold on frames.
 * Promises: on_ready runs once, when the first chunk has proved good: it begins the answer with `generator`. A client that does
 *           not read keeps a chunk and a piece waiting, and nothing open in the shard but a number: no transaction.
 * Fails:    on_failed runs at most once, while no chunk is out; `started` says whether on_ready has run. It ends the stream.
 * Tests:    http/test_http_large.c, http/test_http_disconnects.c, system/test_large_slow.c. */
#ifndef KV_ROUTER_VALUE_STREAM_H
#define KV_ROUTER_VALUE_STREAM_H

#include "backend.h"
#include "frames.h"
#include "http.h"
#include "reader.h"

struct value_stream {
    struct exchange *exchange;
    void (*on_ready)(struct value_stream *stream);
    void (*on_failed)(struct value_stream *stream, enum kv_err err);
    h2o_generator_t generator;
    struct backend_hold hold;
    struct reader reader;
    struct kv_hash hash;
    struct range range;
    struct frames_span lent; /* those that did not go out yet, the one that is out in front */
    bool holding;            /* backend_close is due */
    bool reading;            /* `reader` is to be freed */
    bool started;            /* on_ready has run */
    bool taking;             /* the client has a chunk; what comes next is fetched meanwhile */
    enum kv_err ahead_err;   /* what came of that */
};

/* Takes over the value's hold, if it has one. */
void value_stream_init(struct value_stream *stream, struct exchange *exchange, const struct backend_value *value,
                       void (*on_ready)(struct value_stream *stream),
                       void (*on_failed)(struct value_stream *stream, enum kv_err err));
/* The exchange, and the stream with it, may be gone afterwards. `value->object.bytes` are borrowed until the call
 * returns, or, without a hold, until the stream ends; its slot is taken if it can be. */
void value_stream_run(struct value_stream *stream, const struct backend_value *value, struct range range,
                      bool compressed);
/* The same for a part, or all, of a content above 64 KiB, from memory alone; false: not all of it is there. */
bool value_stream_lend(struct value_stream *stream, struct range range);
/* What goes out is memory that is there anyhow. From on_ready on. */
bool value_stream_borrows(const struct value_stream *stream);
/* Zero-initialised and ended ones are accepted. */
void value_stream_end(struct value_stream *stream);

#endif
