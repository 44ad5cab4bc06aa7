/* tests/http/fake_backend.h -- a twin of router/backend.c: a map in memory, shared by all threads, with knobs for trouble.
 * Promises what backend.h promises: callbacks come from the loop, never from within the asking call, and not after a cancel;
 * a cancelled write goes on; release comes later than the callback. */
#ifndef KV_TESTS_FAKE_BACKEND_H
#define KV_TESTS_FAKE_BACKEND_H

#include "backend.h"

/* The knobs; set them between requests. */
void fake_fail_next(enum kv_err err);            /* the next call of any kind ends like this, KV_OK: never mind */
void fake_hold(bool hold);                       /* calls are taken but not answered until it is false again */
void fake_garble(uint64_t stored_offset);        /* flip a bit there in everything that is read; UINT64_MAX: off */
void fake_piece_max(uint64_t bytes);             /* fetches bring at most this much */
void fake_stale_fetches(unsigned count);         /* that many fetches find their object gone */
void fake_race(const char *key, unsigned count); /* the key changes under that many of the next transactions */
void fake_may_keep(bool value);                  /* answers to GETs may be cached; otherwise all of them come here */
void fake_forget(void);                /* what was kept is not true any more, as when a shard was started anew */
void fake_unready(const char *why);    /* NULL: ready */
void fake_shard_down(int shard_index); /* 0 or 1 does not report; -1: both do */

/* What to look at. */
size_t fake_holds(void);      /* objects read and not closed */
size_t fake_unreleased(void); /* transactions whose release has not run */
size_t fake_calls(void);      /* started so far */
size_t fake_waiting(void);    /* taken, not answered */
size_t fake_fetches(void);
size_t fake_objects(void);
size_t fake_keys(void);
uint64_t fake_fetched_bytes(void);

#endif
