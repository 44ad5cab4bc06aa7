/* tests/sim/client.h -- random clients: what they ask is drawn from few keys and few contents, so that they collide.
 * Each has one operation under way, thinks, and goes on; some leave before they are answered. All they learn goes into the
 * history. Contents are made once per process (client_contents_init). */
#ifndef SIM_CLIENT_H
#define SIM_CLIENT_H

#include "sim.h"

struct content {
    struct kv_buf bytes;
    struct kv_buf stored;
    struct backend_content given;
};

extern struct content client_contents[SIM_CONTENTS_MAX];
void client_contents_init(void);
/* -1 when nobody ever stored it. */
int client_content_of(const struct kv_hash *hash);
struct kv_slice client_key(unsigned key);
/* The key's index, or SIM_KEYS_MAX. */
unsigned client_key_index(struct kv_slice key);

void clients_start(struct sim *sim);
void client_on_router_dead(const struct router *router);
/* One operation of nobody in particular, for the end of a run; asked at once. */
struct op *client_ask(struct sim *sim, const struct op *asked);
/* The transaction begun under this id belongs to the call, or to the operation that is being asked. */
void client_on_begun(uint64_t txn_id, const void *call);
/* FAULT_EARLY_ACK: whoever asked for this transaction hears yes now. */
void client_ack_early(uint64_t txn_id);

#endif
