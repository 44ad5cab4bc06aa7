/* Goal: bytes and descriptors come in the order they were sent, and no descriptor is lost or too many.
 * Method: one end of a socket pair is an inbox's, the test writes to the other. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inbox.h"

struct pair {
    int ours, theirs;
    struct inbox inbox;
};

static struct pair pair_new(void)
{
    int fds[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    return (struct pair){.ours = fds[0], .theirs = fds[1]};
}

static void pair_free(struct pair *pair)
{
    inbox_free(&pair->inbox);
    close(pair->ours);
    close(pair->theirs);
}

static void send_files(const struct pair *pair, const char *bytes, const int *fds, size_t count)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(16 * sizeof(int))];
    } control = {
        .header = {.cmsg_len = CMSG_LEN(count * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct iovec iov = {(char *)(uintptr_t)bytes, strlen(bytes)};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (count > 0) {
        memcpy(CMSG_DATA(&control.header), fds, count * sizeof(*fds));
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    }
    cr_assert_eq(sendmsg(pair->theirs, &message, 0), (ssize_t)strlen(bytes));
}

static enum kv_err read_all(struct pair *pair)
{
    size_t total = 0;
    enum kv_err err;
    do
        err = inbox_read(&pair->inbox, pair->ours, &total);
    while (err == KV_OK);
    return err;
}

static ino_t inode_of(int fd)
{
    struct stat file;
    cr_assert_eq(fstat(fd, &file), 0);
    return file.st_ino;
}

Test(inbox, bytes_and_descriptors_keep_their_order)
{
    struct pair pair = pair_new();
    int files[3];
    for (int i = 0; i < 3; i++)
        files[i] = memfd_create("file", MFD_CLOEXEC);
    cr_expect_eq(read_all(&pair), KV_NOT_FOUND);
    send_files(&pair, "plain ", NULL, 0);
    for (int i = 0; i < 3; i++)
        send_files(&pair, "with ", &files[i], 1);
    send_files(&pair, "plain", NULL, 0);
    cr_expect_eq(read_all(&pair), KV_NOT_FOUND);
    cr_expect(kv_slice_equal(kv_buf_peek(&pair.inbox.bytes), kv_slice_text("plain with with with plain")));
    for (int i = 0; i < 2; i++) {
        int got = inbox_take_file(&pair.inbox);
        cr_assert_geq(got, 0);
        cr_expect_eq(inode_of(got), inode_of(files[i]));
        cr_expect_eq(fcntl(got, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
        close(got);
    }
    int left = pair.inbox.files[0];
    pair_free(&pair); /* the third was not taken */
    cr_expect_eq(fcntl(left, F_GETFD), -1);
    for (int i = 0; i < 3; i++)
        close(files[i]);
}

Test(inbox, an_end_is_told)
{
    struct pair pair = pair_new();
    send_files(&pair, "last words", NULL, 0);
    shutdown(pair.theirs, SHUT_RDWR);
    size_t total = 0;
    cr_expect_eq(inbox_read(&pair.inbox, pair.ours, &total), KV_NOT_FOUND, "a short read");
    cr_expect_eq(inbox_read(&pair.inbox, pair.ours, &total), KV_UNAVAILABLE);
    cr_expect_eq(total, 10u);
    cr_expect_eq(inbox_take_file(&pair.inbox), -1);
    pair_free(&pair);
}

Test(inbox, more_descriptors_than_a_router_sends_are_refused)
{
    struct pair pair = pair_new();
    int file = memfd_create("file", MFD_CLOEXEC), nine[9];
    for (int i = 0; i < 9; i++)
        nine[i] = file;
    send_files(&pair, "nine", nine, 9);
    cr_expect_eq(read_all(&pair), KV_INVALID, "in one message");
    inbox_free(&pair.inbox);
    for (unsigned i = 0; i < INBOX_FILES_MAX; i++) {
        send_files(&pair, "one", &file, 1);
        cr_assert_eq(read_all(&pair), KV_NOT_FOUND);
    }
    send_files(&pair, "one too many", &file, 1);
    cr_expect_eq(read_all(&pair), KV_INVALID);
    close(file);
    pair_free(&pair);
}

Test(inbox, only_regular_files_are_taken)
{
    struct pair pair = pair_new();
    int ends[2];
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    send_files(&pair, "a pipe", ends, 1);
    cr_expect_eq(read_all(&pair), KV_INVALID);
    cr_expect_eq(inbox_take_file(&pair.inbox), -1);
    close(ends[0]);
    close(ends[1]);
    pair_free(&pair);
}
