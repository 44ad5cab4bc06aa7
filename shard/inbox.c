/* shard/inbox.c -- see inbox.h. The kernel ends a read behind the bytes that a descriptor came with: such a read is short
 * though more is there. */
#include "inbox.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES_AT_ONCE 4u /* the router sends one with a message; more are cut off by the kernel, and refused */

static bool is_regular(int fd)
{
    struct stat file;
    return fstat(fd, &file) == 0 && S_ISREG(file.st_mode);
}

/* All descriptors of a message become ours to close, whatever is wrong with one of them. */
static enum kv_err take_files(struct inbox *inbox, const struct cmsghdr *header)
{
    enum kv_err err = KV_OK;
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
        int fd;
        memcpy(&fd, CMSG_DATA(header) + i * sizeof(fd), sizeof(fd));
        if (inbox->file_count == INBOX_FILES_MAX || !is_regular(fd)) {
            close(fd);
            err = KV_INVALID;
        } else {
            inbox->files[inbox->file_count++] = fd;
        }
    }
    return err;
}

enum kv_err inbox_read(struct inbox *inbox, int socket_fd, size_t *total)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(FILES_AT_ONCE * sizeof(int))];
    } control;
    struct iovec space = {kv_buf_reserve(&inbox->bytes, INBOX_READ_BYTES), INBOX_READ_BYTES};
    struct msghdr message = {
        .msg_iov = &space, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    ssize_t got;
    do
        got = recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN)
        return KV_NOT_FOUND;
    if (got <= 0)
        return KV_UNAVAILABLE;
    inbox->bytes.bytes += (size_t)got;
    *total += (size_t)got;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header == NULL)
        return (size_t)got < INBOX_READ_BYTES ? KV_NOT_FOUND : KV_OK;
    enum kv_err err = header->cmsg_type == SCM_RIGHTS ? take_files(inbox, header) : KV_INVALID;
    return (message.msg_flags & MSG_CTRUNC) != 0 ? KV_INVALID : err;
}

int inbox_take_file(struct inbox *inbox)
{
    if (inbox->file_count == 0)
        return -1;
    int oldest = inbox->files[0];
    inbox->file_count--;
    memmove(inbox->files, inbox->files + 1, inbox->file_count * sizeof(*inbox->files));
    return oldest;
}

void inbox_free(struct inbox *inbox)
{
    while (inbox->file_count > 0)
        close(inbox->files[--inbox->file_count]);
    kv_buf_free(&inbox->bytes);
}
