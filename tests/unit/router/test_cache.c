/* Goal: the cache gives back what was put in while nothing was written, and never more bytes than it may; what is lent out stays.
 * Method: entries made from a seed, so that every byte can be checked; a ring of a few blocks, turned over many times. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "cache.h"

#define KIB 1024u
#define RING_BYTES ((uint64_t)64 * KIB)

static struct marks *marks;
static struct cache *cache;
static uint64_t ring_bytes_max;

static void make(uint64_t ring_bytes)
{
    ring_bytes_max = ring_bytes;
    marks = marks_new(4096, 7);
    cache = cache_new(ring_bytes, marks);
}

static void setup(void)
{
    make(RING_BYTES);
}

static void tear_down(void)
{
    cache_free(&cache);
    marks_free(&marks);
}

TestSuite(cache, .init = setup, .fini = tear_down);

struct sample {
    char key[32], type[32];
    uint8_t stored[70 * KIB];
    uint8_t decoded[4 * KIB];
    struct kv_row row;
    struct kv_object object;
    struct kv_slice content;
};

/* Odd numbers have a content apart from their stored form. */
static struct sample *sample(unsigned number, size_t bytes)
{
    static struct sample made;
    memset(&made, 0, sizeof made);
    snprintf(made.key, sizeof made.key, "key/%u", number);
    snprintf(made.type, sizeof made.type, "text/x-%u", number);
    memset(made.stored, (int)(number * 7 + 1), bytes);
    memset(made.decoded, (int)(number * 5 + 2), sizeof made.decoded);
    memset(made.row.hash.bytes, (int)(number * 3), KV_HASH_BYTES);
    memcpy(made.row.hash.bytes, &number, sizeof number);
    bool apart = number % 2 == 1;
    made.content = apart ? kv_slice(made.decoded, sizeof made.decoded) : kv_slice(made.stored + 12, bytes - 12);
    made.row.size = made.content.bytes;
    made.row.created_s = number;
    made.row.content_type = kv_slice_text(made.type);
    made.object = (struct kv_object){
        .size = made.content.bytes, .stored_bytes = bytes, .refs = number + 1, .bytes = kv_slice(made.stored, bytes)};
    return &made;
}

static void put_since(uint64_t since, unsigned number, size_t bytes)
{
    struct sample *made = sample(number, bytes);
    cr_assert(cache_wants(cache, &made->object));
    cache_put(cache, since, kv_slice_text(made->key), &made->row, &made->object, made->content);
    cr_assert_leq(cache_bytes(cache), ring_bytes_max);
}

static void put(unsigned number, size_t bytes)
{
    put_since(cache_now(cache), number, bytes);
}

static struct cache_entry *get(unsigned number)
{
    char key[32];
    snprintf(key, sizeof key, "key/%u", number);
    return cache_get(cache, kv_slice_text(key));
}

static void expect_slice(struct kv_slice got, struct kv_slice wanted)
{
    cr_assert(kv_slice_equal(got, wanted), "%zu bytes for %zu", got.bytes, wanted.bytes);
}

static void check(const struct cache_entry *entry, unsigned number, size_t bytes)
{
    const struct sample *made = sample(number, bytes);
    char refs[24];
    cr_assert(kv_hash_equal(&entry->row.hash, &made->row.hash));
    cr_assert_eq(entry->row.created_s, number);
    cr_assert_eq(entry->object.refs, number + 1);
    expect_slice(entry->row.content_type, made->row.content_type);
    expect_slice(entry->object.bytes, made->object.bytes);
    expect_slice(entry->content, made->content);
    snprintf(refs, sizeof refs, "%u", number + 1);
    expect_slice(kv_slice(entry->text.refs, entry->text.refs_bytes), kv_slice_text(refs));
}

static bool has(unsigned number, size_t bytes)
{
    struct cache_entry *entry = get(number);
    if (entry == NULL)
        return false;
    check(entry, number, bytes);
    cache_let_go(entry);
    return true;
}

static uint32_t slot_of(struct kv_slice bytes)
{
    return marks_slot(marks, marks_hash(marks, bytes));
}

static uint64_t touch(struct kv_slice bytes)
{
    return marks_end(marks, slot_of(bytes), marks_begin(marks, slot_of(bytes)));
}

