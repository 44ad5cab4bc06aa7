/* tests/system/fate.h -- what an answer, or none, says about a request: the three outcomes of a write, and two more.
 * 504, and a connection that broke after the request had begun to leave, are UNCERTAIN: done, or not, but never in part. */
#ifndef KV_SYSTEM_FATE_H
#define KV_SYSTEM_FATE_H

#include "client.h"

enum fate {
    FATE_DONE,
    FATE_PRECONDITION, /* 412: a condition did not hold, nothing was done */
    FATE_REFUSED,      /* 429, 503, 507, no connection: surely not done */
    FATE_UNCERTAIN,
    FATE_WRONG, /* an answer that no store of ours gives to a well-formed request */
};
#define FATE_COUNT 5u

static inline enum fate fate_of(const struct response *response)
{
    switch (response->status) {
    case 200:
    case 201:
    case 204:
    case 404:
        return FATE_DONE;
    case 412:
        return FATE_PRECONDITION;
    case 429:
    case 503:
    case 507:
        return FATE_REFUSED;
    case 504:
        return FATE_UNCERTAIN;
    case 0:
        return response->never_sent ? FATE_REFUSED : FATE_UNCERTAIN;
    default:
        return FATE_WRONG;
    }
}

/* What a client that shall not notice anything accepts. */
static inline bool fate_is_error(enum fate fate)
{
    return fate != FATE_DONE && fate != FATE_PRECONDITION;
}

#endif
