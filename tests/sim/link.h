/* tests/sim/link.h -- the transport's twin: one connection between a router thread and a shard.
 * Does:     carries frames both ways in order, each with a delay of its own; breaks at any frame, and the two ends notice at
 *           different times. A connection to a dead shard waits in its backlog, as the supervisor's listening socket has it.
 * Owns:     frames under way. Links live until the run ends, so that whoever points to one may. */
#ifndef SIM_LINK_H
#define SIM_LINK_H

#include "outbox.h"
#include "sim.h"

/* bytes 0: the end of the stream. */
struct sim_frame {
    struct sim_frame *next;
    struct body_file *file; /* a descriptor of it comes along; or NULL */
    uint64_t due_us;
    size_t bytes;
    uint8_t data[];
};

struct pipe {
    struct link *link;
    bool up; /* from shard to router */
    bool scheduled;
    struct sim_frame *first, *last;
    uint64_t last_due_us;
};

struct link {
    struct sim *sim;
    struct link *next; /* all links of the run */
    struct router *router;
    unsigned thread_index;
    unsigned shard_index;
    struct pipe down, up;
    bool broken; /* nothing further travels; the ends hear of it behind what was left */
    /* the router's end */
    bool router_open;
    bool is_up; /* the shard's HELLO came */
    /* the shard's end */
    bool accepted;
    bool shard_open;
    bool greeted;
    bool leaving; /* closed once its last answer is on its way */
    uint64_t epoch;
    uint64_t session;
    struct body_file *arena; /* of its router; NULL: it gave none */
    struct outbox outbox;
};

struct link *link_new(struct router *router, unsigned thread_index, unsigned shard_index);
/* Cuts `bytes` into frames and sends them; the file's descriptor (taken) goes with the first. NULL: there is none. */
void link_send(struct pipe *pipe, struct kv_slice bytes, struct body_file *file);
/* The sender is gone: some of what is under way may still arrive, then the end. */
void link_cut(struct pipe *pipe, bool keep_all);
/* The receiver is gone. */
void link_drop(struct pipe *pipe);
/* Both at once: the connection breaks. */
void link_break(struct link *link);
/* A shard is up again: looks at its backlog. */
void link_wake(struct link *link);

#endif
