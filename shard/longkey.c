/* shard/longkey.c -- see longkey.h. A level is one node: level 0 the table `keys`, deeper ones a range of `tails`. */
#include "longkey.h"

#include "kv/log.h"
#include "rows.h"
#include "store_internal.h"

#define NODE_ID_BYTES 8u
#define RECORD_BYTES_MAX 511u
#define CONTINUES 0x01u

/* ---- records ----------------------------------------------------------------------------------------------------- */

static enum store_table table_of(unsigned level)
{
    return level == 0 ? STORE_KEYS : STORE_TAILS;
}

/* Bytes of a key that stand in the levels above this one. */
static size_t bytes_above(unsigned level)
{
    return level == 0 ? 0 : LONGKEY_HEAD_BYTES + (level - 1) * LONGKEY_PART_BYTES;
}

static size_t part_bytes_max(unsigned level)
{
    return level == 0 ? LONGKEY_HEAD_BYTES : LONGKEY_PART_BYTES;
}

/* The level at which a key ends. */
static unsigned level_of(struct kv_slice key)
{
    unsigned level = 0;
    while (key.bytes > bytes_above(level) + part_bytes_max(level))
        level++;
    kv_assert(level < LONGKEY_LEVELS);
    return level;
}

/* The record of `key` at `level`: its end, or the record that leads on. */
static struct kv_slice record_of(unsigned level, uint64_t node, struct kv_slice key, uint8_t space[RECORD_BYTES_MAX])
{
    size_t above = bytes_above(level), at = 0;
    bool continues = key.bytes > above + part_bytes_max(level);
    size_t part = continues ? part_bytes_max(level) : key.bytes - above;
    if (level > 0)
        at = row_encode_id(node, space).bytes;
    if (part > 0)
        memcpy(space + at, key.data + above, part);
    at += part;
    if (continues)
        space[at++] = CONTINUES;
    return kv_slice(space, at);
}

static bool leads_on(struct kv_slice record)
{
    return record.bytes == RECORD_BYTES_MAX;
}

static enum kv_err node_of(struct kv_slice value, uint64_t *node)
{
    if (value.bytes != NODE_ID_BYTES)
        return KV_CORRUPT;
    *node = row_decode_id(value);
    return KV_OK;
}

static bool belongs(unsigned level, uint64_t node, struct kv_slice record)
{
    return level == 0 || (record.bytes > NODE_ID_BYTES && row_decode_id(kv_slice(record.data, NODE_ID_BYTES)) == node);
}

/* ---- single keys ------------------------------------------------------------------------------------------------- */

/* The nodes on the way to the level where `key` ends. KV_NOT_FOUND: the way is not there. */
static enum kv_err find_nodes(struct store_txn *txn, struct kv_slice key, uint64_t nodes[LONGKEY_LEVELS])
{
    unsigned end = level_of(key);
    uint8_t space[RECORD_BYTES_MAX];
    nodes[0] = 0;
    for (unsigned level = 0; level < end; level++) {
        struct kv_slice value;
        enum kv_err err = txn_get(txn, table_of(level), record_of(level, nodes[level], key, space), &value);
        if (err == KV_OK)
            err = node_of(value, &nodes[level + 1]);
        if (err != KV_OK)
            return err;
    }
    return KV_OK;
}

enum kv_err longkey_get(struct store_txn *txn, struct kv_slice key, struct kv_slice *row)
{
    uint64_t nodes[LONGKEY_LEVELS];
    uint8_t space[RECORD_BYTES_MAX];
    unsigned level = level_of(key);
    enum kv_err err = find_nodes(txn, key, nodes);
    return err == KV_OK ? txn_get(txn, table_of(level), record_of(level, nodes[level], key, space), row) : err;
}

/* The node below `level`, made if it is not there. */
static enum kv_err make_node(struct store_txn *txn, unsigned level, uint64_t node, struct kv_slice key,
                             uint64_t *node_id_next, uint64_t *out)
{
    uint8_t space[RECORD_BYTES_MAX], id[NODE_ID_BYTES];
    struct kv_slice record = record_of(level, node, key, space), value;
    enum kv_err err = txn_get(txn, table_of(level), record, &value);
    if (err == KV_OK)
        return node_of(value, out);
    if (err != KV_NOT_FOUND)
        return err;
    *out = (*node_id_next)++;
    return txn_put(txn, table_of(level), record, row_encode_id(*out, id));
}

enum kv_err longkey_put(struct store_txn *txn, struct kv_slice key, struct kv_slice row, uint64_t *node_id_next)
{
    kv_assert(key.bytes >= 1 && key.bytes <= KV_KEY_BYTES_MAX);
    unsigned end = level_of(key);
    uint64_t node = 0;
    uint8_t space[RECORD_BYTES_MAX];
    for (unsigned level = 0; level < end; level++) {
        enum kv_err err = make_node(txn, level, node, key, node_id_next, &node);
        if (err != KV_OK)
            return err;
    }
    return txn_put(txn, table_of(end), record_of(end, node, key, space), row);
}

static enum kv_err is_empty(struct store_txn *txn, uint64_t node, bool *out)
{
    uint8_t id[NODE_ID_BYTES];
    struct kv_slice key, value;
    enum kv_err err = txn_seek(txn, STORE_TAILS, row_encode_id(node, id), &key, &value);
    if (err != KV_OK && err != KV_NOT_FOUND)
        return err;
    *out = err == KV_NOT_FOUND || !belongs(1, node, key);
    return KV_OK;
}

