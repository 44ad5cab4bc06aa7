/* Goal: what journal_durable reported comes back, in order and once; what was never whole is cut; what was damaged is
 * refused. And the limits: full disks, failing disks, segments without end.
 * Method: small segments in a temporary directory, bodies that follow from their position, files changed between close and
 * open, system calls that fail on demand. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../histograms.h"
#include "journal_internal.h"
#include "kv/clock.h"

#define SEGMENT_BYTES (64u * 1024)

enum { WAIT_US = 10000, WAITS_MAX = 6000 }; /* a minute: no disk is as slow */

/* ---- a directory and a journal in it ----------------------------------------------------------------------------- */

struct place {
    char path[64];
    int fd;
    struct journal *journal;
    uint64_t applied;  /* options.position */
    uint64_t expected; /* next position that replay must give */
    uint64_t replayed;
    size_t (*body_bytes)(uint64_t position);
    uint64_t interval_ms; /* 0: flush every group */
    char why[256];
};

static size_t small_bodies(uint64_t position)
{
    return position * 37 % 200;
}

static size_t mixed_bodies(uint64_t position)
{
    return position % 7 == 0 ? 9000 + position % 5000 : position * 331 % 3000;
}

static void fill_body(uint64_t position, uint8_t *body, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        body[i] = (uint8_t)(position * 131 + i * 7);
}

/* A failing system call, on demand; counters are shared with the journal thread. */
static atomic_int fail_pwritev, fail_flush, fail_allocate, short_writes, flushes;
static _Atomic uint64_t free_bytes = UINT64_MAX / 4;

static ssize_t test_pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    int number = atomic_load(&fail_pwritev);
    if (number != 0) {
        errno = number;
        return -1;
    }
    int shortened = atomic_load(&short_writes);
    if (shortened > 0 && atomic_fetch_add(&short_writes, 1) % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    if (shortened > 0) {
        size_t some = parts[0].iov_len > 1000 ? 1000 : parts[0].iov_len;
        return pwrite(fd, parts[0].iov_base, some, offset);
    }
    return pwritev(fd, parts, count, offset);
}

static int test_fdatasync(int fd)
{
    atomic_fetch_add(&flushes, 1);
    errno = atomic_load(&fail_flush);
    return errno != 0 ? -1 : fdatasync(fd);
}

static int test_allocate(int fd, off_t offset, off_t bytes)
{
    int number = atomic_load(&fail_allocate);
    return number != 0 ? number : posix_fallocate(fd, offset, bytes);
}

static uint64_t test_free_bytes(int fd)
{
    (void)fd;
    return atomic_load(&free_bytes);
}

static const struct journal_ops test_ops = {test_pwritev, test_fdatasync, test_allocate, test_free_bytes};

static void place_init(struct place *place)
{
    memset(place, 0, sizeof *place);
    snprintf(place->path, sizeof place->path, "/tmp/kv-journal-XXXXXX");
    cr_assert_not_null(mkdtemp(place->path));
    place->fd = open(place->path, O_RDONLY | O_DIRECTORY);
    place->body_bytes = small_bodies;
}

static void place_free(struct place *place)
{
    journal_close(&place->journal);
    close(place->fd);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", place->path);
    cr_assert_eq(system(command), 0);
}

static enum kv_err on_record(void *ctx, uint64_t position, uint32_t type, struct kv_slice body)
{
    struct place *place = ctx;
    static uint8_t expected[65536];
    cr_assert_eq(position, place->expected, "expected %zu, got %zu", (size_t)place->expected, (size_t)position);
    cr_assert_eq(type, (uint32_t)(position % 5 + 1));
    cr_assert_eq(body.bytes, place->body_bytes(position));
    fill_body(position, expected, body.bytes);
    cr_assert(body.bytes == 0 || memcmp(body.data, expected, body.bytes) == 0, "record %zu", (size_t)position);
    place->expected++;
    place->replayed++;
    return KV_OK;
}

static enum kv_err place_open(struct place *place)
{
    struct journal_options options = {place->fd, place->applied, place->interval_ms == 0, place->interval_ms};
    place->expected = place->applied + 1;
    place->replayed = 0;
    return journal_open_with(&options, &test_ops, SEGMENT_BYTES, on_record, place, place->why, sizeof place->why,
                             &place->journal);
}

static uint64_t append(struct place *place)
{
    static uint8_t body[65536];
    uint64_t position = place->journal->position + 1;
    size_t bytes = place->body_bytes(position);
    fill_body(position, body, bytes);
    cr_assert_eq(journal_append(place->journal, (uint32_t)(position % 5 + 1), kv_slice(body, bytes)), position);
    return position;
}

