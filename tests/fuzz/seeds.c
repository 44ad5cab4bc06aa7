/* tests/fuzz/seeds.c -- kv-fuzz-seeds [--check] FOLDER: writes the inputs of the corpora that follow from code, or tells which of
 * those in FOLDER are missing or not of this version. One frame and one step of a shard for each message of kv/msg.h, contents as the
 * codec stores them, rows, journals, batches, conversations in HTTP/2. */
#include <errno.h>
#include <sys/stat.h>

#include "../unit/wire/message_cases.h"
#include "codec.h"
#include "journal_format.h"
#include "rows.h"

#define TOKEN "test-token"
#include "../attack/frames.h"

static const char *folder;
static bool checking;
static unsigned different;

/* What is kept is the same, or is replaced. */
static void keep(const char *corpus, const char *name, struct kv_buf *seed)
{
    char path[4096];
    static uint8_t kept[1 << 20];
    snprintf(path, sizeof(path), "%s/%s", folder, corpus);
    if (!checking && mkdir(path, 0755) != 0 && errno != EEXIST)
        perror(path);
    snprintf(path, sizeof(path), "%s/%s/%s", folder, corpus, name);
    FILE *file = fopen(path, checking ? "re" : "we");
    size_t bytes = file != NULL && checking ? fread(kept, 1, sizeof(kept), file) : 0;
    bool same = file != NULL && (checking ? kv_slice_equal(kv_slice(kept, bytes), kv_buf_peek(seed))
                                          : fwrite(seed->data, 1, seed->bytes, file) == seed->bytes);
    if (!same)
        fprintf(stderr, "%s: %s\n", path, checking ? "not what kv-fuzz-seeds makes" : "cannot be written");
    different += !same;
    if (file != NULL && fclose(file) != 0)
        different++;
    kv_buf_free(seed);
}

static void put_number(struct kv_buf *out, uint64_t number, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        *kv_buf_reserve(out, 1) = (uint8_t)(number >> 8 * i), out->bytes++;
}

static void put_part(struct kv_buf *out, struct kv_slice part, size_t length_bytes)
{
    put_number(out, part.bytes, length_bytes);
    kv_buf_append(out, part);
}

/* ---- messages ----------------------------------------------------------------------------------------------------- */

/* The place of a message in the table: what fuzz_core.c takes for its number. */
static unsigned place_of(enum kv_msg type)
{
    static const enum kv_msg all[] = {
#define X(name, id, from, to, answer, body) KV_MSG_##name,
        KV_MSG_TABLE(X)
#undef X
    };
    unsigned place = 0;
    while (all[place] != type)
        place++;
    return place;
}

static void put_step(struct kv_buf *out, const struct message_case *message)
{
    struct kv_buf body = {0};
    message->put(&body);
    put_number(out, place_of(message->type), 1);
    put_number(out, 0, 1);
    put_part(out, kv_buf_peek(&body), 2);
    kv_buf_free(&body);
}

static void seed_messages(void)
{
    struct kv_buf all = {0};
    for (size_t i = 0; i < CASE_COUNT; i++) {
        char name[64];
        struct kv_buf stream = {0}, step = {0};
        snprintf(name, sizeof(name), "%s-%zu", kv_msg_name(cases[i].type), i);
        put_number(&stream, !kv_msg_from(cases[i].type, KV_ROLE_ROUTER), 1);
        size_t begin = kv_frame_begin(&stream, cases[i].type, i);
        cases[i].put(&stream);
        kv_frame_end(&stream, begin);
        keep("frame", name, &stream);
        if (!kv_msg_from(cases[i].type, KV_ROLE_ROUTER) || cases[i].type == KV_MSG_HELLO)
            continue;
        put_step(&step, &cases[i]);
        put_step(&all, &cases[i]);
        keep("core", name, &step);
    }
    keep("core", "all", &all);
}

