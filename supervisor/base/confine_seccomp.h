/* supervisor/base/confine_seccomp.h -- the system calls that a confined process no longer has. See confine.h. */
#ifndef KV_CONFINE_SECCOMP_H
#define KV_CONFINE_SECCOMP_H

#include <stdbool.h>

enum confine_role { CONFINE_SHARD, CONFINE_ROUTER, CONFINE_ROUTER_NAMED /* may open files */ };

/* For the calling thread and those that it starts; needs no_new_privs. False: this kernel or processor has no such filter. */
bool confine_seccomp(enum confine_role role);
bool confine_seccomp_exists(void);

#endif
