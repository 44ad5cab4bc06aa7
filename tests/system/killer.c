/* tests/system/killer.c -- see killer.h. */
#include "killer.h"

#include <signal.h>

#include "kv/clock.h"

#define STOP_MS_MAX 900u /* well below SHARD_WAIT_MS: clients shall notice time only */

void killer_init(struct killer *killer, struct server *server, unsigned prey, uint64_t seed)
{
    *killer = (struct killer){.server = server, .random = {seed}, .prey = prey};
}

unsigned killer_kills(const struct killer *killer)
{
    return killer->shard_kills + killer->router_kills + killer->supervisor_kills + killer->all_kills;
}

/* ---- children ------------------------------------------------------------------------------------------------- */

static bool is_prey(const struct killer *killer, const struct child *child)
{
    bool is_shard = strcmp(child->name, "kv-shard") == 0 && child->index >= 0;
    bool is_router = strcmp(child->name, "kv-router") == 0;
    return (is_shard && (killer->prey & PREY_SHARDS)) || (is_router && (killer->prey & PREY_ROUTER));
}

static size_t find_prey(const struct killer *killer, struct child *out)
{
    size_t kept = 0, count = server_children(killer->server, out);
    for (size_t i = 0; i < count; i++) {
        if (is_prey(killer, &out[i]))
            out[kept++] = out[i];
    }
    return kept;
}

static void kill_child(struct killer *killer, const struct child *child)
{
    if (kill(child->pid, SIGKILL) != 0)
        return; /* it died meanwhile */
    if (child->index >= 0)
        killer->shard_kills++;
    else
        killer->router_kills++;
}

/* One in four deaths takes others along. */
static void kill_children(struct killer *killer)
{
    struct child children[CHILDREN_MAX];
    size_t count = find_prey(killer, children);
    if (count == 0)
        return; /* all of them are being started again */
    kill_child(killer, &children[random_below(&killer->random, count)]);
    if (!random_chance(&killer->random, 250))
        return;
    for (size_t i = 0; i < count; i++) {
        if (random_chance(&killer->random, 500))
            kill_child(killer, &children[i]);
    }
}

static void stop_child(struct killer *killer)
{
    struct child children[CHILDREN_MAX];
    size_t count = find_prey(killer, children), slot = 0;
    while (slot < STOPPED_MAX && killer->stopped[slot].pid != 0)
        slot++;
    if (count == 0 || slot == STOPPED_MAX)
        return;
    pid_t pid = children[random_below(&killer->random, count)].pid;
    if (kill(pid, SIGSTOP) != 0)
        return;
    killer->stopped[slot].pid = pid;
    killer->stopped[slot].until_ms = kv_clock_ms() + random_between(&killer->random, 5, STOP_MS_MAX);
    killer->stops++;
}

/* A shard holds still, requests pile up in its sockets, and the router dies: what it had sent to the others must not stand alone. */
static void ambush(struct killer *killer)
{
    struct child children[CHILDREN_MAX];
    size_t count = find_prey(killer, children), router = count, victim = count;
    size_t from = count == 0 ? 0 : random_below(&killer->random, count);
    for (size_t i = 0; i < count; i++) {
        size_t at = (from + i) % count;
        if (children[at].index < 0)
            router = at;
        else
            victim = at;
    }
    if (router == count || victim == count || kill(children[victim].pid, SIGSTOP) != 0)
        return;
    killer->stops++;
    killer_sleep(killer, (unsigned)random_between(&killer->random, 1, 20));
    kill_child(killer, &children[router]);
    killer_sleep(killer, (unsigned)random_between(&killer->random, 0, 150));
    kill(children[victim].pid, SIGCONT);
}

static void continue_stopped(struct killer *killer, bool all)
{
    for (size_t i = 0; i < STOPPED_MAX; i++) {
        if (killer->stopped[i].pid == 0 || (!all && kv_clock_ms() < killer->stopped[i].until_ms))
            continue;
        kill(killer->stopped[i].pid, SIGCONT);
        killer->stopped[i].pid = 0;
    }
}

/* ---- the supervisor ------------------------------------------------------------------------------------------- */

/* Its death alone must take every child along. */
static void kill_supervisor(struct killer *killer)
{
    struct child children[CHILDREN_MAX];
    pid_t pids[CHILDREN_MAX];
    size_t count = server_children(killer->server, children);
    for (size_t i = 0; i < count; i++)
        pids[i] = children[i].pid;
    kill(killer->server->pid, SIGKILL);
    CHECK(server_wait_exit(killer->server, 10000) == 128 + SIGKILL);
    continue_stopped(killer, true);
    CHECK(processes_die_within(pids, count, 10000), "a child outlived the supervisor");
    killer->supervisor_kills++;
}

static void kill_all(struct killer *killer)
{
    if (random_chance(&killer->random, 400)) {
        kill_supervisor(killer);
    } else {
        server_kill(killer->server);
        continue_stopped(killer, true);
        killer->all_kills++;
    }
    server_spawn(killer->server);
}

/* ---- deeds ---------------------------------------------------------------------------------------------------- */

void killer_strike(struct killer *killer)
{
    bool children = (killer->prey & (PREY_SHARDS | PREY_ROUTER)) != 0;
    CHECK(killer->server->pid == 0 || server_wait_exit(killer->server, 0) == -1, "the supervisor ended by itself");
    if (!children || ((killer->prey & PREY_ALL) && random_chance(&killer->random, 100)))
        kill_all(killer);
    else if ((killer->prey & PREY_SHARDS) && (killer->prey & PREY_ROUTER) && random_chance(&killer->random, 150))
        ambush(killer);
    else if (random_chance(&killer->random, 200))
        stop_child(killer);
    else
        kill_children(killer);
}

void killer_sleep(struct killer *killer, unsigned ms)
{
    uint64_t until = kv_clock_ms() + ms;
    do {
        continue_stopped(killer, false);
        sleep_ms(ms < 5 ? ms : 5);
    } while (kv_clock_ms() < until);
    continue_stopped(killer, false);
}

void killer_heal(struct killer *killer)
{
    continue_stopped(killer, true);
    server_wait_ready(killer->server);
}
