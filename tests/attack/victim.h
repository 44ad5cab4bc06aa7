/* tests/attack/victim.h -- the router under attack, seen from outside: which process it is, its memory, its counters, and what
 * honest clients meet meanwhile.
 * Honest clients speak HTTP/1 and HTTP/2 through libcurl, from 127.0.0.1; each asks or stores a small value every HONEST_EVERY_MS,
 * however long the last one took: its latency counts from when it was due. */
#ifndef KV_ATTACK_VICTIM_H
#define KV_ATTACK_VICTIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TOKEN "attack-token"
#define HONEST_CLIENTS 8
#define HONEST_EVERY_MS 20

struct victim {
    unsigned short port;
    pid_t supervisor;
    pid_t router;    /* the last one seen */
    unsigned deaths; /* times that it was another one */
};

/* Looks which process the router is now. */
void victim_look(struct victim *victim);
/* Forgets the peak, and reads it: MB. */
void victim_memory_reset(const struct victim *victim);
unsigned long victim_memory_peak_mb(const struct victim *victim);
/* Connections that come from now on have a send buffer of so many bytes. What it wants, the router gets only where net.core.wmem_max
 * has been raised or with CAP_NET_ADMIN: to see what an attack does elsewhere. False: they were not changed; that needs the rights of
 * a debugger. */
#define VICTIM_SEND_BYTES_ORDINARY 212992 /* wmem_max of Linux */
#define VICTIM_SEND_BYTES_WANTED 1048576  /* router/listen.c */
bool victim_clip(const struct victim *victim, int send_bytes);
/* A counter of GET /metrics; 0 when it is not there. */
uint64_t victim_counter(const struct victim *victim, const char *name);

struct honest_report {
    uint64_t requests, failed;
    double get_p50_ms, get_p99_ms, put_p50_ms, put_p99_ms;
    double max_ms;
    char first_failure[128];
};

/* Runs the honest clients until `until_ms` (kv_clock_ms). Values are stored first. */
void honest_start(const struct victim *victim, uint64_t until_ms);
struct honest_report honest_wait(void);
/* Stores a value, as a client would. False: it could not be. */
bool honest_store(const struct victim *victim, const char *key, size_t bytes);

#endif
