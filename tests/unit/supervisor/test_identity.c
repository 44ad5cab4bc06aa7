/* Goal: the store's identity and epoch survive, damage is refused and never guessed away. Method: texts, real files. */
#include <criterion/criterion.h>

#include "../flushes.h"
#include "identity.h"
#include "kv/limits.h"
#include "temp.h"

static struct why why;
static int dir_fd;

static void setup(void)
{
    temp_setup();
    dir_fd = open(temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void teardown(void)
{
    close(dir_fd);
    temp_teardown();
}

TestSuite(identity, .init = setup, .fini = teardown);

#define ID "0123456789abcdef0123456789abcdef"

Test(identity, round_trip)
{
    struct identity made = identity_new(4), other = identity_new(4), read = {0};
    cr_expect_eq(strlen(made.id), 32u);
    cr_expect_str_neq(made.id, other.id);
    cr_assert_eq(identity_read(dir_fd, &read, &why), KV_NOT_FOUND);
    cr_assert_eq(identity_write(dir_fd, &made, &why), KV_OK, "%s", why.text);
    cr_assert_eq(identity_read(dir_fd, &read, &why), KV_OK, "%s", why.text);
    cr_expect_str_eq(read.id, made.id);
    cr_expect_eq(read.shard_count, 4u);
    cr_expect_not(temp_exists("store.tmp"));
}

Test(identity, the_text_is_frozen)
{
    struct identity identity = {.shard_count = 2, .id = ID};
    cr_assert_eq(identity_write(dir_fd, &identity, &why), KV_OK);
    cr_expect_str_eq(temp_read("store"), "format 1\nshards 2\nid " ID "\n");
}

Test(identity, bytes_and_name_are_on_the_disk)
{
    struct identity identity = identity_new(2);
    cr_assert_eq(identity_write(dir_fd, &identity, &why), KV_OK);
    cr_expect(was_flushed(temp_path("store")));
    cr_expect(was_flushed(temp));
    flushed_count = 0;
    cr_assert_eq(epoch_write(dir_fd, 1, &why), KV_OK);
    cr_expect(was_flushed(temp_path("epoch")));
    cr_expect(was_flushed(temp));
}

Test(identity, damage_is_refused)
{
    static const char *const bad[] = {
        "",
        "\n",
        "format 1\n",
        "format 1\nshards 2\n",
        "format 1\nshards 2\nid " ID,
        "format 1\nshards 2\nid " ID "\n\n",
        "format 1\nshards 2\nid " ID "0\n",
        "format 1\nshards 0\nid " ID "\n",
        "format 1\nshards 17\nid " ID "\n",
        "format 1\nshards 02\nid " ID "\n",
        "format 1\nshards -2\nid " ID "\n",
        "format 1\nshards 2\nid 0123456789ABCDEF0123456789ABCDEF\n",
        "format 1\nshards 2\nid 0123\n",
        " format 1\nshards 2\nid " ID "\n",
    };
    struct identity identity;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_expect_eq(identity_parse(bad[i], &identity, &why), KV_INVALID, "case %zu", i);
        cr_expect_str_eq(why.text, "DB_PATH: the file store is damaged");
    }
}

Test(identity, another_format_is_named)
{
    struct identity identity;
    cr_expect_eq(identity_parse("format 2\nanything\n", &identity, &why), KV_INVALID);
    cr_expect_str_eq(why.text, "DB_PATH: the store has format 2, this version reads format 1");
}

Test(identity, epoch_grows_and_is_refused_when_damaged)
{
    uint64_t epoch = 99;
    cr_expect_eq(epoch_read(dir_fd, &epoch, &why), KV_INVALID, "a missing epoch is damage");
    cr_expect_eq(epoch, 99u);
    cr_assert_eq(epoch_write(dir_fd, 7, &why), KV_OK, "%s", why.text);
    cr_assert_eq(epoch_write(dir_fd, KV_EPOCH_MAX, &why), KV_OK, "%s", why.text);
    cr_assert_eq(epoch_read(dir_fd, &epoch, &why), KV_OK, "%s", why.text);
    cr_expect_eq(epoch, (uint64_t)KV_EPOCH_MAX);
    cr_expect_eq(epoch_write(dir_fd, KV_EPOCH_MAX + 1, &why), KV_INVALID);
    temp_file("epoch", "10", 0600);
    cr_assert_eq(epoch_read(dir_fd, &epoch, &why), KV_OK, "9 and a line feed, overwritten and cut");
    cr_expect_eq(epoch, 10u);
    static const char *const bad[] = {"", "x\n", "x", "7\n\n", "-7\n", "07\n", "1048576\n", "99999999999999999999\n"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        temp_file("epoch", bad[i], 0600);
        cr_expect_eq(epoch_read(dir_fd, &epoch, &why), KV_INVALID, "case %zu", i);
        cr_expect_str_eq(why.text, "DB_PATH: the file epoch is damaged");
    }
}

Test(identity, a_failed_write_leaves_the_old_file)
{
    cr_assert_eq(epoch_write(dir_fd, 7, &why), KV_OK);
    cr_assert_eq(mkdir(temp_path("epoch.tmp"), 0700), 0); /* the file beside cannot be made */
    cr_expect_eq(epoch_write(dir_fd, 8, &why), KV_INVALID);
    cr_expect_str_eq(temp_read("epoch"), "7\n");
}
