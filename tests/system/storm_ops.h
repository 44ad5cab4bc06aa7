/* tests/system/storm_ops.h -- what the operations of a storm's client share: storm_ops.c and storm_batch.c. */
#ifndef KV_SYSTEM_STORM_OPS_H
#define KV_SYSTEM_STORM_OPS_H

#include "batch.h"
#include "storm.h"

#define UNIQUE_FROM 1000u /* contents from here on are written once */

/* A write of one key: `content` 0 deletes. */
struct storm_write {
    size_t key;
    uint64_t content;
    struct match match;
    uint64_t match_content; /* MATCH_HASH */
};

/* Content number that the key holds, as the model says. */
uint64_t *storm_state_of(struct storm_client *client, size_t key);
size_t storm_pick_key(struct storm_client *client); /* one of the client's own */
uint64_t storm_pick_content(struct storm_client *client);
/* Sets a condition; one in eight is on something else than `now`. */
void storm_pick_match(struct storm_client *client, struct storm_write *write, uint64_t now);
bool storm_holds(const struct storm_write *write, uint64_t now);
/* Counts an answer and says what it means; fails the storm when no answer of its kind may come. */
enum fate storm_judge(struct storm_client *client, enum storm_op op, const struct response *response, uint64_t begin);
/* A write whose outcome is not known: `after`, of STORM_KEYS, is what the client's keys would hold. Either all show it or none does. */
void storm_settle(struct storm_client *client, const uint64_t *after);
void storm_write_batch(struct storm_client *client);

#endif
