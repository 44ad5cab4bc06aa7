/* Goal: what we pack, msgpack-c reads, and the reverse; no input makes the reader read beyond its end, allocate or misjudge.
 * Method: msgpack-c's own packer and unpacker are the reference, in both directions, at every boundary of every encoding;
 * each of the 256 header bytes with several tails; truncation at every length; hostile counts and depths; 300,000 random inputs
 * from a fixed seed (printed on failure). Inputs stand in memory of their exact size, so that ASan sees a read beyond. */
#include <criterion/criterion.h>

#include <msgpack.h>
#include <stdlib.h>

#include "wire/pack.h"

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

static const uint64_t numbers[] = {0,
                                   1,
                                   127,
                                   128,
                                   255,
                                   256,
                                   65535,
                                   65536,
                                   0x7fffffff,
                                   0xffffffffu,
                                   0x100000000u,
                                   0x7fffffffffffffffu,
                                   ((uint64_t)1 << 63),
                                   UINT64_MAX};
static const size_t lengths[] = {0, 1, 31, 32, 33, 255, 256, 257, 65535, 65536, 65537};
static const size_t counts[] = {0, 1, 15, 16, 17, 65535, 65536, 70000};

/* ---- writing: ours, read by msgpack-c ------------------------------------------------------------------------- */

static msgpack_object read_reference(const struct kv_buf *buf, msgpack_unpacked *result)
{
    size_t offset = 0;
    msgpack_unpacked_init(result);
    enum { OK = MSGPACK_UNPACK_SUCCESS };
    cr_assert_eq(msgpack_unpack_next(result, (const char *)buf->data, buf->bytes, &offset), OK);
    cr_assert_eq(offset, buf->bytes);
    return result->data;
}

Test(pack, numbers_and_constants_reach_msgpack)
{
    for (size_t i = 0; i < COUNT_OF(numbers); i++) {
        struct kv_buf buf = {0};
        msgpack_unpacked result;
        kv_pack_uint(&buf, numbers[i]);
        msgpack_object object = read_reference(&buf, &result);
        cr_expect(object.type == MSGPACK_OBJECT_POSITIVE_INTEGER && object.via.u64 == numbers[i]);
        msgpack_unpacked_destroy(&result);
        kv_buf_free(&buf);
    }
    struct kv_buf buf = {0};
    kv_pack_bool(&buf, false);
    kv_pack_bool(&buf, true);
    kv_pack_nil(&buf);
    static const uint8_t golden[] = {0xc2, 0xc3, 0xc0};
    cr_assert_eq(buf.bytes, sizeof golden);
    cr_expect_arr_eq(buf.data, golden, sizeof golden);
    kv_buf_free(&buf);
}

Test(pack, bytes_and_text_reach_msgpack)
{
    static uint8_t space[70000];
    for (size_t i = 0; i < sizeof space; i++)
        space[i] = (uint8_t)(i * 31 + 7);
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        struct kv_buf buf = {0};
        msgpack_unpacked result;
        kv_pack_array(&buf, 2);
        kv_pack_bin(&buf, kv_slice(lengths[i] == 0 ? NULL : space, lengths[i]));
        kv_pack_str(&buf, kv_slice(lengths[i] == 0 ? NULL : space, lengths[i]));
        msgpack_object_array pair = read_reference(&buf, &result).via.array;
        cr_assert(pair.size == 2 && pair.ptr[0].type == MSGPACK_OBJECT_BIN && pair.ptr[1].type == MSGPACK_OBJECT_STR);
        cr_assert(pair.ptr[0].via.bin.size == lengths[i] && pair.ptr[1].via.str.size == lengths[i]);
        cr_expect(lengths[i] == 0 || memcmp(pair.ptr[0].via.bin.ptr, space, lengths[i]) == 0);
        cr_expect(lengths[i] == 0 || memcmp(pair.ptr[1].via.str.ptr, space, lengths[i]) == 0);
        msgpack_unpacked_destroy(&result);
        kv_buf_free(&buf);
    }
}

