/* tests/sim/check_list.c -- see check.h. This file: listings with all their parameters, when nothing else is under way. */
#include <string.h>

#include "check.h"
#include "client.h"

/* What a listing should say: keys and shared prefixes as text. */
struct expected {
    char text[SIM_LIST_MAX][8];
    size_t count;
    bool more;
};

/* The key, or the part of it that it shares with its neighbours. */
static void entry_of(const struct op *op, unsigned key, char text[8])
{
    struct kv_slice whole = client_key(key);
    size_t prefix_bytes = strlen(op->prefix);
    memset(text, 0, 8);
    memcpy(text, whole.data, whole.bytes);
    char *behind = op->delimited ? strchr(text + prefix_bytes, '/') : NULL;
    if (behind != NULL)
        memset(behind + 1, 0, (size_t)(text + 8 - (behind + 1)));
}

static bool is_behind(const struct op *op, unsigned key)
{
    struct kv_slice after = op->after == 0 ? kv_slice(NULL, 0) : client_key(op->after - 1);
    int order = kv_slice_compare(client_key(key), after);
    return op->after == 0 || order > 0 || (order == 0 && op->inclusive);
}

static void expect(const struct op *op, const struct model *model, struct expected *out)
{
    char last[8] = "";
    uint64_t skip = op->offset;
    for (unsigned key = 0; key < SIM_KEYS_MAX; key++) {
        char entry[8];
        bool listed = model->rows[key].tag != 0 && kv_slice_starts_with(client_key(key), kv_slice_text(op->prefix));
        if (!listed)
            continue;
        entry_of(op, key, entry);
        if (!is_behind(op, key) || strcmp(entry, last) == 0)
            continue;
        memcpy(last, entry, sizeof last);
        if (skip > 0) {
            skip--;
            continue;
        }
        out->more = out->count == op->limit;
        if (out->more)
            return;
        memcpy(out->text[out->count++], entry, sizeof entry);
    }
}

void check_quiet_list(const struct op *op, size_t index, const struct model *model)
{
    struct expected expected = {0};
    expect(op, model, &expected);
    bool same = expected.count == op->listed_count && expected.more == op->more;
    for (size_t i = 0; i < op->listed_count && same; i++)
        same = strcmp(expected.text[i], op->listed_text[i]) == 0;
    if (!same)
        sim_fail("op %zu: a listing (prefix \"%s\"%s, after %u, offset %llu, limit %zu) has %zu entries%s, not %zu%s",
                 index, op->prefix, op->delimited ? ", by /" : "", op->after, (unsigned long long)op->offset, op->limit,
                 op->listed_count, op->more ? " and more" : "", expected.count, expected.more ? " and more" : "");
}
