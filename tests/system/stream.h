/* tests/system/stream.h -- large values that exist nowhere as a whole: made while they are sent, compared while they come back.
 * A stream is a kind, a seed and a length; the same three are the same bytes, at any offset. One call is one transfer on a connection
 * of its own; calls may run in several threads at once. Nothing here fails a test. */
#ifndef KV_SYSTEM_STREAM_H
#define KV_SYSTEM_STREAM_H

#include "client.h"

enum stream_kind { STREAM_RANDOM, STREAM_TEXT };

struct stream {
    enum stream_kind kind;
    uint64_t seed;
    uint64_t bytes;
};

struct transfer {
    long status; /* 0: no answer; `problem` says why */
    char problem[CURL_ERROR_SIZE];
    uint64_t bytes;    /* of the body that came */
    bool exact;        /* it was the expected part of the stream */
    bool deduplicated; /* X-Deduplicated: true */
    double seconds;
    char text[256]; /* the beginning of a body that was not compared */
};

/* Bytes [offset, offset + count) of the stream. */
void stream_fill(const struct stream *stream, uint64_t offset, uint8_t *out, size_t count);
struct transfer stream_put(const struct server *server, enum http http, const char *target,
                           const struct stream *stream);
/* The whole, or with `count` > 0 the range; status 200 or 206. */
struct transfer stream_get(const struct server *server, enum http http, const char *target, const struct stream *stream,
                           uint64_t offset, uint64_t count);

#endif
