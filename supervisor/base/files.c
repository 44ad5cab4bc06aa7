/* supervisor/base/files.c -- see include/kv/files.h. The memfd: for each file of the table its length (8 bytes), then its bytes.
 * Space for a whole file is reserved before it is read: memory that grew would leave copies behind. */
#include "kv/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv/settings.h"

#define FILES_MAX 8u
#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

static size_t list_of(const struct kv_files *files, const struct kv_buf *list[FILES_MAX])
{
    size_t count = 0;
#define FILE_ADD(member, setting, name) list[count++] = &files->member;
    KV_FILES_TABLE(FILE_ADD)
#undef FILE_ADD
    return count;
}

static void wipe(struct kv_buf *buf)
{
    if (buf->data != NULL)
        explicit_bzero(buf->data, buf->bytes);
    kv_buf_free(buf);
}

void kv_files_free(struct kv_files *files)
{
#define FILE_WIPE(member, setting, name) wipe(&files->member);
    KV_FILES_TABLE(FILE_WIPE)
#undef FILE_WIPE
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

static enum kv_err refuse(const char *name, const char *path, const char *what, char *why, size_t why_bytes)
{
    snprintf(why, why_bytes, "%s: %s %s", name, path, what);
    return KV_INVALID;
}

/* At most one byte more than allowed. */
static enum kv_err read_all(int fd, struct kv_buf *out)
{
    uint8_t *space = kv_buf_reserve(out, KV_FILE_BYTES_MAX + 1);
    while (out->bytes <= KV_FILE_BYTES_MAX) {
        ssize_t got = read(fd, space + out->bytes, KV_FILE_BYTES_MAX + 1 - out->bytes);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got == 0 ? KV_OK : KV_IO;
        out->bytes += (size_t)got;
    }
    return KV_TOO_LARGE;
}

static enum kv_err load(const char *name, const char *path, struct kv_buf *out, char *why, size_t why_bytes)
{
    char what[128];
    if (*path == '\0')
        return KV_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        snprintf(what, sizeof(what), "cannot be opened: %s", strerror(errno));
        return refuse(name, path, what, why, why_bytes);
    }
    enum kv_err err = read_all(fd, out);
    int saved = errno;
    close(fd);
    if (err == KV_IO) {
        snprintf(what, sizeof(what), "cannot be read: %s", strerror(saved));
        return refuse(name, path, what, why, why_bytes);
    }
    if (err == KV_TOO_LARGE)
        return refuse(name, path, "is larger than 1 MiB", why, why_bytes);
    return out->bytes == 0 ? refuse(name, path, "is empty", why, why_bytes) : KV_OK;
}

const char *kv_token_fault(struct kv_slice token)
{
    if (token.bytes == 0)
        return "the token is empty";
    if (token.bytes > KV_TOKEN_BYTES_MAX)
        return "the token is longer than 4096 bytes";
    for (size_t i = 0; i < token.bytes; i++)
        if (token.data[i] <= ' ' || token.data[i] > '~')
            return "the token holds a byte that is not a visible ASCII character";
    return NULL;
}

struct kv_slice kv_files_token(const struct kv_files *files)
{
    const struct kv_buf *file = &files->token;
    const uint8_t *end = file->bytes == 0 ? NULL : memchr(file->data, '\n', file->bytes);
    return kv_slice(file->data, end == NULL ? file->bytes : (size_t)(end - file->data));
}

static enum kv_err check_token(const struct kv_files *files, char *why, size_t why_bytes)
{
    const char *fault = files->token.bytes == 0 ? NULL : kv_token_fault(kv_files_token(files));
    if (fault == NULL)
        return KV_OK;
    snprintf(why, why_bytes, "TOKEN_FILE: %s", fault);
    return KV_INVALID;
}

