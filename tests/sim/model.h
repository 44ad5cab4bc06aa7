/* tests/sim/model.h -- what the store promises, as a map: the whole of it. */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include "history.h"

struct model {
    struct {
        uint32_t tag; /* 0: absent */
        unsigned content;
    } rows[SIM_KEYS_MAX];
};

/* Applies the operations of `op` (the `op_index`th of the history) in order and says what each saw. -1, or the index of the one
 * whose condition does not hold: then the model is as it was. `writes`: some row is another than before. */
int model_run(struct model *model, const struct op *op, size_t op_index, struct seen *seen, bool *writes);

#endif
