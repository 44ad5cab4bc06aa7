/* supervisor/base/confine_seccomp.c -- a seccomp filter from a table of forbidden calls. See confine.h.
 * Does:     one row per call: always, or when an argument says so; the rows become a BPF program that answers EPERM.
 * Promises: calls of another processor's numbering (32-bit, x32) are all refused, and so are those that came with kernels after this
 *           table (fchmodat2, setxattrat): no way around it. ENOSYS, so that a libc takes the older call.
 * Surprise: clone3 fails with ENOSYS, since its flags are in memory that a filter cannot read: libc takes clone then.
 *           A sanitizer's runtime opens files and traces its own process: those rows are left out of such builds, where Landlock
 *           alone keeps the files.
 * Tests:    unit/base/test_confine.c. */
#include "confine_seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kv/log.h"

#if defined(__x86_64__)
#define OWN_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OWN_ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#define OWN_ARCHITECTURE 0u /* no filter: the numbers below were never tried there */
#endif
#define NEWEST_CALL 450u /* set_mempolicy_home_node, Linux 5.17; those of x32 are above as well */
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

enum when { ALWAYS, IF_ANY_BIT, IF_ABOVE, UNLESS_EQUAL, UNLESS_OWN, UNLESS_BOTH_0 };

struct rule {
    unsigned number;
    enum when when;
    unsigned argument; /* of the call, counted from 0; only its low 32 bits count. UNLESS_OWN: it is this process's id;
                        * UNLESS_BOTH_0: it and the one before it are 0 */
    uint32_t mask;     /* IF_ABOVE: the greatest that passes */
    uint32_t value;    /* UNLESS_EQUAL: what argument & mask must be for the call to pass */
};

/* Of this thread alone. */
#define OF_OURSELVES(name, argument)                                                                                   \
    {                                                                                                                  \
        SYS_##name, UNLESS_EQUAL, argument, UINT32_MAX, 0                                                              \
    }
/* To this process alone. */
#define TO_OURSELVES(name)                                                                                             \
    {                                                                                                                  \
        SYS_##name, UNLESS_OWN, 0, 0, 0                                                                                \
    }
#define NEVER(name)                                                                                                    \
    {                                                                                                                  \
        SYS_##name, ALWAYS, 0, 0, 0                                                                                    \
    }

/* Another program, another process's memory, another kernel, another view of the system. */
static const struct rule of_all[] = {
#ifndef KV_SANITIZED
    {SYS_mmap, IF_ANY_BIT, 2, PROT_EXEC, 0}, /* first: often called, and decided anew each time for its argument */
    {SYS_mprotect, IF_ANY_BIT, 2, PROT_EXEC, 0},
    {SYS_pkey_mprotect, IF_ANY_BIT, 2, PROT_EXEC, 0},
    {SYS_shmat, IF_ANY_BIT, 2, SHM_EXEC, 0},
#endif
    NEVER(execve),
    NEVER(execveat),
    NEVER(process_vm_readv),
    NEVER(process_vm_writev),
    NEVER(kcmp),
    NEVER(pidfd_getfd),
    NEVER(pidfd_send_signal),
    NEVER(unshare),
    NEVER(setns),
    NEVER(mount),
    NEVER(umount2),
    NEVER(mount_setattr),
    NEVER(move_mount),
    NEVER(open_tree),
    NEVER(fsopen),
    NEVER(fsconfig),
    NEVER(fsmount),
    NEVER(fspick),
    NEVER(pivot_root),
    NEVER(chroot),
    NEVER(open_by_handle_at),
    NEVER(name_to_handle_at),
    NEVER(io_uring_setup),
    NEVER(io_uring_enter),
    NEVER(io_uring_register),
    NEVER(bpf),
    NEVER(perf_event_open),
    NEVER(userfaultfd),
    NEVER(add_key),
    NEVER(request_key),
    NEVER(keyctl),
    NEVER(init_module),
    NEVER(finit_module),
    NEVER(delete_module),
    NEVER(kexec_load),
    NEVER(reboot),
    NEVER(swapon),
    NEVER(swapoff),
    NEVER(acct),
    NEVER(quotactl),
    NEVER(settimeofday),
    NEVER(clock_settime),
    NEVER(sethostname),
    NEVER(setdomainname),
    NEVER(syslog),
    NEVER(personality),
    NEVER(mknodat),
    NEVER(bind),
    NEVER(listen),
    OF_OURSELVES(prlimit64, 0), /* a limit of 0 bytes per file would end a shard */
    OF_OURSELVES(sched_setaffinity, 0),
    OF_OURSELVES(sched_setscheduler, 0),
    OF_OURSELVES(sched_setparam, 0),
    OF_OURSELVES(sched_setattr, 0),
    {SYS_setpriority, UNLESS_BOTH_0, 1, 0, 0}, /* PRIO_PROCESS is 0: not of a group or of a user */
    NEVER(ioprio_set),
    NEVER(migrate_pages),
    NEVER(move_pages),
    NEVER(process_madvise),
    TO_OURSELVES(kill),
    TO_OURSELVES(tgkill), /* abort */
    TO_OURSELVES(rt_sigqueueinfo),
    TO_OURSELVES(rt_tgsigqueueinfo),
    NEVER(tkill),
    {SYS_clone, IF_ANY_BIT, 0, CLONE_NEWNS | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS,
     0},
#ifdef __x86_64__
    NEVER(kexec_file_load),
    NEVER(iopl),
    NEVER(ioperm),
    NEVER(mknod),
    NEVER(vfork),
#endif
#ifndef KV_SANITIZED
    NEVER(ptrace),
#endif
};