/* As the loop would: by the event descriptor. */
static bool wait_durable(struct journal *journal, uint64_t position)
{
    uint64_t deadline_ms = kv_clock_ms() + 60000;
    while (journal_durable(journal) < position && !journal_failed(journal)) {
        cr_assert_lt(kv_clock_ms(), deadline_ms, "the journal stands still");
        struct pollfd poll_fd = {journal_event_fd(journal), POLLIN, 0};
        uint64_t rings;
        if (poll(&poll_fd, 1, 1000) == 1)
            cr_assert_eq(read(poll_fd.fd, &rings, sizeof rings), (ssize_t)sizeof rings);
    }
    return journal_durable(journal) >= position;
}

/* `count` records, each a group of its own. */
static void append_groups(struct place *place, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t position = append(place);
        journal_submit(place->journal);
        cr_assert(wait_durable(place->journal, position));
    }
}

/* ---- files ------------------------------------------------------------------------------------------------------- */

static void segment_path(const struct place *place, uint64_t first, char out[160])
{
    char name[JOURNAL_NAME_BYTES];
    journal_segment_name(first, name);
    snprintf(out, 160, "%s/journal/%s", place->path, name);
}

static size_t file_read(const char *path, uint8_t *out, size_t bytes)
{
    int fd = open(path, O_RDONLY);
    cr_assert_geq(fd, 0, "%s", path);
    ssize_t got = pread(fd, out, bytes, 0);
    close(fd);
    cr_assert_geq(got, 0);
    return (size_t)got;
}

static void file_write(const char *path, const uint8_t *data, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_TRUNC);
    cr_assert_geq(fd, 0, "%s", path);
    cr_assert_eq(write(fd, data, bytes), (ssize_t)bytes);
    close(fd);
}

static void flip(const char *path, off_t offset)
{
    uint8_t byte;
    int fd = open(path, O_RDWR);
    cr_assert_eq(pread(fd, &byte, 1, offset), 1);
    byte ^= 0x40;
    cr_assert_eq(pwrite(fd, &byte, 1, offset), 1);
    close(fd);
}

static unsigned count_files(const struct place *place, const char *prefix)
{
    char path[160];
    snprintf(path, sizeof path, "%s/journal", place->path);
    DIR *dir = opendir(path);
    unsigned count = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(dir);
    return count;
}

static bool is_resting(struct journal *journal)
{
    pthread_mutex_lock(&journal->mutex);
    bool resting = journal->resting;
    pthread_mutex_unlock(&journal->mutex);
    return resting;
}

/* The thread has made all spares that it keeps ready, and zeroed them. */
static void wait_for_spares(const struct place *place)
{
    for (unsigned i = 0; i < WAITS_MAX && !is_resting(place->journal); i++)
        usleep(WAIT_US);
    cr_assert(is_resting(place->journal));
    cr_assert_eq(count_files(place, "spare-"), JOURNAL_SPARES_READY);
}

/* ---- what was written comes back ---------------------------------------------------------------------------------- */

Test(journal, a_new_one_is_empty)
{
    struct place place;
    place_init(&place);
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 0);
    cr_expect_eq(journal_durable(place.journal), 0);
    append_groups(&place, 1);
    cr_expect_eq(journal_durable(place.journal), 1);
    place_free(&place);
}

/* What was acknowledged and not yet applied stood in the files that are gone. */
Test(journal, one_that_was_emptied_is_refused)
{
    struct place place;
    char path[160];
    place_init(&place);
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    append_groups(&place, 5);
    journal_close(&place.journal);
    segment_path(&place, 1, path);
    cr_assert_eq(unlink(path), 0);
    place.applied = 3;
    cr_expect_eq(place_open(&place), KV_CORRUPT);
    cr_expect_not_null(strstr(place.why, "the journal is empty, though 3 of its records were applied"), "%s",
                       place.why);
    place_free(&place);
}

/* Else a start could not tell it from one that was emptied. */
Test(journal, the_newest_segment_stays_though_all_of_it_is_released)
{
    struct place place;
    struct journal_dir dir;
    place_init(&place);
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    append_groups(&place, 5);
    journal_close(&place.journal);
    cr_assert_eq(journal_dir_open(place.fd, &test_ops, SEGMENT_BYTES, place.why, sizeof place.why, &dir), KV_OK);
    cr_assert_eq(dir.segment_count, 1);
    dir.segments[0].last =
        5; /* as after DURABILITY=interval and a power cut: LMDB has more, the segment is done with */
    dir.segments[0].bytes = SEGMENT_BYTES;
    cr_expect_eq(journal_dir_recycle(&dir, 9), KV_NOT_FOUND);
    journal_dir_close(&dir);
    place.applied = 9;
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    append_groups(&place, 1); /* it has a successor now */
    journal_release(place.journal, 10);
    for (unsigned i = 0; i < WAITS_MAX && count_files(&place, "0") > 1; i++)
        usleep(WAIT_US);
    cr_expect_eq(count_files(&place, "0"), 1);
    place_free(&place);
}