enum kv_err kv_files_load(const struct kv_settings *settings, struct kv_files *out, char *why, size_t why_bytes)
{
    struct kv_files files = {0};
    enum kv_err err = KV_OK;
#define FILE_LOAD(member, setting, name)                                                                               \
    if (err == KV_OK)                                                                                                  \
        err = load(#name, settings->setting, &files.member, why, why_bytes);
    KV_FILES_TABLE(FILE_LOAD)
#undef FILE_LOAD
    if (err == KV_OK)
        err = check_token(&files, why, why_bytes);
    if (err == KV_OK)
        *out = files;
    else
        kv_files_free(&files);
    return err;
}

/* ---- the memfd ---------------------------------------------------------------------------------------------------- */

static bool write_all(int fd, const void *data, size_t bytes)
{
    const char *at = data;
    while (bytes > 0) {
        ssize_t written = write(fd, at, bytes);
        if (written < 0 && errno != EINTR)
            return false;
        at += written > 0 ? written : 0;
        bytes -= written > 0 ? (size_t)written : 0;
    }
    return true;
}

int kv_files_seal(const struct kv_files *files)
{
    const struct kv_buf *list[FILES_MAX];
    size_t count = list_of(files, list);
    int fd = memfd_create("kv-files", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    bool done = fd >= 0;
    for (size_t i = 0; done && i < count; i++) {
        uint64_t bytes = list[i]->bytes;
        done = write_all(fd, &bytes, sizeof(bytes)) && write_all(fd, list[i]->data, list[i]->bytes);
    }
    if (done && fcntl(fd, F_ADD_SEALS, SEALS) == 0)
        return fd;
    int saved = errno;
    if (fd >= 0)
        close(fd);
    errno = saved;
    return -1;
}

enum kv_err kv_files_open(const struct kv_settings *settings, int *fd, char *why, size_t why_bytes)
{
    struct kv_files files = {0};
    enum kv_err err = kv_files_load(settings, &files, why, why_bytes);
    if (err != KV_OK)
        return err;
    int sealed = kv_files_seal(&files);
    kv_files_free(&files);
    if (sealed < 0) {
        snprintf(why, why_bytes, "no memory can be shared for tokens and certificates: %s", strerror(errno));
        return KV_INVALID;
    }
    *fd = sealed;
    return KV_OK;
}

static bool read_at(int fd, off_t *offset, void *out, size_t bytes)
{
    ssize_t got = pread(fd, out, bytes, *offset);
    *offset += (off_t)bytes;
    return got == (ssize_t)bytes; /* a memfd gives all that it has at once */
}

static bool unseal(int fd, off_t *offset, struct kv_buf *out)
{
    uint64_t bytes = 0;
    if (!read_at(fd, offset, &bytes, sizeof(bytes)) || bytes > KV_FILE_BYTES_MAX)
        return false;
    if (bytes == 0)
        return true;
    uint8_t *space = kv_buf_reserve(out, (size_t)bytes);
    out->bytes = (size_t)bytes;
    return read_at(fd, offset, space, (size_t)bytes);
}

enum kv_err kv_files_unseal(int fd, struct kv_files *out)
{
    struct kv_files files = {0};
    off_t offset = 0;
    struct stat status = {0};
    int seals = fcntl(fd, F_GET_SEALS); /* maybe more: vm.memfd_noexec adds F_SEAL_EXEC to each memfd */
    bool good = seals >= 0 && (seals & SEALS) == SEALS && fstat(fd, &status) == 0;
#define FILE_UNSEAL(member, setting, name) good = good && unseal(fd, &offset, &files.member);
    KV_FILES_TABLE(FILE_UNSEAL)
#undef FILE_UNSEAL
    if (good && status.st_size == offset) {
        *out = files;
        return KV_OK;
    }
    kv_files_free(&files);
    return KV_INVALID;
}

/* ---- the socket --------------------------------------------------------------------------------------------------- */

union control {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
};

bool kv_files_send(int socket_fd, int files_fd)
{
    char byte = 'F';
    struct iovec iovec = {&byte, 1};
    union control control = {0};
    struct msghdr message = {
        .msg_iov = &iovec, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)};
    control.header =
        (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(&control.header), &files_fd, sizeof(files_fd));
    return sendmsg(socket_fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == 1;
}

/* The descriptor of the next message; -1: no message, or one without. `*some`: there was a message. */
static int receive_fd(int socket_fd, bool *some)
{
    char byte;
    struct iovec iovec = {&byte, 1};
    union control control = {0};
    struct msghdr message = {
        .msg_iov = &iovec, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof(control.space)};
    int fd = -1;
    *some = recvmsg(socket_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) > 0;
    const struct cmsghdr *header = *some ? CMSG_FIRSTHDR(&message) : NULL;
    if (header != NULL && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof(int)))
        memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    return fd;
}

enum kv_err kv_files_receive(int socket_fd, struct kv_files *out)
{
    int last = -1;
    bool some, any = false;
    for (int fd; (fd = receive_fd(socket_fd, &some)), some; last = fd) {
        any = true;
        if (last >= 0)
            close(last);
    }
    if (!any)
        return KV_NOT_FOUND;
    enum kv_err err = kv_files_unseal(last, out);
    if (last >= 0)
        close(last);
    return err;
}
