/* Goal: what decodes is what was encoded, or KV_CORRUPT; never other bytes.
 * Method: round trips at the sizes where frames begin and end, with text, random and mixed contents; every byte of small
 * stored forms garbled; frames truncated and extended; SHA-256 against known vectors. */
#include <criterion/criterion.h>
#include <zstd.h>

#include "codec.h"
#include "digest.h"

enum filling { TEXT, RANDOM, MIXED };

static uint64_t seed = 42;

static uint8_t random_byte(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint8_t)(seed >> 56);
}

/* MIXED: odd frames random, even ones text. */
static struct kv_buf content_of(size_t bytes, enum filling filling)
{
    static const char words[] = "all work and no play makes a dull value; ";
    struct kv_buf content = {0};
    kv_buf_reserve(&content, bytes + 1);
    for (; content.bytes < bytes; content.bytes++) {
        bool random = filling == RANDOM || (filling == MIXED && content.bytes / KV_CONTENT_FRAME_BYTES % 2 == 1);
        content.data[content.bytes] = random ? random_byte() : (uint8_t)words[content.bytes % (sizeof(words) - 1)];
    }
    return content;
}

static enum kv_codec round_trip(size_t bytes, enum filling filling, int level, size_t *stored_bytes)
{
    struct codec *codec = codec_new(level);
    struct kv_buf content = content_of(bytes, filling), stored = {0}, back = {0};
    enum kv_codec kind = codec_encode(codec, kv_buf_peek(&content), &stored);
    cr_assert_eq(codec_decode(codec, kv_buf_peek(&stored), bytes, &back), KV_OK, "%zu bytes", bytes);
    cr_assert(kv_slice_equal(kv_buf_peek(&back), kv_buf_peek(&content)), "%zu bytes", bytes);
    *stored_bytes = stored.bytes;
    kv_buf_free(&content);
    kv_buf_free(&stored);
    kv_buf_free(&back);
    codec_free(&codec);
    return kind;
}

Test(codec, round_trips_at_every_edge)
{
    static const size_t sizes[] = {0,     1,     31,     32,     511,    512,    513,    4096,   65535,
                                   65536, 65537, 262143, 262144, 262145, 524287, 524288, 524289, 10485760};
    size_t stored_bytes;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (int filling = TEXT; filling <= MIXED; filling++)
            round_trip(sizes[i], (enum filling)filling, 1, &stored_bytes);
        cr_assert_eq(round_trip(sizes[i], TEXT, 0, &stored_bytes), KV_CODEC_RAW);
        cr_assert_eq(stored_bytes, sizes[i] + codec_index_bytes(sizes[i]));
    }
}

Test(codec, says_which_kind_it_became)
{
    size_t stored_bytes;
    cr_expect_eq(round_trip(0, TEXT, 1, &stored_bytes), KV_CODEC_RAW);
    cr_expect_eq(stored_bytes, 0);
    cr_expect_eq(round_trip(100000, TEXT, 1, &stored_bytes), KV_CODEC_ZSTD);
    cr_expect_lt(stored_bytes, 1000);
    cr_expect_eq(round_trip(4096, RANDOM, 1, &stored_bytes), KV_CODEC_RAW);
    cr_expect_eq(round_trip(1048576, RANDOM, 1, &stored_bytes), KV_CODEC_RAW);
    cr_expect_eq(round_trip(1048576, MIXED, 1, &stored_bytes), KV_CODEC_MIXED);
    cr_expect_eq(round_trip(KV_CONTENT_FRAME_BYTES + 1, TEXT, 1, &stored_bytes), KV_CODEC_ZSTD, "a tail of one byte");
    cr_expect_eq(round_trip(KV_CONTENT_FRAME_BYTES + 4096, MIXED, 1, &stored_bytes), KV_CODEC_ZSTD, "a random tail");
    cr_expect_eq(round_trip(KV_CONTENT_FRAME_BYTES + 4097, MIXED, 1, &stored_bytes), KV_CODEC_MIXED);
    cr_expect_eq(round_trip(100000, TEXT, 21, &stored_bytes), KV_CODEC_ZSTD);
}

static void every_garbled_byte_is_found(enum filling filling, size_t bytes)
{
    struct codec *codec = codec_new(1);
    struct kv_buf content = content_of(bytes, filling), stored = {0}, back = {0};
    codec_encode(codec, kv_buf_peek(&content), &stored);
    for (size_t at = 0; at < stored.bytes; at++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            stored.data[at] ^= (uint8_t)(1u << bit);
            cr_expect_eq(codec_decode(codec, kv_buf_peek(&stored), bytes, &back), KV_CORRUPT, "byte %zu bit %u", at,
                         bit);
            cr_expect_eq(back.bytes, 0);
            stored.data[at] ^= (uint8_t)(1u << bit);
        }
    }
    for (size_t kept = 0; kept < stored.bytes; kept++)
        cr_expect_eq(codec_decode(codec, kv_slice(stored.data, kept), bytes, &back), KV_CORRUPT, "cut at %zu", kept);
    kv_buf_append(&stored, kv_slice("x", 1));
    cr_expect_eq(codec_decode(codec, kv_buf_peek(&stored), bytes, &back), KV_CORRUPT, "a byte too many");
    kv_buf_free(&content);
    kv_buf_free(&stored);
    kv_buf_free(&back);
    codec_free(&codec);
}

