/* router/backend_list.c -- listing over all shards: bounded pages of every shard are merged in key order. A shard whose page is used
 * up is asked for the next one, which begins behind the last entry, or where the shard says that it had to stop. A shared prefix may
 * come from several shards and is shown once. References are asked for at the end. */
#include "backend_internal.h"

#include <stdlib.h>

#include "kv/log.h"
#include "wire/messages.h"

#ifndef PAGE_ENTRIES_MAX /* the simulation lowers it */
#define PAGE_ENTRIES_MAX (KV_LIST_LIMIT_MAX + 1)
#endif

/* One shard's sorted entries. */
struct cursor {
    struct list_call *list;
    unsigned shard_index;
    struct call *call;
    struct kv_buf body; /* of the page at hand, which the slices below borrow from */
    struct kv_list entries;
    bool more;      /* behind this page */
    bool has_entry; /* the entry at hand */
    bool asked;     /* a page came: its keys are counted in `total` */
    bool has_row;
    struct kv_slice key;
    struct kv_row row;
    struct kv_buf after;  /* the next page begins behind it, */
    struct kv_buf resume; /* or, not empty, with this key */
};

struct list_call {
    struct backend_call head;
    struct kv_buf after, prefix, delimiter;
    bool inclusive;
    uint64_t skip; /* entries of `offset` still to pass over */
    uint64_t limit;
    uint64_t total;
    bool more;
    unsigned waiting;
    struct cursor cursors[KV_SHARDS_MAX];
    struct backend_list_entry *entries; /* keys and content types are copies */
    size_t count;
    struct refs *refs;
    backend_on_list on_list;
    void *arg;
};

static void list_end(struct list_call *list)
{
    for (unsigned i = 0; i < list->head.backend->shard_count; i++) {
        calls_cancel(list->head.backend->calls, list->cursors[i].call);
        kv_buf_free(&list->cursors[i].body);
        kv_buf_free(&list->cursors[i].after);
        kv_buf_free(&list->cursors[i].resume);
    }
    refs_free(&list->refs);
    for (size_t i = 0; i < list->count; i++) {
        free((void *)(uintptr_t)list->entries[i].key.data);
        free((void *)(uintptr_t)list->entries[i].row.content_type.data);
    }
    free(list->entries);
    kv_buf_free(&list->after);
    kv_buf_free(&list->prefix);
    kv_buf_free(&list->delimiter);
    backend_call_end(&list->head);
}

static void list_answer(struct list_call *list, enum kv_err err)
{
    if (list->head.wanted && err == KV_OK)
        list->on_list(list->arg, KV_OK, list->entries, list->count, list->more, list->total);
    else if (list->head.wanted)
        list->on_list(list->arg, err, NULL, 0, false, 0);
    list_end(list);
}

static void list_fail(struct backend_call *head, enum kv_err err)
{
    list_answer((struct list_call *)head, err);
}

/* ---- references ----------------------------------------------------------------------------------------------- */

static void on_counted(void *arg)
{
    list_answer(arg, KV_OK);
}

static void ask_refs(struct list_call *list)
{
    list->refs = refs_new(list->head.backend, list->count, on_counted, list);
    for (size_t i = 0; i < list->count; i++) {
        if (!list->entries[i].is_prefix)
            refs_add(list->refs, &list->entries[i].row.hash, &list->entries[i].refs);
    }
    if (!refs_ask(list->refs))
        list_answer(list, KV_OK);
}

/* ---- pages ---------------------------------------------------------------------------------------------------- */

static void merge(struct list_call *list);

static void cursor_step(struct cursor *cursor)
{
    cursor->after.bytes = 0;
    if (cursor->has_entry)
        kv_buf_append(&cursor->after, cursor->key);
    cursor->has_entry = kv_next_page_entry(&cursor->entries, &cursor->key, &cursor->has_row, &cursor->row);
}

static void on_page(void *arg, struct kv_slice body)
{
    struct cursor *cursor = arg;
    cursor->call = NULL;
    cursor->body.bytes = 0;
    kv_buf_append(&cursor->body, body);
    struct kv_msg_page page;
    enum kv_err err = kv_get_page(kv_buf_peek(&cursor->body), &page);
    kv_assert(err == KV_OK && page.err == KV_OK);
    if (!cursor->asked)
        cursor->list->total += page.keys;
    cursor->asked = true;
    if (cursor->list->head.wanted)
        backend_call_renew(&cursor->list->head); /* a large offset takes many pages */
    cursor->entries = page.entries;
    cursor->more = page.more;
    cursor->resume.bytes = 0;
    kv_buf_append(&cursor->resume, page.resume);
    cursor->has_entry = kv_next_page_entry(&cursor->entries, &cursor->key, &cursor->has_row, &cursor->row);
    if (--cursor->list->waiting == 0)
        merge(cursor->list);
}

