/* router/marks.h -- what is being written: the proof that a cached answer is still true.
 * Does:     keeps one word per slot, a slot being many keys or many contents by their hash: how many writes are under way, and when
 *           the last one ended, counted in ends of all writes of this router.
 * Rules:    1. A write marks its keys and contents BEFORE its first message that may change them leaves, and ends the marks when no
 *              read that begins later can say anything else: committed, once all votes are in (reads of a key wait for the decision,
 *              reference counts count votes); aborted, once every shard is through. One whose outcome is open stays marked.
 *           2. A reader takes marks_now BEFORE it asks a shard. The answer may be kept if each of its slots is quiet since then:
 *              nobody writes, and the last write had ended before. So it is what every later read would say, too.
 *           3. What is kept is true for as long as the words of its slots are those that marks_quiet gave.
 *              Of what was not there before (a key that is created, a content that is new to the store) nothing that is kept can
 *              speak. Alone in its slot, such a committed write leaves the word as it was, and what is kept of others there stays true.
 *           4. A writer who was alone in a slot from begin to end knows what is there now as if it had read it: marks_end says so.
 *           5. What was kept before marks_forget is true no more, nor what was asked for before it and comes later.
 *           All writes of a store go through one router (a newer one fences the last), so all of them are seen here, but for one: a
 *           shard that comes back without what its last run had acknowledged and not flushed (DURABILITY=interval).
 * Used by:  the cache, and reads that ask two shards (backend_read.c).
 * Threads:  any; no locks.
 * Limits:   MARKS_WRITERS_MAX writes at once in one slot: it is then never quiet again. MARKS_ENDS_MAX ends: fatal, the next
 *           router begins anew (five years at 100,000 writes a second).
 * Tests:    unit/router/test_marks.c (all interleavings of two writers and a reader, threads), sim/, system/test_linear.c. */
#ifndef KV_ROUTER_MARKS_H
#define KV_ROUTER_MARKS_H

#include <stdbool.h>
#include <stdint.h>

#include "kv/slice.h"

#define MARKS_SLOTS_MIN 4096u /* of a router, which has marks even without a cache: reads look at them, too */
#define MARKS_WRITERS_MAX 1048575u
#define MARKS_ENDS_MAX (((uint64_t)1 << 44) - 1)

struct marks;

/* What holds for a key and its content as long as these are the words of their slots. */
struct marks_proof {
    uint64_t key_word, content_word;
};

/* NULL for 0 slots; else `slots` is rounded up to a power of two. `seed`: of the hash. */
struct marks *marks_new(uint64_t slots, uint64_t seed);
void marks_free(struct marks **marks);

/* The same bytes have the same hash and slot, which nobody can predict who does not know the seed. */
uint64_t marks_hash(const struct marks *marks, struct kv_slice bytes);
uint32_t marks_slot(const struct marks *marks, uint64_t hash);

/* The word will be looked at soon. */
void marks_fetch_ahead(const struct marks *marks, uint32_t slot);

/* The slot's word until now: marks_end wants to know it. */
uint64_t marks_begin(struct marks *marks, uint32_t slot);
/* The slot's word from now on, if nobody else was or is writing there since `begun`; else 0, which no word is behind an end. */
uint64_t marks_end(struct marks *marks, uint32_t slot, uint64_t begun);
/* The same of a committed write that nothing kept can speak of (rule 3). */
uint64_t marks_end_traceless(struct marks *marks, uint32_t slot, uint64_t begun);

/* A shard was started anew, and is asked for the first time after this. */
void marks_forget(struct marks *marks);

uint64_t marks_now(const struct marks *marks);
/* `word` is set when true. */
bool marks_quiet(const struct marks *marks, uint32_t slot, uint64_t since, uint64_t *word);
bool marks_unchanged(const struct marks *marks, uint32_t slot, uint64_t word);
/* Whether what was asked for after `since` may be kept, or stay so. */
bool marks_remembers(const struct marks *marks, uint64_t since);

#endif
