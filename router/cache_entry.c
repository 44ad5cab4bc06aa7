/* router/cache_entry.c -- see cache_entry.h. */
#include "cache_entry.h"

static bool lies_within(struct kv_slice part, struct kv_slice whole)
{
    return (uintptr_t)part.data >= (uintptr_t)whole.data &&
           (uintptr_t)part.data + part.bytes <= (uintptr_t)whole.data + whole.bytes;
}

uint64_t entry_bytes(struct kv_slice key, const struct kv_row *row, const struct kv_object *object,
                     struct kv_slice content)
{
    uint64_t bytes = sizeof(struct cache_entry) + key.bytes + row->content_type.bytes + object->bytes.bytes;
    if (!lies_within(content, object->bytes))
        bytes += content.bytes;
    return (bytes + ENTRY_UNIT - 1) / ENTRY_UNIT * ENTRY_UNIT;
}

static struct kv_slice append(uint8_t **at, struct kv_slice bytes)
{
    uint8_t *copy = *at;
    if (bytes.bytes > 0)
        memcpy(copy, bytes.data, bytes.bytes);
    *at += bytes.bytes;
    return kv_slice(copy, bytes.bytes);
}

void entry_fill(struct cache_entry *entry, struct kv_slice key, const struct kv_row *row,
                const struct kv_object *object, struct kv_slice content)
{
    uint8_t *at = (uint8_t *)(entry + 1);
    entry->row = *row;
    entry->object = *object;
    append(&at, key);
    entry->row.content_type = append(&at, row->content_type);
    entry->object.bytes = append(&at, object->bytes);
    if (lies_within(content, object->bytes))
        entry->content = kv_slice(entry->object.bytes.data + (content.data - object->bytes.data), content.bytes);
    else
        entry->content = append(&at, content);
    value_text_write(row, object->refs, &entry->text);
}

void entry_moved(struct cache_entry *entry, const struct cache_entry *from)
{
    ptrdiff_t by = (uint8_t *)entry - (const uint8_t *)from;
    entry->row.content_type.data += by;
    entry->object.bytes.data += by;
    entry->content.data += by;
}
