/* router/cache.h -- whole answers to GETs of small values: row, reference count, stored form and content, by key; of large values all
 * but the stored form and the content (frames.h has those).
 * Does:     keeps what reads brought, and what PUTs wrote, for as long as marks.h proves it true, and lends it out without a copy.
 * Owns:     a ring of memory in huge pages, where the kernel has them: half of a random read was waiting for page tables. One
 *           thread's, no locks; the marks are shared by all threads.
 * Promises: cache_get returns nothing that a read of the shards, begun after it was called, would contradict. The bytes of an entry
 *           lent out stay as they are until the last cache_let_go, whatever is written meanwhile.
 * Limits:   bytes_max for all entries, lent out or not; the table takes some 64 bytes per entry more. The oldest go first; one
 *           that is read when less than a quarter of the ring is left before it goes is moved to the front. Nothing is taken while
 *           all that could go is lent out.
 * Tests:    unit/router/test_cache.c, http/ (the twin of the backend marks, too), system/test_linear.c, system/test_set_back.c. */
#ifndef KV_ROUTER_CACHE_H
#define KV_ROUTER_CACHE_H

#include "kv/buf.h"
#include "kv/model.h"
#include "marks.h"
#include "value_text.h"

#define CACHE_CONTENT_BYTES_MAX 65536u
#define CACHE_SWEEPS 20u
#define CACHE_SHARE(bytes) ((bytes) / 2) /* of CACHE_BYTES; the rest is frames.h's */
/* The marks of a process take a thirty-second of the share beside it, at most twice that. */
#define CACHE_BYTES_PER_MARK 256u

struct cache_entry {
    struct cache_inside { /* nobody else's */
        uint64_t bytes;   /* of the whole block in the ring */
        uint64_t since;
        uint64_t key_word, content_word;
        uint32_t key_slot, content_slot;
        uint32_t tag;
        uint32_t holders;
        uint32_t key_bytes; /* behind the entry */
        bool listed;        /* the table has it */
        bool asked;         /* for, since the last sweep passed */
    } inside;
    struct kv_row row; /* its content type is within the entry */
    /* All bytes of both, or, above CACHE_CONTENT_BYTES_MAX, none of either. No shard holds the object for an entry. */
    struct kv_object object;
    struct kv_slice content;
    struct value_text text;
};

struct cache;

/* NULL when there are no marks, or no memory: every function takes NULL for a cache that holds nothing. */
struct cache *cache_new(uint64_t bytes_max, struct marks *marks);
void cache_free(struct cache **cache);

/* Before cache_get, if there is something else to do meanwhile: the first asks the processor for the memory that a look-up begins with;
 * the second, a while later and given what the first returned, for the rest. */
uint64_t cache_fetch_place(struct cache *cache, struct kv_slice key);
void cache_fetch_entry(struct cache *cache, uint64_t hash);
/* The entry, held once more until cache_let_go, or NULL. */
struct cache_entry *cache_get(struct cache *cache, struct kv_slice key);
void cache_let_go(struct cache_entry *entry);

/* The key's row without its content type, as cache_get would find it. False: not known. */
bool cache_get_row(struct cache *cache, struct kv_slice key, struct kv_row *out);

/* Before a read of the shards: what cache_put wants to know. */
uint64_t cache_now(const struct cache *cache);
/* Whether it would be taken at all: with the whole stored form, or above CACHE_CONTENT_BYTES_MAX with nothing of it. */
bool cache_wants(const struct cache *cache, const struct kv_object *object);
/* Remembers what a read begun after `since` brought, unless something was written meanwhile. `object->bytes` is the whole stored form,
 * `content` the whole content (which may lie within it). All is copied. */
void cache_put(struct cache *cache, uint64_t since, struct kv_slice key, const struct kv_row *row,
               const struct kv_object *object, struct kv_slice content);
/* Remembers what a write begun after `since` left behind, and has proof of. */
void cache_put_written(struct cache *cache, uint64_t since, struct marks_proof proof, struct kv_slice key,
                       const struct kv_row *row, const struct kv_object *object, struct kv_slice content);

/* The oldest CACHE_SWEEPS-th of the ring: what nobody has asked for since it was swept last leaves, with its memory, the rest begins
 * anew. So CACHE_SWEEPS calls go round once. An entry leaves one to two rounds after it was asked for last, or, when it came while
 * a round was under way, with the end of the third. */
void cache_sweep(struct cache *cache);

/* Of the ring, in use. */
uint64_t cache_bytes(const struct cache *cache);
uint64_t cache_entries(const struct cache *cache);

#endif
