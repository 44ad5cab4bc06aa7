/* router/api.h -- the handlers that the table of routes names. Each is given an exchange that passed every check up to
 * the key, and answers it, sooner or later, exactly once. */
#ifndef KV_ROUTER_API_H
#define KV_ROUTER_API_H

#include "http.h"

void api_get(struct exchange *exchange);     /* and HEAD */
void api_get_now(struct exchange *exchange); /* does not wait for others (gets.h) */
void api_put(struct exchange *exchange);
void api_delete(struct exchange *exchange);
void api_healthy(struct exchange *exchange);
void api_ready(struct exchange *exchange);
void api_batch(struct exchange *exchange);
void api_list(struct exchange *exchange);
void api_metrics(struct exchange *exchange);

#endif
