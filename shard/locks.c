/* shard/locks.c -- see locks.h. A lock exists while somebody holds it; the first waiter inherits it. */
#include "locks.h"

#include <uthash.h>
#include <utlist.h>

#include "kv/buf.h"
#include "kv/log.h"
#include "overlay.h"

/* Each lock in a bucket is memory to wait for: fewer than the usual ten. */
#undef HASH_BKT_CAPACITY_THRESH
#define HASH_BKT_CAPACITY_THRESH 4U

struct owner;

struct lock {
    struct owner *holder;
    struct lock *next_held; /* of the same holder */
    struct owner *waiters;  /* first come first served, linked through owner.prev/next */
    bool writes;
    bool has_version;
    uint64_t version;
    size_t key_bytes;
    UT_hash_handle hh; /* by key */
    uint8_t key[];
};

/* A transaction that holds locks or waits for one. Ids come one after the other: unhashed, each has its bucket. */
struct owner {
    uint64_t txn_id;
    uint64_t session; /* 0: an intent stands on the locks */
    uint64_t request_id;
    struct kv_slice *wanted; /* the request's keys; borrowed from wanted_bytes */
    uint8_t *wanted_bytes;
    size_t wanted_count;
    size_t wanted_next;        /* keys before this one are held */
    struct lock *waits;        /* the lock it queues for, or NULL */
    struct lock *held;         /* linked through lock.next_held */
    struct owner *prev, *next; /* in waits->waiters */
    UT_hash_handle hh;         /* by txn_id */
};

struct locks {
    struct lock *table;
    struct owner *owners;
    locks_on_granted on_granted;
    void *ctx;
    size_t waiting;
};

struct locks *locks_new(locks_on_granted on_granted, void *ctx)
{
    struct locks *locks = kv_alloc_zero(1, sizeof *locks);
    locks->on_granted = on_granted;
    locks->ctx = ctx;
    return locks;
}

/* Seeded: clients choose keys, and shall not choose which of them meet in a bucket. */
static unsigned bucket_hash(struct kv_slice key)
{
    return (unsigned)overlay_hash(key);
}

static struct lock *find_lock(const struct locks *locks, struct kv_slice key)
{
    struct lock *lock = NULL;
    HASH_FIND_BYHASHVALUE(hh, locks->table, key.data, key.bytes, bucket_hash(key), lock);
    return lock;
}

static struct owner *find_owner(const struct locks *locks, uint64_t txn_id)
{
    struct owner *owner = NULL;
    HASH_FIND_BYHASHVALUE(hh, locks->owners, &txn_id, sizeof txn_id, (unsigned)txn_id, owner);
    return owner;
}

static struct owner *make_owner(struct locks *locks, uint64_t txn_id)
{
    struct owner *owner = kv_alloc_zero(1, sizeof *owner);
    owner->txn_id = txn_id;
    HASH_ADD_BYHASHVALUE(hh, locks->owners, txn_id, sizeof owner->txn_id, (unsigned)txn_id, owner);
    return owner;
}

static void hold(struct owner *owner, struct lock *lock)
{
    lock->holder = owner;
    lock->writes = false;
    lock->has_version = false;
    lock->next_held = owner->held;
    owner->held = lock;
}

static struct lock *make_lock(struct locks *locks, struct owner *holder, struct kv_slice key)
{
    struct lock *lock = kv_alloc_zero(1, sizeof *lock + key.bytes);
    lock->key_bytes = key.bytes;
    memcpy(lock->key, key.data, key.bytes);
    HASH_ADD_KEYPTR_BYHASHVALUE(hh, locks->table, lock->key, lock->key_bytes, bucket_hash(key), lock);
    hold(holder, lock);
    return lock;
}

/* Takes keys in order until one is somebody else's; grants when none is left. */
static void advance(struct locks *locks, struct owner *owner)
{
    while (owner->wanted_next < owner->wanted_count) {
        struct kv_slice key = owner->wanted[owner->wanted_next];
        struct lock *lock = find_lock(locks, key);
        if (lock == NULL) {
            make_lock(locks, owner, key);
        } else if (lock->holder != owner) {
            owner->waits = lock;
            locks->waiting++;
            DL_APPEND(lock->waiters, owner);
            return;
        }
        owner->wanted_next++;
    }
    locks->on_granted(locks->ctx, owner->txn_id, owner->session, owner->request_id, owner->wanted, owner->wanted_count);
}

