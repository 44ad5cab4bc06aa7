/* Goal: the files that SIGHUP loads again arrive at the router as they were read, or not at all.
 * Method: files of a temporary folder, loaded, sealed, sent through a pair of sockets and taken out again; then everything that may
 * be wrong with each of them. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define WIPE explicit_bzero
#include "../wipes.h"
#include "kv/files.h"
#include "kv/settings.h"

static char folder[64], path[96];
static struct kv_settings settings;
static struct kv_files files;
static char why[256];

static void setup(void)
{
    snprintf(folder, sizeof(folder), "/tmp/kv-files-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/tokens", folder);
    kv_settings_init(&settings);
    files = (struct kv_files){0};
}

static void teardown(void)
{
    kv_files_free(&files);
    kv_settings_free(&settings);
    unlink(path);
    rmdir(folder);
}

TestSuite(files, .init = setup, .fini = teardown);

static void write_tokens(const char *bytes, size_t count)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && write(fd, bytes, count) == (ssize_t)count);
    close(fd);
}

static void configure(const char *name, const char *value)
{
    cr_assert_eq(kv_settings_set(&settings, name, value, why, sizeof(why)), KV_OK);
}

static void expect_refused(const char *sentence)
{
    cr_expect_eq(kv_files_load(&settings, &files, why, sizeof(why)), KV_INVALID);
    cr_expect(strstr(why, sentence) != NULL, "\"%s\" says not: %s", why, sentence);
    cr_expect_null(files.tokens.data);
}

Test(files, what_is_not_configured_is_empty)
{
    cr_assert_eq(kv_files_load(&settings, &files, why, sizeof(why)), KV_OK);
    cr_expect(files.token.bytes == 0 && files.tokens.bytes == 0 && files.tls_key.bytes == 0);
}

Test(files, travel_whole)
{
    static char large[KV_FILE_BYTES_MAX];
    int ends[2];
    memset(large, 'x', sizeof(large));
    large[77] = '\0';
    write_tokens(large, sizeof(large));
    configure("TOKENS_FILE", path);
    configure("TLS_CLIENT_CA", path);
    cr_assert_eq(kv_files_load(&settings, &files, why, sizeof(why)), KV_OK, "%s", why);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    int fd = kv_files_seal(&files);
    cr_assert(fd >= 0);
    cr_expect_lt(write(fd, "x", 1), 0, "the memfd can be written");
    kv_files_free(&files);
    cr_assert_eq(kv_files_receive(ends[1], &files), KV_NOT_FOUND);
    cr_assert(kv_files_send(ends[0], fd));
    cr_assert_eq(kv_files_receive(ends[1], &files), KV_OK);
    cr_expect(kv_slice_equal(kv_buf_peek(&files.tokens), kv_slice(large, sizeof(large))));
    cr_expect(kv_slice_equal(kv_buf_peek(&files.tls_client_ca), kv_slice(large, sizeof(large))));
    cr_expect(files.token.bytes == 0 && files.tls_cert.bytes == 0);
    close(fd);
    close(ends[0]);
    close(ends[1]);
}

Test(files, bytes_are_wiped)
{
    write_tokens("app:r::0123", 11);
    configure("TOKENS_FILE", path);
    cr_assert_eq(kv_files_load(&settings, &files, why, sizeof(why)), KV_OK, "%s", why);
    cr_expect_not(was_wiped("app:r::0123"));
    kv_files_free(&files);
    cr_expect(was_wiped("app:r::0123"));
    wiped_bytes = 0;
    configure("TLS_KEY", "/nonexistent/key");
    expect_refused("TLS_KEY: ");
    cr_expect(was_wiped("app:r::0123"), "what had been read when another file was refused");
}

Test(files, the_last_message_counts)
{
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    configure("TOKENS_FILE", path);
    for (char letter = 'a'; letter <= 'c'; letter++) {
        write_tokens(&letter, 1);
        cr_assert_eq(kv_files_load(&settings, &files, why, sizeof(why)), KV_OK);
        int fd = kv_files_seal(&files);
        cr_assert(kv_files_send(ends[0], fd));
        close(fd);
        kv_files_free(&files);
    }
    cr_assert_eq(kv_files_receive(ends[1], &files), KV_OK);
    cr_expect(kv_slice_equal(kv_buf_peek(&files.tokens), kv_slice_text("c")));
    cr_expect_eq(kv_files_receive(ends[1], &files), KV_NOT_FOUND);
    close(ends[0]);
    close(ends[1]);
}

Test(files, refused_with_the_variable)
{
    static char large[KV_FILE_BYTES_MAX + 1];
    configure("TOKENS_FILE", path);
    expect_refused("TOKENS_FILE: ");
    expect_refused("cannot be opened: No such file");
    write_tokens("", 0);
    expect_refused("is empty");
    write_tokens(large, sizeof(large));
    expect_refused("is larger than 1 MiB");
    configure("TOKENS_FILE", folder);
    expect_refused("cannot be read: Is a directory");
}

Test(files, foreign_descriptors_are_refused)
{
    uint64_t bytes = KV_FILE_BYTES_MAX + 1;
    int unsealed = memfd_create("x", MFD_CLOEXEC);
    cr_expect_eq(kv_files_unseal(unsealed, &files), KV_INVALID);
    int longer = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_eq(write(longer, &bytes, sizeof(bytes)), (ssize_t)sizeof(bytes));
    cr_assert_eq(fcntl(longer, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), 0);
    cr_expect_eq(kv_files_unseal(longer, &files), KV_INVALID);
    cr_expect_eq(kv_files_unseal(-1, &files), KV_INVALID);
    close(unsealed);
    close(longer);
}

/* As with the sysctl vm.memfd_noexec. */
Test(files, a_seal_more_does_no_harm)
{
    const uint64_t lengths[] = {0, 0, 0, 0, 0}; /* as many as KV_FILES_TABLE has */
    int fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_eq(write(fd, lengths, sizeof(lengths)), (ssize_t)sizeof(lengths));
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
    cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE), 0);
    cr_expect_eq(kv_files_unseal(fd, &files), KV_OK);
    close(fd);
}

/* What a token may be is one rule for TOKEN and for the first line of TOKEN_FILE. */
Test(files, first_line_of_token_file_is_a_token)
{
    static const char *const good[] = {"abc", "abc\n", "abc\nsecond line\n", "abc\n\n"};
    static const char *const bad[] = {"\n", "\nabc\n", "a b\n", "abc\r\n", "ab\xc3\xa4"};
    static char long_token[KV_TOKEN_BYTES_MAX + 1];
    configure("TOKEN_FILE", path);
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        write_tokens(good[i], strlen(good[i]));
        cr_assert_eq(kv_files_load(&settings, &files, why, sizeof(why)), KV_OK, "case %zu: %s", i, why);
        cr_expect(kv_slice_equal(kv_files_token(&files), kv_slice_text("abc")), "case %zu", i);
        kv_files_free(&files);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        write_tokens(bad[i], strlen(bad[i]));
        expect_refused("TOKEN_FILE: the token ");
    }
    write_tokens("abc\0def\n", 8);
    expect_refused("TOKEN_FILE: the token holds a byte");
    memset(long_token, 'x', sizeof(long_token));
    write_tokens(long_token, sizeof(long_token));
    expect_refused("TOKEN_FILE: the token is longer than 4096 bytes");
    cr_expect_null(kv_token_fault(kv_slice(long_token, KV_TOKEN_BYTES_MAX)));
}
