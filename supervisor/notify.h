/* supervisor/notify.h -- tells a service manager (systemd, Type=notify) how we are. */
#ifndef KV_NOTIFY_H
#define KV_NOTIFY_H

#include "kv/err.h"

/* Sends `state` ("READY=1", "STOPPING=1") as one datagram to $NOTIFY_SOCKET, a path or, after '@', an abstract name.
 * KV_NOT_FOUND: nobody asked to be told. KV_INVALID: not a name of a socket. KV_UNAVAILABLE: could not be sent.
 * Never waits. The protocol: sd_notify(3). */
enum kv_err notify_tell(const char *state);

#endif
