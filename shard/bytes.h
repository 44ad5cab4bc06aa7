/* shard/bytes.h -- numbers as the files have them: little endian, at any address, so that files move between machines.
 * Used by the rows of LMDB, `redo` and the journal. Tests: those of each format. */
#ifndef KV_SHARD_BYTES_H
#define KV_SHARD_BYTES_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

/* Each returns where the next number goes. */
static inline uint8_t *bytes_put_u32(uint8_t *at, uint32_t number)
{
    number = htole32(number);
    memcpy(at, &number, sizeof number);
    return at + sizeof number;
}

static inline uint8_t *bytes_put_u64(uint8_t *at, uint64_t number)
{
    number = htole64(number);
    memcpy(at, &number, sizeof number);
    return at + sizeof number;
}

static inline uint32_t bytes_get_u32(const uint8_t *at)
{
    uint32_t number;
    memcpy(&number, at, sizeof number);
    return le32toh(number);
}

static inline uint64_t bytes_get_u64(const uint8_t *at)
{
    uint64_t number;
    memcpy(&number, at, sizeof number);
    return le64toh(number);
}

#endif
