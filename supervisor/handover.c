/* supervisor/handover.c -- see handover.h. Pure bookkeeping over descriptors; family.c calls it. */
#include "handover.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kv/files.h"
#include "kv/log.h"

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void replace(int *fd, int *by)
{
    close_fd(fd);
    *fd = *by;
    *by = -1;
}

void handover_init(struct handover *handover, int files_fd)
{
    *handover = (struct handover){.in_use_fd = files_fd, .sent_fd = -1, .offered_fd = -1, .channel_fd = -1};
}

enum kv_err handover_open(struct handover *handover, int *router_fd, struct why *why)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
        why_not(why, "no channel to the router: %s", strerror(errno));
        return KV_UNAVAILABLE;
    }
    if (!kv_files_send(ends[0], handover->in_use_fd)) {
        why_not(why, "the router's files cannot be handed over: %s", strerror(errno));
        close(ends[0]);
        close(ends[1]);
        return KV_UNAVAILABLE;
    }
    handover->channel_fd = ends[0];
    *router_fd = ends[1];
    return KV_OK;
}

void handover_close(struct handover *handover)
{
    close_fd(&handover->channel_fd);
    if (handover->offered_fd < 0)
        replace(&handover->offered_fd, &handover->sent_fd);
    close_fd(&handover->sent_fd);
}

void handover_offer(struct handover *handover, int files_fd)
{
    replace(&handover->offered_fd, &files_fd);
}

bool handover_send(struct handover *handover)
{
    if (handover->offered_fd < 0 || handover->sent_fd >= 0 || handover->channel_fd < 0)
        return false;
    if (!kv_files_send(handover->channel_fd, handover->offered_fd)) {
        kv_error("SIGHUP: the router's files cannot be handed over: %m");
        return false;
    }
    replace(&handover->sent_fd, &handover->offered_fd);
    return true;
}

void handover_answer(struct handover *handover, bool accepted)
{
    if (accepted && handover->sent_fd >= 0)
        replace(&handover->in_use_fd, &handover->sent_fd);
    close_fd(&handover->sent_fd);
}

void handover_free(struct handover *handover)
{
    handover_close(handover);
    close_fd(&handover->offered_fd);
    close_fd(&handover->in_use_fd);
}
