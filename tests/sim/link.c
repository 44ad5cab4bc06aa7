/* tests/sim/link.c -- see link.h. */
#include "link.h"

#include <stdlib.h>

#include "file.h"
#include "router.h"
#include "shard.h"
#include "wire/frame.h"

static void deliver(void *arg);

struct link *link_new(struct router *router, unsigned thread_index, unsigned shard_index)
{
    struct sim *sim = router->process.sim;
    struct heap *before = heap_enter(&sim->heap);
    struct link *link = kv_alloc_zero(1, sizeof *link);
    heap_enter(before);
    link->sim = sim;
    link->next = sim->links;
    sim->links = link;
    link->router = router;
    link->thread_index = thread_index;
    link->shard_index = shard_index;
    link->down.link = link;
    link->up.link = link;
    link->up.up = true;
    link->router_open = true;
    return link;
}

static struct process *receiver(const struct pipe *pipe)
{
    return pipe->up ? &pipe->link->router->process : &pipe->link->sim->shards[pipe->link->shard_index]->process;
}

static void schedule(struct pipe *pipe)
{
    struct sim *sim = pipe->link->sim;
    if (pipe->scheduled || pipe->first == NULL)
        return;
    pipe->scheduled = true;
    uint64_t due_us = pipe->first->due_us;
    sim_at(sim, due_us > sim->now_us ? due_us - sim->now_us : 0, receiver(pipe), true, deliver, pipe);
}

static void push(struct pipe *pipe, struct kv_slice bytes, struct body_file *file)
{
    struct sim *sim = pipe->link->sim;
    struct heap *before = heap_enter(&sim->heap);
    struct sim_frame *frame = kv_alloc(sizeof *frame + bytes.bytes);
    heap_enter(before);
    uint64_t due_us = sim->now_us + random_below(&sim->random, sim->config.delay_us_max + 1);
    if (random_chance(&sim->random, 5))
        due_us += random_below(&sim->random, 20 * SIM_MS);
    if (due_us < pipe->last_due_us)
        due_us = pipe->last_due_us;
    pipe->last_due_us = due_us;
    *frame = (struct sim_frame){NULL, file, due_us, bytes.bytes};
    if (bytes.bytes > 0)
        memcpy(frame->data, bytes.data, bytes.bytes);
    *(pipe->first == NULL ? &pipe->first : &pipe->last->next) = frame;
    pipe->last = frame;
    schedule(pipe);
}

void link_send(struct pipe *pipe, struct kv_slice bytes, struct body_file *file)
{
    if (pipe->link->broken) {
        sim_file_let_go(&file);
        return;
    }
    while (bytes.bytes > 0) {
        struct kv_frame frame;
        size_t used = 0;
        if (kv_frame_peek(bytes, pipe->up ? KV_ROLE_SHARD : KV_ROLE_ROUTER, &frame, &used) != KV_OK)
            sim_fail("a sender wrote what is no frame");
        push(pipe, kv_slice(bytes.data, used), file);
        file = NULL;
        bytes = kv_slice(bytes.data + used, bytes.bytes - used);
    }
}

static void free_frame(struct sim_frame *frame)
{
    sim_file_let_go(&frame->file);
    free(frame);
}

static void free_frames(struct sim_frame *frame)
{
    for (struct sim_frame *next; frame != NULL; frame = next) {
        next = frame->next;
        free_frame(frame);
    }
}

static bool has_ended(const struct pipe *pipe)
{
    return pipe->last != NULL && pipe->last->bytes == 0;
}

void link_cut(struct pipe *pipe, bool keep_all)
{
    struct random *random = &pipe->link->sim->random;
    struct sim_frame **at = &pipe->first, *last = NULL;
    bool lossy = !keep_all && random_chance(random, 700);
    if (has_ended(pipe))
        return;
    while (*at != NULL && !(lossy && random_chance(random, 300))) {
        last = *at;
        at = &last->next;
    }
    free_frames(*at);
    *at = NULL;
    pipe->last = last;
    push(pipe, kv_slice(NULL, 0), NULL);
}

void link_drop(struct pipe *pipe)
{
    free_frames(pipe->first);
    pipe->first = pipe->last = NULL;
}

void link_break(struct link *link)
{
    if (link->broken)
        return;
    link_cut(&link->down, false);
    link_cut(&link->up, false);
    link->broken = true;
}

static struct sim_frame *take(struct pipe *pipe)
{
    struct sim_frame *frame = pipe->first;
    pipe->first = frame->next;
    if (frame->next == NULL)
        pipe->last = NULL;
    return frame;
}

static void receive(struct pipe *pipe, const struct sim_frame *frame)
{
    struct link *link = pipe->link;
    struct kv_slice bytes = kv_slice(frame->data, frame->bytes);
    if (pipe->up)
        router_receive(link, bytes);
    else
        shard_receive(link, bytes, frame->file);
}

/* A dead shard leaves its backlog alone: link_wake. */
static void deliver(void *arg)
{
    struct pipe *pipe = arg;
    struct link *link = pipe->link;
    pipe->scheduled = false;
    bool gone = pipe->up ? !link->router_open : link->accepted && !link->shard_open;
    if (gone)
        link_drop(pipe);
    else if (!pipe->up && !link->sim->shards[link->shard_index]->process.up)
        return;
    if (pipe->first == NULL)
        return;
    if (pipe->first->due_us <= link->sim->now_us) {
        struct sim_frame *frame = take(pipe);
        receive(pipe, frame);
        free_frame(frame);
    }
    schedule(pipe);
}

void link_wake(struct link *link)
{
    schedule(&link->down);
}
