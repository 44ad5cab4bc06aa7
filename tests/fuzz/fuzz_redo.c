/* The file `redo`, as it lies behind its checksum. */
#include "fuzz.h"

#include "rows.h"
#include "store_redo.h"

static void look_at(const struct store_redo *redo)
{
    for (enum overlay_table table = OVERLAY_KEYS; table < OVERLAY_TABLES; table++) {
        const struct overlay_row *row = overlay_seek(redo->rows, table, kv_slice(NULL, 0));
        for (; row != NULL; row = overlay_next(redo->rows, table, row)) {
            FUZZ_CHECK(row->key.bytes >= 1 && row->key.bytes <= KV_KEY_BYTES_MAX);
            FUZZ_CHECK(table != OVERLAY_OBJECTS || row->key.bytes == KV_HASH_BYTES);
            FUZZ_CHECK(table != OVERLAY_BLOBS || row->key.bytes == 8);
            fuzz_look(row->key);
            if (!row->tombstone)
                fuzz_look(row->value);
        }
    }
    fuzz_look(redo->meta.intents);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const struct store_identity identity = {0, 1, "00000000000000000000000000000000"};
    struct store_redo redo = {0};
    if (redo_decode(kv_slice(data, bytes), &identity, &redo) != KV_OK) {
        FUZZ_CHECK(redo.rows == NULL);
        return 0;
    }
    look_at(&redo);
    store_redo_free(&redo);
    return 0;
}
