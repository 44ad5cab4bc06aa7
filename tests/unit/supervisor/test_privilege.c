/* Goal: RUN_AS names a user or is refused; whoever was root and became that user cannot go back.
 * Method: names of every form; the rest in forked processes, as root only (others can neither drop nor raise anything). */
#include <criterion/criterion.h>

#include <dlfcn.h>
#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "privilege.h"
#include "temp.h"

static struct why why;
static bool groups_refused;

/* In the place of libc's, for the whole program: root is refused it in some containers only. */
int initgroups(const char *user, gid_t group)
{
    int (*real)(const char *, gid_t) = (int (*)(const char *, gid_t))dlsym(RTLD_NEXT, "initgroups");
    errno = EPERM;
    return groups_refused ? -1 : real(user, group);
}

TestSuite(privilege, .init = temp_setup, .fini = temp_teardown);

static void expect_parsed(const char *run_as, uid_t expected_uid, gid_t expected_gid)
{
    uid_t uid = 77;
    gid_t gid = 77;
    cr_expect_eq(privilege_parse(run_as, &uid, &gid, &why), KV_OK, "%s: %s", run_as, why.text);
    cr_expect(uid == expected_uid && gid == expected_gid, "%s: %u:%u", run_as, (unsigned)uid, (unsigned)gid);
}

Test(privilege, names_and_numbers)
{
    expect_parsed("nobody", 65534, 65534);
    expect_parsed("65534", 65534, 65534);
    expect_parsed("nobody:daemon", 65534, 1);
    expect_parsed("nobody:12345", 65534, 12345);
    expect_parsed("54321:12345", 54321, 12345);
}

Test(privilege, others_are_refused)
{
    static const char *const bad[] = {
        "no-such-user", "54321", "nobody:no-such-group", ":daemon", "nobody:", "-1:1", "65534x"};
    uid_t uid;
    gid_t gid;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_expect_eq(privilege_parse(bad[i], &uid, &gid, &why), KV_INVALID, "%s", bad[i]);
        cr_expect_eq(strncmp(why.text, "RUN_AS: ", 8), 0, "%s", why.text);
    }
}

Test(privilege, root_is_no_other_user)
{
    cr_expect_eq(privilege_begin("root", &why), KV_INVALID);
    cr_expect_str_eq(why.text, "RUN_AS: that is root itself: name a user without its rights");
}

Test(privilege, without_run_as_nothing_happens)
{
    uid_t before = geteuid();
    cr_expect_eq(privilege_begin("", &why), KV_OK);
    privilege_raise();
    privilege_lower();
    cr_expect_eq(privilege_drop(&why), KV_OK);
    cr_expect_eq(geteuid(), before);
}

/* Exit code of `run` in a process of its own. */
static int in_child(int (*run)(void))
{
    int status = 0;
    pid_t child = fork();
    if (child == 0)
        _exit(run());
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 100;
}

static int drop_for_good(void)
{
    if (privilege_begin("nobody", &why) != KV_OK || geteuid() != 65534 || getegid() != 65534)
        return 1;
    privilege_raise();
    if (geteuid() != 0)
        return 2;
    privilege_lower();
    if (geteuid() != 65534 || privilege_drop(&why) != KV_OK)
        return 3;
    if (getuid() != 65534 || getgid() != 65534 || seteuid(0) == 0 || setuid(0) == 0 || setgid(0) == 0)
        return 4;
    gid_t groups[64];
    int count = getgroups(64, groups);
    for (int i = 0; i < count; i++)
        if (groups[i] == 0)
            return 5;
    return 0;
}

static int make_directory(void)
{
    struct stat status;
    const char *path = temp_path("made");
    chmod(temp_path(""), 0711);
    if (privilege_begin("nobody", &why) != KV_OK || privilege_mkdir(path, 0700) != 0)
        return 1;
    if (stat(path, &status) != 0 || status.st_uid != 65534 || status.st_gid != 65534 || geteuid() != 65534)
        return 2;
    return privilege_rmdir(path) == 0 && geteuid() == 65534 ? 0 : 3;
}

Test(privilege, root_gives_up_for_good)
{
    if (geteuid() != 0)
        cr_skip_test("only root can give it up");
    cr_expect_eq(in_child(drop_for_good), 0);
    cr_expect_eq(in_child(make_directory), 0);
}

static int begin_without_groups(void)
{
    groups_refused = true;
    if (privilege_begin("nobody", &why) != KV_INVALID)
        return 1;
    return strcmp(why.text, "RUN_AS: groups cannot be set: Operation not permitted") == 0 ? 0 : 2;
}

/* Root's own groups would stay. */
Test(privilege, nobody_keeps_the_groups_of_root)
{
    if (geteuid() != 0)
        cr_skip_test("only root has groups to give up");
    cr_expect_eq(in_child(begin_without_groups), 0);
}

static int begin_as_nobody(void)
{
    if (setuid(65534) != 0)
        return 1;
    if (privilege_begin("nobody", &why) != KV_OK)
        return 2;
    return privilege_begin("daemon", &why) == KV_INVALID ? 0 : 3;
}

Test(privilege, others_stay_who_they_are)
{
    if (geteuid() != 0)
        cr_skip_test("only root can become another user");
    cr_expect_eq(in_child(begin_as_nobody), 0);
}
