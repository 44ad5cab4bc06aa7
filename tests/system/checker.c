/* tests/system/checker.c -- see checker.h. */
#include "checker.h"

#include <stdio.h>
#include <stdlib.h>

#include "../sim/random.h"

/* Events of a component, ordered by time, in a list from which those of placed operations are taken out (Lowe's "lift"). */
struct event {
    const struct history_op *op;
    bool is_return;
    uint64_t time;
    struct event *before, *after;
    struct event *match; /* the return of a call; NULL: it never came */
    uint64_t digest[2];  /* of the call: what it adds to the digest of the set of placed operations */
};

struct placed {
    struct event *call;
    uint32_t *state; /* before it */
};

struct digest {
    uint64_t words[2];
};

struct search {
    unsigned keys[HISTORY_KEYS_MAX]; /* key to its place in the state */
    size_t key_count;
    struct event *events;
    size_t event_count;
    struct event head;
    struct placed *placed;
    size_t placed_count;
    uint32_t state[HISTORY_KEYS_MAX];
    uint64_t set[2];
    struct digest *seen; /* open addressing; all zero: free */
    size_t seen_count, seen_capacity;
    size_t placed_most;
    struct event *stuck; /* the return that stopped the search when the most had been placed */
};

/* ---- what an operation means ---------------------------------------------------------------------------------- */

static bool match_holds(const struct history_step *step, uint32_t now)
{
    switch (step->match) {
    case HISTORY_PRESENT:
        return now != 0;
    case HISTORY_ABSENT:
        return now == 0;
    case HISTORY_HOLDS:
        return now == step->match_value;
    default:
        return true;
    }
}

/* Whether the step can have gone as the answer says, in this state, which it changes. An unanswered one only has its conditions. */
static bool step_fits(const struct history_op *op, const struct history_step *step, uint32_t *now)
{
    bool answered = op->outcome == HISTORY_DONE;
    if (step->kind == STEP_GET)
        return !answered || *now == step->value;
    if (!match_holds(step, *now) || (answered && step->existed != (*now != 0)))
        return false;
    *now = step->value;
    return true;
}

/* Tries the operation on the search's state; false leaves it as it was. */
static bool op_applies(struct search *search, const struct history_op *op)
{
    uint32_t state[HISTORY_KEYS_MAX];
    memcpy(state, search->state, sizeof state);
    bool refused = op->outcome == HISTORY_PRECONDITION;
    for (size_t i = 0; i < (refused ? op->refused_at : op->step_count); i++) {
        const struct history_step *step = &op->steps[i];
        struct history_op unanswered = {.outcome = HISTORY_UNCERTAIN};
        if (!step_fits(refused ? &unanswered : op, step, &state[search->keys[step->key]]))
            return false;
    }
    if (refused) {
        const struct history_step *step = &op->steps[op->refused_at];
        return !match_holds(step, state[search->keys[step->key]]);
    }
    memcpy(search->state, state, search->key_count * sizeof *state);
    return true;
}

/* ---- memory --------------------------------------------------------------------------------------------------- */

static uint64_t stir(uint64_t x)
{
    struct random random = {x};
    return random_next(&random);
}

static struct digest digest_of(const struct search *search)
{
    struct digest digest = {{search->set[0], search->set[1]}};
    for (size_t i = 0; i < search->key_count; i++) {
        digest.words[0] += stir(search->state[i] * 64ull + i + 1);
        digest.words[1] ^= stir(~(search->state[i] * 64ull + i + 1));
    }
    digest.words[0] |= 1; /* never all zero */
    return digest;
}

static bool memory_add(struct search *search, struct digest digest);

static void memory_grow(struct search *search)
{
    struct search old = *search;
    search->seen_capacity = old.seen_capacity == 0 ? 4096 : old.seen_capacity * 2;
    search->seen = kv_alloc_zero(search->seen_capacity, sizeof *search->seen);
    search->seen_count = 0;
    for (size_t i = 0; i < old.seen_capacity; i++) {
        if (old.seen[i].words[0] != 0)
            memory_add(search, old.seen[i]);
    }
    free(old.seen);
}