Test(codec, finds_every_garbled_byte)
{
    every_garbled_byte_is_found(TEXT, 3000);
    every_garbled_byte_is_found(RANDOM, 1500);
    every_garbled_byte_is_found(TEXT, 1);
}

Test(codec, refuses_a_wrong_size)
{
    struct codec *codec = codec_new(1);
    struct kv_buf content = content_of(5000, TEXT), stored = {0}, back = {0};
    codec_encode(codec, kv_buf_peek(&content), &stored);
    cr_expect_eq(codec_decode(codec, kv_buf_peek(&stored), 4999, &back), KV_CORRUPT);
    cr_expect_eq(codec_decode(codec, kv_buf_peek(&stored), 5001, &back), KV_CORRUPT);
    cr_expect_eq(codec_decode(codec, kv_buf_peek(&stored), UINT64_MAX, &back), KV_CORRUPT);
    cr_expect_eq(codec_decode(codec, kv_slice(NULL, 0), 0, &back), KV_OK);
    kv_buf_free(&content);
    kv_buf_free(&stored);
    kv_buf_free(&back);
    codec_free(&codec);
}

Test(codec, repeats_of_random_blocks_still_compress)
{
    struct codec *codec = codec_new(1);
    struct kv_buf content = {0}, stored = {0};
    struct kv_buf block = content_of(1024, RANDOM);
    for (unsigned i = 0; i < 32; i++)
        kv_buf_append(&content, kv_buf_peek(&block));
    cr_expect_eq(codec_encode(codec, kv_buf_peek(&content), &stored), KV_CODEC_ZSTD);
    cr_expect_lt(stored.bytes, 2048);
    kv_buf_free(&block);
    kv_buf_free(&content);
    kv_buf_free(&stored);
    codec_free(&codec);
}

/* Letters of an alphabet at random, or a block of random bytes twice (alphabet 0). */
static struct kv_buf short_content(size_t bytes, unsigned alphabet)
{
    struct kv_buf content = {0};
    kv_buf_reserve(&content, bytes);
    for (; content.bytes < bytes; content.bytes++) {
        uint8_t fresh = (uint8_t)(alphabet == 0 ? random_byte() : ' ' + random_byte() % alphabet);
        bool again = alphabet == 0 && content.bytes >= bytes / 2;
        content.data[content.bytes] = again ? content.data[content.bytes - bytes / 2] : fresh;
    }
    return content;
}

/* Short contents are estimated before zstd sees them: the estimate may waste zstd's time, but not what it would have saved. */
Test(codec, short_contents_that_would_shrink_do)
{
    static const unsigned alphabets[] = {0, 1, 2, 4, 10, 16, 26, 40, 64, 90};
    struct codec *codec = codec_new(1);
    unsigned shrunk = 0;
    for (size_t i = 0; i < 20 * sizeof alphabets / sizeof *alphabets; i++) {
        for (size_t bytes = 32; bytes < 520; bytes += 1 + bytes / 8) {
            uint8_t best[1024];
            struct kv_buf content = short_content(bytes, alphabets[i / 20]), stored = {0};
            size_t best_bytes = ZSTD_compress(best, bytes - 1, content.data, bytes, 1);
            if (ZSTD_isError(best_bytes))
                best_bytes = bytes;
            codec_encode(codec, kv_buf_peek(&content), &stored);
            shrunk += stored.bytes < bytes;
            cr_expect_leq(stored.bytes, best_bytes + 12 + bytes / 16, "%zu bytes out of %u: zstd makes %zu, we %zu",
                          bytes, alphabets[i / 20], best_bytes, stored.bytes);
            kv_buf_free(&content);
            kv_buf_free(&stored);
        }
    }
    cr_expect_gt(shrunk, 1000);
    codec_free(&codec);
}

Test(codec, index_entries_are_little_endian)
{
    struct codec_entry entry = {.stored_bytes = 0x01020304, .raw = true, .checksum = 0x1122334455667788};
    static const uint8_t expected[CODEC_INDEX_ENTRY_BYTES] = {4,    3,    2,    0x81, 0x88, 0x77,
                                                              0x66, 0x55, 0x44, 0x33, 0x22, 0x11};
    uint8_t bytes[CODEC_INDEX_ENTRY_BYTES];
    codec_entry_write(entry, bytes);
    cr_assert_arr_eq(bytes, expected, sizeof(expected));
    struct codec_entry back = codec_entry_read(bytes, 0);
    cr_expect(back.raw && back.stored_bytes == entry.stored_bytes && back.checksum == entry.checksum);
}

Test(digest, knows_the_vectors_of_fips_180)
{
    char hex[DIGEST_HEX_BYTES + 1] = {0};
    struct kv_hash hash = codec_hash(kv_slice_text("abc")), back;
    digest_hex(&hash, hex);
    cr_expect_str_eq(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    cr_expect_eq(digest_parse(kv_slice(hex, DIGEST_HEX_BYTES), &back), KV_OK);
    cr_expect(kv_hash_equal(&back, &hash));
    hash = codec_hash(kv_slice(NULL, 0));
    digest_hex(&hash, hex);
    cr_expect_str_eq(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    cr_expect_eq(digest_parse(kv_slice(hex, 63), &back), KV_INVALID);
    hex[10] = 'g';
    cr_expect_eq(digest_parse(kv_slice(hex, 64), &back), KV_INVALID);
}
