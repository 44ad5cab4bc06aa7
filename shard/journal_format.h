/* shard/journal_format.h -- the journal's bytes: segment headers and group headers (the layout stands in journal.h).
 * Does:     encodes and checks them; pure functions over memory, no file is touched here.
 * Promises: a group is accepted only when magic, bounds and checksum fit the salt of its segment. The salt is 16 random bytes,
 *           new whenever a segment begins a new life: values come from clients, and a value may well contain the exact image of
 *           a group that lands on a block boundary. Who does not know the salt cannot make one that is taken for ours, and
 *           groups of a segment's former life never fit.
 * Tests:    unit/shard/test_journal.c. */
#ifndef KV_SHARD_JOURNAL_FORMAT_H
#define KV_SHARD_JOURNAL_FORMAT_H

#include "kv/buf.h"
#include "kv/err.h"

#define JOURNAL_FORMAT_VERSION 1u
#define JOURNAL_GROUP_HEADER_BYTES 40u
#define JOURNAL_RECORD_HEADER_BYTES 8u
#define JOURNAL_SALT_BYTES 16u
#define JOURNAL_SEGMENT_BYTES_MAX ((uint64_t)1 << 30) /* a single record is far smaller (KV_FRAME_BODY_BYTES_MAX) */

/* First block of a segment file. */
struct journal_segment_header {
    uint64_t first;         /* position of the first record */
    uint64_t segment_bytes; /* of the file, this block included */
    uint8_t salt[JOURNAL_SALT_BYTES];
};

struct journal_group {
    uint32_t records;
    uint64_t payload_bytes;
    uint64_t first;   /* position of the first record */
    uint64_t flushed; /* records up to this one were flushed before this group was written */
};

/* What every group of one segment is checked with. */
struct journal_seal {
    uint32_t magic;
    uint64_t seed;
};

struct journal_seal journal_seal_of(const uint8_t salt[JOURNAL_SALT_BYTES]);

/* Fills one block of JOURNAL_BLOCK_BYTES. */
void journal_encode_segment(const struct journal_segment_header *header, uint8_t *block);
/* KV_CORRUPT: too short, damaged or of another version. */
enum kv_err journal_decode_segment(struct kv_slice block, struct journal_segment_header *out);

void journal_encode_group(const struct journal_group *group, const struct journal_seal *seal, const uint8_t *payload,
                          uint8_t header[JOURNAL_GROUP_HEADER_BYTES]);
/* `bytes` runs from the group's header to the end of the segment. KV_NOT_FOUND: not a whole group of this segment's life. */
enum kv_err journal_decode_group(struct kv_slice bytes, const struct journal_seal *seal, struct journal_group *out);

/* Bytes that a group of `payload_bytes` takes in its segment: header, payload, padding to whole blocks. */
uint64_t journal_group_bytes(uint64_t payload_bytes);

void journal_encode_record(uint32_t type, uint32_t body_bytes, uint8_t header[JOURNAL_RECORD_HEADER_BYTES]);
/* Takes the record at the front of `rest`; KV_CORRUPT when it does not end within. */
enum kv_err journal_decode_record(struct kv_slice *rest, uint32_t *type, struct kv_slice *body);

#endif
