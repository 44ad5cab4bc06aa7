/* router/digits.h -- numbers as text, hex and decimal, without printf: every answer carries a dozen.
 * Tests: unit/router/test_digits.c. */
#ifndef KV_ROUTER_DIGITS_H
#define KV_ROUTER_DIGITS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* 0 to 15, either case; -1: not a hex digit. */
static inline int digits_hex_value(uint8_t digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* Eight lower-case digits, the highest first. */
static inline void digits_write_hex(uint32_t number, char out[8])
{
    uint64_t digits = (uint64_t)(number & 0xffff0000u) << 16 | (number & 0xffffu); /* spread: a digit per byte */
    digits = (digits << 8 | digits) & 0x00ff00ff00ff00ffu;
    digits = (digits << 4 | digits) & 0x0f0f0f0f0f0f0f0fu;
    uint64_t letters = (digits + 0x0606060606060606u) >> 4 & 0x0101010101010101u; /* those above 9 */
    digits = digits + 0x3030303030303030u + letters * ('a' - '0' - 10);
    for (unsigned i = 0; i < 8; i++) /* a byte swap, where bytes stand the other way round */
        out[i] = (char)(digits >> (56 - 8 * i));
}

#define DIGITS_DECIMAL_MAX 20u /* of UINT64_MAX */

/* Decimal digits, no terminating zero; returns how many. */
static inline size_t digits_write(uint64_t number, char out[DIGITS_DECIMAL_MAX])
{
    char digits[DIGITS_DECIMAL_MAX];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    memcpy(out, digits + at, sizeof digits - at);
    return sizeof digits - at;
}

#endif
