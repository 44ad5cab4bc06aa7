/* shard/intents.h -- open transactions of this shard and the ids of those done: what a vote and a decision leave behind.
 * Does:     remembers prepared transactions (their operations without contents) until they are decided, in the order of their
 *           votes, and the ids of decided ones until the router says that everybody knows (FORGET).
 * Owns:     copies of the operations; messages that wait for a decision ("parked"). `bytes` says how much memory all but
 *           the parked take: beyond INTENTS_BYTES_MAX the core votes no. What a REPORT says of them is a small part of it.
 * Promises: intents_encode and intents_decode carry all of it through a restart, parked messages left out.
 * Tests:    unit/shard/test_core.c, sim/. */
#ifndef KV_SHARD_INTENTS_H
#define KV_SHARD_INTENTS_H

#include <uthash.h>

#include "kv/buf.h"
#include "kv/msg.h"
#include "wire/messages.h"

#ifndef INTENTS_BYTES_MAX                     /* the simulation has less */
#define INTENTS_BYTES_MAX ((size_t)128 << 20) /* then KV_OVERLOADED */
#endif

/* A request that waits: for the decision of an intent, or for room. */
struct parked {
    uint64_t session;
    uint64_t request_id;
    enum kv_msg type;
    uint64_t sequence_max; /* it waits only for intents that were there when it came */
    uint64_t since_ms;
    bool passed_by; /* a whole generation was applied, and there was still no room for it */
    struct kv_buf body;
    struct parked *prev, *next;
};

struct intent {
    uint64_t txn_id;
    kv_shard_set participants;
    uint64_t position;       /* of the PREPARE record */
    uint64_t sequence;       /* order of arrival */
    struct kv_ops ops;       /* without contents; they and all that they point to lie behind this, in one block */
    struct kv_slice existed; /* a byte per ADD, in order */
    size_t bytes;            /* of the block */
    struct parked *parked;   /* utlist */
    UT_hash_handle hh;       /* iterates in order of arrival */
};

struct done {
    uint64_t txn_id;
    bool open; /* while a FORGET is looked at: it must be kept */
    UT_hash_handle hh;
    size_t existed_bytes;
    uint8_t existed[]; /* of an APPLY, whose vote may be asked for again */
};

struct intents {
    struct intent *open;
    struct done *done;
    uint64_t txn_id_last; /* the largest of all that were ever in one of them */
    uint64_t sequence_last;
    size_t bytes;
};

struct intent *intents_find(const struct intents *intents, uint64_t txn_id);
struct done *intents_find_done(const struct intents *intents, uint64_t txn_id);
/* Copies what it needs. */
struct intent *intents_add(struct intents *intents, const struct kv_msg_prepare *prepare, uint64_t position,
                           struct kv_slice existed);
/* Takes the intent out and gives its parked messages to the caller. */
struct parked *intents_remove(struct intents *intents, struct intent *intent);
/* Remembers the id, and what an APPLY found. */
void intents_add_done(struct intents *intents, uint64_t txn_id, struct kv_slice existed);
/* How many done ids are from `from_txn_id` up to `below_txn_id` and not among `open` (numbers); those that are go to `kept`, encoded. */
size_t intents_forgettable(struct intents *intents, uint64_t from_txn_id, uint64_t below_txn_id, struct kv_list open,
                           struct kv_buf *kept, size_t *kept_count);
/* Forgets them. */
void intents_forget(struct intents *intents, uint64_t from_txn_id, uint64_t below_txn_id, struct kv_list open);

void intents_encode(const struct intents *intents, struct kv_buf *out);
/* Fills an empty `out`. KV_CORRUPT when the bytes are not what encode writes. Empty input: nothing open. */
enum kv_err intents_decode(struct kv_slice encoded, struct intents *out);
void intents_clear(struct intents *intents);

struct parked *parked_new(uint64_t session, enum kv_msg type, uint64_t request_id, struct kv_slice body);
void parked_free(struct parked **parked);

#endif
