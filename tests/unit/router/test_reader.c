/* Goal: any range of any content comes out exactly, however the stored form arrives, and damage is found before a byte of the
 * damaged frame is given out.
 * Method: contents of several frames, pieces of odd sizes, ranges around the borders of frames, garbled bytes, pass-through
 * decoded again with zstd. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <zstd.h>

#include "body_file.h"
#include "reader.h"

static struct codec *codec;
static struct kv_buf content, stored;
static struct kv_object object;

static void make(size_t bytes, unsigned random_every)
{
    uint32_t seed = 7;
    codec = codec_new(1);
    kv_buf_reserve(&content, bytes + 1);
    for (; content.bytes < bytes; content.bytes++) {
        seed = seed * 1664525 + 1013904223;
        bool random = random_every != 0 && content.bytes / KV_CONTENT_FRAME_BYTES % random_every == 0;
        content.data[content.bytes] = random ? (uint8_t)(seed >> 24) : (uint8_t)("abcdefgh"[seed >> 29]);
    }
    object = (struct kv_object){.size = bytes, .codec = codec_encode(codec, kv_buf_peek(&content), &stored)};
    object.stored_bytes = stored.bytes;
}

static void drop(void)
{
    kv_buf_free(&content);
    kv_buf_free(&stored);
    codec_free(&codec);
}

static struct arena *arena; /* pieces come in its slots; NULL: on the heap */

/* What the router lends to readers; a slot that is back holds something else. */
static void open_arena(void)
{
    struct body_file *file;
    arena = arena_new(&file);
    cr_assert_not_null(arena);
    body_file_free(&file);
}

/* As backend_read.c and backend_fetch.c bring it: in a slot, or borrowed from `borrowed`, which is replaced. */
static struct kv_slice bring(uint64_t offset, size_t bytes, uint8_t **borrowed, struct arena_slot *slot)
{
    struct kv_slice given = kv_slice(stored.data + offset, bytes);
    free(*borrowed); /* ASan watches that nothing of it is used any more */
    *borrowed = NULL;
    if (arena != NULL && bytes > 0 && bytes <= KV_SLOT_BYTES_MAX && arena_take(arena, bytes, slot)) {
        memcpy((void *)(uintptr_t)arena_peek(slot, bytes).data, given.data, bytes);
        return arena_peek(slot, bytes);
    }
    *borrowed = kv_copy(given);
    return kv_slice(*borrowed, bytes);
}

/* The next one's, unless the reader took it. */
static void end_slot(struct reader *reader, struct kv_slice given, struct arena_slot *slot)
{
    if (slot->arena == NULL)
        return;
    reader_keep(reader);
    memset((void *)(uintptr_t)given.data, 0xdd, given.bytes);
    arena_give_back(slot);
}

static void feed(struct reader *reader, uint64_t offset, size_t bytes, uint8_t **borrowed)
{
    struct arena_slot slot = {0};
    struct kv_slice given = bring(offset, bytes, borrowed, &slot);
    reader_feed(reader, given, &slot);
    end_slot(reader, given, &slot);
}

/* Reads with `first` bytes at the start and `piece` bytes each time after; KV_CORRUPT when the reader says so. */
static enum kv_err read_all(struct range range, bool compressed, size_t first, size_t piece, struct kv_buf *out)
{
    struct reader reader;
    struct kv_slice chunk;
    enum reader_step step;
    first = first < stored.bytes ? first : stored.bytes;
    uint8_t *borrowed = NULL;
    struct arena_slot slot = {0};
    struct kv_slice front = bring(0, first, &borrowed, &slot);
    reader_begin(&reader, &object, range, compressed);
    reader_start(&reader, front, &slot);
    end_slot(&reader, front, &slot);
    while ((step = reader_next(&reader, codec, &chunk)) == READER_CHUNK || step == READER_NEED) {
        uint64_t offset, bytes;
        bool ahead = step == READER_CHUNK;
        if (ahead && (reader_through(&reader) || !reader_lacks(&reader))) {
            kv_buf_append(out, chunk);
            continue;
        }
        reader_keep(&reader);
        reader_needs(&reader, &offset, &bytes);
        cr_assert_leq(offset + bytes, stored.bytes);
        cr_assert_leq(bytes, READER_FETCH_BYTES_MAX);
        feed(&reader, offset, bytes < piece ? bytes : piece, &borrowed);
        if (ahead) { /* a chunk outlives what is fed meanwhile */
            reader_keep(&reader);
            kv_buf_append(out, chunk);
        }
        cr_assert_leq(reader.kept.bytes, first + KV_CONTENT_FRAME_BYTES + READER_FETCH_BYTES_MAX);
        cr_assert_leq(reader.given.bytes, KV_CONTENT_FRAME_BYTES + READER_FETCH_BYTES_MAX);
    }
    free(borrowed);
    reader_free(&reader);
    return step == READER_END ? KV_OK : KV_CORRUPT;
}

static void expect_range(uint64_t at, uint64_t bytes, size_t first, size_t piece)
{
    struct kv_buf out = {0};
    cr_assert_eq(read_all((struct range){at, bytes}, false, first, piece, &out), KV_OK, "%lu+%lu", at, bytes);
    cr_expect(kv_slice_equal(kv_buf_peek(&out), kv_slice(content.data + at, bytes)), "%lu+%lu by %zu", at, bytes,
              piece);
    kv_buf_free(&out);
}