/* A life of a key in a shard: prepared, decided, read, frozen, restarted. */
static void seed_core(void)
{
    struct kv_buf out = {0}, body = {0};
    struct kv_hash hash = HASH(1);
    struct kv_op ops[] = {{.kind = KV_OP_SET, .key = text("k"), .row = {.hash = hash, .size = 6, .created_s = 1}},
                          {.kind = KV_OP_ADD,
                           .hash = hash,
                           .count = 1,
                           .size = 6,
                           .has_bytes = true,
                           .stored_bytes = 6,
                           .bytes = text("stored")}};
    kv_put_prepare_begin(&body, 5, 1, 2);
    kv_put_op(&body, &ops[0]);
    kv_put_op(&body, &ops[1]);
    put_number(&out, place_of(KV_MSG_PREPARE), 1);
    put_number(&out, 0, 1);
    put_part(&out, kv_buf_peek(&body), 2);
    body.bytes = 0;
    kv_put_id(&body, 5);
    put_number(&out, place_of(KV_MSG_COMMIT), 1);
    put_number(&out, 0, 1);
    put_part(&out, kv_buf_peek(&body), 2);
    body.bytes = 0;
    kv_put_read(&body, &(struct kv_msg_read){text("k"), 1000});
    for (unsigned what = 241; what <= 242; what++) { /* FREEZE_AND_APPLY, RESTART */
        put_number(&out, what, 1);
        put_number(&out, place_of(KV_MSG_READ), 1);
        put_number(&out, 1, 1);
        put_part(&out, kv_buf_peek(&body), 2);
    }
    kv_buf_free(&body);
    keep("core", "life", &out);
}

/* ---- what is stored ----------------------------------------------------------------------------------------------- */

static void seed_content(const char *name, uint64_t flags, size_t bytes, bool random)
{
    struct codec *codec = codec_new(1);
    struct kv_buf content = {0}, out = {0};
    uint32_t state = 7;
    for (size_t i = 0; i < bytes; i++) {
        state = state * 1664525 + 1013904223;
        put_number(&content, random ? state >> 24 : (uint8_t)("abab"[i % 4]), 1);
    }
    put_number(&out, flags, 1);
    put_number(&out, bytes, 8);
    codec_encode(codec, kv_buf_peek(&content), &out);
    keep("codec", name, &out);
    kv_buf_free(&content);
    codec_free(&codec);
}

static void seed_rows(void)
{
    uint8_t space[ROW_KEY_BYTES_MAX];
    struct kv_row row = sample_row();
    struct kv_object object = sample_object();
    struct kv_buf out = {0}, prepare = {0};
    put_number(&out, 0, 1);
    kv_buf_append(&out, row_encode_key(&row, space));
    keep("rows", "key", &out);
    put_number(&out, 1, 1);
    kv_buf_append(&out, row_encode_object(&object, space));
    keep("rows", "object", &out);
    object.object_id = 0;
    object.bytes = text("small");
    object.stored_bytes = object.bytes.bytes;
    put_number(&out, 1, 1);
    kv_buf_append(&out, row_encode_object(&object, space));
    keep("rows", "small-object", &out);
    put_number(&out, 2, 1);
    put_prepare(&prepare);
    kv_pack_array(&out, 2);
    kv_pack_array(&out, 1);
    kv_pack_array(&out, 5);
    kv_pack_uint(&out, 7);
    kv_pack_uint(&out, 3);
    kv_pack_uint(&out, 9);
    kv_pack_bin(&out, text("\1"));
    struct kv_msg_prepare decoded = {0};
    kv_get_prepare(kv_buf_peek(&prepare), &decoded);
    kv_put_ops(&out, &decoded.ops);
    kv_ops_free(&decoded.ops);
    kv_pack_array(&out, 1);
    kv_pack_array(&out, 2);
    kv_pack_uint(&out, 6);
    kv_pack_bin(&out, text(""));
    keep("rows", "intents", &out);
    put_number(&out, 3, 1);
    put_number(&out, 48, 1);
    for (uint64_t i = 0; i < 6; i++)
        put_number(&out, 100 + i, 8);
    keep("rows", "meta", &out);
    kv_buf_free(&prepare);
}

