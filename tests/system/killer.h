/* tests/system/killer.h -- whoever kills processes in these tests, from a seed.
 * Does:     SIGKILL of shards, of the router, of the supervisor alone or with all its children (and starts it again); SIGSTOP of a
 *           child and SIGCONT some time later, other deaths in between.
 * Promises: the same seed makes the same choices; what they hit depends on the machine's timing. Main thread only.
 * killer_heal ends it: everything continues, runs and is ready. */
#ifndef KV_SYSTEM_KILLER_H
#define KV_SYSTEM_KILLER_H

#include "../sim/random.h"
#include "harness.h"

enum prey { PREY_SHARDS = 1, PREY_ROUTER = 2, PREY_ALL = 4 };
#define PREY_EVERY (PREY_SHARDS | PREY_ROUTER | PREY_ALL)
#define STOPPED_MAX 4u

struct killer {
    struct server *server;
    struct random random;
    unsigned prey;
    unsigned shard_kills, router_kills, supervisor_kills, all_kills, stops;
    struct {
        pid_t pid;
        uint64_t until_ms;
    } stopped[STOPPED_MAX];
};

void killer_init(struct killer *killer, struct server *server, unsigned prey, uint64_t seed);
/* One deed: a death, several at once, or a stop. */
void killer_strike(struct killer *killer);
/* Waits, and lets continue what has been stopped long enough. */
void killer_sleep(struct killer *killer, unsigned ms);
void killer_heal(struct killer *killer);
unsigned killer_kills(const struct killer *killer);

#endif
