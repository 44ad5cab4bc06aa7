/* tests/system/model.c -- see model.h. */
#include "model.h"

uint64_t model_refs(const struct model *model, uint64_t content)
{
    uint64_t refs = 0;
    for (size_t i = 0; i < model->key_count; i++)
        refs += model->content[i] == content;
    return refs;
}

uint64_t model_keys(const struct model *model)
{
    return model->key_count - model_refs(model, 0);
}

uint64_t model_objects(const struct model *model)
{
    uint64_t objects = 0;
    for (size_t i = 0; i < model->key_count; i++) {
        bool first = model->content[i] != 0;
        for (size_t before = 0; before < i && first; before++)
            first = model->content[before] != model->content[i];
        objects += first;
    }
    return objects;
}
