/* router/admit.h -- 401 and 403: which requests go on.
 * Does:     looks the token up, remembers in the exchange what it grants, refuses what it does not; counts failures by reason.
 *           An address that has had AUTH_FAILURES_MAX failures in ten seconds waits ADMIT_DELAY_MS for each further 401: on a
 *           timer of the loop, which goes on meanwhile. Requests with a valid token are never delayed.
 * Limits:   ADMIT_DELAYED_MAX refusals wait per thread; the connection of a further one is cut.
 * Tests:    http/test_http_tokens.c, system/test_tokens.c. */
#ifndef KV_ROUTER_ADMIT_H
#define KV_ROUTER_ADMIT_H

#include "http.h"
#include "routes.h"

#define ADMIT_DELAY_MS 1000u /* libh2o's one-second timer */
#define ADMIT_DELAYED_MAX 256u

/* False: refused, the answer is given or on its way. */
bool admit_authenticate(struct exchange *exchange, const struct route *route);
/* Has the token the right for this route, and for the key of a value? False: answered with 403. */
bool admit_right(struct exchange *exchange, const struct route *route, struct kv_slice key);
/* 403, counted; the sentence is printf-like. */
void admit_forbid(struct exchange *exchange, const char *sentence, ...) __attribute__((format(printf, 2, 3)));
/* For a request whose body arrives: has it a token with the right for this route and key? Counts nothing. */
bool admit_may_send(h2o_req_t *req, const struct route *route, struct kv_slice key);
/* The request died. */
void admit_forget(struct exchange *exchange);

#endif
