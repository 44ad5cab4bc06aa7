/* tests/system/load.h -- writers that know what they were promised.
 * Each writer is a thread with its own client and its own keys. It puts, overwrites and deletes in a fixed pseudo-random order and
 * notes for each key what was acknowledged last and what was asked but not answered. load_verify then reads every key: it must hold
 * the acknowledged state, or the unanswered one; anything else is a lost or a wrong write.
 * Contents are a function of (writer, number of the write): some shared between writers (deduplicated), some staged, most small. */
#ifndef KV_SYSTEM_LOAD_H
#define KV_SYSTEM_LOAD_H

#include <pthread.h>
#include <stdatomic.h>

#include "client.h"

#define LOAD_KEYS 60u /* per writer */
#define LOAD_WRITERS_MAX 8u

enum load_on_error {
    LOAD_STOP,  /* the first request without an answer ends the writer: everything was killed */
    LOAD_RETRY, /* ask again until it is answered: the router was killed. Refused connections are still failures */
    LOAD_FAIL,  /* any answer but the right one is a failure: clients must not notice */
};

/* Numbers of writes; 0 is the state before the first: absent. */
struct load_key {
    uint64_t acknowledged;
    uint64_t unanswered; /* 0: none */
};

struct writer {
    const struct server *server;
    unsigned index;
    enum http http;
    enum load_on_error on_error;
    struct load_key keys[LOAD_KEYS];
    uint64_t next; /* number of the next write, from 1 */
    uint64_t answered;
    uint64_t slowest_ms; /* longest wait for one answer */
    atomic_bool stop;
    char failure[512]; /* what must not have happened */
    pthread_t thread;
};

struct load {
    struct writer writers[LOAD_WRITERS_MAX];
    unsigned writer_count;
};

void load_init(struct load *load, const struct server *server, unsigned writer_count);
/* Starts the writers; they run until load_stop, or an error with LOAD_STOP. */
void load_start(struct load *load, enum load_on_error on_error);
/* Ends and joins them, fails the test when one met what it must not meet. */
void load_stop(struct load *load);
/* Writes answered so far, in all starts together. */
uint64_t load_answered(const struct load *load);
/* Reads every key back; unanswered writes are settled as they are found. Fails the test on any difference. */
void load_verify(struct load *load);
/* Keys present and different contents, as verified last. */
void load_expected(const struct load *load, uint64_t *keys, uint64_t *objects);

#endif