Test(pack, arrays_and_maps_reach_msgpack)
{
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        struct kv_buf buf = {0};
        msgpack_unpacked result;
        kv_pack_array(&buf, counts[i]);
        for (size_t k = 0; k < counts[i]; k++)
            kv_pack_nil(&buf);
        cr_expect_eq(read_reference(&buf, &result).via.array.size, counts[i]);
        msgpack_unpacked_destroy(&result);
        buf.bytes = 0;
        kv_pack_map(&buf, counts[i]);
        for (size_t k = 0; k < 2 * counts[i]; k++)
            kv_pack_uint(&buf, 5);
        cr_expect_eq(read_reference(&buf, &result).via.map.size, counts[i]);
        msgpack_unpacked_destroy(&result);
        kv_buf_free(&buf);
    }
}

/* ---- reading: msgpack-c's, read by ours ----------------------------------------------------------------------- */

/* A packer into a buffer; `begin` afresh, `reader` over an exact copy that the caller frees through `owned`. */
struct source {
    msgpack_sbuffer buffer;
    msgpack_packer packer;
    uint8_t *owned;
};

static void source_begin(struct source *source)
{
    msgpack_sbuffer_init(&source->buffer);
    msgpack_packer_init(&source->packer, &source->buffer, msgpack_sbuffer_write);
    source->owned = NULL;
}

static struct kv_unpack reader_of(const void *bytes, size_t count, uint8_t **owned)
{
    *owned = malloc(count == 0 ? 1 : count);
    if (count > 0)
        memcpy(*owned, bytes, count);
    return kv_unpack_start(kv_slice(*owned, count));
}

static struct kv_unpack source_reader(struct source *source)
{
    return reader_of(source->buffer.data, source->buffer.size, &source->owned);
}

static void source_end(struct source *source)
{
    free(source->owned);
    msgpack_sbuffer_destroy(&source->buffer);
}

typedef int (*pack_number)(msgpack_packer *, uint64_t);
#define NUMBER_PACKER(name, type, call)                                                                                \
    static int name(msgpack_packer *packer, uint64_t value)                                                            \
    {                                                                                                                  \
        return call(packer, (type)value);                                                                              \
    }
NUMBER_PACKER(fix_u8, uint8_t, msgpack_pack_fix_uint8)
NUMBER_PACKER(fix_u16, uint16_t, msgpack_pack_fix_uint16)
NUMBER_PACKER(fix_u32, uint32_t, msgpack_pack_fix_uint32)
NUMBER_PACKER(fix_u64, uint64_t, msgpack_pack_fix_uint64)
NUMBER_PACKER(fix_i8, int8_t, msgpack_pack_fix_int8)
NUMBER_PACKER(fix_i16, int16_t, msgpack_pack_fix_int16)
NUMBER_PACKER(fix_i32, int32_t, msgpack_pack_fix_int32)
NUMBER_PACKER(fix_i64, int64_t, msgpack_pack_fix_int64)
NUMBER_PACKER(shortest, uint64_t, msgpack_pack_uint64)

/* Every encoding that can hold the number yields it; a limit below it makes it bad. */
static void expect_number(pack_number pack, uint64_t value)
{
    struct source source;
    source_begin(&source);
    pack(&source.packer, value);
    struct kv_unpack in = source_reader(&source), low = in;
    cr_expect_eq(kv_unpack_peek(&in), KV_UNPACK_UINT);
    cr_expect_eq(kv_unpack_uint(&in, value), value);
    cr_expect_eq(kv_unpack_end(&in), KV_OK);
    if (value > 0) {
        cr_expect_eq(kv_unpack_uint(&low, value - 1), 0u);
        cr_expect_eq(kv_unpack_end(&low), KV_INVALID);
    }
    source_end(&source);
}

Test(pack, numbers_in_every_width)
{
    static const struct {
        pack_number pack;
        uint64_t max;
    } widths[] = {{fix_u8, UINT8_MAX},   {fix_u16, UINT16_MAX}, {fix_u32, UINT32_MAX},
                  {fix_u64, UINT64_MAX}, {fix_i8, INT8_MAX},    {fix_i16, INT16_MAX},
                  {fix_i32, INT32_MAX},  {fix_i64, INT64_MAX},  {shortest, UINT64_MAX}};
    for (size_t w = 0; w < COUNT_OF(widths); w++) {
        for (size_t i = 0; i < COUNT_OF(numbers); i++) {
            if (numbers[i] <= widths[w].max)
                expect_number(widths[w].pack, numbers[i]);
        }
    }
}

