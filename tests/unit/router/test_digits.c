/* Goal: hex digits, eight at once, and decimal ones are those that printf writes. Method: every digit in every place, and many numbers. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "digest.h"
#include "digits.h"

static void expect_digits(uint32_t number)
{
    char got[9] = {0}, wanted[9];
    digits_write_hex(number, got);
    snprintf(wanted, sizeof wanted, "%08x", number);
    cr_assert_str_eq(got, wanted);
}

Test(digits, eight_at_once)
{
    for (uint32_t digit = 0; digit < 16; digit++)
        for (unsigned place = 0; place < 32; place += 4)
            expect_digits(digit << place);
    for (uint32_t number = 1; number < 4000000000u; number += 40009)
        expect_digits(number);
    expect_digits(UINT32_MAX);
}

Test(digits, hex_values)
{
    for (int byte = 0; byte < 256; byte++) {
        const char text[] = {(char)byte, '\0'};
        bool is_hex = byte != 0 && strspn(text, "0123456789abcdefABCDEF") == 1;
        cr_expect_eq(digits_hex_value((uint8_t)byte), is_hex ? (int)strtol(text, NULL, 16) : -1, "byte %d", byte);
    }
}

static void expect_decimal(uint64_t number)
{
    char got[DIGITS_DECIMAL_MAX + 1] = {0}, wanted[DIGITS_DECIMAL_MAX + 1];
    int bytes = snprintf(wanted, sizeof wanted, "%lu", number);
    cr_assert_eq(digits_write(number, got), (size_t)bytes);
    cr_assert_str_eq(got, wanted);
}

Test(digits, decimal)
{
    for (uint64_t power = 1, i = 0; i < DIGITS_DECIMAL_MAX; i++, power *= 10) {
        expect_decimal(power - 1);
        expect_decimal(power);
    }
    expect_decimal(UINT64_MAX);
}

Test(digits, a_hash)
{
    struct kv_hash hash;
    char got[DIGEST_HEX_BYTES + 1] = {0};
    for (unsigned i = 0; i < KV_HASH_BYTES; i++)
        hash.bytes[i] = (uint8_t)(i * 8 + 1);
    digest_hex(&hash, got);
    cr_expect_str_eq(got, "0109111921293139414951596169717981899199a1a9b1b9c1c9d1d9e1e9f1f9");
}
