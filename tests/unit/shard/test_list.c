/* Goal: a page shows every key once, in byte order, whether it is applied, frozen or new, and whatever hides behind a delimiter.
 * Method: random rows and deletions in three layers; pages of all sizes against the sorted truth. */
#include <stdio.h>

#include "core_rig.h"

#define KEYS 24u

/* In byte order. */
static const char *const names[KEYS] = {"a",     "a/",    "a//",  "a/1", "a/1/x", "a/2", "a0",   "b",
                                        "b/c/d", "b/c/e", "c",    "c/",  "c/z",   "d/1", "d/1/", "d/2",
                                        "e",     "e/e",   "e/e/", "f",   "g/h",   "g/i", "z",    "zz"};

struct pages {
    struct core_rig *rig;
    uint64_t versions[KEYS]; /* 0: not there */
    uint64_t txn_id;
};

static void put(struct pages *pages, unsigned key)
{
    uint64_t before = pages->versions[key];
    pages->versions[key] = ++pages->txn_id;
    if (before == 0)
        RIG_PROPOSE(pages->rig, APPLY, pages->txn_id, rig_set(names[key], 0, 'A'), rig_add('A'));
    else
        RIG_PROPOSE(pages->rig, APPLY, pages->txn_id, rig_set(names[key], before, 'A'));
    cr_assert_eq(rig_err(pages->rig), KV_OK);
}

static void clear(struct pages *pages, unsigned key)
{
    if (pages->versions[key] == 0)
        return;
    RIG_PROPOSE(pages->rig, APPLY, ++pages->txn_id, rig_clear(names[key], pages->versions[key]), rig_drop('A'));
    cr_assert_eq(rig_err(pages->rig), KV_OK);
    pages->versions[key] = 0;
}

static struct core_generation *fill(struct pages *pages, unsigned seed)
{
    struct core_generation *frozen = NULL;
    *pages = (struct pages){.rig = core_rig_new()};
    for (unsigned step = 0; step < 60; step++) {
        unsigned key = (unsigned)rand_r(&seed) % KEYS;
        if (rand_r(&seed) % 3 > 0)
            put(pages, key);
        else
            clear(pages, key);
        if (step == 20)
            rig_apply(pages->rig, rig_freeze(pages->rig));
        if (step == 40)
            frozen = rig_freeze(pages->rig);
    }
    return frozen;
}

/* What a page should hold: the next entries behind `after`. */
static size_t expect(const struct pages *pages, const struct kv_msg_list *list, struct kv_slice *out)
{
    size_t count = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        struct kv_slice key = kv_slice_text(names[i]);
        int order = kv_slice_compare(key, list->after);
        bool hidden = order < 0 || (order == 0 && !list->inclusive && list->after.bytes > 0);
        if (pages->versions[i] == 0 || hidden || !kv_slice_starts_with(key, list->prefix))
            continue;
        const char *slash = list->delimiter.bytes == 0 ? NULL : strchr(names[i] + list->prefix.bytes, '/');
        if (slash != NULL)
            key.bytes = (size_t)(slash - names[i]) + 1;
        bool passed = slash != NULL && !list->inclusive && kv_slice_equal(key, list->after);
        if (!passed && (count == 0 || !kv_slice_equal(out[count - 1], key)))
            out[count++] = key;
    }
    return count;
}

static void check(struct pages *pages, const struct kv_msg_list *list)
{
    struct kv_slice expected[KEYS];
    size_t count = expect(pages, list, expected);
    struct kv_buf body = {0};
    struct kv_msg_page page;
    kv_put_list(&body, list);
    cr_assert_eq(rig_say(pages->rig, 1, KV_MSG_LIST, &body), KV_OK);
    cr_assert_eq(kv_get_page(kv_buf_peek(&pages->rig->answer), &page), KV_OK);
    cr_assert_eq(page.more, count > list->limit);
    cr_assert_eq(page.entries.count, count < list->limit ? count : list->limit);
    struct kv_slice key;
    bool has_row;
    struct kv_row row;
    for (size_t i = 0; kv_next_page_entry(&page.entries, &key, &has_row, &row); i++)
        cr_assert(kv_slice_equal(key, expected[i]), "entry %zu is %.*s, not %.*s", i, (int)key.bytes, key.data,
                  (int)expected[i].bytes, expected[i].data);
}

Test(list, pages_agree_with_the_sorted_truth)
{
    static const char *const prefixes[] = {"", "a", "a/", "b/c/", "e/e/", "q", "zz"};
    for (unsigned run = 1; run <= 20; run++) {
        unsigned seed = run;
        struct pages pages;
        struct core_generation *frozen = fill(&pages, run);
        for (unsigned draw = 0; draw < 300; draw++) {
            struct kv_msg_list list = {.limit = 1 + (unsigned)rand_r(&seed) % 6};
            unsigned from = (unsigned)rand_r(&seed) % (KEYS + 1);
            list.after = from == KEYS ? kv_slice(NULL, 0) : kv_slice_text(names[from]);
            list.inclusive = rand_r(&seed) % 2 == 0;
            list.prefix = kv_slice_text(prefixes[(unsigned)rand_r(&seed) % 7]);
            list.delimiter = kv_slice_text(rand_r(&seed) % 2 == 0 ? "/" : "");
            check(&pages, &list);
        }
        rig_apply(pages.rig, frozen);
        core_rig_free(pages.rig);
    }
}

