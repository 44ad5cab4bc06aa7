/* tests/system/history.c -- see history.h. */
#include "history.h"

#include <stdio.h>
#include <stdlib.h>

void history_init(struct history *history)
{
    *history = (struct history){0};
    pthread_mutex_init(&history->mutex, NULL);
}

void history_free(struct history *history)
{
    for (size_t i = 0; i < history->count; i++)
        free(history->ops[i].steps);
    free(history->ops);
    pthread_mutex_destroy(&history->mutex);
    *history = (struct history){0};
}

void history_add(struct history *history, const struct history_op *op)
{
    struct history_op copy = *op;
    size_t bytes = op->step_count * sizeof *op->steps;
    copy.steps = kv_alloc(bytes);
    memcpy(copy.steps, op->steps, bytes);
    pthread_mutex_lock(&history->mutex);
    if (history->count == history->capacity) {
        history->capacity = history->capacity == 0 ? 1024 : history->capacity * 2;
        history->ops = kv_realloc(history->ops, history->capacity * sizeof *history->ops);
    }
    history->ops[history->count++] = copy;
    pthread_mutex_unlock(&history->mutex);
}

static int print_step(const struct history_step *step, char *out, size_t bytes)
{
    static const char *const matches[] = {"", " if present", " if absent", " if it holds "};
    if (step->kind == STEP_GET)
        return snprintf(out, bytes, " get %u: %u;", step->key, step->value);
    int at = snprintf(out, bytes, " write %u := %u (existed %d)%s", step->key, step->value, step->existed,
                      matches[step->match]);
    if (step->match == HISTORY_HOLDS && at >= 0 && (size_t)at < bytes)
        at += snprintf(out + at, bytes - (size_t)at, "%u", step->match_value);
    if (at >= 0 && (size_t)at < bytes)
        at += snprintf(out + at, bytes - (size_t)at, ";");
    return at;
}

void history_print(const struct history_op *op, char *out, size_t out_bytes)
{
    static const char *const outcomes[] = {"done", "precondition", "uncertain"};
    size_t at = (size_t)snprintf(out, out_bytes, "%llu..%lld %s:", (unsigned long long)op->invoked,
                                 op->returned == HISTORY_OPEN ? -1 : (long long)op->returned, outcomes[op->outcome]);
    for (size_t i = 0; i < op->step_count && at < out_bytes; i++)
        at += (size_t)print_step(&op->steps[i], out + at, out_bytes - at);
}