Test(cache, off)
{
    struct cache *none = cache_new(RING_BYTES, NULL);
    cr_expect_null(none);
    cr_expect_null(cache_get(none, kv_slice_text("a")));
    cache_fetch_entry(none, cache_fetch_place(none, kv_slice_text("a")));
    cr_expect_not(cache_wants(none, &sample(0, 100)->object));
    cr_expect_eq(cache_now(none), 0);
    cr_expect_eq(cache_bytes(none) + cache_entries(none), 0);
    cache_free(&none);
}

Test(cache, forgets_what_was_asked_for_before_a_shard_came_back)
{
    put(1, 100);
    uint64_t before = cache_now(cache);
    marks_forget(marks);
    cr_expect_null(get(1));
    put_since(before, 2, 100);
    cr_expect_null(get(2), "an answer of the last run comes late");
    put(3, 100);
    cr_expect(has(3, 100));
    marks_forget(marks);
    cr_expect_null(get(3));
}

Test(cache, gives_back_what_was_put)
{
    cr_expect_null(get(1));
    for (unsigned i = 0; i < 8; i++)
        put(i, 100 + i);
    for (unsigned i = 0; i < 8; i++)
        cr_expect(has(i, 100 + i), "%u", i);
    cr_expect_eq(cache_entries(cache), 8);
    put(3, 500);
    cr_expect(has(3, 500), "a newer answer replaces the last one");
    cr_expect_eq(cache_entries(cache), 8);
}

Test(cache, a_write_of_the_key_or_of_the_content_ends_an_entry)
{
    put(0, 100);
    touch(kv_slice_text("key/0"));
    cr_expect_null(get(0));
    cr_expect_eq(cache_entries(cache), 0);
    put(0, 100);
    touch(kv_hash_slice(&sample(0, 100)->row.hash));
    cr_expect_null(get(0), "its reference count may be another");
    put(0, 100);
    uint64_t begun = marks_begin(marks, slot_of(kv_slice_text("key/0")));
    cr_expect_null(get(0), "a write is under way");
    put(0, 100);
    cr_expect_null(get(0), "nothing is kept meanwhile");
    marks_end(marks, slot_of(kv_slice_text("key/0")), begun);
    put(0, 100);
    cr_expect(has(0, 100));
}

static void put_written(uint64_t since, struct marks_proof proof, unsigned number)
{
    struct sample *made = sample(number, 100);
    cache_put_written(cache, since, proof, kv_slice_text(made->key), &made->row, &made->object, made->content);
}

Test(cache, what_was_written_is_kept_while_nobody_else_writes)
{
    uint64_t since = cache_now(cache);
    struct kv_slice key = kv_slice_text("key/0");
    put(0, 200);
    struct marks_proof proof = {touch(key), touch(kv_hash_slice(&sample(0, 100)->row.hash))};
    put_written(since, (struct marks_proof){0, proof.content_word}, 0);
    put_written(since, (struct marks_proof){proof.key_word, 0}, 0);
    cr_expect_null(get(0), "without proof it is not taken, and what was there is no longer true");
    put_written(since, proof, 0);
    cr_expect(has(0, 100));
    touch(kv_hash_slice(&sample(0, 100)->row.hash));
    cr_expect_null(get(0));
    put_written(since, proof, 0);
    cr_expect_null(get(0), "somebody else has written since");
    proof = (struct marks_proof){touch(key), touch(kv_hash_slice(&sample(0, 100)->row.hash))};
    marks_forget(marks);
    put_written(since, proof, 0);
    cr_expect_null(get(0), "it was written to a shard's last run");
}

Test(cache, a_key_that_is_put_again_takes_its_own_place)
{
    put(1, 100);
    put(2, 100);
    uint64_t bytes = cache_bytes(cache);
    for (unsigned i = 0; i < 10 * RING_BYTES / 1024; i++)
        put(2, 100);
    cr_expect_eq(cache_bytes(cache), bytes);
    cr_expect_eq(cache_entries(cache), 2);
    cr_expect(has(1, 100) && has(2, 100));
    struct cache_entry *lent = get(2);
    put(2, 100);
    cr_expect_gt(cache_bytes(cache), bytes, "not while somebody reads what is there");
    cr_expect(has(2, 100));
    cache_let_go(lent);
    put(2, 1000);
    cr_expect(has(1, 100) && has(2, 1000), "another size has another place");
}

