/* Goal: a shard's counters go on where the last process left them, and never back. Method: the page's words in memory, handed from
 * one "process" to the next. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "../histograms.h"
#include "counters.h"

static kv_counter words[KV_COUNTERS_SHARD_WORDS];

/* What a process tells that has counted `puts` itself. */
static uint64_t told(const struct counters_carry *carry, uint64_t puts, uint64_t keys, uint64_t *told_keys)
{
    struct counters counters = {.core = {.puts = puts, .keys = keys}};
    counters_carry(carry, &counters);
    *told_keys = counters.core.keys;
    return counters.core.puts;
}

Test(counters, go_on_over_restarts)
{
    uint64_t keys;
    struct counters_carry first = counters_carry_open(words);
    cr_expect_eq(told(&first, 5, 3, &keys), 5);
    cr_expect_eq(told(&first, 7, 3, &keys), 7);
    struct counters_carry second = counters_carry_open(words);
    cr_expect_eq(told(&second, 0, 3, &keys), 7);
    cr_expect_eq(keys, 3, "a gauge is what is now");
    cr_expect_eq(told(&second, 2, 4, &keys), 9);
    cr_expect_eq(told(&second, 2, 4, &keys), 9, "telling twice adds nothing");
    struct counters_carry third = counters_carry_open(words);
    cr_expect_eq(told(&third, 1, 4, &keys), 10);
}

Test(counters, histograms_go_on_too)
{
    for (unsigned life = 1; life <= 3; life++) {
        struct counters_carry carry = counters_carry_open(words);
        for (unsigned told_times = 0; told_times < 2; told_times++) {
            struct counters counters = {0};
            kv_histogram_add(&counters.journal.flush_ns, &kv_histogram_times, 60000);
            kv_histogram_add(&counters.journal.group_records, &kv_histogram_counts, 1000000);
            kv_histogram_add(&counters.applier.generation_ns, &kv_histogram_times, 7);
            counters_carry(&carry, &counters);
            cr_expect_eq(counters.journal.flush_ns.buckets[1], life);
            cr_expect_eq(counters.journal.flush_ns.sum, 60000u * life);
            cr_expect_eq(counters.journal.group_records.buckets[kv_histogram_counts.bound_count], life);
            cr_expect_eq(counters.applier.generation_ns.buckets[0], life);
            cr_expect_eq(counters.applier.generation_ns.sum, 7u * life);
            cr_expect_eq(histogram_count(&counters.journal.write_ns), 0u);
        }
    }
}

Test(counters, of_another_table_begin_anew)
{
    uint64_t keys;
    for (unsigned i = 0; i < KV_COUNTERS_SHARD_WORDS; i++)
        kv_counter_set(&words[i], 1000 + i);
    struct counters_carry carry = counters_carry_open(words);
    cr_expect_eq(told(&carry, 5, 3, &keys), 5);
    carry = counters_carry_open(words);
    cr_expect_eq(told(&carry, 0, 3, &keys), 5);
}

Test(counters, without_a_page)
{
    uint64_t keys;
    struct counters_carry carry = counters_carry_open(NULL);
    cr_expect_eq(told(&carry, 5, 3, &keys), 5);
    carry = counters_carry_open(NULL);
    cr_expect_eq(told(&carry, 1, 3, &keys), 1);
}