/* False: it was there already. */
static bool memory_add(struct search *search, struct digest digest)
{
    if (search->seen_count * 2 >= search->seen_capacity)
        memory_grow(search);
    size_t at = (digest.words[0] >> 1) & (search->seen_capacity - 1);
    for (; search->seen[at].words[0] != 0; at = (at + 1) & (search->seen_capacity - 1)) {
        if (search->seen[at].words[0] == digest.words[0] && search->seen[at].words[1] == digest.words[1])
            return false;
    }
    search->seen[at] = digest;
    search->seen_count++;
    return true;
}

/* ---- the list of events --------------------------------------------------------------------------------------- */

static void unlink_event(struct event *event)
{
    event->before->after = event->after;
    if (event->after != NULL)
        event->after->before = event->before;
}

static void relink_event(struct event *event)
{
    event->before->after = event;
    if (event->after != NULL)
        event->after->before = event;
}

static void lift(struct event *call)
{
    unlink_event(call);
    if (call->match != NULL)
        unlink_event(call->match);
}

static void unlift(struct event *call)
{
    if (call->match != NULL)
        relink_event(call->match);
    relink_event(call);
}

/* Calls come before returns of the same time: what touches is taken for concurrent. */
static int by_time(const void *a, const void *b)
{
    const struct event *left = a, *right = b;
    if (left->time != right->time)
        return left->time < right->time ? -1 : 1;
    return (int)left->is_return - (int)right->is_return;
}

static void link_events(struct search *search, size_t op_count, const struct history_op *first_op)
{
    struct event **calls =
        kv_alloc_zero(op_count + 1, sizeof *calls); /* by the place of the operation in the history */
    struct random random = {42};
    struct event *last = &search->head;
    qsort(search->events, search->event_count, sizeof *search->events, by_time);
    for (size_t i = 0; i < search->event_count; i++) {
        struct event *event = &search->events[i];
        struct event **call = &calls[event->op - first_op];
        if (event->is_return)
            (*call)->match = event;
        else
            *call = event;
        event->digest[0] = random_next(&random) & ~(uint64_t)1;
        event->digest[1] = random_next(&random);
        event->before = last;
        last->after = event;
        last = event;
    }
    free(calls);
}

/* ---- the search ----------------------------------------------------------------------------------------------- */

static void place(struct search *search, struct event *call, const uint32_t *state_before)
{
    struct placed *placed = &search->placed[search->placed_count++];
    placed->call = call;
    placed->state = kv_alloc(search->key_count * sizeof *placed->state);
    memcpy(placed->state, state_before, search->key_count * sizeof *placed->state);
    lift(call);
}

/* Takes back what was placed last; returns where to go on. */
static struct event *take_back(struct search *search)
{
    struct placed *placed = &search->placed[--search->placed_count];
    memcpy(search->state, placed->state, search->key_count * sizeof *placed->state);
    free(placed->state);
    search->set[0] ^= placed->call->digest[0];
    search->set[1] ^= placed->call->digest[1];
    unlift(placed->call);
    return placed->call->after;
}

/* An unanswered operation that changes nothing here (a read, a value that is there already) may as well not have happened: it would only
 * double what is left to try. */
static bool try_to_place(struct search *search, struct event *call)
{
    uint32_t before[HISTORY_KEYS_MAX];
    memcpy(before, search->state, sizeof before);
    if (!op_applies(search, call->op))
        return false;
    if (call->op->outcome == HISTORY_UNCERTAIN && memcmp(before, search->state, sizeof before) == 0)
        return false;
    search->set[0] ^= call->digest[0];
    search->set[1] ^= call->digest[1];
    if (memory_add(search, digest_of(search))) {
        place(search, call, before);
        return true;
    }
    search->set[0] ^= call->digest[0];
    search->set[1] ^= call->digest[1];
    memcpy(search->state, before, sizeof before);
    return false;
}

