/* shard/locks.h -- who may change which key: in-memory locks, first come first served.
 * Does:     grants a transaction all the keys of one request, key by key in ascending order; remembers which locks an
 *           intent stands on. Reads do not take locks.
 * Owns:     the table of locked keys and of the transactions that hold or wait for them; copies of keys.
 * Promises: no lock outlives its transaction. Requests that take shards and keys in ascending order cannot deadlock.
 * Fails:    never.
 * Tests:    unit/shard/test_locks.c, sim/. */
#ifndef KV_SHARD_LOCKS_H
#define KV_SHARD_LOCKS_H

#include "kv/slice.h"

struct locks;

/* Of a key; zeros: nobody holds it. */
struct lock_state {
    uint64_t holder;  /* the transaction */
    bool writes;      /* its intent will change the row */
    bool has_version; /* its holder was told: nobody else changes the row now, so it need not be looked up again */
    uint64_t version;
};

/* A request has all its keys now; `keys` are peeks that live as long as the lock. Called from locks_request or from whatever
 * released the last missing one. Must not release or request. */
typedef void (*locks_on_granted)(void *ctx, uint64_t txn_id, uint64_t session, uint64_t request_id,
                                 const struct kv_slice *keys, size_t count);

struct locks *locks_new(locks_on_granted on_granted, void *ctx);
void locks_free(struct locks **locks);

/* Asks for `count` keys, ascending and without repeats (copied). A transaction that asks again (its first answer was lost) moves to the
 * new session, keeps what it has, and is answered again. */
void locks_request(struct locks *locks, uint64_t txn_id, uint64_t session, uint64_t request_id,
                   const struct kv_slice *keys, size_t count);
struct lock_state locks_state(const struct locks *locks, struct kv_slice key);
/* Of a key that is held: what its holder was told. */
void locks_set_version(struct locks *locks, struct kv_slice key, uint64_t version);
/* Takes a free key, or one that the transaction holds already, for its intent: from now on no session's end releases it. */
void locks_take_for_intent(struct locks *locks, uint64_t txn_id, struct kv_slice key, bool writes);
/* Releases all locks and waits of the transaction. True when it held all it had asked for. */
bool locks_release(struct locks *locks, uint64_t txn_id);
/* Releases the transactions of this session that no intent stands on. */
void locks_session_closed(struct locks *locks, uint64_t session);
size_t locks_count(const struct locks *locks);
/* Transactions that wait for a key now. */
size_t locks_waiting(const struct locks *locks);

#endif
