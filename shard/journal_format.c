/* shard/journal_format.c -- see journal_format.h. */
#include "journal_format.h"

#include <xxhash.h>

#include "bytes.h"
#include "journal.h"

/* segment header: magic u64 | version u64 | first u64 | segment bytes u64 | salt 16 | XXH3-64 of these u64 | zeros */
#define SEGMENT_MAGIC 0x3130474553564b4au /* "JKVSEG01" */
#define SEGMENT_HEADER_BYTES 48u
#define GROUP_MAGIC 0x50524756u /* "VGRP", xor 32 bits of the salt */

/* The magic is salted too: else a torn group full of forged headers would make replay checksum each of them to the end of the
 * segment, which is quadratic. */
struct journal_seal journal_seal_of(const uint8_t salt[JOURNAL_SALT_BYTES])
{
    return (struct journal_seal){GROUP_MAGIC ^ bytes_get_u32(salt), XXH3_64bits(salt, JOURNAL_SALT_BYTES)};
}

void journal_encode_segment(const struct journal_segment_header *header, uint8_t *block)
{
    memset(block, 0, JOURNAL_BLOCK_BYTES);
    bytes_put_u64(block, SEGMENT_MAGIC);
    bytes_put_u64(block + 8, JOURNAL_FORMAT_VERSION);
    bytes_put_u64(block + 16, header->first);
    bytes_put_u64(block + 24, header->segment_bytes);
    memcpy(block + 32, header->salt, JOURNAL_SALT_BYTES);
    bytes_put_u64(block + SEGMENT_HEADER_BYTES, XXH3_64bits(block, SEGMENT_HEADER_BYTES));
}

enum kv_err journal_decode_segment(struct kv_slice block, struct journal_segment_header *out)
{
    if (block.bytes < JOURNAL_BLOCK_BYTES || bytes_get_u64(block.data) != SEGMENT_MAGIC ||
        bytes_get_u64(block.data + SEGMENT_HEADER_BYTES) != XXH3_64bits(block.data, SEGMENT_HEADER_BYTES) ||
        bytes_get_u64(block.data + 8) != JOURNAL_FORMAT_VERSION)
        return KV_CORRUPT;
    out->first = bytes_get_u64(block.data + 16);
    out->segment_bytes = bytes_get_u64(block.data + 24);
    memcpy(out->salt, block.data + 32, JOURNAL_SALT_BYTES);
    return KV_OK;
}

/* The payload's checksum is seeded with the header's, which is seeded with the salt: one number for all three. */
static uint64_t group_checksum(const uint8_t *header, const struct journal_seal *seal, const uint8_t *payload,
                               uint64_t payload_bytes)
{
    uint64_t seed = XXH3_64bits_withSeed(header, JOURNAL_GROUP_HEADER_BYTES - 8, seal->seed);
    return XXH3_64bits_withSeed(payload, payload_bytes, seed);
}

void journal_encode_group(const struct journal_group *group, const struct journal_seal *seal, const uint8_t *payload,
                          uint8_t header[JOURNAL_GROUP_HEADER_BYTES])
{
    bytes_put_u32(header, seal->magic);
    bytes_put_u32(header + 4, group->records);
    bytes_put_u64(header + 8, group->payload_bytes);
    bytes_put_u64(header + 16, group->first);
    bytes_put_u64(header + 24, group->flushed);
    bytes_put_u64(header + 32, group_checksum(header, seal, payload, group->payload_bytes));
}

enum kv_err journal_decode_group(struct kv_slice bytes, const struct journal_seal *seal, struct journal_group *out)
{
    if (bytes.bytes < JOURNAL_GROUP_HEADER_BYTES || bytes_get_u32(bytes.data) != seal->magic)
        return KV_NOT_FOUND;
    struct journal_group group = {bytes_get_u32(bytes.data + 4), bytes_get_u64(bytes.data + 8),
                                  bytes_get_u64(bytes.data + 16), bytes_get_u64(bytes.data + 24)};
    if (group.payload_bytes > bytes.bytes - JOURNAL_GROUP_HEADER_BYTES)
        return KV_NOT_FOUND;
    if (bytes_get_u64(bytes.data + 32) !=
        group_checksum(bytes.data, seal, bytes.data + JOURNAL_GROUP_HEADER_BYTES, group.payload_bytes))
        return KV_NOT_FOUND;
    *out = group;
    return KV_OK;
}

uint64_t journal_group_bytes(uint64_t payload_bytes)
{
    uint64_t bytes = JOURNAL_GROUP_HEADER_BYTES + payload_bytes;
    return (bytes + JOURNAL_BLOCK_BYTES - 1) / JOURNAL_BLOCK_BYTES * JOURNAL_BLOCK_BYTES;
}

void journal_encode_record(uint32_t type, uint32_t body_bytes, uint8_t header[JOURNAL_RECORD_HEADER_BYTES])
{
    bytes_put_u32(header, body_bytes);
    bytes_put_u32(header + 4, type);
}

enum kv_err journal_decode_record(struct kv_slice *rest, uint32_t *type, struct kv_slice *body)
{
    if (rest->bytes < JOURNAL_RECORD_HEADER_BYTES)
        return KV_CORRUPT;
    uint32_t body_bytes = bytes_get_u32(rest->data);
    if (body_bytes > rest->bytes - JOURNAL_RECORD_HEADER_BYTES)
        return KV_CORRUPT;
    *type = bytes_get_u32(rest->data + 4);
    *body = kv_slice(rest->data + JOURNAL_RECORD_HEADER_BYTES, body_bytes);
    *rest = kv_slice(body->data + body_bytes, rest->bytes - JOURNAL_RECORD_HEADER_BYTES - body_bytes);
    return KV_OK;
}
