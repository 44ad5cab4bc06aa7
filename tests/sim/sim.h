/* tests/sim/sim.h -- the simulated world: time, events, processes, and what one run is made of.
 * Does:     runs the real shard core and the real router coordinator in one thread against twins of clock, transport, journal and
 *           store, driven by one seed. An event belongs to a process: it dies with the process and waits while that is
 *           stopped.
 * Owns:     everything of a run; heap.h gives it back.
 * Promises: the same seed makes the same run, on any machine.
 * Fails:    sim_fail: says what is wrong and the command that replays it, and ends the run. */
#ifndef SIM_SIM_H
#define SIM_SIM_H

#include "fault.h"
#include "heap.h"
#include "history.h"
#include "random.h"

#define SIM_SHARDS_MAX 4
#define SIM_THREADS_MAX 2
#define SIM_CLIENTS_MAX 8
#define SIM_MS 1000u /* microseconds */

struct router;
struct shard;
struct link;
struct body_file;
struct sim;

struct process {
    struct sim *sim;
    struct heap heap;
    uint64_t incarnation; /* raised by each death: events of an older one do not run */
    bool up;
    uint64_t stopped_until_us; /* SIGSTOP */
};

struct event {
    uint64_t at_us;
    uint64_t sequence;
    struct process *process; /* NULL: the world's */
    uint64_t incarnation;    /* 0: whichever lives then */
    void (*run)(void *arg);
    void *arg;
};

/* What kind of run this is: drawn from the seed, so that each run exercises some things hard instead of everything a bit. */
struct config {
    unsigned shard_count, thread_count, client_count;
    unsigned key_count, content_count;
    bool large;              /* contents that are staged */
    unsigned huge_per_mille; /* of them: in several pieces */
    unsigned op_count;
    uint64_t think_us_max;
    uint64_t delay_us_max; /* of a frame */
    uint64_t flush_us_max;
    uint64_t wait_ms; /* SHARD_WAIT_MS */
    uint64_t overlay_bytes;
    uint64_t fault_us_mean; /* between two blows of the nemesis; 0 = none */
    unsigned fault_weights[8];
    bool gentle; /* shards die and links break, and come back in time: no client may see an error */
    bool hang;   /* a shard hangs for long, and nothing else goes wrong: hang.h */
    unsigned cancel_per_mille;
    unsigned batch_per_mille;
};

struct sim {
    uint64_t seed;
    struct random random;
    bool trace;
    enum fault fault;
    struct heap heap;
    uint64_t now_us;
    uint64_t stamp;       /* counts what happens: order within one moment, too */
    struct event *events; /* a heap by (at_us, sequence) */
    size_t event_count, event_capacity;
    uint64_t event_sequence;
    struct config config;
    struct shard *shards[SIM_SHARDS_MAX];
    struct router *router;  /* the newest, maybe dead */
    struct router *routers; /* all of the run */
    struct link *links;
    struct body_file *files; /* that uploads wait in: file.h */
    int file_last;
    uint64_t epoch;
    struct history history;
    unsigned clients_busy;
    unsigned ops_left;
    bool healed; /* no more blows: everything is to come to rest */
};

/* The run under way; the twins of clock and log look at it. */
extern struct sim *sim_running;

void sim_at(struct sim *sim, uint64_t delay_us, struct process *process, bool any_incarnation, void (*run)(void *arg),
            void *arg);
uint64_t sim_stamp(struct sim *sim);
_Noreturn void sim_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
void sim_trace(const struct sim *sim, const char *format, ...) __attribute__((format(printf, 2, 3)));
#define SIM_TRACE(sim, ...) ((sim)->trace ? sim_trace(sim, __VA_ARGS__) : (void)0)

/* Runs the next event; false when there is none. */
bool sim_step(struct sim *sim);
/* One whole run of a world that has its seed, random, fault, trace and an empty heap, which is entered. */
void sim_run(struct sim *sim);
/* Frees what a run, ended or failed, has left. */
void sim_end(struct sim *sim);

#endif
