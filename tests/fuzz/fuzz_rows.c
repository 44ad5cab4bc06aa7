/* Rows as they lie in LMDB: keys, objects, meta, intents. Input: which table, then the value (two of them for meta). */
#include "fuzz.h"

#include "intents.h"
#include "rows.h"
#include "store_meta.h"

static struct kv_slice meta_value, intents_value;

/* The rim around LMDB: linked before the library, whose store.o is then never pulled in. */
enum kv_err txn_get(struct store_txn *txn, enum store_table table, struct kv_slice key, struct kv_slice *value)
{
    (void)txn;
    FUZZ_CHECK(table == STORE_META);
    *value = kv_slice_equal(key, kv_slice_text("intents")) ? intents_value : meta_value;
    return KV_OK;
}

enum kv_err txn_put(struct store_txn *txn, enum store_table table, struct kv_slice key, struct kv_slice value)
{
    (void)txn, (void)table, (void)key, (void)value;
    return KV_OK;
}

enum kv_err txn_delete(struct store_txn *txn, enum store_table table, struct kv_slice key)
{
    (void)txn, (void)table, (void)key;
    return KV_OK;
}

static void check_key(struct kv_slice value)
{
    uint8_t space[ROW_KEY_BYTES_MAX];
    struct kv_row row;
    if (row_decode_key(value, &row) == KV_OK)
        FUZZ_CHECK(kv_slice_equal(row_encode_key(&row, space), value));
}

static void check_object(struct kv_slice value)
{
    uint8_t space[ROW_OBJECT_BYTES_MAX];
    struct kv_object object;
    if (row_decode_object(value, &object) == KV_OK)
        FUZZ_CHECK(kv_slice_equal(row_encode_object(&object, space), value));
}

static void walk_ops(const struct intents *intents)
{
    for (const struct intent *intent = intents->open; intent != NULL; intent = intent->hh.next) {
        for (size_t i = 0; i < intent->ops.count; i++)
            FUZZ_CHECK(!kv_op_is_on_key(&intent->ops.at[i]) || intent->ops.at[i].key.bytes <= KV_KEY_BYTES_MAX);
    }
}

static void check_intents(struct kv_slice value)
{
    struct intents intents = {0}, again = {0};
    struct kv_buf first = {0}, second = {0};
    if (intents_decode(value, &intents) == KV_OK) {
        walk_ops(&intents);
        intents_encode(&intents, &first);
        FUZZ_CHECK(intents_decode(kv_buf_peek(&first), &again) == KV_OK);
        intents_encode(&again, &second);
        FUZZ_CHECK(kv_slice_equal(kv_buf_peek(&first), kv_buf_peek(&second)));
    }
    intents_clear(&intents);
    intents_clear(&again);
    kv_buf_free(&first);
    kv_buf_free(&second);
}

static void check_meta(struct kv_slice input)
{
    struct store_meta meta;
    uint64_t node_id_next;
    char why[256];
    const struct store_identity identity = {0, 1, "00000000000000000000000000000000"};
    meta_value = fuzz_part(&input, 1);
    intents_value = input;
    if (store_meta_get(NULL, &meta, &node_id_next) == KV_OK)
        FUZZ_CHECK(kv_slice_equal(meta.intents, input));
    uint64_t position;
    if (store_meta_half(NULL, &position) == KV_OK)
        FUZZ_CHECK(position != 0 && meta_value.bytes == 8);
    store_meta_check(NULL, &identity, why, sizeof(why));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static void (*const checks[])(struct kv_slice value) = {check_key, check_object, check_intents, check_meta};
    struct kv_slice input = kv_slice(data, bytes);
    checks[fuzz_number(&input, 1) % 4](input);
    return 0;
}
