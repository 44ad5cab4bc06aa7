/* Goal: a value lands in the bucket whose bound it does not exceed, nothing is lost at either end, and histograms add up.
 * Method: every bound of every shape, one below and one above. */
#include <criterion/criterion.h>

#include "../histograms.h"

static const struct kv_histogram_shape *const shapes[] = {&kv_histogram_times, &kv_histogram_counts,
                                                          &kv_histogram_bytes};

Test(histogram, bounds_ascend_and_belong_to_their_bucket)
{
    for (unsigned s = 0; s < 3; s++) {
        cr_assert(shapes[s]->bound_count >= 1 && shapes[s]->bound_count <= KV_HISTOGRAM_BOUNDS_MAX);
        for (unsigned i = 0; i < shapes[s]->bound_count; i++) {
            uint64_t bound = shapes[s]->bounds[i];
            cr_expect(i == 0 || bound > shapes[s]->bounds[i - 1], "shape %u, bound %u", s, i);
            cr_expect_eq(kv_histogram_bucket(shapes[s], bound), i);
            cr_expect_eq(kv_histogram_bucket(shapes[s], bound + 1), i + 1);
        }
        cr_expect_eq(kv_histogram_bucket(shapes[s], 0), 0u);
        cr_expect_eq(kv_histogram_bucket(shapes[s], UINT64_MAX), shapes[s]->bound_count);
    }
    cr_expect_eq(kv_histogram_times.bounds[0], 50000u, "the issue: buckets from 50 us");
    cr_expect_eq(kv_histogram_times.bounds[kv_histogram_times.bound_count - 1], 10000000000u, "to 10 s");
}

Test(histogram, adds_and_merges)
{
    struct kv_histogram first = {0}, second = {0};
    kv_histogram_add(&first, &kv_histogram_counts, 1);
    kv_histogram_add(&first, &kv_histogram_counts, 3);
    kv_histogram_add(&second, &kv_histogram_counts, 4);
    kv_histogram_add(&second, &kv_histogram_counts, 1000000);
    kv_histogram_merge(&first, &second);
    cr_expect_eq(first.buckets[0], 1u);
    cr_expect_eq(first.buckets[1], 0u);
    cr_expect_eq(first.buckets[2], 2u);
    cr_expect_eq(first.buckets[kv_histogram_counts.bound_count], 1u);
    cr_expect_eq(first.sum, 1000008u);
    cr_expect_eq(histogram_count(&first), 4u);
    cr_expect_eq(histogram_count(&second), 2u);
}
