/* supervisor/handover.h -- which files (kv/files.h) the router has: those that it starts with, and those that SIGHUP brings.
 * Promises: a router starts with what the one before it has accepted last: files that a router refused never stop the store. What
 *           a router has not answered for when it ends is offered to the next one again.
 * Tests:    unit/supervisor/test_handover.c, system/test_tokens.c. */
#ifndef KV_HANDOVER_H
#define KV_HANDOVER_H

#include <stdbool.h>

#include "why.h"

/* Descriptors are -1 when there is none. */
struct handover {
    int in_use_fd;  /* memfd: what a router starts with */
    int sent_fd;    /* memfd: what the router that runs has not answered for yet */
    int offered_fd; /* memfd: what SIGHUP brought and was not sent yet */
    int channel_fd; /* our end */
};

/* Takes the memfd over. */
void handover_init(struct handover *handover, int files_fd);
/* For a new router: `*router_fd` is its end, with the first message in it; the caller closes its copy. */
enum kv_err handover_open(struct handover *handover, int *router_fd, struct why *why);
/* The router has ended. */
void handover_close(struct handover *handover);
/* Takes the memfd over; an older offer is forgotten. */
void handover_offer(struct handover *handover, int files_fd);
/* Sends what is offered, one thing at a time: answers do not say what they are to. True: the router must be told (SIGHUP). */
bool handover_send(struct handover *handover);
/* What the router said to what was sent last. */
void handover_answer(struct handover *handover, bool accepted);
void handover_free(struct handover *handover);

#endif