Test(pack, negative_numbers_are_not_unsigned)
{
    static const int64_t values[] = {-1,       -32, -33, -128, -129, -32768, -32769, INT32_MIN, (int64_t)INT32_MIN - 1,
                                     INT64_MIN};
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        struct source source;
        source_begin(&source);
        msgpack_pack_int64(&source.packer, values[i]);
        struct kv_unpack in = source_reader(&source), skip = in;
        cr_expect_eq(kv_unpack_peek(&in), KV_UNPACK_INT);
        cr_expect_eq(kv_unpack_uint(&in, UINT64_MAX), 0u);
        cr_expect_eq(kv_unpack_end(&in), KV_INVALID);
        kv_unpack_skip(&skip, 0);
        cr_expect_eq(kv_unpack_end(&skip), KV_OK);
        source_end(&source);
    }
}

Test(pack, bytes_and_text_come_from_msgpack)
{
    static char space[70000];
    memset(space, 'v', sizeof space);
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        size_t length = lengths[i];
        struct source source;
        source_begin(&source);
        msgpack_pack_bin_with_body(&source.packer, space, length);
        msgpack_pack_str_with_body(&source.packer, space, length);
        struct kv_unpack in = source_reader(&source), low = in, wrong = in;
        cr_expect_eq(kv_unpack_bin(&in, length).bytes, length);
        cr_expect_eq(kv_unpack_peek(&in), KV_UNPACK_STR);
        struct kv_slice text = kv_unpack_str(&in, length);
        cr_expect(kv_slice_equal(text, kv_slice(space, length)));
        cr_expect_eq(kv_unpack_end(&in), KV_OK);
        kv_unpack_str(&wrong, length);
        cr_expect(wrong.bad, "a bin is not a str");
        if (length > 0)
            cr_expect(kv_unpack_bin(&low, length - 1).bytes == 0 && low.bad);
        source_end(&source);
    }
}

Test(pack, counts_come_from_msgpack)
{
    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        struct source source;
        source_begin(&source);
        msgpack_pack_map(&source.packer, counts[i]);
        for (size_t k = 0; k < 2 * counts[i]; k++)
            msgpack_pack_true(&source.packer);
        msgpack_pack_array(&source.packer, counts[i]);
        for (size_t k = 0; k < counts[i]; k++)
            msgpack_pack_false(&source.packer);
        struct kv_unpack in = source_reader(&source), skip = in, low = in;
        cr_assert_eq(kv_unpack_map(&in, counts[i]), counts[i]);
        for (size_t k = 0; k < 2 * counts[i]; k++)
            in.bad |= !kv_unpack_bool(&in);
        kv_unpack_array_of(&in, counts[i]);
        for (size_t k = 0; k < counts[i]; k++)
            in.bad |= kv_unpack_bool(&in);
        cr_expect_eq(kv_unpack_end(&in), KV_OK);
        kv_unpack_skip(&skip, 1);
        kv_unpack_skip(&skip, 1);
        cr_expect_eq(kv_unpack_end(&skip), KV_OK);
        if (counts[i] > 0)
            cr_expect(kv_unpack_map(&low, counts[i] - 1) == 0 && low.bad);
        source_end(&source);
    }
}

Test(pack, scalars_come_from_msgpack)
{
    struct source source;
    source_begin(&source);
    msgpack_pack_nil(&source.packer);
    msgpack_pack_float(&source.packer, 1.5f);
    msgpack_pack_double(&source.packer, -1e300);
    msgpack_pack_true(&source.packer);
    struct kv_unpack in = source_reader(&source);
    cr_expect(kv_unpack_nil(&in));
    cr_expect_not(kv_unpack_nil(&in), "only what is there");
    for (int i = 0; i < 2; i++) {
        cr_expect_eq(kv_unpack_peek(&in), KV_UNPACK_FLOAT);
        kv_unpack_skip(&in, 0);
    }
    cr_expect(kv_unpack_bool(&in));
    cr_expect_eq(kv_unpack_end(&in), KV_OK);
    cr_expect_eq(kv_unpack_peek(&in), KV_UNPACK_BAD, "nothing is left");
    source_end(&source);
}