static const struct rule of_shard[] = {
    NEVER(socket),
    NEVER(socketpair),
    NEVER(connect),
};

/* A TCP socket that was accepted could be disconnected and turned outwards. A filter does not see addresses, but their lengths: IPv4
 * needs 16 bytes and IPv6 24, while "shard-15" in the working directory fits into 11. Data in a first segment connects as well. */
static const struct rule of_router[] = {
    {SYS_socket, UNLESS_EQUAL, 0, UINT32_MAX, AF_UNIX}, {SYS_connect, IF_ABOVE, 2, sizeof(struct sockaddr_in) - 1, 0},
    {SYS_sendto, IF_ANY_BIT, 3, MSG_FASTOPEN, 0},       {SYS_sendmsg, IF_ANY_BIT, 2, MSG_FASTOPEN, 0},
    {SYS_sendmmsg, IF_ANY_BIT, 3, MSG_FASTOPEN, 0},
};

/* A file that is named is never opened, made, moved, removed or changed. Unnamed ones hold uploads (body_file.c). */
static const struct rule of_router_files[] = {
#ifndef KV_SANITIZED
    {SYS_openat, UNLESS_EQUAL, 2, O_TMPFILE, O_TMPFILE},
    NEVER(openat2),
    NEVER(linkat),
    NEVER(symlinkat),
    NEVER(renameat),
    NEVER(renameat2),
    NEVER(unlinkat),
    NEVER(mkdirat),
    NEVER(fchmodat),
    NEVER(fchownat),
    NEVER(fchmod),
    NEVER(fchown),
    NEVER(truncate),
    NEVER(setxattr),
    NEVER(lsetxattr),
    NEVER(fsetxattr),
#ifdef __x86_64__
    {SYS_open, UNLESS_EQUAL, 1, O_TMPFILE, O_TMPFILE},
    NEVER(creat),
    NEVER(link),
    NEVER(symlink),
    NEVER(rename),
    NEVER(unlink),
    NEVER(mkdir),
    NEVER(rmdir),
    NEVER(chmod),
    NEVER(chown),
    NEVER(lchown),
#endif
#endif
    NEVER(mq_open),
};

/* ---- the program -------------------------------------------------------------------------------------------------- */

#define INSTRUCTIONS_MAX 400u

struct program {
    struct sock_filter code[INSTRUCTIONS_MAX];
    unsigned short count;
};

