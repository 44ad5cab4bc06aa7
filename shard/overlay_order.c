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

/* Moves `at`, the last row of each level in front of a smaller key, to the last one in front of `key`: rows that come in order cost a
 * few steps each instead of a way down from the top. */
static void advance(struct overlay_order *order, struct kv_slice key, const struct overlay_row *at[OVERLAY_LEVELS])
{
    const struct overlay_row *row = NULL, *next;
    bool moved = false;
    for (size_t level = OVERLAY_LEVELS; level-- > 0;) {
        if (!moved)
            row = at[level];
        while ((next = *link_behind(order, row, level)) != NULL && kv_slice_compare(overlay_key(next), key) < 0) {
            row = next;
            moved = true;
        }
        at[level] = row;
    }
}

static size_t take_waiting(struct overlay_order *order, size_t count, const struct overlay_row **out)
{
    size_t taken = 0;
    order->waiting_count -= count;
    for (; count-- > 0; order->waiting = *link_of(order->waiting, 0))
        if (!order->waiting->gone)
            out[taken++] = order->waiting;
    return taken;
}

bool overlay_order_some(struct overlay_order *order, size_t rows_max, size_t shared)
{
    size_t count = order->waiting_count < rows_max ? order->waiting_count : rows_max;
    if (count == 0)
        return order->waiting == NULL;
    const struct overlay_row **rows = kv_alloc(count * sizeof *rows), *at[OVERLAY_LEVELS] = {NULL};
    count = take_waiting(order, count, rows);
    overlay_sort(rows, count, shared);
    for (size_t i = 0; i < count; i++) {
        advance(order, overlay_key(rows[i]), at);
        for (size_t level = 0; level < rows[i]->levels; level++) {
            struct overlay_row **link = link_behind(order, at[level], level);
            *link_of(rows[i], level) = *link;
            *link = (struct overlay_row *)(uintptr_t)rows[i];
        }
    }
    free(rows);
    return order->waiting == NULL;
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
    kv_assert(order->waiting == NULL);
    advance(links, from, at);
    return pass_gone(*link_behind(links, at[0], 0));
}

const struct overlay_row *overlay_order_next(const struct overlay_row *row)
{
    return pass_gone(*link_of(row, 0));
}