/* ---- judging: ours against msgpack-c on any input ------------------------------------------------------------- */

static bool has_extension(const msgpack_object *object)
{
    if (object->type == MSGPACK_OBJECT_EXT)
        return true;
    bool found = false;
    if (object->type == MSGPACK_OBJECT_ARRAY) {
        for (uint32_t i = 0; i < object->via.array.size; i++)
            found |= has_extension(&object->via.array.ptr[i]);
    }
    if (object->type == MSGPACK_OBJECT_MAP) {
        for (uint32_t i = 0; i < object->via.map.size; i++)
            found |= has_extension(&object->via.map.ptr[i].key) || has_extension(&object->via.map.ptr[i].val);
    }
    return found;
}

static enum kv_unpack_type type_of(const msgpack_object *object)
{
    static const enum kv_unpack_type types[] = {
        [MSGPACK_OBJECT_NIL] = KV_UNPACK_NIL,
        [MSGPACK_OBJECT_BOOLEAN] = KV_UNPACK_BOOL,
        [MSGPACK_OBJECT_POSITIVE_INTEGER] = KV_UNPACK_UINT,
        [MSGPACK_OBJECT_NEGATIVE_INTEGER] = KV_UNPACK_INT,
        [MSGPACK_OBJECT_FLOAT32] = KV_UNPACK_FLOAT,
        [MSGPACK_OBJECT_FLOAT64] = KV_UNPACK_FLOAT,
        [MSGPACK_OBJECT_STR] = KV_UNPACK_STR,
        [MSGPACK_OBJECT_ARRAY] = KV_UNPACK_ARRAY,
        [MSGPACK_OBJECT_MAP] = KV_UNPACK_MAP,
        [MSGPACK_OBJECT_BIN] = KV_UNPACK_BIN,
        [MSGPACK_OBJECT_EXT] = KV_UNPACK_BAD,
    };
    return types[object->type];
}

/* Same verdict, same type and same length as the reference; extensions are the one thing that we refuse and it takes.
 * Returns a sentence about the difference, or NULL. */
static const char *difference(const uint8_t *bytes, size_t count)
{
    uint8_t *owned;
    struct kv_unpack in = reader_of(bytes, count, &owned);
    enum kv_unpack_type type = kv_unpack_peek(&in);
    kv_unpack_skip(&in, 64);
    size_t used = (size_t)(in.at - owned), reference_used = 0;
    msgpack_unpacked result;
    msgpack_unpacked_init(&result);
    msgpack_unpack_return verdict = msgpack_unpack_next(&result, (const char *)bytes, count, &reference_used);
    bool whole = verdict == MSGPACK_UNPACK_SUCCESS || verdict == MSGPACK_UNPACK_EXTRA_BYTES;
    bool good = whole && !has_extension(&result.data);
    const char *sentence = NULL;
    if (good == in.bad)
        sentence = in.bad ? "refused what msgpack-c takes" : "took what msgpack-c refuses";
    else if (good && used != reference_used)
        sentence = "consumed another length";
    else if (good && type != type_of(&result.data))
        sentence = "saw another type";
    msgpack_unpacked_destroy(&result);
    free(owned);
    return sentence;
}

Test(pack, every_header_byte)
{
    static const uint8_t fills[] = {0x00, 0x01, 0x7f, 0x80, 0xc0, 0xa1};
    for (unsigned head = 0; head <= 0xff; head++) {
        for (size_t f = 0; f < COUNT_OF(fills); f++) {
            bool would_allocate =
                (head == 0xdd || head == 0xdf) && fills[f] != 0; /* msgpack-c allocates what is claimed */
            for (size_t count = 1; count <= 40 && !would_allocate; count++) {
                uint8_t bytes[40];
                memset(bytes, fills[f], sizeof bytes);
                bytes[0] = (uint8_t)head;
                const char *sentence = difference(bytes, count);
                if (sentence != NULL)
                    cr_assert_fail("head %02x fill %02x length %zu: %s", head, fills[f], count, sentence);
            }
        }
    }
}

