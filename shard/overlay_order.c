/* shard/overlay_order.c -- see overlay_order.h. */
#include "overlay_order.h"

#include <stdlib.h>

#include "kv/log.h"
#include "overlay_sort.h"

static struct overlay_row **link_of(const struct overlay_row *row, size_t level)
{
    return (struct overlay_row **)(uintptr_t)row - 1 - level;
}

/* The link behind `row`, or the first one of the level. */
static struct overlay_row **link_behind(struct overlay_order *order, const struct overlay_row *row, size_t level)
{
    return row == NULL ? &order->first[level] : link_of(row, level);
}

void overlay_order_add(struct overlay_order *order, struct overlay_row *row)
{
    *link_of(row, 0) = order->waiting;
    order->waiting = row;
    order->waiting_count++;
}

/* ---- sorted runs ------------------------------------------------------------------------------------------------- */

/* A run of at most `rows_max` rows of those that wait; returns how many do not any more. */
static size_t add_run(struct overlay_order *order, size_t rows_max, size_t shared)
{
    size_t taken = order->waiting_count < rows_max ? order->waiting_count : rows_max;
    struct overlay_run run = {.rows = kv_alloc(taken * sizeof *run.rows)};
    for (size_t i = 0; i < taken; i++, order->waiting = *link_of(order->waiting, 0))
        if (!order->waiting->gone)
            run.rows[run.count++] = order->waiting;
    order->waiting_count -= taken;
    if (run.count == 0) {
        free(run.rows);
        return taken;
    }
    overlay_sort(run.rows, run.count, shared);
    order->runs = kv_realloc(order->runs, (order->run_count + 1) * sizeof *order->runs);
    order->runs[order->run_count++] = run;
    return taken;
}

void overlay_order_free(struct overlay_order *order)
{
    while (order->run_count > 0)
        free(order->runs[--order->run_count].rows);
    free(order->runs);
    order->runs = NULL;
}

static bool is_before(const struct overlay_run *a, const struct overlay_run *b)
{
    return kv_slice_compare(overlay_key(a->rows[a->at]), overlay_key(b->rows[b->at])) < 0;
}

static void sift_down(struct overlay_order *order, size_t at)
{
    struct overlay_run *runs = order->runs;
    for (size_t child; (child = 2 * at + 1) < order->run_count; at = child) {
        if (child + 1 < order->run_count && is_before(&runs[child + 1], &runs[child]))
            child++;
        if (!is_before(&runs[child], &runs[at]))
            return;
        struct overlay_run swapped = runs[at];
        runs[at] = runs[child];
        runs[child] = swapped;
    }
}

static void begin_merging(struct overlay_order *order)
{
    for (size_t at = order->run_count / 2; at-- > 0;)
        sift_down(order, at);
    memset(order->at, 0, sizeof order->at);
    order->merging = true;
}

static const struct overlay_row *take_smallest(struct overlay_order *order)
{
    struct overlay_run *top = order->runs;
    const struct overlay_row *row = top->rows[top->at++];
    if (top->at + 1 < top->count)
        __builtin_prefetch(top->rows[top->at + 1]); /* it will be compared soon, and lies anywhere */
    if (top->at == top->count) {
        free(top->rows);
        *top = order->runs[--order->run_count];
    }
    sift_down(order, 0);
    return row;
}

/* ---- the list ---------------------------------------------------------------------------------------------------- */

/* Moves `at`, the last row of each level in front of a smaller key, to the last one in front of `key`. Returns the steps it took. */
static size_t advance(struct overlay_order *order, struct kv_slice key, const struct overlay_row *at[OVERLAY_LEVELS])
{
    const struct overlay_row *row = NULL, *next;
    size_t steps = 0;
    bool moved = false;
    for (size_t level = OVERLAY_LEVELS; level-- > 0; at[level] = row) {
        if (!moved)
            row = at[level];
        for (; (next = *link_behind(order, row, level)) != NULL; row = next, moved = true) {
            steps++;
            if (kv_slice_compare(overlay_key(next), key) >= 0)
                break;
        }
    }
    return steps;
}

static size_t merge(struct overlay_order *order, size_t steps_max)
{
    size_t steps = 0;
    while (order->run_count > 0 && steps < steps_max) {
        const struct overlay_row *row = take_smallest(order);
        steps += 1 + advance(order, overlay_key(row), order->at);
        for (size_t level = 0; level < row->levels; level++) {
            struct overlay_row **link = link_behind(order, order->at[level], level);
            *link_of(row, level) = *link;
            *link = (struct overlay_row *)(uintptr_t)row;
        }
    }
    order->merging = order->run_count > 0;
    if (!order->merging)
        overlay_order_free(order);
    return steps;
}

bool overlay_order_some(struct overlay_order *order, size_t steps_max, size_t shared)
{
    for (size_t steps = 0; steps < steps_max && (order->waiting_count > 0 || order->run_count > 0);) {
        if (order->merging)
            steps += merge(order, steps_max - steps);
        else if (order->waiting_count > 0)
            steps += add_run(order, steps_max - steps, shared);
        else
            begin_merging(order);
    }
    return order->waiting_count == 0 && order->run_count == 0;
}

static const struct overlay_row *pass_gone(const struct overlay_row *row)
{
    while (row != NULL && row->gone)
        row = *link_of(row, 0);
    return row;
}

const struct overlay_row *overlay_order_seek(const struct overlay_order *order, struct kv_slice from)
{
    struct overlay_order *links = (struct overlay_order *)(uintptr_t)order;
    const struct overlay_row *at[OVERLAY_LEVELS] = {NULL};
    kv_assert(order->waiting_count == 0 && order->run_count == 0);
    advance(links, from, at);
    return pass_gone(*link_behind(links, at[0], 0));
}

const struct overlay_row *overlay_order_next(const struct overlay_row *row)
{
    return pass_gone(*link_of(row, 0));
}
