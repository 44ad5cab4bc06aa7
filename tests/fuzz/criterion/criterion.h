/* tests/fuzz/criterion/criterion.h -- Criterion's words where a fuzzer runs: what does not hold aborts, and the fuzzer keeps the input.
 * So the rigs of the unit tests serve here as they are. */
#ifndef KV_FUZZ_CRITERION_H
#define KV_FUZZ_CRITERION_H

#include "fuzz.h"

#define cr_assert(a, ...) FUZZ_CHECK(a)
#define cr_assert_fail(...) (fprintf(stderr, __VA_ARGS__), abort())
#define cr_assert_eq(a, b, ...) FUZZ_CHECK((a) == (b))
#define cr_assert_neq(a, b, ...) FUZZ_CHECK((a) != (b))
#define cr_assert_lt(a, b, ...) FUZZ_CHECK((a) < (b))
#define cr_assert_leq(a, b, ...) FUZZ_CHECK((a) <= (b))
#define cr_assert_geq(a, b, ...) FUZZ_CHECK((a) >= (b))
#define cr_expect cr_assert
#define cr_expect_eq cr_assert_eq

#endif