/* Asks until there is no `resume`; gives how often, and compares the first entry. */
static unsigned ask_on(struct core_rig *rig, struct kv_msg_list list, const char *first)
{
    struct kv_msg_page page;
    struct kv_slice key;
    bool has_row;
    struct kv_row row;
    uint8_t resume[KV_KEY_BYTES_MAX + 1];
    for (unsigned asked = 1;; asked++) {
        struct kv_buf body = {0};
        kv_put_list(&body, &list);
        cr_assert_eq(rig_say(rig, 1, KV_MSG_LIST, &body), KV_OK);
        cr_assert_eq(kv_get_page(kv_buf_peek(&rig->answer), &page), KV_OK);
        if (page.resume.bytes == 0) {
            cr_assert(kv_next_page_entry(&page.entries, &key, &has_row, &row) &&
                          kv_slice_equal(key, kv_slice_text(first)),
                      "%.*s is not %s", (int)key.bytes, key.data, first);
            return asked;
        }
        cr_assert(page.more && page.entries.count == 0);
        memcpy(resume, page.resume.data, page.resume.bytes);
        list.after = kv_slice(resume, page.resume.bytes);
        list.inclusive = true;
    }
}

/* Wherever it begins: two thousand keys are more than one answer puts in order (LIST_ORDER_MAX). */
Test(list, a_page_of_many_new_keys_comes_after_several_answers)
{
    static const struct {
        const char *after, *prefix, *delimiter, *first;
        bool inclusive;
    } cases[] = {{"", "", "", "k/1000", false},
                 {"", "", "/", "k/", false},
                 {"k/", "", "/", "m", false},
                 {"k/", "", "/", "k/", true},
                 {"k/1007", "", "", "k/1008", false},
                 {"k/1007", "", "", "k/1007", true},
                 {"k/1", "k/1007", "", "k/1007", false},
                 {"", "k/2", "", "k/2000", false},
                 {"k/2000", "k/2", "", "k/2001", false},
                 {"k/2999", "", "", "m", false},
                 {NULL, "", "", "k/1000", false} /* the longest key there can be */};
    char longest[KV_KEY_BYTES_MAX + 1] = {0};
    memset(longest, 'j', KV_KEY_BYTES_MAX);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct core_rig *rig = core_rig_new();
        RIG_PROPOSE(rig, APPLY, 1, rig_set("m", 0, 'A'), rig_add('A'));
        for (unsigned n = 0; n < 2000; n++) {
            char key[16];
            snprintf(key, sizeof key, "k/%u", 1000 + n * 7 % 2000);
            RIG_PROPOSE(rig, APPLY, n + 2, rig_set(key, 0, 'A'), rig_add('A'));
        }
        struct kv_msg_list list = {.after = kv_slice_text(cases[i].after == NULL ? longest : cases[i].after),
                                   .inclusive = cases[i].inclusive,
                                   .prefix = kv_slice_text(cases[i].prefix),
                                   .delimiter = kv_slice_text(cases[i].delimiter),
                                   .limit = 3};
        cr_expect_eq(ask_on(rig, list, cases[i].first), 2u, "case %zu", i);
        cr_expect_eq(ask_on(rig, list, cases[i].first), 1u, "case %zu, again", i);
        core_rig_free(rig);
    }
}

Test(list, a_page_waits_for_the_records_it_shows)
{
    struct pages pages = {.rig = core_rig_new()};
    put(&pages, 0);
    put(&pages, 7);
    check(&pages, &(struct kv_msg_list){.limit = 1});
    cr_expect_eq(pages.rig->position, 2u, "the key behind the page says that there is more");
    check(&pages, &(struct kv_msg_list){.limit = 5, .prefix = kv_slice_text("b")});
    cr_expect_eq(pages.rig->position, 2u);
    core_rig_free(pages.rig);
}

Test(list, an_undecided_key_holds_the_page_that_would_show_it)
{
    struct core_rig *rig = core_rig_new();
    struct kv_buf body = {0};
    RIG_PROPOSE(rig, PREPARE, 5, rig_set("m", 0, 'A'), rig_add('A'));
    unsigned answers = rig->answers;
    kv_put_list(&body, &(struct kv_msg_list){.limit = 5, .after = kv_slice_text("n")});
    rig_say(rig, 1, KV_MSG_LIST, &body);
    cr_expect_eq(rig->answers, answers + 1, "behind it: not held");
    kv_put_list(&body, &(struct kv_msg_list){.limit = 5});
    rig_say(rig, 1, KV_MSG_LIST, &body);
    cr_expect_eq(rig->answers, answers + 1);
    rig_say_id(rig, KV_MSG_COMMIT, 5);
    cr_expect_eq(rig->answers, answers + 3, "the page and the DONE");
    core_rig_free(rig);
}
