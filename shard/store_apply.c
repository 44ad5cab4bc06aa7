/* shard/store_apply.c -- the applier's transactions: a generation, the sweep of deleted content.
 * Does:     writes each table in key order, so that a page is touched once; moves the ids of content that nothing refers to any
 *           more into `sweep` and deletes its rows in id order, some at a time. A generation that would change too many pages goes
 *           in like this:
 *           1. all of it into the file `redo`;
 *           2. its rows into LMDB, some thousand in a transaction, each of which says "half applied";
 *           3. one transaction more, as that of a small generation, with meta and sweep, which says that it is whole; the file goes.
 *           Between these, whatever ends the process or refuses a transaction, all rows are put in again from the beginning. That
 *           changes nothing where they are there already: a row is final, what goes to `sweep` or leaves `staged` does so in the
 *           very transaction of the row that says so, and node ids are counted on in each.
 * Owns:     the one write transaction of the moment.
 * Promises: all of a call or nothing of it, but for a half applied generation. Pinned ids (readers hold them) stay in `sweep` with
 *           all their rows.
 * Fails:    KV_NO_SPACE and the rest of store.h; the transaction is rolled back.
 * Tests:    unit/shard/test_store.c, unit/shard/test_store_redo.c. */
#include <stdlib.h>

#include "blobs.h"
#include "kv/log.h"
#include "rows.h"
#include "store_meta.h"
#include "store_redo.h"
#include "store_stage.h"

#define SWEEP_ROWS_LOW 16u /* in one transaction, when the map is nearly full */

/* ---- a generation ------------------------------------------------------------------------------------------------ */

struct apply {
    struct store_txn *txn;
    struct store_filter *filter;
    uint64_t node_id_next;
    struct blobs_writer blobs;
};

static enum kv_err apply_key(struct apply *apply, const struct overlay_row *row)
{
    if (row->tombstone)
        return store_ignore_missing(longkey_delete(apply->txn, overlay_key(row)));
    store_filter_add(apply->filter, STORE_FILTER_KEYS, overlay_key(row));
    return longkey_put(apply->txn, overlay_key(row), overlay_value(row), &apply->node_id_next);
}

/* What the table holds now; object_id 0 when that is nothing, or has its bytes with it. */
static enum kv_err old_object(struct apply *apply, struct kv_slice hash, struct kv_object *out)
{
    struct kv_slice value;
    *out = (struct kv_object){0};
    if (store_filter_is_new(apply->filter, STORE_FILTER_OBJECTS, hash))
        return KV_OK;
    enum kv_err err = txn_get(apply->txn, STORE_OBJECTS, hash, &value);
    return err == KV_OK ? row_decode_object(value, out) : store_ignore_missing(err);
}

static enum kv_err apply_object(struct apply *apply, const struct overlay_row *row)
{
    struct kv_object old, now = {0};
    enum kv_err err = old_object(apply, overlay_key(row), &old);
    if (err == KV_OK && !row->tombstone)
        err = row_decode_object(overlay_value(row), &now);
    if (err == KV_OK && old.object_id != 0 && old.object_id != now.object_id && old.stored_bytes > 0)
        err = store_put_id(apply->txn, STORE_SWEEP, old.object_id, old.stored_bytes);
    if (err != KV_OK)
        return err;
    if (row->tombstone)
        return store_ignore_missing(txn_delete(apply->txn, STORE_OBJECTS, overlay_key(row)));
    store_filter_add(apply->filter, STORE_FILTER_OBJECTS, overlay_key(row));
    err = txn_put(apply->txn, STORE_OBJECTS, overlay_key(row), overlay_value(row));
    bool adopts = now.object_id != 0 && now.object_id != old.object_id;
    return err == KV_OK && adopts ? store_delete_id(apply->txn, STORE_STAGED, now.object_id) : err;
}

/* A tombstone is the end of a large content that no applied object row ever named: its rows are staged still, and may be held
 * by a reader, so they go to the sweep like all others. */
static enum kv_err apply_blob(struct apply *apply, const struct overlay_row *row)
{
    uint64_t object_id = row_decode_id(overlay_key(row));
    if (row->tombstone)
        return store_unstage_id(apply->txn, object_id);
    return blobs_write(&apply->blobs, object_id, 0, overlay_value(row));
}

static enum kv_err (*const apply_row[OVERLAY_TABLES])(struct apply *, const struct overlay_row *) = {
    [OVERLAY_KEYS] = apply_key, [OVERLAY_OBJECTS] = apply_object, [OVERLAY_BLOBS] = apply_blob};

