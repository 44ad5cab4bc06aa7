/* tests/system/model.h -- what the store should hold: key number to content number, 0 = absent. The whole truth in a few lines. */
#ifndef KV_SYSTEM_MODEL_H
#define KV_SYSTEM_MODEL_H

#include "kv/buf.h"

#define MODEL_KEYS_MAX 2048u

struct model {
    uint64_t content[MODEL_KEYS_MAX];
    size_t key_count;
};

uint64_t model_keys(const struct model *model);                   /* present */
uint64_t model_objects(const struct model *model);                /* different contents */
uint64_t model_refs(const struct model *model, uint64_t content); /* keys that hold it */

#endif