Test(journal, replays_what_was_written)
{
    struct place place;
    place_init(&place);
    place.body_bytes = mixed_bodies;
    for (unsigned round = 1; round <= 4; round++) {
        cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
        cr_assert_eq(place.replayed, (round - 1) * 200u);
        for (unsigned i = 0; i < 200; i++) {
            append(&place);
            if (i % 9 == 8)
                journal_submit(place.journal);
        }
        journal_submit(place.journal);
        journal_close(&place.journal); /* flushes what was submitted */
        cr_assert_null(place.journal);
    }
    place.applied = 555;
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 800 - 555);
    cr_expect_gt(count_files(&place, "000"), 10, "many segments");
    place_free(&place);
}

Test(journal, records_not_submitted_do_not_exist)
{
    struct place place;
    place_init(&place);
    cr_assert_eq(place_open(&place), KV_OK);
    append_groups(&place, 3);
    append(&place);
    journal_close(&place.journal);
    cr_assert_eq(place_open(&place), KV_OK);
    cr_expect_eq(place.replayed, 3);
    place_free(&place);
}

static enum kv_err refuse(void *ctx, uint64_t position, uint32_t type, struct kv_slice body)
{
    (void)ctx, (void)type, (void)body;
    return position == 2 ? KV_INVALID : KV_OK;
}

Test(journal, a_refused_record_ends_the_replay)
{
    struct place place;
    place_init(&place);
    cr_assert_eq(place_open(&place), KV_OK);
    append_groups(&place, 3);
    journal_close(&place.journal);
    struct journal_options options = {place.fd, 0, true, 0};
    cr_expect_eq(journal_open(&options, refuse, NULL, place.why, sizeof place.why, &place.journal), KV_INVALID);
    cr_expect_not_null(strstr(place.why, "record 2"), "%s", place.why);
    place_free(&place);
}

static size_t huge_bodies(uint64_t position)
{
    return position == 2 ? 3 * SEGMENT_BYTES / 4 + 12345 : 100;
}

Test(journal, a_record_larger_than_a_segment)
{
    static uint8_t huge[5 * SEGMENT_BYTES + 17];
    struct place place;
    place_init(&place);
    place.body_bytes = huge_bodies;
    cr_assert_eq(place_open(&place), KV_OK);
    append_groups(&place, 3);
    memset(huge, 'h', sizeof huge);
    uint64_t position = journal_append(place.journal, 9, kv_slice(huge, sizeof huge));
    journal_submit(place.journal);
    cr_assert(wait_durable(place.journal, position));
    append_groups(&place, 2);
    journal_release(place.journal, position);
    journal_close(&place.journal);
    place.applied = position; /* on_record knows nothing of the huge one */
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 2);
    place_free(&place);
}

static size_t huge_seen;

static enum kv_err on_huge(void *ctx, uint64_t position, uint32_t type, struct kv_slice body)
{
    (void)ctx, (void)position;
    huge_seen += type == 9 && body.bytes == 5 * SEGMENT_BYTES && body.data[body.bytes - 1] == 'h';
    return KV_OK;
}

Test(journal, a_huge_record_is_replayed)
{
    static uint8_t huge[5 * SEGMENT_BYTES];
    struct place place;
    place_init(&place);
    memset(huge, 'h', sizeof huge);
    for (unsigned round = 0; round < 2; round++) {
        struct journal_options options = {place.fd, 0, true, 0};
        huge_seen = 0;
        cr_assert_eq(journal_open_with(&options, &test_ops, SEGMENT_BYTES, on_huge, NULL, place.why, sizeof place.why,
                                       &place.journal),
                     KV_OK, "%s", place.why);
        cr_expect_eq(huge_seen, round * 3);
        for (unsigned i = 0; i < 3; i++)
            journal_append(place.journal, 9, kv_slice(huge, sizeof huge));
        journal_submit(place.journal);
        journal_close(&place.journal);
    }
    place_free(&place);
}

/* ---- torn tails --------------------------------------------------------------------------------------------------- */

#define TAIL_RECORD_BYTES 10000u /* the last group spans three blocks */

static size_t torn_bodies(uint64_t position)
{
    return position == 6 ? TAIL_RECORD_BYTES : 500;
}

