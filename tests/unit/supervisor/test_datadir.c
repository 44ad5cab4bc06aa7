/* Goal: a directory becomes a store once, is used by one supervisor at a time, and a refused start leaves no trace.
 * Method: real directories under /tmp; their listing before and after is compared. */
#include <dirent.h>

#include <criterion/criterion.h>

#include "../flushes.h"
#include "datadir.h"
#include "temp.h"

TestSuite(datadir, .init = temp_setup, .fini = temp_teardown);

static struct why why;
static struct datadir datadir;

static enum kv_err start(const char *path, unsigned shards, unsigned shards_new)
{
    enum kv_err err = datadir_open(path, shards, &datadir, &why);
    if (err == KV_OK && (err = datadir_prepare(&datadir, shards_new, &why)) != KV_OK)
        datadir_close(&datadir);
    return err;
}

/* All names below `path`, sorted, with sizes and times of change: equal texts mean untouched. */
static const char *listing(const char *path)
{
    static char texts[2][8192];
    static unsigned next;
    char command[8400], *text = texts[next++ % 2];
    snprintf(command, sizeof(command), "cd '%s' 2>/dev/null && find . -printf '%%p %%s %%T@\\n' | sort", path);
    FILE *pipe = popen(command, "r");
    size_t bytes = fread(text, 1, sizeof(texts[0]) - 1, pipe);
    text[bytes] = '\0';
    pclose(pipe);
    return text;
}

Test(datadir, first_start_makes_a_store_the_second_finds_it)
{
    const char *path = temp_path("db");
    struct stat status;
    cr_assert_eq(start(path, 0, 3), KV_OK, "%s", why.text);
    cr_expect(was_flushed(temp), "or a power cut takes the whole directory away");
    cr_expect(datadir.fresh);
    stat(path, &status);
    cr_expect_eq(status.st_mode & 0777, 0700u);
    char id[33];
    strcpy(id, datadir.identity.id);
    cr_assert_eq(datadir_raise_epoch(&datadir, &why), KV_OK);
    cr_expect_eq(datadir.epoch, 1u);
    temp_file("db/sockets/shard-0", "", 0600);
    datadir_close(&datadir);
    cr_expect_not(temp_exists("db/sockets/shard-0"));
    cr_expect(temp_exists("db/sockets"), "a full disk has no room for a new one");
    chmod(temp_path("db/sockets"), 0755);

    cr_assert_eq(start(path, 0, 7), KV_OK, "%s", why.text);
    stat(temp_path("db/sockets"), &status);
    cr_expect_eq(status.st_mode & 07777, 0700u, "nor is it taken as somebody left it");
    cr_expect_not(datadir.fresh);
    cr_expect_eq(datadir.identity.shard_count, 3u, "an existing store keeps its own number");
    cr_expect_str_eq(datadir.identity.id, id);
    cr_assert_eq(datadir_raise_epoch(&datadir, &why), KV_OK);
    cr_expect_eq(datadir.epoch, 2u);
    datadir_undo(&datadir); /* not made by this start: nothing happens */
    cr_expect(temp_exists("db/store"));
    datadir_close(&datadir);
    cr_assert_eq(start(path, 3, 3), KV_OK, "%s", why.text);
    datadir_close(&datadir);
}

Test(datadir, another_number_of_shards_is_refused_and_nothing_touched)
{
    const char *path = temp_path("db");
    cr_assert_eq(start(path, 0, 4), KV_OK);
    datadir_close(&datadir);
    const char *before = listing(path);
    cr_expect_eq(start(path, 3, 3), KV_INVALID);
    cr_expect_not_null(strstr(why.text, "SHARDS: "), "%s", why.text);
    cr_expect_not_null(strstr(why.text, "made with 4 shards and cannot be started with 3"), "%s", why.text);
    cr_expect_str_eq(before, listing(path));
}

Test(datadir, one_supervisor_at_a_time)
{
    const char *path = temp_path("db");
    cr_assert_eq(start(path, 0, 1), KV_OK);
    struct datadir first = datadir;
    const char *before = listing(path);
    cr_expect_eq(start(path, 0, 1), KV_INVALID);
    cr_expect_not_null(strstr(why.text, "is in use by another kv-storage"), "%s", why.text);
    cr_expect_str_eq(before, listing(path));
    datadir_close(&first);
    cr_expect_eq(start(path, 0, 1), KV_OK, "%s", why.text);
    datadir_close(&datadir);
}

