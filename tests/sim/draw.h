/* tests/sim/draw.h -- what is drawn from the seed: the kind of run, and one operation after the other. */
#ifndef SIM_DRAW_H
#define SIM_DRAW_H

#include "sim.h"

void draw_config(struct sim *sim);
void draw_op(struct sim *sim, struct op *op);
/* Says it in words. */
void draw_trace(const struct sim *sim, const struct op *op);

#endif
