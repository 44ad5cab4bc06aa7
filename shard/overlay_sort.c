/* shard/overlay_sort.c -- see overlay_sort.h. */
#include "overlay_sort.h"

#include <endian.h>
#include <stdlib.h>

struct sorted {
    uint64_t prefix; /* eight bytes behind what all keys share, short keys padded with zeros: that keeps the order */
    const struct overlay_row *row;
};

#define ROWS_AHEAD 8u /* fetched while the prefixes are read: they lie anywhere */

static uint64_t prefix_of(const struct overlay_row *row, size_t shared)
{
    struct kv_slice key = overlay_key(row);
    uint64_t big = 0;
    size_t left = key.bytes - shared;
    memcpy(&big, key.data + shared, left < sizeof big ? left : sizeof big);
    return be64toh(big);
}

static void read_prefixes(const struct overlay_row **rows, size_t count, size_t shared, struct sorted *out)
{
    for (size_t i = 0; i < count; i++) {
        if (i + ROWS_AHEAD < count)
            __builtin_prefetch(rows[i + ROWS_AHEAD]);
        out[i] = (struct sorted){prefix_of(rows[i], shared), rows[i]};
    }
}

/* Of equal prefixes. */
static int compare(const void *a, const void *b)
{
    const struct sorted *left = a, *right = b;
    return kv_slice_compare(overlay_key(left->row), overlay_key(right->row));
}

enum { DIGITS = sizeof(uint64_t), DIGIT_VALUES = 256 };

static uint8_t digit_of(const struct sorted *row, unsigned digit)
{
    return (uint8_t)(row->prefix >> 8 * digit);
}

/* Digit by digit from the last: a few passes over memory instead of a comparison for each step of a merge. The result is in one of the
 * two arrays. */
static struct sorted *sort_by_prefix(struct sorted *rows, struct sorted *spare, size_t count)
{
    size_t places[DIGITS][DIGIT_VALUES] = {{0}};
    for (size_t i = 0; i < count; i++)
        for (unsigned digit = 0; digit < DIGITS; digit++)
            places[digit][digit_of(&rows[i], digit)]++;
    for (unsigned digit = 0; digit < DIGITS; digit++) {
        size_t *place = places[digit], at = 0;
        if (place[digit_of(&rows[0], digit)] == count)
            continue; /* all have the same */
        for (unsigned value = 0; value < DIGIT_VALUES; value++) {
            size_t rows_of_value = place[value];
            place[value] = at;
            at += rows_of_value;
        }
        for (size_t i = 0; i < count; i++)
            spare[place[digit_of(&rows[i], digit)]++] = rows[i];
        struct sorted *swapped = rows;
        rows = spare;
        spare = swapped;
    }
    return rows;
}

static void sort_ties(struct sorted *rows, size_t count)
{
    for (size_t from = 0, to; from < count; from = to) {
        for (to = from + 1; to < count && rows[to].prefix == rows[from].prefix;)
            to++;
        if (to - from > 1)
            qsort(rows + from, to - from, sizeof *rows, compare);
    }
}

void overlay_sort(const struct overlay_row **rows, size_t count, size_t shared)
{
    if (count == 0)
        return;
    struct sorted *space = kv_alloc(2 * count * sizeof *space);
    read_prefixes(rows, count, shared, space);
    struct sorted *sorted = sort_by_prefix(space, space + count, count);
    sort_ties(sorted, count);
    for (size_t i = 0; i < count; i++)
        rows[i] = sorted[i].row;
    free(space);
}