Test(cache, tells_the_row_of_a_true_entry)
{
    struct kv_row row = {.txn_id = 77};
    cr_expect_not(cache_get_row(NULL, kv_slice_text("key/1"), &row));
    cr_expect_not(cache_get_row(cache, kv_slice_text("key/1"), &row));
    cr_expect_eq(row.txn_id, 77);
    put(1, 100);
    cr_assert(cache_get_row(cache, kv_slice_text("key/1"), &row));
    cr_expect(kv_hash_equal(&row.hash, &sample(1, 100)->row.hash));
    cr_expect_eq(row.created_s, 1);
    cr_expect_eq(row.content_type.bytes, 0);
    touch(kv_slice_text("key/1"));
    cr_expect_not(cache_get_row(cache, kv_slice_text("key/1"), &row));
}

Test(cache, what_was_read_before_a_write_is_not_kept)
{
    uint64_t since = cache_now(cache);
    touch(kv_hash_slice(&sample(2, 100)->row.hash));
    put_since(since, 2, 100);
    cr_expect_null(get(2));
    put_since(since, 4, 100);
    cr_expect(has(4, 100), "another key and content");
}

Test(cache, the_oldest_go_and_what_is_read_stays)
{
    for (unsigned i = 0; i < 1000; i++) {
        put(i, 1000 + i % 300);
        cr_assert(has(0, 1000), "read all the time, after %u", i);
        cr_assert(has(i, 1000 + i % 300));
    }
    cr_expect_null(get(1));
    cr_expect_gt(cache_entries(cache), 15);
    cr_expect_gt(cache_bytes(cache), RING_BYTES / 2);
}

Test(cache, all_sizes_turn_over)
{
    uint32_t random = 1;
    for (unsigned i = 0; i < 20000; i++) {
        random = random * 1664525 + 1013904223;
        size_t bytes = 13 + (random >> 16) % (random % 5 == 0 ? 11000 : 900);
        put(i % 50, bytes);
        cr_assert(has(i % 50, bytes));
        unsigned other = (random >> 8) % 50;
        struct cache_entry *entry = get(other);
        if (entry != NULL) {
            check(entry, other, entry->object.stored_bytes);
            cache_let_go(entry);
        }
        if (random % 7 == 0)
            touch(kv_slice_text(sample(other, 100)->key));
    }
}

Test(cache, what_is_lent_out_stays_as_it_is)
{
    enum { LENT = 6 };
    struct cache_entry *lent[LENT];
    for (unsigned i = 0; i < LENT; i++) {
        put(i, 2000 + i);
        cr_assert_not_null(lent[i] = get(i));
    }
    for (unsigned i = 100; i < 2100; i++) {
        put(i, 1500);
        cr_assert(has(i, 1500));
        for (unsigned each = i < 1000 ? 0 : 1; i % 100 == 0 && each < LENT; each++)
            check(lent[each], each, 2000 + each);
        if (i == 1000) {
            cache_let_go(lent[0]);
            lent[0] = get(i);
        }
        if (i >= 1000 && i % 100 == 0)
            check(lent[0], 1000, 1500);
    }
    for (unsigned i = 0; i < LENT; i++)
        cache_let_go(lent[i]);
    put(1, 2500);
    cr_expect(has(1, 2500));
}

Test(cache, when_everything_is_lent_out_nothing_is_taken)
{
    struct cache_entry *lent[200];
    unsigned count = 0;
    for (unsigned i = 0; i < 200; i++) {
        put(i * 2, 1000);
        struct cache_entry *entry = get(i * 2);
        if (entry == NULL)
            break;
        lent[count++] = entry;
    }
    cr_assert(count > 20 && count < 60, "%u", count);
    for (unsigned i = 0; i < count; i++) {
        check(lent[i], i * 2, 1000);
        cache_let_go(lent[i]);
    }
    put(2, 1000);
    cr_expect(has(2, 1000), "it takes again what there is room for");
}

