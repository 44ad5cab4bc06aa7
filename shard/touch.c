/* shard/touch.c -- see touch.h. */
#include "touch.h"

#include "kv/log.h"

#define LINE_BYTES 64u
#define HEAD_BYTES 192u    /* of a page, and the places of its nodes */
#define NODE_BYTES 64u     /* with a key of ordinary length */
#define ROW_BYTES_MAX 384u /* the processor sees by itself where a longer one goes on */

enum { PAGE_BRANCH = 1, PAGE_LEAF = 2, ROW_ELSEWHERE = 1 };

/* As they lie in the file. */
struct page {
    uint64_t number;
    uint16_t unused, flags;
    uint16_t places_end;
    uint16_t free_end;
    uint16_t places[]; /* of nodes, in the order of their keys */
};

struct node {
    uint16_t low, high; /* leaf: bytes of the row; branch: number of the page below, which goes on in the flags */
    uint16_t flags;
    uint16_t key_bytes;
    uint8_t key[];
};

/* A way down. It stands before the comparison with the middle one of the nodes [first, last] of its page. */
struct way {
    struct kv_slice key;
    struct kv_slice row;     /* found at the end */
    const struct page *page; /* NULL: this is the end */
    unsigned pages;          /* on the way so far */
    bool is_new;             /* the page: nothing of it was read yet */
    int first, last;
};

static void ask_for(const void *from, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += LINE_BYTES)
        __builtin_prefetch((const char *)from + at);
}

static void go_to(struct way *way, const struct touch_tree *tree, uint64_t number)
{
    way->page = NULL;
    if (number >= tree->page_count || way->pages == tree->depth)
        return;
    way->page = (const struct page *)(const void *)(tree->map + number * LMDB_PAGE_BYTES);
    way->pages++;
    way->is_new = true;
    ask_for(way->page, HEAD_BYTES);
}

/* False: this is no page of a tree. */
static bool begin_page(struct way *way)
{
    const struct page *page = way->page;
    if ((page->flags & (PAGE_BRANCH | PAGE_LEAF)) == 0 || page->places_end > LMDB_PAGE_BYTES ||
        page->places_end <= sizeof *page)
        return false;
    way->is_new = false;
    way->first = (page->flags & PAGE_BRANCH) != 0; /* whose first node has no key: it stands for all that is smaller */
    way->last = (int)((page->places_end - sizeof *page) / sizeof *page->places) - 1;
    return true;
}

static const void *place_of(const struct page *page, int index)
{
    return (const char *)page + page->places[index];
}

/* NULL: it would not lie within the page. */
static const struct node *node_at(const struct page *page, int index)
{
    size_t at = page->places[index];
    if (at % 2 != 0 || at + sizeof(struct node) > LMDB_PAGE_BYTES)
        return NULL;
    const struct node *node = place_of(page, index);
    return at + sizeof *node + node->key_bytes <= LMDB_PAGE_BYTES ? node : NULL;
}

static void end_at(struct way *way, const struct node *node)
{
    size_t bytes = node->low | (size_t)node->high << 16;
    const uint8_t *row = node->key + node->key_bytes;
    size_t left = (size_t)((const uint8_t *)way->page + LMDB_PAGE_BYTES - row);
    way->page = NULL;
    if ((node->flags & ROW_ELSEWHERE) != 0 || bytes > left)
        return;
    way->row = kv_slice(row, bytes);
    ask_for(row, bytes < ROW_BYTES_MAX ? bytes : ROW_BYTES_MAX);
}

static void go_below(struct way *way, const struct touch_tree *tree)
{
    const struct node *node = way->last < 0 ? NULL : node_at(way->page, way->last);
    if ((way->page->flags & PAGE_BRANCH) != 0 && node != NULL)
        go_to(way, tree, node->low | (uint64_t)node->high << 16 | (uint64_t)node->flags << 32);
    else
        way->page = NULL;
}

/* What is left of the page is halved. Where the key is equal in a branch, the way goes on below that node. */
static void compare(struct way *way)
{
    int middle = (way->first + way->last) / 2;
    const struct node *node = node_at(way->page, middle);
    if (node == NULL) {
        way->page = NULL;
        return;
    }
    int order = kv_slice_compare(way->key, kv_slice(node->key, node->key_bytes));
    if (order == 0 && (way->page->flags & PAGE_BRANCH) == 0)
        end_at(way, node);
    else if (order < 0)
        way->last = middle - 1;
    else
        way->first = middle + 1;
}

static void step(struct way *way, const struct touch_tree *tree)
{
    if (!way->is_new)
        compare(way);
    else if (!begin_page(way))
        way->page = NULL;
    if (way->page == NULL)
        return;
    if (way->first > way->last)
        go_below(way, tree);
    else
        ask_for(place_of(way->page, (way->first + way->last) / 2), NODE_BYTES);
}

void touch_rows(const struct touch_tree *tree, const struct kv_slice *keys, size_t count, struct kv_slice *rows)
{
    struct way ways[TOUCH_ROWS_MAX];
    kv_assert(count <= TOUCH_ROWS_MAX);
    for (size_t i = 0; i < count; i++) {
        ways[i] = (struct way){.key = keys[i]};
        go_to(&ways[i], tree, tree->root);
    }
    for (size_t left = count; left > 0;) {
        left = 0;
        for (size_t i = 0; i < count; i++) {
            if (ways[i].page != NULL)
                step(&ways[i], tree);
            left += ways[i].page != NULL;
        }
    }
    for (size_t i = 0; i < count; i++)
        rows[i] = ways[i].row;
}
