/* router/plan_table.c -- see plan_table.h. */
#include "plan_table.h"

#include <pthread.h>
#include <xxhash.h>

#include "random.h"

static uint64_t seed; /* clients may choose contents, but not which ones collide */
static pthread_once_t seeded = PTHREAD_ONCE_INIT;

static void make_seed(void)
{
    seed = random_seed();
}

size_t plan_table_slots(size_t contents_max)
{
    size_t slots = 4;
    while (slots < 2 * contents_max)
        slots *= 2;
    return slots;
}

void plan_table_clear(struct plan_table *table)
{
    pthread_once(&seeded, make_seed);
    table->count = table->given = 0;
    memset(table->slots, 0, table->slot_count * sizeof *table->slots);
}

/* The slot of this hash, or the free one where it goes. */
static uint32_t *find_slot(const struct plan_table *table, const struct kv_hash *hash)
{
    size_t mask = table->slot_count - 1;
    size_t at = XXH3_64bits_withSeed(hash->bytes, KV_HASH_BYTES, seed) & mask;
    while (table->slots[at] != 0 && !kv_hash_equal(&table->list[table->slots[at] - 1].hash, hash))
        at = (at + 1) & mask;
    return &table->slots[at];
}

size_t plan_table_get(struct plan_table *table, const struct kv_hash *hash, uint64_t size)
{
    uint32_t *slot = find_slot(table, hash);
    if (*slot == 0) {
        table->list[table->count++] = (struct plan_content){.hash = *hash, .size = size, .add_index = PLAN_NOTHING};
        *slot = (uint32_t)table->count;
    }
    return *slot - 1;
}

/* The given contents came first, so no search for them passes the slots of others. */
void plan_table_start_over(struct plan_table *table)
{
    for (size_t i = 0; i < table->slot_count && table->count > table->given; i++) {
        if (table->slots[i] > table->given)
            table->slots[i] = 0;
    }
    for (size_t i = 0; i < table->count; i++) {
        struct plan_content *content = &table->list[i];
        kv_buf_free(&content->content);
        *content = (struct plan_content){.hash = content->hash,
                                         .given = content->given,
                                         .object_id = content->object_id,
                                         .link_generation = content->link_generation,
                                         .size = content->size,
                                         .add_index = PLAN_NOTHING};
    }
    table->count = table->given;
}