static void emit(struct program *program, uint16_t code, uint32_t k, uint8_t if_true, uint8_t if_false)
{
    kv_assert(program->count < INSTRUCTIONS_MAX);
    program->code[program->count++] = (struct sock_filter){code, if_true, if_false, k};
}

static void emit_load(struct program *program, size_t offset)
{
    emit(program, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void emit_return(struct program *program, uint32_t error)
{
    emit(program, BPF_RET | BPF_K, error == 0 ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | error, 0, 0);
}

/* The low half of an argument: both architectures are little-endian. */
static void emit_load_argument(struct program *program, unsigned argument)
{
    emit_load(program, offsetof(struct seccomp_data, args) + 8 * argument);
}

/* What the test looks at, and the test: the call passes when it says so, or, of the first two kinds, when it does not. */
static void emit_test(struct program *program, const struct rule *rule)
{
    emit_load_argument(program, rule->argument);
    switch (rule->when) {
    case ALWAYS:
        kv_assert(false);
        break;
    case IF_ANY_BIT:
        emit(program, BPF_JMP | BPF_JSET | BPF_K, rule->mask, 0, 1);
        break;
    case IF_ABOVE:
        emit(program, BPF_JMP | BPF_JGT | BPF_K, rule->mask, 0, 1);
        break;
    case UNLESS_EQUAL:
        emit(program, BPF_ALU | BPF_AND | BPF_K, rule->mask, 0, 0);
        emit(program, BPF_JMP | BPF_JEQ | BPF_K, rule->value, 1, 0);
        break;
    case UNLESS_OWN:
        emit(program, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)getpid(), 1, 0);
        break;
    case UNLESS_BOTH_0:
        emit(program, BPF_MISC | BPF_TAX, 0, 0, 0);
        emit_load_argument(program, rule->argument - 1);
        emit(program, BPF_ALU | BPF_OR | BPF_X, 0, 0, 0);
        emit(program, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0);
        break;
    }
}

/* Another number skips the row. The number is lost when an argument was loaded, but then the call is decided. */
static void emit_rule(struct program *program, const struct rule *rule)
{
    emit(program, BPF_JMP | BPF_JEQ | BPF_K, rule->number, 0, 1);
    unsigned short skip = program->count - 1;
    if (rule->when != ALWAYS)
        emit_test(program, rule);
    emit_return(program, EPERM);
    if (rule->when != ALWAYS)
        emit_return(program, 0);
    program->code[skip].jf = (uint8_t)(program->count - skip - 1);
}

static void emit_rules(struct program *program, const struct rule *rules, size_t count)
{
    for (size_t i = 0; i < count; i++)
        emit_rule(program, &rules[i]);
}

static void build(struct program *program, enum confine_role role)
{
    emit_load(program, offsetof(struct seccomp_data, arch));
    emit(program, BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCHITECTURE, 1, 0);
    emit_return(program, ENOSYS);
    emit_load(program, offsetof(struct seccomp_data, nr));
    emit(program, BPF_JMP | BPF_JGT | BPF_K, NEWEST_CALL, 0, 1);
    emit_return(program, ENOSYS);
    emit(program, BPF_JMP | BPF_JEQ | BPF_K, SYS_clone3, 0, 1);
    emit_return(program, ENOSYS);
    if (role == CONFINE_SHARD)
        emit_rules(program, of_shard, COUNT_OF(of_shard));
    else
        emit_rules(program, of_router, COUNT_OF(of_router));
    if (role == CONFINE_ROUTER)
        emit_rules(program, of_router_files, COUNT_OF(of_router_files));
    emit_rules(program, of_all, COUNT_OF(of_all));
    emit_return(program, 0);
}

bool confine_seccomp_exists(void)
{
    uint32_t action = SECCOMP_RET_ERRNO;
    return OWN_ARCHITECTURE != 0 && syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

bool confine_seccomp(enum confine_role role)
{
    static struct program program;
    if (!confine_seccomp_exists())
        return false;
    program.count = 0;
    build(&program, role);
    struct sock_fprog filter = {.len = program.count, .filter = program.code};
    /* SPEC_ALLOW: no slower branches for everybody, for the sake of code that the filter does not run */
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &filter) == 0;
}