enum harm { HARM_TRUNCATE, HARM_ZERO, HARM_GARBLE, HARM_FLIP, HARMS };

static size_t harm_file(uint8_t *file, size_t bytes, enum harm harm, size_t at, size_t group_end)
{
    switch (harm) {
    case HARM_TRUNCATE:
        return at;
    case HARM_ZERO:
        memset(file + at, 0, group_end - at);
        return bytes;
    case HARM_GARBLE:
        for (size_t i = at; i < group_end; i++)
            file[i] = (uint8_t)(file[i] * 31u + 77u + i);
        return bytes;
    default:
        file[at] ^= 1;
        return bytes;
    }
}

/* The last group is cut, its place is used again, and a later replay sees the new records and not the old. */
static void torn(struct place *place, const char *path, const uint8_t *whole, size_t bytes, enum harm harm, size_t at,
                 size_t group_end)
{
    static uint8_t file[SEGMENT_BYTES];
    memcpy(file, whole, bytes);
    file_write(path, file, harm_file(file, bytes, harm, at, group_end));
    for (uint64_t records = 5; records <= 11; records += 3) {
        cr_assert_eq(place_open(place), KV_OK, "harm %d at %zu: %s", harm, at, place->why);
        cr_assert_eq(place->replayed, records, "harm %d at %zu", harm, at);
        if (records < 11)
            append_groups(place, 3);
        journal_close(&place->journal);
    }
}

Test(journal, torn_tails_are_cut)
{
    static uint8_t whole[SEGMENT_BYTES];
    struct place place;
    char path[160];
    place_init(&place);
    place.body_bytes = torn_bodies;
    cr_assert_eq(place_open(&place), KV_OK);
    append_groups(&place, 6);
    journal_close(&place.journal);
    segment_path(&place, 1, path);
    size_t bytes = file_read(path, whole, sizeof whole);
    cr_assert_eq(bytes, SEGMENT_BYTES);
    size_t group = 6 * JOURNAL_BLOCK_BYTES, payload_end = group + JOURNAL_GROUP_HEADER_BYTES + 8 + TAIL_RECORD_BYTES;
    for (size_t at = group; at < payload_end; at += JOURNAL_BLOCK_BYTES)
        for (enum harm harm = 0; harm < HARMS; harm++)
            torn(&place, path, whole, bytes, harm, at, payload_end);
    srand(7);
    for (unsigned i = 0; i < 24; i++)
        torn(&place, path, whole, bytes, (enum harm)(i % HARMS), group + (size_t)rand() % (payload_end - group),
             payload_end);
    place_free(&place);
}

Test(journal, padding_is_not_content)
{
    struct place place;
    char path[160];
    place_init(&place);
    cr_assert_eq(place_open(&place), KV_OK);
    append_groups(&place, 2);
    journal_close(&place.journal);
    segment_path(&place, 1, path);
    flip(path, 3 * JOURNAL_BLOCK_BYTES - 1);
    cr_expect_eq(place_open(&place), KV_OK);
    cr_expect_eq(place.replayed, 2);
    place_free(&place);
}

/* ---- damage ------------------------------------------------------------------------------------------------------- */

static void expect_corrupt(struct place *place, const char *word)
{
    cr_expect_eq(place_open(place), KV_CORRUPT);
    cr_expect_not_null(strstr(place->why, word), "'%s' misses '%s'", place->why, word);
    cr_expect_null(place->journal);
}

Test(journal, a_bad_group_before_good_ones_is_refused)
{
    struct place place;
    char path[160];
    place_init(&place);
    cr_assert_eq(place_open(&place), KV_OK);
    append_groups(&place, 8);
    journal_close(&place.journal);
    segment_path(&place, 1, path);
    for (unsigned group = 0; group < 7; group++) {
        off_t offset = (off_t)((group + 1) * JOURNAL_BLOCK_BYTES) + (group % 2 ? 3 : 45); /* header, payload */
        flip(path, offset);
        char word[64];
        snprintf(word, sizeof word, "offset %u", (group + 1) * JOURNAL_BLOCK_BYTES);
        expect_corrupt(&place, group == 0 ? "journal/0000000000000001" : word);
        flip(path, offset);
    }
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 8);
    place_free(&place);
}

