/* The file `redo`, as it lies behind its checksum. */
#include "fuzz.h"

#include <stdlib.h>

#include "rows.h"
#include "store_redo.h"

static void look_at(const struct store_redo *redo)
{
    for (enum overlay_table table = OVERLAY_KEYS; table < OVERLAY_TABLES; table++) {
        size_t count;
        const struct overlay_row **rows = overlay_unsorted(redo->rows, table, &count);
        for (size_t i = 0; i < count; i++) {
            struct kv_slice key = overlay_key(rows[i]);
            FUZZ_CHECK(key.bytes >= 1 && key.bytes <= KV_KEY_BYTES_MAX);
            FUZZ_CHECK(table != OVERLAY_OBJECTS || key.bytes == KV_HASH_BYTES);
            FUZZ_CHECK(table != OVERLAY_BLOBS || key.bytes == 8);
            fuzz_look(key);
            fuzz_look(overlay_value(rows[i]));
        }
        free(rows);
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
