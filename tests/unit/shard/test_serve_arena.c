/* Goal: pieces of large contents go into the memory that the router gave, where it said, and into messages when there is none.
 * Method: shard_rig.h; the test maps the memory, too. */
#include "shard_rig.h"

#include <fcntl.h>
#include <sys/mman.h>

static int make_arena(uint8_t **map)
{
    size_t bytes = KV_ARENA_BYTES;
    int fd = memfd_create("arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_eq(ftruncate(fd, (off_t)bytes), 0);
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cr_assert_neq(*map, MAP_FAILED);
    return fd;
}

/* ARENA with this descriptor, or without one: -1. */
static void send_arena(struct rig *rig, int fd)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.header = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
    struct kv_buf buf = {0};
    size_t begin = rig_begin(rig, &buf, KV_MSG_ARENA);
    kv_put_empty(&buf);
    kv_frame_end(&buf, begin);
    struct iovec iov = {buf.data, buf.bytes};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
    }
    cr_assert_eq(sendmsg(rig->fd, &message, 0), (ssize_t)buf.bytes);
    kv_buf_free(&buf);
}

static struct kv_msg_piece fetch_into(struct rig *rig, uint64_t object_id, uint64_t offset, uint64_t bytes,
                                      uint64_t slot)
{
    struct kv_buf buf = {0};
    struct kv_msg_piece piece;
    size_t begin = rig_begin(rig, &buf, KV_MSG_FETCH);
    kv_put_fetch(&buf, &(struct kv_msg_fetch){object_id, offset, bytes, {true, slot}});
    rig_send(rig, &buf, begin);
    cr_assert_eq(kv_get_piece(rig_answer(rig, KV_MSG_PIECE).body, &piece), KV_OK);
    return piece;
}

static struct rig *rig_with_content(size_t size, uint64_t *object_id)
{
    struct rig *rig = rig_new(1);
    rig_open(rig);
    rig_connect(rig, 1);
    *object_id = rig_stage(rig, 9, size);
    rig_send_put(rig, KV_MSG_APPLY, kv_txn_id(1, 1), 1, 9, size, *object_id);
    cr_expect_eq(rig_vote(rig), KV_OK);
    cr_assert(rig_look(rig, 9, 1000, -1).object.held);
    return rig;
}

/* These bytes were written, and no others. */
static void expect_only(const uint8_t *map, size_t begin, size_t bytes)
{
    for (size_t i = 0; i < KV_ARENA_BYTES; i++)
        cr_assert_eq(map[i], i >= begin && i < begin + bytes ? 9 : 0, "at %zu", i);
}

/* Into the slot that was named and no other; into the answer for a router that gave no arena, or one that cannot be mapped. */
Test(serve_arena, pieces_are_written_into_the_routers_arena)
{
    uint8_t *map;
    uint64_t object_id;
    enum { BYTES = KV_CONTENT_FRAME_BYTES, SIZE = 3 * BYTES, FIRST = 48 };
    struct rig *rig = rig_with_content(SIZE, &object_id);
    struct kv_msg_piece piece = fetch_into(rig, object_id, 0, 100, FIRST);
    cr_expect(piece.err == KV_OK && !piece.in_slot && piece.bytes.bytes == 100 && piece.bytes.data[0] == 9);
    int fd = make_arena(&map);
    send_arena(rig, fd);
    piece = fetch_into(rig, object_id, 1000, BYTES, FIRST);
    cr_expect(piece.err == KV_OK && piece.in_slot && piece.slot_bytes == BYTES);
    expect_only(map, (size_t)FIRST * KV_ARENA_UNIT_BYTES, BYTES);
    piece = fetch_into(rig, object_id, SIZE - 5, 10, 0);
    cr_expect(piece.err != KV_OK && !piece.in_slot, "it has not as many");
    cr_expect_eq(fetch_into(rig, object_id + 1, 0, 10, 0).err, KV_STALE);
    send_arena(rig, fd); /* another one in its place */
    cr_expect(fetch_into(rig, object_id, 0, 1, KV_ARENA_UNITS - 1).in_slot);
    close(fd);
    rig_free(rig);
}

/* The front of a content goes there as well; one that does not fit as a whole, though it must come so, comes in the answer. */
Test(serve_arena, contents_are_written_into_the_routers_arena)
{
    uint8_t *map;
    uint64_t object_id;
    enum { BYTES = KV_SLOT_BYTES_MAX, FIRST = KV_ARENA_UNITS - BYTES / KV_ARENA_UNIT_BYTES, SMALL = 40000 };
    struct rig *rig = rig_with_content(3 * BYTES, &object_id);
    struct kv_msg_object seen = rig_look(rig, 9, BYTES, FIRST);
    cr_expect(seen.object.held && seen.slot_bytes == 0 && seen.object.bytes.bytes == BYTES, "there is no arena yet");
    int fd = make_arena(&map);
    send_arena(rig, fd);
    seen = rig_look(rig, 9, BYTES, FIRST);
    cr_expect(seen.object.held && seen.slot_bytes == BYTES && seen.object.bytes.bytes == 0);
    expect_only(map, (size_t)FIRST * KV_ARENA_UNIT_BYTES, BYTES);
    cr_expect_eq(rig_put(rig, kv_txn_id(1, 2), 10, SMALL), KV_OK);
    seen = rig_look(rig, 10, SMALL, 0);
    cr_expect(!seen.object.held && seen.slot_bytes == SMALL && map[SMALL - 1] == 10 && map[SMALL] == 0);
    memset(map, 0, SMALL);
    seen = rig_look(rig, 10, SMALL - 1, 0);
    cr_expect(!seen.object.held && seen.slot_bytes == 0 && seen.object.bytes.bytes == SMALL && map[0] == 0);
    cr_expect(rig_look(rig, 11, SMALL, 0).err == KV_NOT_FOUND && map[0] == 0);
    close(fd);
    rig_free(rig);
}

static void expect_hung_up(struct rig *rig)
{
    uint8_t byte;
    uint64_t end = kv_clock_ms() + RIG_WAIT_MS_MAX;
    ssize_t got;
    while ((got = recv(rig->fd, &byte, 1, MSG_DONTWAIT)) < 0 && kv_clock_ms() < end)
        loop_turn(serve_loop(rig->serve), 1);
    cr_expect_eq(got, 0);
}

Test(serve_arena, a_router_that_sends_what_is_no_arena_is_closed)
{
    struct rig *rig = rig_new(1);
    int fd = memfd_create("arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_eq(ftruncate(fd, (off_t)KV_ARENA_BYTES), 0);
    rig_open(rig);
    for (int i = 0; i < 2; i++) {
        rig_connect(rig, 1);
        send_arena(rig, i == 0 ? fd : -1); /* not sealed; none */
        expect_hung_up(rig);
        close(rig->fd);
    }
    rig->fd = -1;
    close(fd);
    rig_free(rig);
}