/* A key that goes, one that comes, and the blob of a content. */
static void seed_redo(void)
{
    static const char key[] = "key", hash[KV_HASH_BYTES] = "h", id[8] = "i";
    const struct {
        unsigned table, tombstone;
        struct kv_slice key, value;
    } rows[] = {{0, 0, text("key"), text("row")},
                {0, 1, kv_slice(key, 2), text("")},
                {1, 0, kv_slice(hash, sizeof(hash)), text("object")},
                {2, 0, kv_slice(id, sizeof(id)), text("bytes")}};
    enum { ROWS = sizeof(rows) / sizeof(*rows) };
    struct kv_buf out = {0};
    kv_buf_append(&out, text("KVREDO01"));
    kv_buf_append(&out, text("00000000000000000000000000000000"));
    for (uint64_t i = 0; i < 6; i++)
        put_number(&out, i, 8);
    put_number(&out, 7, 8);
    put_number(&out, ROWS, 8);
    kv_buf_append(&out, text("intents"));
    for (size_t i = 0; i < ROWS; i++) {
        put_number(&out, rows[i].value.bytes, 4);
        put_number(&out, rows[i].key.bytes, 2);
        put_number(&out, rows[i].table, 1);
        put_number(&out, rows[i].tombstone, 1);
        kv_buf_append(&out, rows[i].key);
        kv_buf_append(&out, rows[i].value);
    }
    keep("redo", "whole", &out);
}

/* A key of 600 bytes over two records, as longkey.c writes it, and a short one. */
static void seed_longkey(void)
{
    struct kv_buf out = {0}, key = {0};
    put_part(&out, text("a"), 2);
    put_number(&out, 0, 1);
    put_part(&out, text("short"), 2);
    put_part(&out, text("row"), 1);
    put_number(&out, 0, 1);
    for (unsigned i = 0; i < 510; i++)
        put_number(&key, 'k', 1);
    put_number(&key, 1, 1);
    put_part(&out, kv_buf_peek(&key), 2);
    put_part(&out, kv_slice("\0\0\0\0\0\0\0\1", 8), 1);
    put_number(&out, 1, 1);
    key.bytes = 0;
    kv_buf_append(&key, kv_slice("\0\0\0\0\0\0\0\1", 8));
    kv_buf_append(&key, text("and the rest"));
    put_part(&out, kv_buf_peek(&key), 2);
    put_part(&out, text("row"), 1);
    kv_buf_free(&key);
    keep("longkey", "two-levels", &out);
}

/* ---- journals ----------------------------------------------------------------------------------------------------- */

static void put_group(struct kv_buf *out, unsigned flags, unsigned records, unsigned first, unsigned flushed)
{
    struct kv_buf payload = {0};
    for (unsigned i = 0; i < records; i++) {
        uint8_t header[JOURNAL_RECORD_HEADER_BYTES];
        journal_encode_record(i + 1, 5, header);
        kv_buf_append(&payload, kv_slice(header, sizeof(header)));
        kv_buf_append(&payload, text("12345"));
    }
    put_number(out, flags, 1);
    put_number(out, records, 1);
    put_number(out, first, 1);
    put_number(out, flushed, 1);
    put_part(out, kv_buf_peek(&payload), 2);
    kv_buf_free(&payload);
}

static void put_segment(struct kv_buf *out, unsigned flags, unsigned first, unsigned blocks)
{
    put_number(out, flags, 1);
    put_number(out, first, 1);
    put_number(out, blocks, 1);
}

static void seed_journals(void)
{
    struct kv_buf out = {0};
    put_number(&out, 0, 1);
    put_segment(&out, 4, 1, 3);
    put_group(&out, 1, 2, 1, 0);
    put_group(&out, 1, 1, 3, 2);
    put_group(&out, 0, 1, 4, 3); /* torn */
    keep("journal", "torn", &out);
    put_number(&out, 2, 1);
    put_segment(&out, 4, 1, 2);
    put_group(&out, 1, 2, 1, 0);
    put_group(&out, 1, 1, 3, 2);
    put_segment(&out, 0, 4, 2);
    put_group(&out, 1, 3, 4, 3);
    put_group(&out, 1, 1, 7, 6);
    keep("journal", "two-segments", &out);
    put_number(&out, 0, 1);
    put_segment(&out, 4, 1, 3);
    put_group(&out, 1, 1, 1, 0);
    put_group(&out, 0, 1, 2, 1);
    put_group(&out, 1, 1, 3, 2); /* says that the one before was on the disk */
    keep("journal", "damaged", &out);
}