/* A disk that returns the block of another place: the group is good, but it is not the next one. */
Test(journal, a_good_group_in_the_wrong_place_is_refused)
{
    static uint8_t file[SEGMENT_BYTES];
    struct place place;
    char path[160];
    place_init(&place);
    cr_assert_eq(place_open(&place), KV_OK);
    append_groups(&place, 3); /* of one block each */
    journal_close(&place.journal);
    segment_path(&place, 1, path);
    cr_assert_eq(file_read(path, file, sizeof file), sizeof file);
    memcpy(file + 2 * JOURNAL_BLOCK_BYTES, file + 3 * JOURNAL_BLOCK_BYTES, JOURNAL_BLOCK_BYTES);
    file_write(path, file, sizeof file);
    expect_corrupt(&place, "does not continue the one before it");
    place_free(&place);
}

/* Several segments: first positions of them in `firsts`. */
static void many_segments(struct place *place, uint64_t *firsts, size_t max)
{
    place->body_bytes = mixed_bodies;
    cr_assert_eq(place_open(place), KV_OK);
    append_groups(place, 60);
    journal_close(&place->journal);
    size_t count = 0;
    for (uint64_t first = 1; first <= 60 && count < max; first++) {
        char path[160];
        segment_path(place, first, path);
        if (access(path, F_OK) == 0)
            firsts[count++] = first;
    }
    cr_assert_geq(count, 4);
}

Test(journal, damage_in_an_earlier_segment_is_refused)
{
    struct place place;
    uint64_t firsts[64];
    char path[160], last_group[160];
    place_init(&place);
    many_segments(&place, firsts, 64);
    segment_path(&place, firsts[1], path);
    flip(path, 8);
    expect_corrupt(&place, "header");
    flip(path, 8);
    uint64_t offset =
        JOURNAL_BLOCK_BYTES; /* of the last group in the second segment: nothing good follows in the file */
    for (uint64_t position = firsts[1]; position + 1 < firsts[2]; position++)
        offset += journal_group_bytes(8 + mixed_bodies(position));
    flip(path, (off_t)offset + 41);
    snprintf(last_group, sizeof last_group, "offset %zu", (size_t)offset);
    expect_corrupt(&place, last_group);
    flip(path, (off_t)offset + 41);
    place.applied = firsts[2] - 1; /* damage in what LMDB has already is of no interest */
    flip(path, 8);
    cr_expect_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 60 - place.applied);
    place_free(&place);
}

Test(journal, a_missing_segment_is_refused)
{
    struct place place;
    uint64_t firsts[64];
    char path[160];
    place_init(&place);
    many_segments(&place, firsts, 64);
    segment_path(&place, firsts[2], path);
    cr_assert_eq(unlink(path), 0);
    expect_corrupt(&place, "missing");
    segment_path(&place, firsts[0], path);
    cr_assert_eq(unlink(path), 0);
    expect_corrupt(&place, "the next one needed");
    place.applied = firsts[3] - 1;
    cr_expect_eq(place_open(&place), KV_OK, "%s", place.why);
    place_free(&place);
}

Test(journal, a_segment_without_its_first_group_is_refused)
{
    struct place place;
    char path[160];
    place_init(&place);
    cr_assert_eq(place_open(&place), KV_OK);
    append_groups(&place, 1);
    journal_close(&place.journal);
    segment_path(&place, 1, path);
    flip(path, JOURNAL_BLOCK_BYTES + 44);
    expect_corrupt(&place, "first group");
    place_free(&place);
}

/* A client's value that contains the image of a group, at a block boundary, in a group that is then torn. */
static void forge(struct place *place, const uint8_t salt[JOURNAL_SALT_BYTES], uint8_t *body, size_t bytes)
{
    static uint8_t payload[100];
    size_t at = JOURNAL_BLOCK_BYTES - JOURNAL_GROUP_HEADER_BYTES - JOURNAL_RECORD_HEADER_BYTES;
    struct journal_seal seal = journal_seal_of(salt);
    struct journal_group group = {1, sizeof payload, place->journal->position + 2, place->journal->position + 1};
    memset(body, 0, bytes);
    journal_encode_record(1, sizeof payload - 8, payload);
    journal_encode_group(&group, &seal, payload, body + at);
    memcpy(body + at + JOURNAL_GROUP_HEADER_BYTES, payload, sizeof payload);
}

static enum kv_err forged_value(const uint8_t *salt, struct place *place)
{
    static uint8_t body[12000], file[SEGMENT_BYTES];
    char path[160];
    cr_assert_eq(place_open(place), KV_OK);
    append_groups(place, 2);
    segment_path(place, 1, path);
    file_read(path, file, sizeof file);
    forge(place, salt ? salt : file + 32, body, sizeof body);
    uint64_t position = journal_append(place->journal, 1, kv_slice(body, sizeof body));
    journal_submit(place->journal);
    cr_assert(wait_durable(place->journal, position));
    journal_close(&place->journal);
    flip(path, 3 * JOURNAL_BLOCK_BYTES + 5); /* torn: the header block is bad, the block with the image is whole */
    return place_open(place);
}

