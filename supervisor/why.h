/* supervisor/why.h -- the one sentence that a refused start leaves on standard error. */
#ifndef KV_WHY_H
#define KV_WHY_H

#include "kv/err.h"

struct why {
    char text[1024];
};

/* Writes the sentence (it names the variable) and returns KV_INVALID, so that a check reads `return why_not(...)`. */
enum kv_err why_not(struct why *why, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