/* Clients of all speeds: sometimes nearly all of the ring is lent out, and what is lent out is old, dropped, replaced or renewed. */
Test(cache, lent_out_at_random)
{
    enum { KEYS = 40, LENT_MAX = 24 };
    struct {
        struct cache_entry *entry;
        unsigned number;
        size_t bytes;
    } lent[LENT_MAX] = {0};
    unsigned hits = 0, slow = 0;
    uint32_t random = 7;
    for (unsigned i = 0; i < 60000; i++) {
        random = random * 1664525 + 1013904223;
        unsigned number = (random >> 8) % KEYS, at = (random >> 16) % (i / 8000 % 2 == 0 ? LENT_MAX : 3);
        if (lent[at].entry != NULL) {
            check(lent[at].entry, lent[at].number, lent[at].bytes);
            cache_let_go(lent[at].entry);
        }
        lent[at].entry = get(number);
        if (lent[at].entry != NULL) {
            lent[at].number = number;
            lent[at].bytes = lent[at].entry->object.stored_bytes;
            check(lent[at].entry, number, lent[at].bytes);
            hits++;
        }
        if (random >> 28 == 0)
            touch(kv_slice_text(sample(number, 100)->key));
        put((random >> 4) % KEYS, 13 + (random >> 20) % (random % 5 == 0 ? 11000 : 900));
        slow += cache_entries(cache) < 3;
        cr_assert_leq(cache_entries(cache), KEYS);
    }
    for (unsigned i = 0; i < LENT_MAX; i++) {
        if (lent[i].entry == NULL)
            continue;
        check(lent[i].entry, lent[i].number, lent[i].bytes);
        cache_let_go(lent[i].entry);
    }
    cr_expect_gt(hits, 10000, "%u", hits);
    cr_expect_gt(slow, 10, "%u times nearly everything was lent out", slow);
    for (unsigned i = 0; i < 20; i++) {
        put(i, 500);
        cr_expect(has(i, 500));
    }
}

Test(cache, limits_of_one_content)
{
    struct cache *large = cache_new((uint64_t)1024 * KIB, marks);
    struct sample *made = sample(2, CACHE_CONTENT_BYTES_MAX + 12);
    cr_expect(cache_wants(large, &made->object));
    cache_put(large, cache_now(large), kv_slice_text(made->key), &made->row, &made->object, made->content);
    cr_expect_eq(cache_entries(large), 1);
    made = sample(2, CACHE_CONTENT_BYTES_MAX + 13);
    cr_expect_not(cache_wants(large, &made->object));
    made = sample(2, 100);
    made->object.bytes.bytes = 50;
    cr_expect_not(cache_wants(large, &made->object), "not all of it came along");
    cache_free(&large);
    put(0, 20000);
    cr_expect_null(get(0), "more than a quarter of the ring");
}

/* Of a content that is too large only what the key and the store say of it. */
Test(cache, rows_of_large_contents)
{
    struct sample *made = sample(2, 100);
    made->row.size = made->object.size = CACHE_CONTENT_BYTES_MAX + 1;
    made->object.stored_bytes = CACHE_CONTENT_BYTES_MAX + 13;
    cr_expect_not(cache_wants(cache, &made->object), "with a part of the bytes");
    made->object.bytes = kv_slice(NULL, 0);
    made->object.held = true;
    cr_expect_not(cache_wants(cache, &made->object), "the shard holds it for a reader");
    made->object.held = false;
    cr_assert(cache_wants(cache, &made->object));
    cache_put(cache, cache_now(cache), kv_slice_text(made->key), &made->row, &made->object, kv_slice(NULL, 0));
    struct cache_entry *entry = get(2);
    cr_assert_not_null(entry);
    cr_expect_eq(entry->row.size, CACHE_CONTENT_BYTES_MAX + 1);
    cr_expect_eq(entry->object.stored_bytes, CACHE_CONTENT_BYTES_MAX + 13);
    cr_expect_eq(entry->object.refs, 3);
    cr_expect_eq(entry->content.bytes + entry->object.bytes.bytes, 0);
    expect_slice(entry->row.content_type, kv_slice_text("text/x-2"));
    cache_let_go(entry);
    touch(kv_hash_slice(&made->row.hash));
    cr_expect_null(get(2), "another key came to hold it, or ceased to");
}

Test(cache, texts_of_a_value)
{
    struct kv_row row = {.created_s = 1795377600};
    struct value_text text;
    memset(row.hash.bytes, 0xab, KV_HASH_BYTES);
    value_text_write(&row, UINT64_MAX, &text);
    expect_slice(kv_slice(text.modified, sizeof text.modified), kv_slice_text("Sun, 22 Nov 2026 20:00:00 GMT"));
    expect_slice(kv_slice(text.created, text.created_bytes), kv_slice_text("1795377600"));
    expect_slice(kv_slice(text.refs, text.refs_bytes), kv_slice_text("18446744073709551615"));
    expect_slice(kv_slice(text.tag, 5), kv_slice_text("\"abab"));
    cr_expect_eq(text.tag[sizeof text.tag - 1], '"');
    row.created_s = 951782400;
    value_text_write(&row, 0, &text);
    expect_slice(kv_slice(text.modified, sizeof text.modified), kv_slice_text("Tue, 29 Feb 2000 00:00:00 GMT"));
    expect_slice(kv_slice(text.refs, text.refs_bytes), kv_slice_text("0"));
}