static uint64_t next_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

Test(pack, random_inputs)
{
    uint64_t seed = 20261122;
    for (unsigned step = 0; step < 300000; step++) {
        uint64_t at_step = seed;
        uint8_t bytes[24];
        size_t count = 1 + next_random(&seed) % sizeof bytes;
        for (size_t i = 0; i < count; i++) {
            uint8_t byte = (uint8_t)next_random(&seed);
            if (next_random(&seed) % 2 == 0)
                byte = (uint8_t)(0x80 | (byte & 0x7f)); /* headers, more often than numbers */
            bool allocates = byte >= 0xdc && byte <= 0xdf;
            bytes[i] = allocates && next_random(&seed) % 64 != 0 ? 0x92 : byte;
            if (byte == 0xdd || byte == 0xdf)
                bytes[i] = 0x82; /* four-byte counts have their own test: msgpack-c would allocate them */
        }
        const char *sentence = difference(bytes, count);
        if (sentence != NULL)
            cr_assert_fail("state %llu at step %u: %s", (unsigned long long)at_step, step, sentence);
    }
}

static void pack_something_of_everything(msgpack_packer *packer)
{
    static const char space[300] = {0};
    msgpack_pack_array(packer, 17);
    for (size_t i = 0; i < 6; i++)
        msgpack_pack_uint64(packer, numbers[2 * i + 1]);
    msgpack_pack_int64(packer, -5);
    msgpack_pack_int64(packer, -70000);
    msgpack_pack_double(packer, 2.5);
    msgpack_pack_nil(packer);
    msgpack_pack_true(packer);
    msgpack_pack_str_with_body(packer, "short", 5);
    msgpack_pack_str_with_body(packer, space, 40);
    msgpack_pack_bin_with_body(packer, space, 300);
    msgpack_pack_map(packer, 1);
    msgpack_pack_str_with_body(packer, "k", 1);
    msgpack_pack_array(packer, 0);
    msgpack_pack_array(packer, 1);
    msgpack_pack_map(packer, 0);
    msgpack_pack_bin_with_body(packer, "", 0);
}

Test(pack, truncation_at_every_length)
{
    struct source source;
    source_begin(&source);
    pack_something_of_everything(&source.packer);
    for (size_t count = 0; count <= source.buffer.size; count++) {
        uint8_t *owned;
        struct kv_unpack in = reader_of(source.buffer.data, count, &owned);
        kv_unpack_skip(&in, 8);
        enum kv_err expected = count == source.buffer.size ? KV_OK : KV_INVALID;
        cr_assert_eq(kv_unpack_end(&in), expected, "at %zu of %zu", count, source.buffer.size);
        free(owned);
    }
    source_end(&source);
}

/* ---- hostile input -------------------------------------------------------------------------------------------- */

Test(pack, hostile_counts_are_refused_at_once)
{
    static const struct {
        uint8_t bytes[8];
        size_t count;
    } inputs[] = {
        {{0xdd, 0xff, 0xff, 0xff, 0xff, 0}, 6},
        {{0xdf, 0xff, 0xff, 0xff, 0xff, 0}, 6},
        {{0xdf, 0x80, 0x00, 0x00, 0x00, 0}, 6},
        {{0xdc, 0xff, 0xff, 0}, 4},
        {{0xde, 0x00, 0x02, 0, 0, 0}, 6},
        {{0xc6, 0xff, 0xff, 0xff, 0xff, 0}, 6},
        {{0xdb, 0xff, 0xff, 0xff, 0xff, 0}, 6},
        {{0xc5, 0x00, 0x03, 1, 2}, 5},
        {{0x92, 0x00}, 2},
        {{0x82, 0, 0, 0}, 4},
        {{0xc4}, 1},
        {{0xd9, 0x01}, 2},
        {{0xc1, 0}, 2},
        {{0xd4, 0, 0}, 3},
        {{0xc7, 0, 0}, 3},
    };
    for (size_t i = 0; i < COUNT_OF(inputs); i++) {
        uint8_t *owned;
        struct kv_unpack start = reader_of(inputs[i].bytes, inputs[i].count, &owned);
        struct kv_unpack array = start, map = start, bin = start, str = start, skip = start;
        cr_expect(kv_unpack_array(&array, SIZE_MAX) == 0 && array.bad, "input %zu", i);
        cr_expect(kv_unpack_map(&map, SIZE_MAX) == 0 && map.bad, "input %zu", i);
        cr_expect(kv_unpack_bin(&bin, SIZE_MAX).bytes == 0 && bin.bad, "input %zu", i);
        cr_expect(kv_unpack_str(&str, SIZE_MAX).bytes == 0 && str.bad, "input %zu", i);
        kv_unpack_skip(&skip, 64);
        cr_expect(skip.bad, "input %zu", i);
        free(owned);
    }
}