/* The rows of a generation, table by table, each in key order. */
struct feed {
    const struct overlay *generation;
    unsigned tables; /* begun */
    const struct overlay_row **rows;
    size_t count, at;
};

/* The next row, which is one of the table behind which feed->tables stands; NULL at the end. */
static const struct overlay_row *feed_peek(struct feed *feed)
{
    while (feed->at == feed->count && feed->tables < OVERLAY_TABLES) {
        free((void *)feed->rows);
        feed->rows = overlay_sorted(feed->generation, (enum overlay_table)feed->tables++, &feed->count);
        feed->at = 0;
    }
    return feed->at < feed->count ? feed->rows[feed->at] : NULL;
}

static void feed_end(struct feed *feed)
{
    free((void *)feed->rows);
}

static enum kv_err begin(struct store *store, struct apply *out)
{
    struct store_meta before;
    *out = (struct apply){.filter = &store->filter};
    enum kv_err err = txn_begin_write(store->env, &out->txn);
    if (err != KV_OK)
        return err;
    err = store_meta_get(out->txn, &before, &out->node_id_next);
    if (err == KV_OK)
        err = blobs_writer_init(out->txn, &out->blobs);
    if (err != KV_OK)
        txn_abort(&out->txn);
    return err;
}

static enum kv_err apply_rows(struct apply *apply, struct feed *feed, size_t rows_max, size_t bytes_max)
{
    const struct overlay_row *row;
    enum kv_err err = KV_OK;
    size_t bytes = 0;
    for (size_t i = 0; i < rows_max && bytes < bytes_max && err == KV_OK && (row = feed_peek(feed)) != NULL; i++) {
        err = apply_row[feed->tables - 1](apply, row);
        bytes += overlay_value(row).bytes;
        feed->at++;
    }
    return err;
}

/* ---- the sweep --------------------------------------------------------------------------------------------------- */

static bool is_pinned(uint64_t object_id, const uint64_t *pinned, size_t count)
{
    size_t low = 0;
    while (low < count) {
        size_t middle = low + (count - low) / 2;
        if (pinned[middle] == object_id)
            return true;
        if (pinned[middle] < object_id)
            low = middle + 1;
        else
            count = middle;
    }
    return false;
}

/* The next id of `sweep` from `from` on that nobody holds. */
static enum kv_err next_to_sweep(struct store_txn *txn, uint64_t from, const uint64_t *pinned, size_t pinned_count,
                                 uint64_t *object_id)
{
    uint8_t id[8];
    struct kv_slice key, value;
    enum kv_err err = txn_seek(txn, STORE_SWEEP, row_encode_id(from, id), &key, &value);
    for (; err == KV_OK; err = txn_next(txn, STORE_SWEEP, &key, &value)) {
        if (key.bytes != 8)
            return KV_CORRUPT;
        *object_id = row_decode_id(key);
        if (!is_pinned(*object_id, pinned, pinned_count))
            return KV_OK;
    }
    return err;
}

/* `*swept` tells whether anything was there to do. */
static enum kv_err sweep(struct store_txn *txn, const uint64_t *pinned, size_t pinned_count, size_t rows_max,
                         bool *swept)
{
    uint64_t object_id = 0;
    enum kv_err err = next_to_sweep(txn, 0, pinned, pinned_count, &object_id);
    *swept = err == KV_OK;
    while (err == KV_OK && rows_max > 0) {
        err = blobs_delete(txn, object_id, &rows_max);
        if (err == KV_OVERLOADED)
            return KV_OK; /* enough for one transaction: the rest of this object comes next time */
        if (err == KV_OK)
            err = store_delete_id(txn, STORE_SWEEP, object_id);
        if (err == KV_OK)
            err = next_to_sweep(txn, object_id + 1, pinned, pinned_count, &object_id);
    }
    return store_ignore_missing(err);
}

/* ---- transactions ------------------------------------------------------------------------------------------------ */

struct sweep {
    const uint64_t *pinned;
    size_t pinned_count;
    size_t rows_max;
};

/* Rows, position and sweep are one transaction: after a crash, replay begins exactly behind what is here. `generation` is NULL when its
 * rows are here already. */
static enum kv_err apply_whole(struct store *store, const struct overlay *generation, const struct store_meta *meta,
                               const struct sweep *wanted)
{
    struct feed feed = {.generation = generation, .tables = generation == NULL ? OVERLAY_TABLES : 0};
    struct apply apply;
    bool swept;
    enum kv_err err = begin(store, &apply);
    if (err != KV_OK)
        return err;
    err = apply_rows(&apply, &feed, SIZE_MAX, SIZE_MAX);
    feed_end(&feed);
    if (err == KV_OK && wanted->rows_max > 0)
        err = sweep(apply.txn, wanted->pinned, wanted->pinned_count, wanted->rows_max, &swept);
    if (err == KV_OK)
        err = store_meta_put(apply.txn, meta, apply.node_id_next);
    return store_end_large(store, &apply.txn, err);
}

