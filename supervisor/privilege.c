/* supervisor/privilege.c -- see privilege.h. */
#include "privilege.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv/log.h"

#define NAME_BYTES_MAX 256

static struct {
    bool begun;
    uid_t uid;
    gid_t gid;
} user;

static bool parse_id(const char *text, unsigned *out)
{
    char *end = NULL;
    errno = 0;
    unsigned long id = strtoul(text, &end, 10);
    if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || id >= UINT32_MAX)
        return false;
    *out = (unsigned)id;
    return true;
}

static enum kv_err find_group(const char *name, gid_t *gid, struct why *why)
{
    const struct group *group = getgrnam(name);
    if (group != NULL)
        *gid = group->gr_gid;
    else if (!parse_id(name, gid))
        return why_not(why, "RUN_AS: there is no group \"%.64s\"", name);
    return KV_OK;
}

enum kv_err privilege_parse(const char *run_as, uid_t *uid, gid_t *gid, struct why *why)
{
    char name[NAME_BYTES_MAX];
    unsigned id = 0;
    if (snprintf(name, sizeof(name), "%s", run_as) >= NAME_BYTES_MAX)
        return why_not(why, "RUN_AS: longer than %d bytes", NAME_BYTES_MAX - 1);
    char *group = strchr(name, ':');
    if (group != NULL)
        *group++ = '\0';
    const struct passwd *entry = parse_id(name, &id) ? getpwuid(id) : getpwnam(name);
    if (entry == NULL && (!parse_id(name, &id) || group == NULL))
        return why_not(why, "RUN_AS: there is no user \"%.64s\"%s", name,
                       parse_id(name, &id) ? ", and a number without one needs a group" : "");
    *uid = entry != NULL ? entry->pw_uid : id;
    *gid = entry != NULL ? entry->pw_gid : 0;
    return group != NULL ? find_group(group, gid, why) : KV_OK;
}

static enum kv_err take_groups(struct why *why)
{
    const struct passwd *entry = getpwuid(user.uid);
    int failure = entry != NULL ? initgroups(entry->pw_name, user.gid) : setgroups(1, &user.gid);
    return failure == 0 ? KV_OK : why_not(why, "RUN_AS: groups cannot be set: %s", strerror(errno));
}

enum kv_err privilege_begin(const char *run_as, struct why *why)
{
    if (*run_as == '\0')
        return KV_OK;
    enum kv_err err = privilege_parse(run_as, &user.uid, &user.gid, why);
    if (err != KV_OK)
        return err;
    if (user.uid == 0)
        return why_not(why, "RUN_AS: that is root itself: name a user without its rights");
    if (geteuid() == user.uid)
        return KV_OK;
    if (geteuid() != 0)
        return why_not(why, "RUN_AS: only root can become another user, and this is uid %u", (unsigned)geteuid());
    err = take_groups(why);
    user.begun = err == KV_OK;
    privilege_lower();
    return err;
}

static void set_effective(uid_t uid, gid_t gid)
{
    if (!user.begun)
        return;
    bool up = uid == 0; /* the group may be changed by root only: afterwards, or before */
    bool done = up ? seteuid(uid) == 0 && setegid(gid) == 0 : setegid(gid) == 0 && seteuid(uid) == 0;
    if (!done)
        kv_fatal("the effective user cannot be changed to %u: %m", (unsigned)uid);
}

void privilege_raise(void)
{
    set_effective(0, 0);
}

void privilege_lower(void)
{
    set_effective(user.uid, user.gid);
}

enum kv_err privilege_drop(struct why *why)
{
    if (!user.begun) {
        if (geteuid() == 0)
            kv_info("running as root: with RUN_AS=user it would become that user now");
        return KV_OK;
    }
    privilege_raise();
    if (setresgid(user.gid, user.gid, user.gid) != 0 || setresuid(user.uid, user.uid, user.uid) != 0)
        return why_not(why, "RUN_AS: root cannot be given up: %s", strerror(errno));
    if (seteuid(0) == 0)
        return why_not(why, "RUN_AS: root was given up and could be had again: nothing is started");
    user.begun = false;
    kv_info("root is given up: user %u, group %u", (unsigned)user.uid, (unsigned)user.gid);
    return KV_OK;
}

/* By a descriptor: whoever owns the folder above could have put a link to something else in its place by now. */
static int give_away(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int given = fd < 0 ? -1 : fchown(fd, user.uid, user.gid);
    int saved = errno;
    if (fd >= 0)
        close(fd);
    errno = saved;
    return given;
}

int privilege_mkdir(const char *path, mode_t mode)
{
    if (mkdir(path, mode) == 0)
        return 0;
    if (!user.begun || errno != EACCES)
        return -1;
    privilege_raise();
    int made = mkdir(path, mode);
    int saved = errno;
    if (made == 0 && give_away(path) != 0) {
        saved = errno;
        made = -1;
        rmdir(path);
    }
    privilege_lower();
    errno = saved;
    return made;
}

int privilege_rmdir(const char *path)
{
    if (rmdir(path) == 0)
        return 0;
    int saved = errno;
    if (!user.begun || saved != EACCES)
        return -1;
    privilege_raise();
    int removed = rmdir(path);
    saved = errno;
    privilege_lower();
    errno = saved;
    return removed;
}