Test(pack, depth_is_bounded)
{
    static uint8_t bomb[1 << 20]; /* a million arrays of one, the last empty */
    memset(bomb, 0x91, sizeof bomb);
    bomb[sizeof bomb - 1] = 0x90;
    struct kv_unpack in = kv_unpack_start(kv_slice(bomb, sizeof bomb));
    kv_unpack_skip(&in, 100);
    cr_expect_eq(kv_unpack_end(&in), KV_INVALID);
    for (unsigned depth = 0; depth < 5; depth++) {
        struct kv_slice nested = kv_slice(bomb + sizeof bomb - 1 - depth, depth + 1);
        struct kv_unpack enough = kv_unpack_start(nested), tight = enough;
        kv_unpack_skip(&enough, depth);
        cr_expect_eq(kv_unpack_end(&enough), KV_OK, "depth %u", depth);
        if (depth > 0) {
            kv_unpack_skip(&tight, depth - 1);
            cr_expect_eq(kv_unpack_end(&tight), KV_INVALID, "depth %u", depth);
        }
    }
}

Test(pack, errors_stick)
{
    static const uint8_t bytes[] = {0xc3, 0x05, 0x90, 0xc4, 0x00, 0xa0, 0xc0};
    struct kv_unpack in = kv_unpack_start(kv_slice(bytes, sizeof bytes));
    cr_expect_eq(kv_unpack_uint(&in, 100), 0u, "a bool is no number");
    cr_expect_eq(kv_unpack_peek(&in), KV_UNPACK_BAD);
    cr_expect_not(kv_unpack_bool(&in));
    cr_expect_not(kv_unpack_nil(&in));
    cr_expect_eq(kv_unpack_uint(&in, 100), 0u);
    cr_expect_eq(kv_unpack_array(&in, 5), 0u);
    cr_expect_eq(kv_unpack_map(&in, 5), 0u);
    cr_expect_eq(kv_unpack_bin(&in, 5).bytes, 0u);
    cr_expect_eq(kv_unpack_str(&in, 5).bytes, 0u);
    cr_expect_eq(kv_unpack_end(&in), KV_INVALID);
}

Test(pack, nothing_and_leftovers)
{
    struct kv_unpack nothing = kv_unpack_start(kv_slice(NULL, 0));
    cr_expect_eq(kv_unpack_end(&nothing), KV_OK);
    cr_expect_eq(kv_unpack_peek(&nothing), KV_UNPACK_BAD);
    cr_expect_eq(kv_unpack_uint(&nothing, 1), 0u);
    cr_expect_eq(kv_unpack_end(&nothing), KV_INVALID);
    static const uint8_t two[] = {1, 2};
    struct kv_unpack in = kv_unpack_start(kv_slice(two, sizeof two));
    cr_expect_eq(kv_unpack_uint(&in, 9), 1u);
    cr_expect_eq(kv_unpack_end(&in), KV_INVALID, "one byte is left over");
    cr_expect_eq(kv_unpack_uint(&in, 9), 2u);
    cr_expect_eq(kv_unpack_end(&in), KV_OK);
}
