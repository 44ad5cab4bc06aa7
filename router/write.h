/* router/write.h -- one conditional write of one key, PUT or DELETE, as a transaction of the backend.
 * Does:     copies key and content type, evaluates the conditions, runs the transaction, with the row that the cache knows; conditions
 *           that need a look at the row first are evaluated on a read and pinned, and again when the row changed in between
 *           (WRITE_TRIES_MAX times, then 429).
 * Owns:     itself, counted: the exchange's part ends with the exchange, the backend's with its release. What the transaction
 *           refers to lives as long as either.
 * Tests:    http/test_http_values.c, http/test_http_disconnects.c. */
#ifndef KV_ROUTER_WRITE_H
#define KV_ROUTER_WRITE_H

#include "condition.h"
#include "work.h"

#define WRITE_TRIES_MAX 16u

struct write {
    struct exchange *exchange; /* NULL: the client left; its call is cancelled, nothing of the request is valid */
    struct work *work;
    unsigned holders;
    unsigned tries;
    struct condition condition; /* its slices die with the exchange */
    struct backend_op op;
    struct backend_content content;
    bool keep;               /* what the transaction leaves behind replaces what the cache has, */
    uint64_t since;          /* as written after this (cache.h) */
    struct work_job *job;    /* PUT: the content's stored form is in it */
    struct work_job own_job; /* unless it began as the body came */
    bool job_queued;         /* on_done will come */
    bool job_counted;        /* work_let_go is due */
    void (*on_written)(struct write *write, const struct backend_op_result *result); /* answers; only on KV_OK */
    uint8_t texts[];                                                                 /* key and content type */
};

/* Reads the conditions; answers 400 and returns NULL when they are malformed. The exchange holds the result. */
struct write *write_new(struct exchange *exchange, enum backend_op_kind kind, struct kv_slice content_type);
/* Evaluates, transacts and answers. */
void write_start(struct write *write);
void write_drop(struct write *write);

#endif
