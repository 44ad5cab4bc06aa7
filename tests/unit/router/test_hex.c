/* Goal: eight digits at once are the digits that printf writes. Method: every digit in every place, and many numbers. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "digest.h"
#include "hex.h"

static void expect_digits(uint32_t number)
{
    char got[9] = {0}, wanted[9];
    hex_write(number, got);
    snprintf(wanted, sizeof wanted, "%08x", number);
    cr_assert_str_eq(got, wanted);
}

Test(hex, eight_at_once)
{
    for (uint32_t digit = 0; digit < 16; digit++)
        for (unsigned place = 0; place < 32; place += 4)
            expect_digits(digit << place);
    for (uint32_t number = 1; number < 4000000000u; number += 40009)
        expect_digits(number);
    expect_digits(UINT32_MAX);
}

Test(hex, a_hash)
{
    struct kv_hash hash;
    char got[DIGEST_HEX_BYTES + 1] = {0};
    for (unsigned i = 0; i < KV_HASH_BYTES; i++)
        hash.bytes[i] = (uint8_t)(i * 8 + 1);
    digest_hex(&hash, got);
    cr_expect_str_eq(got, "0109111921293139414951596169717981899199a1a9b1b9c1c9d1d9e1e9f1f9");
}