static void expect_every_range(void)
{
    static const size_t firsts[] = {0, 1, 12, 60, 70, 100000, 1048576};
    static const size_t pieces[] = {4093, 262144, 1048576};
    const uint64_t frame = KV_CONTENT_FRAME_BYTES;
    make(5 * frame + 17, 2);
    cr_assert_eq(object.codec, KV_CODEC_MIXED);
    for (size_t f = 0; f < sizeof(firsts) / sizeof(firsts[0]); f++) {
        for (size_t p = 0; p < sizeof(pieces) / sizeof(pieces[0]); p++) {
            expect_range(0, object.size, firsts[f], pieces[p]);
            expect_range(0, 1, firsts[f], pieces[p]);
            expect_range(object.size - 1, 1, firsts[f], pieces[p]);
            expect_range(frame - 1, 2, firsts[f], pieces[p]);
            expect_range(frame, frame, firsts[f], pieces[p]);
            expect_range(2 * frame - 5, 2 * frame + 10, firsts[f], pieces[p]);
        }
    }
    drop();
}

Test(reader, gives_every_range_of_it)
{
    expect_every_range();
}

static void expect_all_idle(void)
{
    struct arena_slot slots[KV_ARENA_UNITS];
    for (unsigned i = 0; i < KV_ARENA_UNITS; i++)
        cr_assert(arena_take(arena, 1, &slots[i]), "a slot is lost");
    for (unsigned i = 0; i < KV_ARENA_UNITS; i++)
        arena_give_back(&slots[i]);
}

Test(reader, gives_every_range_of_it_from_slots)
{
    open_arena();
    expect_every_range();
    expect_all_idle();
    arena_free(&arena);
}

/* Others have so many that none is lent. */
Test(reader, gives_every_range_of_it_when_slots_are_few)
{
    struct arena_slot others[KV_ARENA_UNITS];
    open_arena();
    for (unsigned i = 0; i < KV_ARENA_UNITS - ARENA_SPARE_UNITS; i++)
        cr_assert(arena_take(arena, 1, &others[i]));
    expect_every_range();
    for (unsigned i = 0; i < KV_ARENA_UNITS - ARENA_SPARE_UNITS; i++)
        arena_give_back(&others[i]);
    expect_all_idle();
    arena_free(&arena);
}

/* A frame that came as a whole leaves from where it lies. */
Test(reader, does_not_copy_a_raw_frame_that_lies_in_a_slot)
{
    struct reader reader;
    struct kv_slice chunk;
    struct arena_slot slot;
    uint64_t offset, bytes;
    make(2 * KV_CONTENT_FRAME_BYTES, 1);
    open_arena();
    reader_begin(&reader, &object, (struct range){KV_CONTENT_FRAME_BYTES, KV_CONTENT_FRAME_BYTES}, false);
    reader_start(&reader, kv_slice(stored.data, codec_index_bytes(object.size)), NULL);
    cr_assert_eq(reader_next(&reader, codec, &chunk), READER_NEED);
    reader_keep(&reader);
    reader_needs(&reader, &offset, &bytes);
    cr_assert_eq(bytes, KV_CONTENT_FRAME_BYTES);
    cr_assert(arena_take(arena, bytes, &slot));
    struct kv_slice place = arena_peek(&slot, bytes);
    memcpy((void *)(uintptr_t)place.data, stored.data + offset, bytes);
    reader_feed(&reader, place, &slot);
    cr_assert_eq(reader_next(&reader, codec, &chunk), READER_CHUNK);
    cr_expect_eq(chunk.data, place.data);
    reader_free(&reader);
    expect_all_idle();
    arena_free(&arena);
    drop();
}

Test(reader, an_empty_content_has_no_frames)
{
    struct kv_buf out = {0};
    make(0, 0);
    cr_expect_eq(read_all((struct range){0, 0}, false, 0, 1, &out), KV_OK);
    cr_expect_eq(out.bytes, 0);
    drop();
}

Test(reader, hands_on_compressed_frames_as_they_are)
{
    struct kv_buf out = {0};
    make(4 * KV_CONTENT_FRAME_BYTES + 99, 0);
    cr_assert_eq(object.codec, KV_CODEC_ZSTD);
    cr_assert_eq(read_all((struct range){0, object.size}, true, 1000, 50000, &out), KV_OK);
    cr_assert_eq(out.bytes, stored.bytes - codec_index_bytes(object.size));
    uint8_t *back = kv_alloc(content.bytes);
    ZSTD_DCtx *context = ZSTD_createDCtx();
    cr_expect_eq(ZSTD_decompressDCtx(context, back, content.bytes, out.data, out.bytes), content.bytes);
    cr_expect(memcmp(back, content.data, content.bytes) == 0);
    ZSTD_freeDCtx(context);
    free(back);
    kv_buf_free(&out);
    drop();
}

Test(reader, stops_before_a_damaged_frame)
{
    make(3 * KV_CONTENT_FRAME_BYTES, 0);
    for (size_t at = 0; at < stored.bytes; at += at < 40 ? 1 : 7919) {
        for (int compressed = 0; compressed < 2; compressed++) {
            struct kv_buf out = {0};
            stored.data[at] ^= 0x10;
            cr_expect_eq(read_all((struct range){0, object.size}, compressed, 1 << 20, 1 << 20, &out), KV_CORRUPT,
                         "byte %zu", at);
            if (!compressed)
                cr_expect(memcmp(out.data == NULL ? (const uint8_t *)"" : out.data, content.data, out.bytes) == 0);
            stored.data[at] ^= 0x10;
            kv_buf_free(&out);
        }
    }
    object.stored_bytes--;
    struct kv_buf out = {0};
    cr_expect_eq(read_all((struct range){0, object.size}, false, 1 << 20, 1 << 20, &out), KV_CORRUPT, "lengths");
    kv_buf_free(&out);
    drop();
}
