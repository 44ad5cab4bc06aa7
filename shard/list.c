/* shard/list.c -- see list.h. */
#include "list.h"

#include "kv/log.h"
#include "rows.h"

enum { ACTIVE, FROZEN, APPLIED, SOURCES };

struct source {
    bool valid;
    struct kv_slice key;
    struct kv_slice value;
    bool tombstone;
    uint64_t position;
};

struct merge {
    struct ledger *ledger;
    const struct overlay *overlays[2];
    const struct overlay_row *rows[2];
    struct source sources[SOURCES];
    struct kv_buf applied_key;
};

static void load_overlay(struct merge *merge, int index)
{
    const struct overlay_row *row = merge->rows[index];
    merge->sources[index] =
        row == NULL ? (struct source){0}
                    : (struct source){true, overlay_key(row), overlay_value(row), row->tombstone, row->position};
}

static void load_applied(struct merge *merge, enum kv_err err, struct kv_slice value)
{
    if (err != KV_OK && err != KV_NOT_FOUND)
        merge->ledger->world->failed(merge->ledger->world->ctx, err, "listing");
    merge->sources[APPLIED] = (struct source){err == KV_OK, kv_buf_peek(&merge->applied_key), value, false, 0};
}

static void merge_seek(struct merge *merge, struct kv_slice from)
{
    const struct core_world *world = merge->ledger->world;
    for (int i = ACTIVE; i <= FROZEN; i++) {
        merge->rows[i] = merge->overlays[i] == NULL ? NULL : overlay_seek(merge->overlays[i], from);
        load_overlay(merge, i);
    }
    struct kv_slice value = {0};
    load_applied(merge, world->seek_key(world->ctx, from, &merge->applied_key, &value), value);
}

static void step(struct merge *merge, int index)
{
    const struct core_world *world = merge->ledger->world;
    if (index == APPLIED) {
        struct kv_slice value = {0};
        load_applied(merge, world->next_key(world->ctx, &merge->applied_key, &value), value);
        return;
    }
    merge->rows[index] = overlay_next(merge->rows[index]);
    load_overlay(merge, index);
}

/* The newest row of the smallest key, or NULL at the end. */
static const struct source *merge_peek(const struct merge *merge)
{
    const struct source *first = NULL;
    for (int i = ACTIVE; i < SOURCES; i++) {
        const struct source *source = &merge->sources[i];
        if (source->valid && (first == NULL || kv_slice_compare(source->key, first->key) < 0))
            first = source;
    }
    return first;
}

/* Steps every source that stands on the smallest key: the older rows of that key are hidden. */
static void merge_next(struct merge *merge)
{
    const struct source *first = merge_peek(merge);
    bool at_first[SOURCES];
    for (int i = ACTIVE; i < SOURCES; i++)
        at_first[i] = merge->sources[i].valid && kv_slice_equal(merge->sources[i].key, first->key);
    for (int i = ACTIVE; i < SOURCES; i++) {
        if (at_first[i])
            step(merge, i);
    }
}

/* The part of the key up to and with the first delimiter behind the prefix; empty when there is none. */
static struct kv_slice shared_prefix(const struct kv_msg_list *list, struct kv_slice key)
{
    if (list->delimiter.bytes == 0)
        return kv_slice(NULL, 0);
    const uint8_t *behind = key.data + list->prefix.bytes;
    const uint8_t *found = memmem(behind, key.bytes - list->prefix.bytes, list->delimiter.data, list->delimiter.bytes);
    if (found == NULL)
        return kv_slice(NULL, 0);
    return kv_slice(key.data, (size_t)(found - key.data) + list->delimiter.bytes);
}

/* Makes of a prefix the smallest key behind everything that starts with it: its last byte raised. A delimiter is UTF-8, so its last
 * byte is never 0xff. */
static void raise_last(struct kv_buf *prefix)
{
    prefix->data[prefix->bytes - 1]++;
}

static void skip_prefix(struct merge *merge, struct kv_slice prefix)
{
    struct kv_buf behind = {0};
    kv_buf_append(&behind, prefix);
    raise_last(&behind);
    merge_seek(merge, kv_buf_peek(&behind));
    kv_buf_free(&behind);
}

static void put_row(struct merge *merge, const struct source *source, struct kv_buf *entries)
{
    struct kv_row row;
    enum kv_err err = row_decode_key(source->value, &row);
    if (err != KV_OK)
        merge->ledger->world->failed(merge->ledger->world->ctx, err, "key row");
    else
        kv_put_page_entry(entries, source->key, &row);
}

/* The smallest key that the page may show, never empty. `after` skips its own whole group when it is a shared prefix itself: that is
 * what `next` holds then. */
static void put_start(const struct kv_msg_list *list, struct kv_buf *out)
{
    struct kv_slice from = list->after;
    if (kv_slice_compare(from, list->prefix) < 0) {
        kv_buf_append(out, list->prefix);
        return;
    }
    bool is_group = from.bytes > list->prefix.bytes && kv_slice_starts_with(from, list->prefix) &&
                    kv_slice_equal(shared_prefix(list, from), from);
    kv_buf_append(out, from);
    if (is_group && !list->inclusive)
        raise_last(out);
    else if (!list->inclusive || from.bytes == 0)
        kv_buf_append(out, kv_slice("", 1)); /* a zero byte: the very next key there can be */
}

/* The frozen generation first: nothing is added to it any more. */
static bool is_ordered(struct ledger *ledger)
{
    return (ledger->frozen == NULL || overlay_order(ledger->frozen, LIST_ORDER_MAX)) &&
           overlay_order(ledger->active, LIST_ORDER_MAX);
}

uint64_t list_page(struct ledger *ledger, const struct kv_msg_list *list, struct kv_buf *entries, size_t *count,
                   bool *more, struct kv_buf *resume)
{
    struct merge merge = {.ledger = ledger, .overlays = {ledger->active, ledger->frozen}};
    struct kv_buf start = {0};
    const struct source *at;
    uint64_t position = 0;
    unsigned passed = 0;
    *count = 0;
    put_start(list, &start);
    *more = !is_ordered(ledger);
    if (*more)
        kv_buf_append(resume, kv_buf_peek(&start));
    else
        merge_seek(&merge, kv_buf_peek(&start));
    while ((at = merge_peek(&merge)) != NULL) {
        if (!kv_slice_starts_with(at->key, list->prefix))
            break;
        if (at->tombstone && passed++ == LIST_STEPS_MAX) {
            *more = true;
            kv_buf_append(resume, at->key);
            break;
        }
        if (at->position > position)
            position = at->position;
        if (at->tombstone) {
            merge_next(&merge);
            continue;
        }
        *more = *count == list->limit;
        if (*more)
            break;
        ++*count;
        struct kv_slice shared = shared_prefix(list, at->key);
        if (shared.bytes > 0) {
            kv_put_page_entry(entries, shared, NULL);
            skip_prefix(&merge, shared);
        } else {
            put_row(&merge, at, entries);
            merge_next(&merge);
        }
    }
    kv_buf_free(&start);
    kv_buf_free(&merge.applied_key);
    return position;
}