Test(journal, a_forged_group_inside_a_value_is_not_believed)
{
    static const uint8_t guess[JOURNAL_SALT_BYTES];
    struct place place;
    place_init(&place);
    cr_expect_eq(forged_value(guess, &place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 2);
    place_free(&place);
}

/* The control: with the real salt the image would be believed, so the test above does test the salt. */
Test(journal, only_the_salt_stands_between_a_forger_and_replay)
{
    struct place place;
    place_init(&place);
    cr_expect_eq(forged_value(NULL, &place), KV_CORRUPT);
    place_free(&place);
}

/* DURABILITY=interval: a later group may reach the disk without an earlier one. That is a tail, not damage, and the later group
 * must never come back. */
Test(journal, unflushed_groups_may_be_lost_in_any_order)
{
    struct place place;
    char path[160];
    place_init(&place);
    place.interval_ms = 60000;
    cr_assert_eq(place_open(&place), KV_OK);
    append_groups(&place, 1); /* begins the segment: flushed */
    append_groups(&place, 6);
    journal_close(&place.journal);
    segment_path(&place, 1, path);
    static uint8_t file[SEGMENT_BYTES];
    file_read(path, file, sizeof file);
    uint64_t flushed; /* what the last group says was on disk before it */
    memcpy(&flushed, file + 7 * JOURNAL_BLOCK_BYTES + 24, 8);
    cr_assert_eq(flushed, 1);
    flip(path, 5 * JOURNAL_BLOCK_BYTES + 2); /* group 5 of 7 */
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 4);
    append_groups(&place, 1); /* as long as the old group 5: the old group 6 would seem to follow it */
    journal_close(&place.journal);
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 5);
    place_free(&place);
}

Test(journal, interval_flushes_by_the_clock)
{
    struct place place;
    place_init(&place);
    place.interval_ms = 1000;
    cr_assert_eq(place_open(&place), KV_OK);
    append_groups(&place, 1);
    wait_for_spares(&place);
    int before = atomic_load(&flushes);
    for (unsigned i = 0; i < 10; i++)
        append_groups(&place, 1);
    cr_expect_leq(atomic_load(&flushes) - before, 5, "not one flush per group");
    before = atomic_load(&flushes);
    append_groups(&place, 1);
    for (unsigned i = 0; i < WAITS_MAX && atomic_load(&flushes) == before; i++)
        usleep(WAIT_US);
    cr_expect_gt(atomic_load(&flushes), before, "and not none");
    place_free(&place);
}

Test(journal, a_journal_that_ends_before_the_store_goes_on_behind_it)
{
    struct place place;
    place_init(&place);
    cr_assert_eq(place_open(&place), KV_OK);
    append_groups(&place, 5);
    journal_close(&place.journal);
    place.applied = 9;
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    append_groups(&place, 2);
    cr_expect_eq(journal_durable(place.journal), 11);
    journal_close(&place.journal);
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 2);
    place_free(&place);
}

/* ---- segments without end ---------------------------------------------------------------------------------------- */

Test(journal, segments_are_recycled)
{
    struct place place;
    place_init(&place);
    place.body_bytes = mixed_bodies;
    cr_assert_eq(place_open(&place), KV_OK);
    for (unsigned round = 0; round < 60; round++) {
        append_groups(&place, 10);
        journal_release(place.journal, journal_durable(place.journal));
    }
    journal_close(&place.journal);
    cr_expect_leq(count_files(&place, "0"), 4);
    cr_expect_leq(count_files(&place, "spare-"), JOURNAL_SPARES_MAX);
    cr_expect_eq(count_files(&place, "making"), 0);
    place.applied = 596;
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 4);
    append_groups(&place, 200);
    journal_close(&place.journal);
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 204);
    place_free(&place);
}