/* Two first starts at once: both saw an empty place, one makes the store, the other must not undo it. */
Test(datadir, the_second_of_two_first_starts_is_refused)
{
    const char *path = temp_path("db");
    struct datadir first, second;
    cr_assert_eq(datadir_open(path, 0, &first, &why), KV_OK);
    cr_assert_eq(datadir_open(path, 0, &second, &why), KV_OK);
    cr_assert_eq(datadir_prepare(&first, 1, &why), KV_OK, "%s", why.text);
    cr_expect_eq(datadir_prepare(&second, 2, &why), KV_INVALID);
    datadir_close(&second);
    cr_expect_not_null(strstr(temp_read("db/store"), "shards 1\n"));
    cr_assert_eq(datadir_open(path, 0, &second, &why), KV_INVALID, "still locked by the first");
    datadir_close(&first);

    cr_assert_eq(mkdir(temp_path("db2"), 0700), 0);
    cr_assert_eq(datadir_open(temp_path("db2"), 0, &second, &why), KV_OK);
    cr_assert_eq(start(temp_path("db2"), 0, 1), KV_OK);
    datadir_close(&datadir); /* made and released before the second goes on */
    cr_expect_eq(datadir_prepare(&second, 2, &why), KV_INVALID);
    datadir_close(&second);
    cr_expect_not_null(strstr(temp_read("db2/store"), "shards 1\n"));
}

Test(datadir, foreign_files_are_refused)
{
    const char *path = temp_path("db");
    cr_assert_eq(mkdir(path, 0755), 0);
    temp_file("db/notes.txt", "mine", 0600);
    const char *before = listing(path);
    cr_expect_eq(start(path, 0, 1), KV_INVALID);
    cr_expect_not_null(strstr(why.text, "holds \"notes.txt\" and no store"), "%s", why.text);
    cr_expect_str_eq(before, listing(path));
    unlink(temp_path("db/notes.txt"));
    mkdir(temp_path("db/shard-0"), 0700);
    temp_file("db/shard-0/data.mdb", "data", 0600); /* a store that lost its file `store` */
    cr_expect_eq(start(path, 0, 1), KV_INVALID);
    cr_expect_not_null(strstr(why.text, "holds \"shard-0\""), "%s", why.text);
}

Test(datadir, leftovers_of_a_first_start_are_taken_over)
{
    const char *path = temp_path("db");
    mkdir(path, 0755);
    mkdir(temp_path("db/lost+found"), 0700);
    mkdir(temp_path("db/shard-0"), 0700);
    mkdir(temp_path("db/sockets"), 0700);
    temp_file("db/sockets/shard-0", "", 0600);
    temp_file("db/lock", "", 0600);
    temp_file("db/epoch", "0\n", 0600);
    temp_file("db/store.tmp", "form", 0600);
    cr_expect_eq(start(path, 0, 2), KV_OK, "%s", why.text);
    cr_expect(temp_exists("db/store"));
    datadir_close(&datadir);
}

Test(datadir, damage_is_refused)
{
    const char *path = temp_path("db");
    cr_assert_eq(start(path, 0, 2), KV_OK);
    datadir_close(&datadir);
    rmdir(temp_path("db/shard-1"));
    cr_expect_eq(start(path, 0, 2), KV_INVALID);
    cr_expect_not_null(strstr(why.text, "/shard-1 is missing"), "%s", why.text);
    mkdir(temp_path("db/shard-1"), 0700);
    unlink(temp_path("db/epoch"));
    cr_expect_eq(start(path, 0, 2), KV_INVALID);
    cr_expect_str_eq(why.text, "DB_PATH: the file epoch is missing");
    temp_file("db/store", "format 9\n", 0600);
    cr_expect_eq(start(path, 0, 2), KV_INVALID);
    cr_expect_not_null(strstr(why.text, "format 9"), "%s", why.text);
}