static enum kv_err apply_piece(struct store *store, struct feed *feed, uint64_t position)
{
    struct apply apply;
    enum kv_err err = begin(store, &apply);
    if (err != KV_OK)
        return err;
    err = apply_rows(&apply, feed, store->piece_rows_max, STORE_PIECE_BYTES_MAX);
    if (err == KV_OK)
        err = store_meta_put_half(apply.txn, position, apply.node_id_next);
    return store_end_large(store, &apply.txn, err);
}

/* Once the file is there it stays as it is until its generation is whole: LMDB may be half changed already. */
static enum kv_err apply_pieces(struct store *store, const struct overlay *generation, const struct store_meta *meta)
{
    struct feed feed = {.generation = generation};
    enum kv_err err = KV_OK;
    if (store->redo_position == 0)
        err = redo_write(store->path, &store->identity, generation, meta);
    if (err != KV_OK)
        return err;
    kv_assert(store->redo_position == 0 || store->redo_position == meta->position);
    store->redo_position = meta->position;
    while (err == KV_OK && feed_peek(&feed) != NULL)
        err = apply_piece(store, &feed, meta->position);
    feed_end(&feed);
    return err;
}

/* Whether one transaction would change too many pages: one for each row, but not more than there are. What new rows and blobs fill is on
 * top of that: with the usual OVERLAY_BYTES little, and `redo` would cost as much as it spares there. */
static enum kv_err is_large(struct store *store, const struct overlay *generation, bool *out)
{
    static const enum store_table tables[] = {STORE_KEYS, STORE_TAILS, STORE_OBJECTS};
    struct store_txn *txn = NULL;
    uint64_t sum = 0, rows = overlay_rows(generation) - overlay_rows_of(generation, OVERLAY_BLOBS);
    enum kv_err err = txn_begin_read(store->env, &txn);
    for (size_t i = 0; i < sizeof tables / sizeof *tables && err == KV_OK; i++) {
        uint64_t pages = 0;
        err = txn_pages(txn, tables[i], &pages);
        sum += pages;
    }
    txn_abort(&txn);
    if (err == KV_OK)
        *out = (rows < sum ? rows : sum) > store->whole_pages_max ||
               overlay_bytes(generation) / LMDB_PAGE_BYTES > store->whole_pages_max;
    return err;
}

/* Deleting rows needs pages, too: on the last ones, the generation alone may fit where generation and sweep do not. */
enum kv_err store_apply(struct store *store, const struct overlay *generation, const struct store_meta *meta,
                        const uint64_t *pinned, size_t pinned_count, size_t sweep_rows_max)
{
    struct sweep wanted = {pinned, pinned_count, sweep_rows_max};
    bool large = store->redo_position != 0;
    enum kv_err err = large ? KV_OK : is_large(store, generation, &large);
    if (err == KV_OK && large)
        err = apply_pieces(store, generation, meta);
    if (err != KV_OK)
        return err;
    const struct overlay *left = large ? NULL : generation;
    err = apply_whole(store, left, meta, &wanted);
    wanted.rows_max = 0;
    if (err == KV_NO_SPACE && sweep_rows_max > 0)
        err = apply_whole(store, left, meta, &wanted);
    if (err == KV_OK && large) {
        redo_remove(store->path);
        store->redo_position = 0;
    }
    return err;
}

static enum kv_err sweep_once(struct store *store, const uint64_t *pinned, size_t pinned_count, size_t sweep_rows_max)
{
    struct store_txn *txn = NULL;
    bool swept = false;
    enum kv_err err = txn_begin_write(store->env, &txn);
    if (err != KV_OK)
        return err;
    err = sweep(txn, pinned, pinned_count, sweep_rows_max, &swept);
    if (err == KV_OK && !swept)
        err = KV_NOT_FOUND;
    return txn_end(&txn, err);
}

/* As in store_apply: where many rows do not fit any more, a few do, and set pages free for the next call. */
enum kv_err store_sweep(struct store *store, const uint64_t *pinned, size_t pinned_count, size_t sweep_rows_max)
{
    enum kv_err err = sweep_once(store, pinned, pinned_count, sweep_rows_max);
    if (err == KV_NO_SPACE && sweep_rows_max > SWEEP_ROWS_LOW)
        err = sweep_once(store, pinned, pinned_count, SWEEP_ROWS_LOW);
    return err;
}
