/* tests/sim/model.c -- see model.h. */
#include "model.h"

static bool matches(const struct model *model, const struct spec *spec)
{
    bool present = model->rows[spec->key].tag != 0;
    switch (spec->match) {
    case BACKEND_MATCH_NONE:
        return true;
    case BACKEND_MATCH_ANY:
        return present;
    case BACKEND_MATCH_HASH:
        return present && model->rows[spec->key].content == spec->match_content;
    case BACKEND_MATCH_ABSENT:
        return !present;
    }
    return false;
}

int model_run(struct model *model, const struct op *op, size_t op_index, struct seen *seen, bool *writes)
{
    struct model after = *model;
    *writes = false;
    for (size_t i = 0; i < op->count; i++) {
        const struct spec *spec = &op->specs[i];
        if (!matches(&after, spec))
            return (int)i;
        bool found = after.rows[spec->key].tag != 0;
        if (spec->kind == BACKEND_PUT) {
            after.rows[spec->key].tag = history_tag(op_index, i);
            after.rows[spec->key].content = spec->content;
        }
        seen[i] = (struct seen){found, after.rows[spec->key].tag, after.rows[spec->key].content, 0};
        if (spec->kind == BACKEND_DELETE) {
            after.rows[spec->key].tag = 0;
            seen[i].tag = 0;
        }
    }
    for (unsigned key = 0; key < SIM_KEYS_MAX; key++)
        *writes = *writes || model->rows[key].tag != after.rows[key].tag;
    *model = after;
    return -1;
}
