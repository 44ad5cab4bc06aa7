/* include/kv/err.h -- one enumeration of outcomes for every process and every message.
 * The numbers travel in message bodies: append, never renumber (or raise KV_WIRE_VERSION).
 * Tests: unit/base/test_buf.c. */
#ifndef KV_ERR_H
#define KV_ERR_H

#define KV_ERR_TABLE(X)                                                                                                \
    X(OK, 0, "ok")                                                                                                     \
    X(NOT_FOUND, 1, "not found")     /* an answer, not a failure */                                                    \
    X(INVALID, 2, "malformed input") /* the peer or the client broke the format */                                     \
    X(TOO_LARGE, 3, "limit exceeded")                                                                                  \
    X(PRECONDITION, 4, "precondition failed")                                                                          \
    X(CONFLICT, 5, "row changed meanwhile") /* a prepare met another row version or lock */                            \
    X(STALE, 6, "content no longer held")   /* referenced or staged content is gone: send it */                        \
    X(OVERLOADED, 7, "queue full")          /* refused, surely not done */                                             \
    X(NO_SPACE, 8, "disk or map full")      /* refused, surely not done */                                             \
    X(UNAVAILABLE, 9, "shard unavailable")  /* refused, surely not done */                                             \
    X(UNCERTAIN, 10, "outcome unknown")     /* asked, not answered */                                                  \
    X(CORRUPT, 11, "checksum mismatch")                                                                                \
    X(IO, 12, "i/o error")                                                                                             \
    X(FENCED, 13, "newer epoch seen")                                                                                  \
    X(END, 14, "end of data")                                                                                          \
    X(CANCELLED, 15, "cancelled")

enum kv_err {
#define X(name, number, text) KV_##name = number,
    KV_ERR_TABLE(X)
#undef X
        KV_ERR_COUNT
};

/* A few words for people, never NULL, static storage; "unknown error" for a number out of range. */
const char *kv_err_text(enum kv_err err);

#endif