enum kv_err longkey_delete(struct store_txn *txn, struct kv_slice key)
{
    uint64_t nodes[LONGKEY_LEVELS] = {0};
    uint8_t space[RECORD_BYTES_MAX];
    unsigned level = level_of(key);
    enum kv_err err = find_nodes(txn, key, nodes);
    if (err == KV_OK)
        err = txn_delete(txn, table_of(level), record_of(level, nodes[level], key, space));
    while (err == KV_OK && level > 0) {
        bool empty = false;
        err = is_empty(txn, nodes[level], &empty);
        if (err != KV_OK || !empty)
            break;
        level--;
        err = txn_delete(txn, table_of(level), record_of(level, nodes[level], key, space));
        if (err == KV_NOT_FOUND)
            err = KV_CORRUPT; /* it led us here a moment ago */
    }
    return err;
}

/* ---- walking ----------------------------------------------------------------------------------------------------- */

/* The last part of walk->key, out of a record at the walk's depth. */
static enum kv_err take_part(struct longkey_walk *walk, struct kv_slice record)
{
    size_t head = walk->depth == 0 ? 0 : NODE_ID_BYTES, above = bytes_above(walk->depth);
    size_t part = record.bytes - head - (leads_on(record) ? 1 : 0);
    if (above + part > KV_KEY_BYTES_MAX)
        return KV_CORRUPT;
    memcpy(walk->key + above, record.data + head, part);
    walk->key_bytes = above + part;
    walk->records++;
    return KV_OK;
}

/* Down to the first key below a record at the walk's depth. */
static enum kv_err descend(struct store_txn *txn, struct longkey_walk *walk, struct kv_slice record,
                           struct kv_slice value, struct kv_slice *row)
{
    for (;;) {
        uint8_t id[NODE_ID_BYTES];
        uint64_t node;
        enum kv_err err = take_part(walk, record);
        if (err != KV_OK)
            return err;
        if (!leads_on(record)) {
            *row = value;
            return KV_OK;
        }
        err = node_of(value, &node);
        if (err == KV_OK && walk->depth + 1 == LONGKEY_LEVELS)
            err = KV_CORRUPT;
        if (err == KV_OK)
            err = txn_seek(txn, STORE_TAILS, row_encode_id(node, id), &record, &value);
        if (err == KV_NOT_FOUND || (err == KV_OK && !belongs(1, node, record)))
            err = KV_CORRUPT; /* a node that nothing is left of */
        if (err != KV_OK)
            return err;
        walk->nodes[++walk->depth] = node;
    }
}

/* The walk's node has no more records: back to the record that led here and behind it, as far up as needed. */
static enum kv_err climb(struct store_txn *txn, struct longkey_walk *walk, struct kv_slice *record,
                         struct kv_slice *value)
{
    while (walk->depth > 0) {
        uint8_t space[RECORD_BYTES_MAX];
        unsigned level = --walk->depth;
        /* Any key that goes on below this level names the record: the bytes up to here and one more. */
        struct kv_slice through = kv_slice(walk->key, bytes_above(level + 1) + 1);
        struct kv_slice led = record_of(level, walk->nodes[level], through, space);
        enum kv_err err = txn_seek(txn, table_of(level), led, record, value);
        if (err == KV_OK && !kv_slice_equal(*record, led))
            err = KV_CORRUPT;
        if (err != KV_OK)
            return err == KV_NOT_FOUND ? KV_CORRUPT : err;
        err = txn_next(txn, table_of(level), record, value);
        if (err == KV_OK && belongs(level, walk->nodes[level], *record))
            return KV_OK;
        if (err != KV_OK && err != KV_NOT_FOUND)
            return err;
    }
    return KV_NOT_FOUND;
}

/* Goes on with what seek or next found at the walk's depth: `err` and, when KV_OK, a record that may lie behind the node. */
static enum kv_err settle(struct store_txn *txn, struct longkey_walk *walk, enum kv_err err, struct kv_slice record,
                          struct kv_slice value, struct kv_slice *row)
{
    if (err == KV_NOT_FOUND || (err == KV_OK && !belongs(walk->depth, walk->nodes[walk->depth], record)))
        err = climb(txn, walk, &record, &value);
    if (err == KV_OK)
        err = descend(txn, walk, record, value, row);
    walk->valid = err == KV_OK;
    return err;
}

/* Follows `from` down as long as its very records exist; the first record that differs is behind `from` as a whole, since
 * what shares a part and ends there sorts before it. */
enum kv_err longkey_seek(struct store_txn *txn, struct longkey_walk *walk, struct kv_slice from, struct kv_slice *row)
{
    uint8_t space[RECORD_BYTES_MAX];
    if (from.bytes > KV_KEY_BYTES_MAX + 1) /* the longest key and a zero byte: where one goes on behind it */
        return KV_INVALID;
    walk->valid = false;
    walk->depth = 0;
    walk->nodes[0] = 0;
    walk->key_bytes = 0;
    walk->records = 0;
    for (;;) {
        struct kv_slice record, value, wanted = record_of(walk->depth, walk->nodes[walk->depth], from, space);
        enum kv_err err = txn_seek(txn, table_of(walk->depth), wanted, &record, &value);
        if (err != KV_OK || !leads_on(wanted) || !kv_slice_equal(record, wanted))
            return settle(txn, walk, err, record, value, row);
        err = take_part(walk, record);
        if (err == KV_OK)
            err = node_of(value, &walk->nodes[walk->depth + 1]);
        if (err != KV_OK)
            return err;
        walk->depth++;
    }
}

enum kv_err longkey_next(struct store_txn *txn, struct longkey_walk *walk, struct kv_slice *row)
{
    struct kv_slice record = {0}, value = {0};
    if (!walk->valid)
        return KV_NOT_FOUND;
    enum kv_err err = txn_next(txn, table_of(walk->depth), &record, &value);
    return settle(txn, walk, err, record, value, row);
}
