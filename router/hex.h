/* router/hex.h -- the value of one hex digit. */
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

#endif