static void want(struct owner *owner, const struct kv_slice *keys, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += keys[i].bytes;
    owner->wanted = kv_alloc(count * sizeof *owner->wanted + 1);
    owner->wanted_bytes = kv_alloc(bytes + 1);
    owner->wanted_count = count;
    uint8_t *at = owner->wanted_bytes;
    for (size_t i = 0; i < count; i++) {
        memcpy(at, keys[i].data, keys[i].bytes);
        owner->wanted[i] = kv_slice(at, keys[i].bytes);
        at += keys[i].bytes;
    }
}

void locks_request(struct locks *locks, uint64_t txn_id, uint64_t session, uint64_t request_id,
                   const struct kv_slice *keys, size_t count)
{
    struct owner *owner = find_owner(locks, txn_id);
    if (owner == NULL)
        owner = make_owner(locks, txn_id);
    owner->session = session;
    owner->request_id = request_id;
    if (owner->wanted == NULL)
        want(owner, keys, count);
    if (owner->waits == NULL)
        advance(locks, owner);
}

struct lock_state locks_state(const struct locks *locks, struct kv_slice key)
{
    const struct lock *lock = find_lock(locks, key);
    if (lock == NULL)
        return (struct lock_state){0};
    return (struct lock_state){lock->holder->txn_id, lock->writes, lock->has_version, lock->version};
}

void locks_set_version(struct locks *locks, struct kv_slice key, uint64_t version)
{
    struct lock *lock = find_lock(locks, key);
    kv_assert(lock != NULL);
    lock->has_version = true;
    lock->version = version;
}

void locks_take_for_intent(struct locks *locks, uint64_t txn_id, struct kv_slice key, bool writes)
{
    struct owner *owner = find_owner(locks, txn_id);
    if (owner == NULL)
        owner = make_owner(locks, txn_id);
    owner->session = 0;
    struct lock *lock = find_lock(locks, key);
    if (lock == NULL)
        lock = make_lock(locks, owner, key);
    kv_assert(lock->holder == owner);
    lock->writes = writes;
}

/* Hands the lock to its first waiter, who may then get more, or drops it. */
static void pass_on(struct locks *locks, struct lock *lock)
{
    struct owner *heir = lock->waiters;
    if (heir == NULL) {
        HASH_DEL(locks->table, lock);
        free(lock);
        return;
    }
    DL_DELETE(lock->waiters, heir);
    heir->waits = NULL;
    locks->waiting--;
    hold(heir, lock);
    heir->wanted_next++;
    advance(locks, heir);
}

static void free_owner(struct owner *owner)
{
    free(owner->wanted);
    free(owner->wanted_bytes);
    free(owner);
}

static bool release_owner(struct locks *locks, struct owner *owner)
{
    bool complete = owner->waits == NULL;
    if (owner->waits != NULL) {
        DL_DELETE(owner->waits->waiters, owner);
        locks->waiting--;
    }
    HASH_DEL(locks->owners, owner); /* before the heirs run: they must not find it */
    for (struct lock *lock = owner->held, *next; lock != NULL; lock = next) {
        next = lock->next_held; /* now, since the heir links it elsewhere */
        pass_on(locks, lock);
    }
    free_owner(owner);
    return complete;
}

bool locks_release(struct locks *locks, uint64_t txn_id)
{
    struct owner *owner = find_owner(locks, txn_id);
    return owner != NULL && release_owner(locks, owner);
}

void locks_session_closed(struct locks *locks, uint64_t session)
{
    struct owner *owner, *after;
    HASH_ITER(hh, locks->owners, owner, after) /* heirs stay in the table: `after` is still there */
    {
        if (owner->session == session)
            release_owner(locks, owner);
    }
}

size_t locks_count(const struct locks *locks)
{
    return HASH_COUNT(locks->table);
}

size_t locks_waiting(const struct locks *locks)
{
    return locks->waiting;
}

void locks_free(struct locks **locks)
{
    if (*locks == NULL)
        return;
    struct lock *lock, *after_lock;
    HASH_ITER(hh, (*locks)->table, lock, after_lock) {
        HASH_DEL((*locks)->table, lock);
        free(lock);
    }
    struct owner *owner, *after_owner;
    HASH_ITER(hh, (*locks)->owners, owner, after_owner) {
        HASH_DEL((*locks)->owners, owner);
        free_owner(owner);
    }
    free(*locks);
    *locks = NULL;
}