/* A return stands in the way: its operation has to be placed before whatever comes later. */
static void note_stuck(struct search *search, struct event *at)
{
    if (search->stuck != NULL && search->placed_count <= search->placed_most)
        return;
    search->placed_most = search->placed_count;
    search->stuck = at;
}

static enum checker_verdict search_order(struct search *search)
{
    struct event *at = search->head.after;
    while (at != NULL) { /* the end of the list: no answered operation is left */
        if (search->seen_count > CHECKER_STATES_MAX)
            return CHECKER_TIRED;
        if (at->is_return) {
            note_stuck(search, at);
            if (search->placed_count == 0)
                return CHECKER_NO;
            at = take_back(search);
        } else {
            at = try_to_place(search, at) ? search->head.after : at->after;
        }
    }
    return CHECKER_YES;
}

/* ---- components ----------------------------------------------------------------------------------------------- */

static unsigned root_of(unsigned *parents, unsigned key)
{
    while (parents[key] != key)
        key = parents[key] = parents[parents[key]];
    return key;
}

static void join_keys(const struct history *history, unsigned *parents)
{
    for (unsigned key = 0; key < HISTORY_KEYS_MAX; key++)
        parents[key] = key;
    for (size_t i = 0; i < history->count; i++) {
        const struct history_op *op = &history->ops[i];
        for (size_t step = 1; step < op->step_count; step++)
            parents[root_of(parents, op->steps[step].key)] = root_of(parents, op->steps[0].key);
    }
}

static void add_event(struct search *search, const struct history_op *op, bool is_return)
{
    search->events[search->event_count++] =
        (struct event){.op = op, .is_return = is_return, .time = is_return ? op->returned : op->invoked};
}

static void collect_component(struct search *search, const struct history *history, unsigned *parents, unsigned root)
{
    search->events = kv_alloc(history->count * 2 * sizeof *search->events + 1);
    search->placed = kv_alloc((history->count + 1) * sizeof *search->placed);
    for (unsigned key = 0; key < HISTORY_KEYS_MAX; key++) {
        if (root_of(parents, key) == root)
            search->keys[key] = (unsigned)search->key_count++;
    }
    for (size_t i = 0; i < history->count; i++) {
        const struct history_op *op = &history->ops[i];
        if (op->step_count == 0 || root_of(parents, op->steps[0].key) != root)
            continue;
        add_event(search, op, false);
        if (op->outcome != HISTORY_UNCERTAIN)
            add_event(search, op, true);
    }
    link_events(search, history->count, history->ops);
}

static void explain(const struct search *search, unsigned root, char *why, size_t why_bytes)
{
    char line[400];
    size_t at = (size_t)snprintf(why, why_bytes, "component of key %u, %zu keys, %zu events, %zu placed, then:\n", root,
                                 search->key_count, search->event_count, search->placed_most);
    size_t stuck = search->stuck == NULL ? 0 : (size_t)(search->stuck - search->events);
    for (size_t i = stuck < 12 ? 0 : stuck - 12; i < search->event_count && i < stuck + 4 && at < why_bytes; i++) {
        history_print(search->events[i].op, line, sizeof line);
        at += (size_t)snprintf(why + at, why_bytes - at, "%s %s %s\n", i == stuck ? "->" : "  ",
                               search->events[i].is_return ? "return" : "call  ", line);
    }
}

static void search_free(struct search *search)
{
    while (search->placed_count > 0)
        free(search->placed[--search->placed_count].state);
    free(search->events);
    free(search->placed);
    free(search->seen);
}

enum checker_verdict checker_run(const struct history *history, char *why, size_t why_bytes)
{
    unsigned parents[HISTORY_KEYS_MAX];
    enum checker_verdict verdict = CHECKER_YES;
    join_keys(history, parents);
    for (unsigned key = 0; key < HISTORY_KEYS_MAX && verdict == CHECKER_YES; key++) {
        struct search search = {0};
        if (root_of(parents, key) != key)
            continue;
        collect_component(&search, history, parents, key);
        verdict = search_order(&search);
        if (verdict != CHECKER_YES)
            explain(&search, key, why, why_bytes);
        search_free(&search);
    }
    return verdict;
}
