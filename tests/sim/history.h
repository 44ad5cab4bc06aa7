/* tests/sim/history.h -- what clients asked, what they were told and when: the evidence.
 * Stamps are counts of sim.h: `invoked` < `answered`, across all clients. */
#ifndef SIM_HISTORY_H
#define SIM_HISTORY_H

#include "backend.h"

#define SIM_KEYS_MAX 8
#define SIM_CONTENTS_MAX 10
#define SIM_BATCH_MAX 8
#define SIM_LIST_MAX 16

enum op_kind { OP_READ, OP_TRANSACT, OP_LIST };
/* UNKNOWN: the client left or its router died: it never heard. */
enum op_outcome { OP_UNDER_WAY, OP_ANSWERED, OP_UNKNOWN };

struct spec {
    enum backend_op_kind kind;
    unsigned key;
    unsigned content; /* PUT */
    enum backend_match match;
    unsigned match_content; /* BACKEND_MATCH_HASH */
};

/* A row as a client sees it. `tag` names the very PUT that wrote it (it travels as the content type); 0 = absent. */
struct seen {
    bool found; /* PUT, DELETE: before the operation */
    uint32_t tag;
    unsigned content;
    uint64_t refs;
};

struct op {
    enum op_kind kind;
    unsigned client;
    size_t count;
    struct spec specs[SIM_BATCH_MAX];
    struct seen seen[SIM_BATCH_MAX];
    uint64_t invoked, answered;
    enum op_outcome outcome;
    enum kv_err err;
    size_t index; /* KV_PRECONDITION: the operation that refused */
    bool quiet;   /* nothing else was under way: reference counts and totals are exact */
    /* LIST */
    unsigned after; /* key index + 1; 0 = from the beginning */
    bool inclusive;
    size_t limit;
    size_t listed_count;
    struct seen listed[SIM_LIST_MAX];
    unsigned listed_keys[SIM_LIST_MAX];
    char listed_text[SIM_LIST_MAX][8];
    char prefix[4]; /* these three in quiet listings only */
    bool delimited;
    uint64_t offset; /* of a READ: where its bytes go on */
    bool more;
    uint64_t total;
    /* the way it goes */
    struct backend_call *call;
    struct router *router;
    struct bundle *bundle;
    unsigned released;
    bool held; /* READ: the shard keeps the object for us */
    struct backend_hold hold;
    uint64_t stored_bytes;
    bool keep;      /* READ: the cache may have the answer, */
    uint64_t since; /* read since then */
    bool cached;    /* or had it already */
    bool early;     /* answered by FAULT_EARLY_ACK: the true answer is not listened to */
};

/* Which operation a transaction was begun for. */
struct begun {
    uint64_t txn_id;
    size_t op;
    uint64_t at_us;
};

struct history {
    struct op *ops;
    size_t count, capacity;
    struct begun *begun;
    size_t begun_count, begun_capacity;
};

static inline uint32_t history_tag(size_t op, size_t spec)
{
    return (uint32_t)(op * SIM_BATCH_MAX + spec + 1);
}

#endif
