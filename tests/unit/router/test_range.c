/* Goal: one satisfiable byte range is a part, an unsatisfiable one is said so, all else is the whole.
 * Method: a table over sizes 0, 1 and 1000. */
#include <criterion/criterion.h>

#include "range.h"

static const struct row {
    const char *value;
    uint64_t size;
    enum range_kind kind;
    uint64_t first, bytes;
} rows[] = {
    {"bytes=0-0", 1000, RANGE_PART, 0, 1},
    {"bytes=0-", 1000, RANGE_PART, 0, 1000},
    {"bytes=999-", 1000, RANGE_PART, 999, 1},
    {"bytes=10-19", 1000, RANGE_PART, 10, 10},
    {"bytes=10-1000", 1000, RANGE_PART, 10, 990}, /* one behind the end */
    {"bytes=10-999", 1000, RANGE_PART, 10, 990},
    {"bytes=10-5000", 1000, RANGE_PART, 10, 990},
    {"bytes=10-99999999999999999999999", 1000, RANGE_PART, 10, 990},
    {"bytes=-1", 1000, RANGE_PART, 999, 1},
    {"bytes=-1000", 1000, RANGE_PART, 0, 1000},
    {"bytes=-1001", 1000, RANGE_PART, 0, 1000},
    {"bytes=-5000", 1000, RANGE_PART, 0, 1000},
    {"BYTES= 5-6 ", 1000, RANGE_PART, 5, 2},
    {"bytes=,5-6,", 1000, RANGE_PART, 5, 2},
    {"bytes=1000-", 1000, RANGE_UNSATISFIABLE, 0, 0},
    {"bytes=1000-2000", 1000, RANGE_UNSATISFIABLE, 0, 0},
    {"bytes=99999999999999999999999-", 1000, RANGE_UNSATISFIABLE, 0, 0},
    {"bytes=-0", 1000, RANGE_UNSATISFIABLE, 0, 0},
    {"bytes=0-", 0, RANGE_UNSATISFIABLE, 0, 0},
    {"bytes=-5", 0, RANGE_WHOLE, 0, 0},
    {"bytes=0-0", 1, RANGE_PART, 0, 1},
    {"bytes=0-1,3-4", 1000, RANGE_WHOLE, 0, 0},
    {"bytes=5-4", 1000, RANGE_WHOLE, 0, 0},
    {"bytes=", 1000, RANGE_WHOLE, 0, 0},
    {"bytes=-", 1000, RANGE_WHOLE, 0, 0},
    {"bytes=a-b", 1000, RANGE_WHOLE, 0, 0},
    {"bytes=1", 1000, RANGE_WHOLE, 0, 0},
    {"bytes=1-2x", 1000, RANGE_WHOLE, 0, 0},
    {"bytes=--5", 1000, RANGE_WHOLE, 0, 0},
    {"items=0-5", 1000, RANGE_WHOLE, 0, 0},
    {"", 1000, RANGE_WHOLE, 0, 0},
};

Test(range, one_range_or_the_whole)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct range range = {0, 0};
        cr_expect_eq(range_parse(kv_slice_text(rows[i].value), rows[i].size, &range), rows[i].kind, "%s of %lu",
                     rows[i].value, rows[i].size);
        cr_expect_eq(range.first, rows[i].first, "%s", rows[i].value);
        cr_expect_eq(range.bytes, rows[i].bytes, "%s", rows[i].value);
    }
}