/* A disk that is not mounted, half of a backup: once clients may have written, a shard without data is refused. */
Test(datadir, a_shard_that_lost_its_data_is_refused_once_the_store_has_served)
{
    const char *path = temp_path("db");
    cr_assert_eq(start(path, 0, 2), KV_OK, "%s", why.text);
    datadir_close(&datadir);
    cr_assert_eq(start(path, 0, 2), KV_OK, "the first start was cut short: %s", why.text);
    temp_file("db/shard-0/data.mdb", "made by a shard", 0600);
    temp_file("db/shard-1/data.mdb", "made by a shard", 0600);
    flushed_count = 0;
    cr_expect_eq(datadir_note_served(&datadir, &why), KV_OK, "%s", why.text);
    cr_expect(was_flushed(path));
    cr_expect_eq(datadir_note_served(&datadir, &why), KV_OK, "each start says so: %s", why.text);
    datadir_close(&datadir);
    cr_expect_eq(start(path, 0, 2), KV_OK, "%s", why.text);
    datadir_close(&datadir);

    temp_file("db/shard-1/data.mdb", "", 0600);
    cr_expect_eq(start(path, 0, 2), KV_INVALID);
    unlink(temp_path("db/shard-1/data.mdb"));
    cr_expect_eq(start(path, 0, 2), KV_INVALID);
    cr_expect_not_null(strstr(why.text, "/shard-1/data.mdb is missing or empty"), "%s", why.text);
}

Test(datadir, places_that_cannot_be_used_leave_nothing)
{
    temp_file("file", "", 0600);
    static const char *const names[] = {"file", "file/db", "no/such/db"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        cr_expect_eq(start(temp_path(names[i]), 0, 1), KV_INVALID, "%s", names[i]);
        cr_expect_eq(strncmp(why.text, "DB_PATH: ", 9), 0, "%s", why.text);
    }
    cr_expect_eq(start("/proc/kv_db", 0, 1), KV_INVALID);
    cr_expect_not(temp_exists("no"));
}

Test(datadir, undo_removes_what_this_start_made)
{
    cr_assert_eq(start(temp_path("db"), 0, 3), KV_OK);
    temp_file("db/shard-2/data.mdb", "made by a shard", 0600);
    mkdir(temp_path("db/shard-2/journal"), 0700);
    temp_file("db/shard-2/journal/spare-00000000", "made by a shard", 0600);
    datadir_undo(&datadir);
    datadir_close(&datadir);
    cr_expect_not(temp_exists("db"));

    mkdir(temp_path("mine"), 0755); /* a directory that was there stays, empty as it was */
    cr_assert_eq(start(temp_path("mine"), 0, 1), KV_OK);
    datadir_undo(&datadir);
    datadir_close(&datadir);
    cr_expect(temp_exists("mine"));
    cr_expect_eq(rmdir(temp_path("mine")), 0, "empty");
}

Test(datadir, a_path_longer_than_a_socket_name_works)
{
    char name[200] = "";
    memset(name, 'd', sizeof(name) - 1);
    int fd = -1;
    cr_assert_eq(start(temp_path(name), 0, 1), KV_OK, "%s", why.text);
    cr_expect_eq(datadir_listen(&datadir, 0, &fd, &why), KV_OK, "%s", why.text);
    close(fd);
    datadir_close(&datadir);
}

/* The lock lives as long as any copy of the descriptor: here a dup, in life the shard's own. */
Test(datadir, a_shard_directory_is_busy_while_someone_holds_it)
{
    int first, copy, second;
    cr_assert_eq(start(temp_path("db"), 0, 1), KV_OK);
    cr_assert_eq(datadir_open_shard(&datadir, 0, &first, &why), KV_OK, "%s", why.text);
    copy = dup(first);
    close(first);
    cr_expect_eq(datadir_open_shard(&datadir, 0, &second, &why), KV_UNAVAILABLE);
    cr_expect_not_null(strstr(why.text, "still in use"), "%s", why.text);
    close(copy);
    cr_assert_eq(datadir_open_shard(&datadir, 0, &second, &why), KV_OK);
    close(second);
    datadir_close(&datadir);
}