/* Group commit, with a loop that never waits: many records, few flushes, positions reported in order. */
Test(journal, many_records_share_flushes)
{
    struct place place;
    place_init(&place);
    cr_assert_eq(place_open(&place), KV_OK);
    uint64_t reported = 0, released = 0;
    for (unsigned turn = 0; turn < 3000; turn++) {
        for (unsigned i = 0; i < 5; i++)
            append(&place);
        journal_submit(place.journal);
        uint64_t durable = journal_durable(place.journal);
        cr_assert_geq(durable, reported);
        reported = durable;
        if (durable > released + 1000)
            journal_release(place.journal, released = durable - 10);
        cr_assert(journal_room(place.journal, 1000, false));
    }
    cr_assert(wait_durable(place.journal, 15000));
    struct journal_stats stats;
    journal_stats(place.journal, &stats);
    for (unsigned i = 0; i < WAITS_MAX && stats.group_records.sum < 15000;
         i++) { /* they follow the report of the position */
        usleep(WAIT_US);
        journal_stats(place.journal, &stats);
    }
    cr_expect_eq(stats.group_records.sum, 15000);
    uint64_t groups = histogram_count(&stats.group_records);
    cr_expect_lt(groups, 3000);
    cr_expect_gt(stats.group_bytes.sum, 15000 * 8);
    cr_expect_eq(histogram_count(&stats.group_bytes), groups);
    cr_expect_eq(histogram_count(&stats.write_ns), groups);
    cr_expect_gt(stats.flush_ns.sum, 0);
    journal_close(&place.journal);
    place.applied = released;
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 15000 - released);
    place_free(&place);
}

/* ---- groups written by the caller --------------------------------------------------------------------------------- */

/* The thread begins each segment, then makes spares, and rests then. However slow the disk: what it took before is forgotten. */
static bool write_now(struct journal *journal, unsigned tries)
{
    for (; tries > 0; tries--) {
        journal->slow_until_ms = 0;
        if (journal_write_now(journal))
            return true;
        usleep(1000);
    }
    return false;
}

enum { LONG = 20000 }; /* tries */

/* A journal with a segment in use. */
static void place_begin(struct place *place)
{
    place_init(place);
    cr_assert_eq(place_open(place), KV_OK);
    append_groups(place, 1);
}

Test(journal, a_lone_group_is_durable_at_once)
{
    struct place place;
    place_begin(&place);
    cr_expect_not(journal_write_now(place.journal), "there is nothing to write");
    int before = atomic_load(&flushes);
    uint64_t position = append(&place);
    cr_assert(write_now(place.journal, LONG));
    cr_expect_eq(journal_durable(place.journal), position);
    cr_expect_gt(atomic_load(&flushes), before);
    journal_close(&place.journal);
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 2);
    place_free(&place);
}

/* Loop and thread take turns, also where segments end; closing meets both. */
Test(journal, groups_of_loop_and_thread_follow_each_other)
{
    struct place place;
    place_init(&place);
    unsigned own = 0, groups = 600;
    cr_assert_eq(place_open(&place), KV_OK);
    for (unsigned i = 0; i < groups; i++) {
        uint64_t position = append(&place);
        if (i % 3 != 0 && write_now(place.journal, 5)) {
            own++;
            cr_assert_eq(journal_durable(place.journal), position);
        } else {
            journal_submit(place.journal);
            if (i % 4 != 0)
                cr_assert(wait_durable(place.journal, position));
            if (i % 5 == 0)
                usleep(2000);
        }
    }
    journal_close(&place.journal);
    cr_expect_gt(own, 20, "%u of %u", own, groups);
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, groups);
    place_free(&place);
}

Test(journal, what_takes_long_is_left_to_the_thread)
{
    static uint8_t body[JOURNAL_NOW_BYTES_MAX];
    struct place place;
    place_begin(&place);
    append(&place);
    cr_assert(write_now(place.journal, LONG));
    uint64_t position = journal_append(place.journal, 1, kv_slice(body, sizeof body));
    cr_expect_not(journal_write_now(place.journal), "it is too large");
    journal_submit(place.journal);
    cr_expect(wait_durable(place.journal, position));
    place_free(&place);
}

Test(journal, a_failed_flush_of_the_caller_is_final)
{
    struct place place;
    place_begin(&place);
    uint64_t position = append(&place);
    cr_assert(write_now(place.journal, LONG));
    atomic_store(&fail_flush, EIO);
    append(&place);
    cr_assert(write_now(place.journal, LONG), "tried, and failed");
    cr_expect(journal_failed(place.journal));
    int tried = atomic_load(&flushes);
    atomic_store(&fail_flush, 0);
    append(&place);
    cr_expect_not(journal_write_now(place.journal));
    journal_submit(place.journal);
    usleep(20000);
    cr_expect_eq(journal_durable(place.journal), position);
    journal_close(&place.journal);
    cr_expect_eq(atomic_load(&flushes), tried, "never retried");
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_leq(place.replayed, 3);
    place_free(&place);
}

/* ---- disks that fail ---------------------------------------------------------------------------------------------- */

static void fails_for_good(struct place *place, atomic_int *what, int number)
{
    append_groups(place, 3);
    usleep(50000);
    atomic_store(what, number);
    uint64_t position = append(place);
    journal_submit(place->journal);
    cr_expect_not(wait_durable(place->journal, position));
    cr_expect(journal_failed(place->journal));
    atomic_store(what, 0);
    append(place);
    journal_submit(place->journal);
    usleep(20000);
    cr_expect_eq(journal_durable(place->journal), position - 1, "never retried");
    journal_close(&place->journal);
}

