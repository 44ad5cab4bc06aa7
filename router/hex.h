/* router/hex.h -- hex digits: the value of one, and eight at once, since every answer tells a request id. Tests: unit/router/test_hex.c. */
#ifndef KV_ROUTER_HEX_H
#define KV_ROUTER_HEX_H

#include <stdint.h>

/* 0 to 15, either case; -1: not a hex digit. */
static inline int hex_value(uint8_t digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= 0x20;
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* Eight lower-case digits, the highest first. */
static inline void hex_write(uint32_t number, char out[8])
{
    uint64_t digits = (uint64_t)(number & 0xffff0000u) << 16 | (number & 0xffffu); /* spread: a digit per byte */
    digits = (digits << 8 | digits) & 0x00ff00ff00ff00ffu;
    digits = (digits << 4 | digits) & 0x0f0f0f0f0f0f0f0fu;
    uint64_t letters = (digits + 0x0606060606060606u) >> 4 & 0x0101010101010101u; /* those above 9 */
    digits = digits + 0x3030303030303030u + letters * ('a' - '0' - 10);
    for (unsigned i = 0; i < 8; i++) /* a byte swap, where bytes stand the other way round */
        out[i] = (char)(digits >> (56 - 8 * i));
}

#endif