/* ---- HTTP/2 ------------------------------------------------------------------------------------------------------- */

static void seed_frames(void)
{
    struct kv_buf out = {0};
    put_number(&out, 'f', 1);
    request(&out, "GET", "/value", END_STREAM | END_HEADERS, 1);
    request(&out, "PUT", "/x", END_HEADERS, 3);
    frame(&out, DATA, END_STREAM, 3, text("content"));
    request(&out, "GET", "/keys", END_STREAM, 5);
    frame(&out, CONTINUATION, END_HEADERS, 5, raw("\x90", 1));
    frame32(&out, RST_STREAM, 1, 8);
    window_setting(&out, 100);
    frame32(&out, WINDOW_UPDATE, 3, 1000);
    frame(&out, PRIORITY, 0, 7, raw("\0\0\0\1\20", 5));
    frame(&out, PING, 0, 0, text("12345678"));
    frame(&out, 0x50, 0, 0, text("unknown"));
    frame(&out, GOAWAY, 0, 0, raw("\0\0\0\0\0\0\0\0", 8));
    keep("h2", "frames", &out);
}

static void seed_programs(void)
{
    static const struct {
        const char *name;
        struct kv_slice steps; /* numbers of attack/program.h */
    } programs[] = {
        {"program-requests", {(const uint8_t *)"\0\0\3\0\13\2\0\10\3\3\0\1\20\17\0\3", 16}},
        {"program-burst", {(const uint8_t *)"\2\77\1\15\3\6\0\1\0\0\0\15\2\16\20\2\77\3", 18}},
        {"program-windows", {(const uint8_t *)"\2\40\0\15\3\5\0\0\0\0\1\5\1\0\0\0\1\16\10\6\0\0\377\377\0\4\1\10", 28}},
        {"program-headers",
         {(const uint8_t *)"\11\4\3\206\204\202\11\201\1\220\12\2\220\220\13\7\0\0\10123456789", 27}},
    };
    for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++) {
        struct kv_buf out = {0};
        put_number(&out, 'p', 1);
        kv_buf_append(&out, programs[i].steps);
        keep("h2", programs[i].name, &out);
    }
}

/* ---- batches ------------------------------------------------------------------------------------------------------ */

static void seed_batch(void)
{
    struct kv_buf out = {0};
    static const char *const members[][4] = {{"put", "k", "value", "v"}, {"delete", "k", "if_match", "*"}};
    kv_pack_array(&out, 3);
    for (size_t i = 0; i < 2; i++) {
        kv_pack_map(&out, 3);
        kv_pack_str(&out, text("op"));
        kv_pack_str(&out, text(members[i][0]));
        kv_pack_str(&out, text("key"));
        kv_pack_str(&out, text(members[i][1]));
        kv_pack_str(&out, text(members[i][2]));
        kv_pack_bin(&out, text(members[i][3]));
    }
    kv_pack_map(&out, 2);
    kv_pack_str(&out, text("op"));
    kv_pack_str(&out, text("get"));
    kv_pack_str(&out, text("key"));
    kv_pack_str(&out, text("k"));
    keep("batch_msgpack", "three", &out);
}

int main(int argc, char **argv)
{
    checking = argc == 3 && strcmp(argv[1], "--check") == 0;
    folder = argv[argc - 1];
    if (argc != 2 && !checking) {
        fprintf(stderr, "usage: kv-fuzz-seeds [--check] FOLDER\n");
        return 2;
    }
    seed_messages();
    seed_core();
    seed_content("zstd", 1, 5000, false);
    seed_content("raw", 1, 300, true);
    seed_content("two-frames", 1, KV_CONTENT_FRAME_BYTES + 1000, false);
    seed_content("handed-on", 3, 5000, false);
    seed_content("checksums-as-they-are", 0, 5000, false);
    seed_rows();
    seed_redo();
    seed_longkey();
    seed_journals();
    seed_frames();
    seed_programs();
    seed_batch();
    if (different > 0 && checking)
        fprintf(stderr, "the code has changed: write them again with kv-fuzz-seeds tests/fuzz/corpus\n");
    return different == 0 ? 0 : 1;
}
