/* Goal: `kv-shard --check` says ok, with the right numbers, about whole files only.
 * Method: a store made by a real shard, then bytes changed in its files; standard output is read back. */
#include "shard_rig.h"

#include <fcntl.h>
#include <sys/file.h>

#include "check.h"

static int check_into(struct rig *rig, char *out, size_t out_bytes)
{
    const char *paths[] = {rig->db_path};
    char file[64];
    snprintf(file, sizeof(file), "%s/out", rig->db_path);
    fflush(stdout);
    int old = dup(STDOUT_FILENO), fd = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    dup2(fd, STDOUT_FILENO);
    int code = check_stores(paths, 1);
    fflush(stdout);
    dup2(old, STDOUT_FILENO);
    close(old);
    ssize_t got = pread(fd, out, out_bytes - 1, 0);
    out[got > 0 ? got : 0] = '\0';
    close(fd);
    return code;
}

static struct rig *rig_with_keys(bool stop)
{
    struct rig *rig = rig_new(1);
    rig_open(rig);
    rig_connect(rig, 1);
    for (uint64_t i = 1; i <= 3; i++)
        cr_assert_eq(rig_put(rig, kv_txn_id(1, i), i, 5000), KV_OK);
    if (stop)
        rig_stop(rig);
    else
        rig_drop(rig);
    return rig;
}

Test(check, a_stopped_store_is_whole)
{
    struct rig *rig = rig_with_keys(true);
    char out[512];
    cr_expect_eq(check_into(rig, out, sizeof(out)), 0);
    cr_expect_str_eq(out, "shard 0 keys 3 objects 3 stored_bytes 15000 journal_records 0: ok\n");
    rig_free(rig);
}

/* Name, size, time of the last change and contents of every file of the store. */
static void look_at_files(const struct rig *rig, char *out, size_t out_bytes)
{
    char command[256];
    snprintf(command, sizeof(command),
             "cd %s && find . -type f ! -name out -printf '%%p %%s %%T@\\n' -exec cksum {} \\;", rig->db_path);
    FILE *pipe = popen(command, "r");
    cr_assert_not_null(pipe);
    out[fread(out, 1, out_bytes - 1, pipe)] = '\0';
    cr_assert_eq(pclose(pipe), 0);
    cr_assert_not_null(strstr(out, "data.mdb"), "%s", out);
    cr_assert_not_null(strstr(out, "journal"), "%s", out);
}

/* So it can look at a backup that is mounted read-only. */
Test(check, a_crashed_one_is_counted_with_its_journal_and_stays_as_it_is)
{
    struct rig *rig = rig_with_keys(false);
    char out[512], path[128];
    static char before[16384], after[16384];
    snprintf(path, sizeof(path), "%s/journal/making", rig->path);
    cr_assert_eq(close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600)), 0, "a start would remove it");
    snprintf(path, sizeof(path), "%s/journal/0000000000000001", rig->path);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    cr_assert_eq(pwrite(fd, "torn", 4, 7 * 4096), 4, "a start would clear it");
    close(fd);
    look_at_files(rig, before, sizeof(before));
    cr_expect_eq(check_into(rig, out, sizeof(out)), 0);
    cr_expect_str_eq(out, "shard 0 keys 3 objects 3 stored_bytes 15000 journal_records 3: ok\n");
    look_at_files(rig, after, sizeof(after));
    cr_expect_str_eq(after, before);
    rig_free(rig);
}

static void expect_fault_after(const char *commands, const char *words)
{
    struct rig *rig = rig_with_keys(true);
    char out[512], command[256];
    snprintf(command, sizeof(command), "cd %s && %s", rig->path, commands);
    cr_assert_eq(system(command), 0);
    cr_expect_eq(check_into(rig, out, sizeof(out)), 1);
    cr_expect_not_null(strstr(out, words), "%s", out);
    rig_free(rig);
}

Test(check, what_is_missing_is_a_fault)
{
    expect_fault_after("rm journal/*", "the journal is empty, though 3 of its records were applied");
    expect_fault_after("rm -r journal", "the journal is empty, though 3 of its records were applied");
    expect_fault_after("rm data.mdb", "/shard-0/data.mdb: No such file or directory\n");
    expect_fault_after("truncate -s 0 data.mdb", "/shard-0/data.mdb is empty\n");
}

Test(check, a_running_store_is_refused)
{
    struct rig *rig = rig_with_keys(false);
    char out[512], path[64];
    snprintf(path, sizeof(path), "%s/lock", rig->db_path);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_eq(flock(fd, LOCK_EX | LOCK_NB), 0, "as the supervisor does");
    cr_expect_eq(check_into(rig, out, sizeof(out)), 1);
    cr_expect_not_null(strstr(out, "is in use"), "%s", out);
    close(fd);
    cr_expect_eq(check_into(rig, out, sizeof(out)), 0, "%s", out);
    rig_free(rig);
}

Test(check, another_number_of_shards_is_a_fault)
{
    struct rig *rig = rig_with_keys(true);
    char out[512], path[64];
    snprintf(path, sizeof(path), "%s/store", rig->db_path);
    FILE *store = fopen(path, "w");
    fprintf(store, "format 1\nshards 2\nid %s\n", RIG_STORE_ID);
    fclose(store);
    cr_expect_eq(check_into(rig, out, sizeof(out)), 1);
    cr_expect_null(strstr(out, ": ok"), "%s", out);
    cr_expect_not_null(strstr(out, "shard 1"), "the shard that is missing is named: %s", out);
    rig_free(rig);
}

Test(check, a_damaged_store_is_a_fault)
{
    struct rig *rig = rig_with_keys(true);
    char out[512], path[80];
    snprintf(path, sizeof(path), "%s/data.mdb", rig->path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    uint8_t page[4096];
    off_t end = lseek(fd, 0, SEEK_END);
    unsigned spoiled = 0;
    for (off_t at = 2 * 4096; at < end;
         at += 4096) { /* key rows name their size, 5000: make it 4999 wherever it stands */
        cr_assert_eq(pread(fd, page, sizeof(page), at), (ssize_t)sizeof(page));
        for (size_t i = 0; i + 8 <= sizeof(page); i++) {
            static const uint8_t size[8] = {0x88, 0x13};
            if (memcmp(page + i, size, sizeof(size)) != 0)
                continue;
            page[i]--;
            spoiled++;
        }
        cr_assert_eq(pwrite(fd, page, sizeof(page), at), (ssize_t)sizeof(page));
    }
    close(fd);
    cr_assert_gt(spoiled, 0u);
    cr_expect_eq(check_into(rig, out, sizeof(out)), 1);
    cr_expect_null(strstr(out, ": ok"), "%s", out);
    rig_free(rig);
}

Test(check, no_store_at_all_is_a_fault)
{
    struct rig *rig = rig_new(1);
    char out[512], path[64];
    snprintf(path, sizeof(path), "%s/store", rig->db_path);
    unlink(path);
    cr_expect_eq(check_into(rig, out, sizeof(out)), 1);
    cr_expect_neq(out[0], '\0');
    rig_free(rig);
}