/* ---- sweeping ----------------------------------------------------------------------------------------------------- */

Test(cache, what_nobody_asks_for_is_swept_away)
{
    for (unsigned i = 0; i < 8; i++)
        put(i, 100 + i);
    cache_sweep(cache); /* a small ring is swept at once */
    cr_expect_eq(cache_entries(cache), 8);
    cr_expect(has(3, 103) && has(5, 105));
    cache_sweep(cache);
    cr_expect_eq(cache_entries(cache), 2);
    cr_expect(has(3, 103) && has(5, 105));
    cache_sweep(cache);
    cr_expect_eq(cache_entries(cache), 2);
    cache_sweep(cache);
    cr_expect_eq(cache_entries(cache), 0);
    cr_expect_eq(cache_bytes(cache), 0);
    put(9, 1000);
    cr_expect(has(9, 1000));
}

Test(cache, a_sweep_leaves_alone_what_is_lent_out)
{
    put(1, 100);
    struct cache_entry *lent = get(1);
    put(2, 200);
    for (unsigned i = 0; i < 5; i++)
        cache_sweep(cache);
    check(lent, 1, 100);
    cr_expect(has(2, 200), "it is behind");
    cache_let_go(lent);
    for (unsigned i = 0; i < 3; i++)
        cache_sweep(cache);
    cr_expect_eq(cache_entries(cache), 0);
}

/* Sweeps, writes and reads in turns, so that the head comes round again and again in a ring that is full, half full and empty. */
Test(cache, sweeping_never_touches_what_is_there)
{
    struct cache_entry *lent[8] = {NULL};
    unsigned lent_number[8] = {0};
    uint64_t random = 1, found = 0;
    for (unsigned i = 0; i < 40000; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        unsigned number = (unsigned)(random >> 40) % 64, what = (unsigned)(random >> 33) % 64, place = number % 8;
        size_t bytes = 100 + number * 40;
        if (what == 0) {
            cache_sweep(cache);
        } else if (what < 8 && lent[place] != NULL) {
            check(lent[place], lent_number[place], 100 + lent_number[place] * 40);
            cache_let_go(lent[place]);
            lent[place] = NULL;
        } else if (what < 16 && lent[place] == NULL) {
            lent[place] = get(number);
            lent_number[place] = number;
        } else if (what < 32) {
            found += has(number, bytes);
        } else if (i % 4000 < 3000) {
            put(number, bytes);
        }
    }
    cr_expect_gt(found, 1000);
    for (unsigned i = 0; i < 8; i++)
        if (lent[i] != NULL)
            cache_let_go(lent[i]);
    for (unsigned i = 0; i < 4; i++)
        cache_sweep(cache);
    cr_expect_eq(cache_entries(cache), 0);
    cr_expect_eq(cache_bytes(cache), 0);
}

static uint64_t resident_bytes(void)
{
    unsigned long pages = 0;
    FILE *statm = fopen("/proc/self/statm", "r");
    cr_assert_not_null(statm);
    cr_assert_eq(fscanf(statm, "%*u %lu", &pages), 1);
    fclose(statm);
    return pages * 4096;
}

/* So many that the ring is left in many small parts, none of which is a huge page. */
Test(cache, memory_of_what_was_swept_goes_back)
{
    enum { MANY = 1200, BYTES = 40000 };
#ifdef __SANITIZE_THREAD__
    cr_skip_test("the thread sanitizer keeps four bytes of its own for each of ours, and does not give them back");
#endif
    tear_down();
    make((uint64_t)64 * KIB * KIB);
    uint64_t before = resident_bytes();
    for (unsigned i = 0; i < MANY; i++)
        put(i * 2, BYTES);
    uint64_t filled = resident_bytes();
    cr_assert_gt(filled - before, (uint64_t)MANY * BYTES * 9 / 10);
    for (unsigned i = 0; cache_entries(cache) > 0; i++) {
        cr_assert_lt(i, 10 * CACHE_SWEEPS);
        if (i == CACHE_SWEEPS / 2)
            cr_expect(has(MANY - 2, BYTES));
        cache_sweep(cache);
        cr_expect_leq(resident_bytes(), filled + ((uint64_t)8 << 20), "sweep %u", i);
    }
    uint64_t left = resident_bytes();
    cr_expect_lt(left, before + (filled - before) / 8, "%lu of %lu bytes", left - before, filled - before);
    put(1, BYTES);
    cr_expect(has(1, BYTES));
}
