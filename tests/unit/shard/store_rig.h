/* What the files of a store say of themselves. Shared by test_store.c and test_store_redo.c. */
#ifndef KV_TEST_STORE_RIG_H
#define KV_TEST_STORE_RIG_H

#include <criterion/criterion.h>

#include "store_internal.h"

/* The number by which builds that do not know it leave a store alone. */
static inline uint8_t rig_format_on_disk(const struct store *store)
{
    struct store_txn *txn = NULL;
    struct kv_slice value;
    cr_assert_eq(txn_begin_read(store->env, &txn), KV_OK);
    cr_assert_eq(txn_get(txn, STORE_META, kv_slice_text("identity"), &value), KV_OK);
    uint8_t format = value.data[0];
    txn_abort(&txn);
    return format;
}

#endif
