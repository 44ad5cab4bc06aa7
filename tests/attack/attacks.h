/* tests/attack/attacks.h -- what hostile clients do: one row per known hole of libh2o 2.2.5, and some attacks of our own.
 * An attack runs in threads of its own (nice 19: a stranger has a machine of his own), from other addresses than honest clients,
 * until `until_ms`; what the router cuts connects again. */
#ifndef KV_ATTACK_ATTACKS_H
#define KV_ATTACK_ATTACKS_H

#include <stdbool.h>
#include <stdint.h>

#include "kv/slice.h"

#define ATTACK_KEY_LARGE "attack-large" /* ATTACK_LARGE_BYTES */
#define ATTACK_KEY_MIDDLE "attack-middle"
#define ATTACK_LARGE_BYTES (4u << 20)
#define ATTACK_MIDDLE_BYTES 60000u
#define ATTACK_KEY_FRAME "attack-frame" /* in one DATA frame: streams end one by one, however many there are */
#define ATTACK_FRAME_BYTES 16000u

struct attacker {
    unsigned short port;
    unsigned index; /* of the thread: it comes from 127.0.1.<index> */
    uint64_t until_ms;
    uint64_t seed;
    uint64_t units;       /* requests, frames, connections: what the attack is made of */
    uint64_t connections; /* opened */
    uint64_t cut;         /* of these, ended by the router */
};

struct attack {
    const char *name;
    const char *what;
    unsigned threads;
    void (*run)(struct attacker *attacker); /* until its time is over */
    bool clipped;                           /* on sockets as large as an ordinary kernel has them (victim.h) */
};

/* Ends with a row without a name. */
extern const struct attack attacks[];

#endif
