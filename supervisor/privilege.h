/* supervisor/privilege.h -- from root to RUN_AS, once what needs root is done.
 * Does:     with RUN_AS set, works as that user from privilege_begin on and comes back to root only for the steps between
 *           privilege_raise and privilege_lower (ports below 1024, making DB_PATH); privilege_drop ends that for good.
 * Promises: without RUN_AS, or when we are that user already, every function does nothing.
 * Fails:    a user or a group that does not exist, root itself, or RUN_AS without being root: one sentence.
 * Tests:    unit/supervisor/test_privilege.c, system/test_confine.c. */
#ifndef KV_PRIVILEGE_H
#define KV_PRIVILEGE_H

#include <sys/types.h>

#include "why.h"

/* `user[:group]`, names or numbers; the group is the user's own when it is not named. */
enum kv_err privilege_parse(const char *run_as, uid_t *uid, gid_t *gid, struct why *why);

enum kv_err privilege_begin(const char *run_as, struct why *why);
void privilege_raise(void);
void privilege_lower(void);
/* Whatever runs afterwards is that user, for good. */
enum kv_err privilege_drop(struct why *why);

/* mkdir(2), by root when the user may not, and then the user's; rmdir(2) of such a directory. errno. */
int privilege_mkdir(const char *path, mode_t mode);
int privilege_rmdir(const char *path);

#endif
