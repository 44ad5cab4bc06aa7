/* supervisor/health.h -- `kv-storage health`: is the store with this configuration ready? */
#ifndef KV_HEALTH_H
#define KV_HEALTH_H

#include "kv/settings.h"
#include "why.h"

#define HEALTH_WAIT_MS 5000u

/* KV_OK: GET /-/ready answered 200. Else one sentence. With BIND_ADDR=off only the TLS port is tried: it accepts
 * connections (the supervisor links no TLS library). */
enum kv_err health_check(const struct kv_settings *settings, struct why *why);

#endif