Test(journal, a_failed_flush_is_final)
{
    struct place place;
    place_init(&place);
    cr_assert_eq(place_open(&place), KV_OK);
    fails_for_good(&place, &fail_flush, EIO);
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_geq(place.replayed, 3); /* the fourth was written, and may stay */
    cr_expect_leq(place.replayed, 4);
    place_free(&place);
}

Test(journal, a_failed_write_is_final)
{
    struct place place;
    place_init(&place);
    cr_assert_eq(place_open(&place), KV_OK);
    fails_for_good(&place, &fail_pwritev, EIO);
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 3);
    place_free(&place);
}

Test(journal, short_and_interrupted_writes)
{
    struct place place;
    place_init(&place);
    place.body_bytes = mixed_bodies;
    atomic_store(&short_writes, 1);
    cr_assert_eq(place_open(&place), KV_OK);
    append_groups(&place, 30);
    journal_close(&place.journal);
    atomic_store(&short_writes, 0);
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 30);
    place_free(&place);
}

/* Full disk: room says no while the reserve still says yes; what is appended in spite of that waits and is written once
 * segments are released. */
Test(journal, a_full_disk)
{
    struct place place;
    place_init(&place);
    cr_assert_eq(place_open(&place), KV_OK);
    append_groups(&place, 1);
    wait_for_spares(&place);
    atomic_store(&fail_allocate, ENOSPC);
    atomic_store(&free_bytes, 0);
    place.body_bytes = mixed_bodies;
    unsigned appended = 0;
    while (journal_room(place.journal, 14000, false) && appended++ < 1000)
        append_groups(&place, 1);
    cr_expect_gt(appended, 20, "the spares were used");
    cr_expect_lt(appended, 1000);
    cr_expect(journal_room(place.journal, 14000, true), "deletes may use the last segment");
    while (journal_room(place.journal, 14000, true) && appended++ < 1000)
        append_groups(&place, 1);
    cr_expect_lt(appended, 1000);
    uint64_t durable = journal_durable(place.journal), last = 0;
    for (unsigned i = 0; i < 40; i++)
        last = append(&place);
    journal_submit(place.journal);
    usleep(100000);
    cr_expect_eq(journal_durable(place.journal), durable, "waits");
    cr_expect_not(journal_failed(place.journal));
    journal_release(place.journal, durable);
    cr_assert(wait_durable(place.journal, last));
    for (unsigned i = 0; i < WAITS_MAX && !journal_room(place.journal, 14000, false); i++)
        usleep(WAIT_US); /* the thread recycles them one by one */
    cr_expect(journal_room(place.journal, 14000, false), "the released segments");
    journal_close(&place.journal);
    atomic_store(&fail_allocate, 0);
    atomic_store(&free_bytes, UINT64_MAX / 4);
    place.applied = durable;
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 40);
    place_free(&place);
}

Test(journal, space_that_returns_is_noticed)
{
    struct place place;
    place_init(&place);
    atomic_store(&fail_allocate, ENOSPC);
    cr_assert_eq(place_open(&place), KV_OK);
    usleep(20000);
    atomic_store(&free_bytes, 0);
    cr_expect_not(journal_room(place.journal, 100, true));
    uint64_t position = append(&place);
    journal_submit(place.journal);
    usleep(20000);
    cr_expect_eq(journal_durable(place.journal), 0);
    atomic_store(&fail_allocate, 0);
    cr_assert(wait_durable(place.journal, position));
    place_free(&place);
}

/* Closing does not wait for a disk that stays full. */
Test(journal, closes_while_the_disk_is_full)
{
    struct place place;
    place_init(&place);
    atomic_store(&fail_allocate, ENOSPC);
    cr_assert_eq(place_open(&place), KV_OK);
    append(&place);
    journal_submit(place.journal);
    usleep(20000);
    journal_close(&place.journal);
    cr_assert_eq(place_open(&place), KV_OK, "%s", place.why);
    cr_expect_eq(place.replayed, 0);
    place_free(&place);
}

Test(journal, an_unusable_directory_is_an_error_with_a_reason)
{
    struct place place;
    char path[160];
    place_init(&place);
    snprintf(path, sizeof path, "%s/journal", place.path);
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    cr_assert_geq(fd, 0);
    close(fd);
    cr_expect_eq(place_open(&place), KV_IO);
    cr_expect_not_null(strstr(place.why, "journal"), "%s", place.why);
    place_free(&place);
}
