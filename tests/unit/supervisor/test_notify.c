/* Goal: a service manager hears the state that was told, and no start hangs or fails on one that does not listen.
 * Method: a datagram socket of our own, under a path and under an abstract name, stands in for systemd. */
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <criterion/criterion.h>

#include "notify.h"
#include "temp.h"

TestSuite(notify, .init = temp_setup, .fini = temp_teardown, .timeout = 600);

static int listen_at(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t bytes = strlen(name);
    memcpy(address.sun_path, name, bytes);
    if (name[0] == '@')
        address.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + bytes)), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    return fd;
}

static void expect_heard(int fd, const char *state)
{
    char heard[64] = "";
    ssize_t got = recv(fd, heard, sizeof(heard) - 1, 0);
    cr_expect_eq(got, (ssize_t)strlen(state));
    cr_expect_str_eq(heard, state);
}

Test(notify, a_socket_in_a_folder_hears_every_state)
{
    int fd = listen_at(temp_path("notify"));
    cr_expect_eq(notify_tell("READY=1"), KV_OK);
    cr_expect_eq(notify_tell("STOPPING=1"), KV_OK);
    expect_heard(fd, "READY=1");
    expect_heard(fd, "STOPPING=1");
    close(fd);
}

Test(notify, an_abstract_socket_hears_it)
{
    char name[64];
    snprintf(name, sizeof(name), "@kv-storage-test-notify-%d", (int)getpid());
    int fd = listen_at(name);
    cr_expect_eq(notify_tell("READY=1"), KV_OK);
    expect_heard(fd, "READY=1");
    close(fd);
}

Test(notify, nobody_asked)
{
    unsetenv("NOTIFY_SOCKET");
    cr_expect_eq(notify_tell("READY=1"), KV_NOT_FOUND);
    setenv("NOTIFY_SOCKET", "", 1);
    cr_expect_eq(notify_tell("READY=1"), KV_NOT_FOUND);
}

Test(notify, names_that_are_none_are_refused)
{
    char long_name[200];
    memset(long_name, 'a', sizeof(long_name) - 1);
    long_name[0] = '/';
    long_name[sizeof(long_name) - 1] = '\0';
    const char *const names[] = {"relative", "/", "@", "vsock:2:1234", long_name};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        setenv("NOTIFY_SOCKET", names[i], 1);
        cr_expect_eq(notify_tell("READY=1"), KV_INVALID, "%s", names[i]);
    }
}

Test(notify, a_manager_that_is_gone_or_full_holds_nobody_up)
{
    setenv("NOTIFY_SOCKET", temp_path("nobody"), 1);
    cr_expect_eq(notify_tell("READY=1"), KV_UNAVAILABLE);
    int fd = listen_at(temp_path("full"));
    enum kv_err err = KV_OK;
    for (unsigned i = 0; err == KV_OK && i < 100000; i++)
        err = notify_tell("READY=1");
    cr_expect_eq(err, KV_UNAVAILABLE, "a full queue is an error, not a wait");
    close(fd);
}
