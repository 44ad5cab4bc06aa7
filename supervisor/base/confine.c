/* supervisor/base/confine.c -- Landlock, capabilities, and the rest of confine.h; the filter is confine_seccomp.c.
 * The numbers of Landlock's interface are written down here: Debian 12's headers know an older kernel than may run. */
#include "confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "confine_seccomp.h"
#include "kv/log.h"

#define LANDLOCK_CREATE 444
#define LANDLOCK_ADD_RULE 445
#define LANDLOCK_RESTRICT 446
#define LANDLOCK_RULE_PATH 1

enum {
    FS_WRITE_FILE = 1 << 1,
    FS_READ_FILE = 1 << 2,
    FS_READ_DIR = 1 << 3,
    FS_REMOVE_DIR = 1 << 4,
    FS_REMOVE_FILE = 1 << 5,
    FS_MAKE_DIR = 1 << 7,
    FS_MAKE_REG = 1 << 8,
    FS_REFER = 1 << 13,
    FS_TRUNCATE = 1 << 14,
};
#define FS_READ (FS_READ_FILE | FS_READ_DIR)
#define FS_UPLOADS (FS_READ_FILE | FS_WRITE_FILE | FS_TRUNCATE)
#define FS_MAKE (FS_MAKE_DIR | FS_MAKE_REG)
#define FS_REMOVE (FS_REMOVE_DIR | FS_REMOVE_FILE)
#define FS_DATA (FS_READ | FS_WRITE_FILE | FS_MAKE | FS_REMOVE | FS_REFER | FS_TRUNCATE)

struct ruleset {
    uint64_t fs;     /* what is forbidden unless a rule allows it */
    uint64_t net;    /* TCP: bind and connect */
    uint64_t scoped; /* abstract Unix sockets and signals of processes outside */
};

struct __attribute__((packed)) path_rule {
    uint64_t allowed;
    int32_t fd;
};

#define ABI_NET 4    /* Linux 6.7 */
#define ABI_SCOPED 6 /* Linux 6.12 */

static int landlock_abi(void)
{
    long abi = syscall(LANDLOCK_CREATE, NULL, 0, 1 /* LANDLOCK_CREATE_RULESET_VERSION */);
    return abi > 0 ? (int)abi : 0;
}

/* All that this kernel can forbid. */
static struct ruleset everything(int abi)
{
    static const unsigned fs_bits[] = {0, 13, 14, 15, 15, 16}; /* by ABI; the last one for all that are newer */
    unsigned bits = fs_bits[abi < 5 ? abi : 5];
    return (struct ruleset){
        .fs = ((uint64_t)1 << bits) - 1,
        .net = abi >= ABI_NET ? 3 : 0,
        .scoped = abi >= ABI_SCOPED ? 3 : 0,
    };
}

static void allow(int ruleset_fd, const struct ruleset *ruleset, int fd, uint64_t rights)
{
    struct path_rule rule = {.allowed = rights & ruleset->fs, .fd = fd};
    if (syscall(LANDLOCK_ADD_RULE, ruleset_fd, LANDLOCK_RULE_PATH, &rule, 0) != 0)
        kv_warn("confinement: a folder cannot be named to Landlock: %m");
}

static void allow_path(int ruleset_fd, const struct ruleset *ruleset, const char *path, uint64_t rights)
{
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return; /* what is not there needs no rule */
    allow(ruleset_fd, ruleset, fd, rights);
    close(fd);
}

/* A sanitizer reads the executable and its libraries to name the functions in its report. */
static void allow_sanitizer(int ruleset_fd, const struct ruleset *ruleset)
{
#ifdef KV_SANITIZED
    allow_path(ruleset_fd, ruleset, "/proc/self/exe", FS_READ_FILE);
    allow_path(ruleset_fd, ruleset, "/usr", FS_READ);
#else
    (void)ruleset_fd;
    (void)ruleset;
#endif
}

/* One folder with its rights, and what /proc tells of ourselves. */
static void confine_paths(int folder_fd, uint64_t rights)
{
    int abi = landlock_abi();
    struct ruleset ruleset = everything(abi);
    if (abi == 0)
        return;
    int fd = (int)syscall(LANDLOCK_CREATE, &ruleset, sizeof(ruleset), 0);
    if (fd < 0) {
        kv_warn("confinement: Landlock gives no rules: %m");
        return;
    }
    if (folder_fd >= 0)
        allow(fd, &ruleset, folder_fd, rights);
    allow_path(fd, &ruleset, "/proc/self", FS_READ);
    allow_sanitizer(fd, &ruleset);
    if (syscall(LANDLOCK_RESTRICT, fd, 0) != 0)
        kv_warn("confinement: Landlock's rules cannot be put in force: %m");
    close(fd);
}

static void drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[2] = {{0}};
    if (syscall(SYS_capset, &header, none) != 0)
        kv_warn("confinement: capabilities cannot be dropped: %m");
}

static void confine_calls(enum confine_role role)
{
    if (confine_seccomp_exists() && !confine_seccomp(role))
        kv_warn("confinement: the seccomp filter cannot be put in force: %m");
}

void confine_hide(void)
{
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        kv_warn("confinement: core dumps cannot be forbidden: %m");
}

static void renounce_privileges(void)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        kv_warn("confinement: no_new_privs cannot be set: %m");
}

void confine_shard(int data_fd)
{
    renounce_privileges();
    confine_paths(data_fd, FS_DATA);
    confine_calls(CONFINE_SHARD);
}

void confine_router(const char *uploads, bool named)
{
    int fd = open(uploads, O_PATH | O_DIRECTORY | O_CLOEXEC);
    renounce_privileges();
    confine_paths(fd, named ? FS_UPLOADS | FS_MAKE_REG | FS_REMOVE_FILE : FS_UPLOADS);
    if (fd >= 0)
        close(fd);
    drop_capabilities();
    confine_calls(named ? CONFINE_ROUTER_NAMED : CONFINE_ROUTER);
}

bool confine_kernel_lacks(char *out, size_t out_bytes)
{
    int abi = landlock_abi();
    snprintf(out, out_bytes, "%s%s",
             confine_seccomp_exists() ? "" : "no seccomp (system calls of router and shards are not limited); ",
             abi == 0 ? "no Landlock (the paths that shards may open are not limited); " : "");
    size_t bytes = strlen(out);
    if (bytes >= 2)
        out[bytes - 2] = '\0';
    return bytes > 0;
}

bool confine_peer_is_ours(int socket_fd)
{
    struct ucred peer;
    socklen_t bytes = sizeof(peer);
    return getsockopt(socket_fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 && peer.uid == geteuid();
}