static void write_list(void *arg, struct kv_buf *buf)
{
    const struct cursor *cursor = arg;
    const struct list_call *list = cursor->list;
    uint64_t wanted = list->skip + list->limit - list->count + 1;
    bool resumes = cursor->resume.bytes > 0;
    const struct kv_buf *after = resumes ? &cursor->resume : cursor->asked ? &cursor->after : &list->after;
    kv_put_list(buf, &(struct kv_msg_list){
                         .after = kv_buf_peek(after),
                         .inclusive = resumes || (!cursor->asked && list->inclusive),
                         .prefix = kv_buf_peek(&list->prefix),
                         .delimiter = kv_buf_peek(&list->delimiter),
                         .limit = wanted < PAGE_ENTRIES_MAX ? wanted : PAGE_ENTRIES_MAX,
                     });
}

static void ask_page(struct cursor *cursor)
{
    struct list_call *list = cursor->list;
    list->waiting++;
    cursor->call =
        calls_send(list->head.backend->calls, cursor->shard_index, KV_MSG_LIST, true, write_list, on_page, cursor);
}

/* The cursor with the smallest key, NULL when all are through. `dry`: some shard has to be asked before that is known. */
static struct cursor *smallest(struct list_call *list, bool *dry)
{
    struct cursor *first = NULL;
    *dry = false;
    for (unsigned i = 0; i < list->head.backend->shard_count; i++) {
        struct cursor *cursor = &list->cursors[i];
        if (!cursor->has_entry && cursor->more) {
            cursor->more = false;
            ask_page(cursor);
            *dry = true;
        }
        if (cursor->has_entry && (first == NULL || kv_slice_compare(cursor->key, first->key) < 0))
            first = cursor;
    }
    return first;
}

static void take_entry(struct list_call *list, const struct cursor *cursor)
{
    if (list->skip > 0) {
        list->skip--;
        return;
    }
    struct backend_list_entry *entry = &list->entries[list->count++];
    *entry = (struct backend_list_entry){
        .key = kv_slice(kv_copy(cursor->key), cursor->key.bytes), .is_prefix = !cursor->has_row, .row = {{{0}}}};
    if (!cursor->has_row)
        return;
    entry->row = cursor->row;
    entry->row.content_type = kv_slice(kv_copy(cursor->row.content_type), cursor->row.content_type.bytes);
}

/* Steps every shard that stands on this key: only shared prefixes are on several. */
static void pass(struct list_call *list, const struct cursor *first)
{
    struct kv_buf key = {0};
    kv_buf_append(&key, first->key);
    for (unsigned i = 0; i < list->head.backend->shard_count; i++) {
        struct cursor *cursor = &list->cursors[i];
        if (cursor->has_entry && kv_slice_equal(cursor->key, kv_buf_peek(&key)))
            cursor_step(cursor);
    }
    kv_buf_free(&key);
}

static void merge(struct list_call *list)
{
    bool dry;
    const struct cursor *first;
    while ((first = smallest(list, &dry)) != NULL && !dry && list->count < list->limit) {
        take_entry(list, first);
        pass(list, first);
    }
    if (dry)
        return; /* on_page goes on */
    list->more = first != NULL;
    ask_refs(list);
}

struct backend_call *backend_list(struct backend *backend, const struct backend_list *asked, backend_on_list on_list,
                                  void *arg)
{
    struct list_call *list = backend_call_new(backend, sizeof *list, list_fail);
    kv_buf_append(&list->after, asked->after);
    kv_buf_append(&list->prefix, asked->prefix);
    kv_buf_append(&list->delimiter, asked->delimiter);
    list->inclusive = asked->inclusive;
    list->skip = asked->offset;
    list->limit = asked->limit;
    list->entries = kv_alloc_zero(asked->limit, sizeof *list->entries);
    list->on_list = on_list;
    list->arg = arg;
    for (unsigned i = 0; i < backend->shard_count; i++) {
        list->cursors[i].list = list;
        list->cursors[i].shard_index = i;
        ask_page(&list->cursors[i]);
    }
    return &list->head;
}
