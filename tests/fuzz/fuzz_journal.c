/* Replay of a journal at start. Input: segments; each: flags, number of the first record, blocks, groups. With flag 1 a group is the
 * bytes that follow, sealed as the journal would; without, the bytes stand there as they are: torn, forged or left over.
 * What was replayed once is replayed the same again, since the tail was settled. */
#include "fuzz.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "journal.h"
#include "journal_replay.h"

enum { SEGMENTS_MAX = 3, BLOCKS_MAX = 16 };

static int parent_fd = -1, journal_fd;

/* In memory, where there is such a place: nothing here is about disks. Removed at the end: it is empty but for `journal`. */
static char folder[64] = "/dev/shm/kv-fuzz-XXXXXX";

static void remove_folder(void)
{
    unlinkat(parent_fd, "journal", AT_REMOVEDIR);
    rmdir(folder);
}

static void make_folder(void)
{
    if (mkdtemp(folder) == NULL) {
        snprintf(folder, sizeof(folder), "/tmp/kv-fuzz-XXXXXX");
        FUZZ_CHECK(mkdtemp(folder) != NULL);
    }
    parent_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    FUZZ_CHECK(parent_fd >= 0 && mkdirat(parent_fd, "journal", 0700) == 0);
    journal_fd = openat(parent_fd, "journal", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    FUZZ_CHECK(journal_fd >= 0 && atexit(remove_folder) == 0);
}

static void write_file(uint64_t first, const uint8_t *image, size_t bytes)
{
    char name[JOURNAL_NAME_BYTES];
    journal_segment_name(first, name);
    int fd = openat(journal_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FUZZ_CHECK(fd >= 0 && write(fd, image, bytes) == (ssize_t)bytes);
    close(fd);
}

static void write_group(struct kv_slice *input, const struct journal_seal *seal, uint8_t *at, size_t room)
{
    uint64_t flags = fuzz_number(input, 1);
    struct journal_group group = {(uint32_t)fuzz_number(input, 1), 0, fuzz_number(input, 1), fuzz_number(input, 1)};
    struct kv_slice payload = fuzz_part(input, 2);
    if ((flags & 1) == 0 || JOURNAL_GROUP_HEADER_BYTES + payload.bytes > room) {
        memcpy(at, payload.data, payload.bytes < room ? payload.bytes : room);
        return;
    }
    group.payload_bytes = payload.bytes;
    journal_encode_group(&group, seal, payload.data, at);
    memcpy(at + JOURNAL_GROUP_HEADER_BYTES, payload.data, payload.bytes);
}

static uint64_t write_segment(struct kv_slice *input)
{
    static uint8_t image[BLOCKS_MAX * JOURNAL_BLOCK_BYTES];
    uint64_t flags = fuzz_number(input, 1), first = fuzz_number(input, 1), blocks = fuzz_number(input, 1) % BLOCKS_MAX;
    struct journal_segment_header header = {first, (blocks + 2) * JOURNAL_BLOCK_BYTES, {(uint8_t)flags, 1, 2}};
    struct journal_seal seal = journal_seal_of(header.salt);
    memset(image, 0, sizeof(image));
    journal_encode_segment(&header, image);
    for (uint64_t block = 1; block <= blocks && input->bytes > 0; block++)
        write_group(input, &seal, image + block * JOURNAL_BLOCK_BYTES, sizeof(image) - block * JOURNAL_BLOCK_BYTES);
    if ((flags & 2) != 0)
        image[fuzz_number(input, 1)] ^= 1;
    write_file(first, image, (blocks + ((flags & 4) != 0)) * JOURNAL_BLOCK_BYTES);
    return first;
}

static enum kv_err on_record(void *ctx, uint64_t position, uint32_t type, struct kv_slice body)
{
    uint64_t *last = ctx;
    (void)type;
    fuzz_look(body);
    FUZZ_CHECK(position == *last + 1);
    *last = position;
    return KV_OK;
}

static enum kv_err replay(uint64_t skip, uint64_t *last)
{
    struct journal_dir dir;
    struct journal_tail tail = {.fd = -1};
    char why[256] = "";
    *last = skip;
    enum kv_err err =
        journal_dir_open(parent_fd, &journal_ops_system, JOURNAL_SEGMENT_BYTES_MIN, why, sizeof(why), &dir);
    if (err != KV_OK)
        return err;
    err = journal_replay(&dir, skip, on_record, last, why, sizeof(why), &tail);
    FUZZ_CHECK(err == KV_OK || why[0] != '\0');
    FUZZ_CHECK(err != KV_OK || tail.position == *last);
    if (tail.fd >= 0)
        close(tail.fd);
    journal_dir_close(&dir);
    return err;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kv_slice input = kv_slice(data, bytes);
    uint64_t skip = fuzz_number(&input, 1), firsts[SEGMENTS_MAX], last, again;
    char name[JOURNAL_NAME_BYTES];
    size_t count = 0;
    if (parent_fd < 0)
        make_folder();
    while (count < SEGMENTS_MAX && input.bytes > 0)
        firsts[count++] = write_segment(&input);
    if (replay(skip, &last) == KV_OK)
        FUZZ_CHECK(replay(skip, &again) == KV_OK && last == again);
    while (count > 0) {
        journal_segment_name(firsts[--count], name);
        unlinkat(journal_fd, name, 0);
    }
    return 0;
}
