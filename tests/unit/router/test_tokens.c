/* Goal: a file of tokens means what it says, or is refused with the line; a token opens what its line names and nothing else.
 * Method: files in memory, good ones looked up by token, bad ones by the sentence that refuses them. */
#include <criterion/criterion.h>

#include <stdio.h>

#define WIPE OPENSSL_cleanse
#include "../wipes.h"
#include "digest.h"
#include "kv/limits.h"
#include "tokens.h"

static struct tokens *tokens;
static char why[256];

/* ---- making files ------------------------------------------------------------------------------------------------- */

static struct kv_buf text;

static void append_line(const char *head, const char *token)
{
    char hex[DIGEST_HEX_BYTES];
    struct kv_hash hash = digest_of(kv_slice_text(token));
    digest_hex(&hash, hex);
    kv_buf_append(&text, kv_slice_text(head));
    kv_buf_append(&text, kv_slice(hex, sizeof(hex)));
    kv_buf_append(&text, kv_slice_text("\n"));
}

static enum kv_err take(const char *token, const char *token_file)
{
    struct kv_files files = {.tokens = text};
    struct kv_hash hash = digest_of(kv_slice_text(token));
    kv_buf_append(&files.token, kv_slice_text(token_file));
    tokens_release(&tokens);
    enum kv_err err = tokens_new(*token == '\0' ? NULL : &hash, &files, &tokens, why, sizeof(why));
    kv_buf_free(&files.token);
    kv_buf_free(&text);
    return err;
}

static const struct grant *find(const char *token)
{
    return tokens_find(tokens, kv_slice_text(token));
}

static void teardown(void)
{
    tokens_release(&tokens);
    kv_buf_free(&text);
}

TestSuite(tokens, .fini = teardown);

/* ---- good ones ---------------------------------------------------------------------------------------------------- */

Test(tokens, lines_give_rights_and_prefixes)
{
    kv_buf_append(&text, kv_slice_text("# who may what\n\n  \t\r\n"));
    append_line("reader:r::", "read");
    append_line("app-1_x.y:wdr:app/:", "app");
    append_line("colon:r:user:7:", "colon");
    append_line("escaped:w:%20%C3%A4%25%3A:", "escaped");
    append_line("scraper:m::", "scrape");
    cr_assert_eq(take("", ""), KV_OK, "%s", why);
    cr_expect_eq(find("read")->rights, TOKEN_READ);
    cr_expect_eq(find("read")->prefix.bytes, 0u);
    cr_expect_eq(find("app")->rights, TOKEN_READ | TOKEN_WRITE | TOKEN_DELETE);
    cr_expect(kv_slice_equal(find("app")->prefix, kv_slice_text("app/")));
    cr_expect(kv_slice_equal(find("colon")->prefix, kv_slice_text("user:7")));
    cr_expect(kv_slice_equal(find("escaped")->prefix, kv_slice_text(" \xc3\xa4%:")));
    cr_expect_eq(find("scrape")->rights, TOKEN_METRICS);
    cr_expect_null(find("reader"));
    cr_expect_null(find(""));
}

Test(tokens, two_of_one_name_hold_together)
{
    append_line("app:rw:a/:", "old");
    append_line("app:rw:a/:", "new");
    cr_assert_eq(take("", ""), KV_OK, "%s", why);
    cr_expect_not_null(find("old"));
    cr_expect_not_null(find("new"));
}

Test(tokens, the_three_sources_add_up)
{
    append_line("app:r:a/:", "third");
    cr_assert_eq(take("first", "second\nnot this\n"), KV_OK, "%s", why);
    cr_expect_eq(find("first")->rights, TOKEN_ALL);
    cr_expect_eq(find("second")->rights, TOKEN_ALL);
    cr_expect_eq(find("third")->rights, TOKEN_READ);
    cr_expect_null(find("not this"));
    cr_expect_eq(take("same", "same"), KV_OK);
    cr_expect_eq(take("", "alone"), KV_OK);
    cr_expect_eq(take("", ""), KV_INVALID);
    cr_expect_str_eq(why, "TOKEN: required (or TOKEN_FILE, or TOKENS_FILE)");
}

Test(tokens, without_a_last_line_feed_and_with_carriage_returns)
{
    append_line("a:r::", "one");
    text.data[text.bytes - 1] = '\r';
    kv_buf_append(&text, kv_slice_text("\n"));
    append_line("b:r::", "two");
    text.bytes--;
    cr_assert_eq(take("", ""), KV_OK, "%s", why);
    cr_expect(find("one") != NULL && find("two") != NULL);
}

Test(tokens, a_set_lives_as_long_as_it_is_held)
{
    append_line("a:r:x:", "one");
    cr_assert_eq(take("", ""), KV_OK);
    struct tokens *held = tokens_hold(tokens);
    tokens_release(&tokens);
    cr_expect_null(tokens);
    tokens = held;
    cr_expect_not_null(find("one"));
    wiped_bytes = 0;
    tokens_release(&tokens);
    cr_expect_gt(wiped_bytes, DIGEST_HEX_BYTES / 2, "the last holder leaves the hashes in memory");
}

/* ---- bad ones ----------------------------------------------------------------------------------------------------- */

#define HASH "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"

Test(tokens, bad_lines_are_named)
{
    static const struct {
        const char *file, *sentence;
    } cases[] = {
        {"#\n#\nsecret\n", "TOKENS_FILE: line 3: not of the form"},
        {"secret:r:" HASH "\n", "TOKENS_FILE: line 1: not of the form"},
        {"\nsecret:r::" HASH "0\n", "TOKENS_FILE: line 2: not of the form"},
        {":r::" HASH "\n", "TOKENS_FILE: line 1: the name"},
        {"secret name:r::" HASH "\n", "TOKENS_FILE: line 1: the name"},
        {" secret:r::" HASH "\n", "TOKENS_FILE: line 1: the name"},
        {"secret:::" HASH "\n", "TOKENS_FILE: line 1: the rights"},
        {"secret:rr::" HASH "\n", "TOKENS_FILE: line 1: the rights"},
        {"secret:rx::" HASH "\n", "TOKENS_FILE: line 1: the rights"},
        {"secret:R::" HASH "\n", "TOKENS_FILE: line 1: the rights"},
        {"secret:r:%:" HASH "\n", "TOKENS_FILE: line 1: the prefix"},
        {"secret:r:%00:" HASH "\n", "TOKENS_FILE: line 1: the prefix"},
        {"secret:r:\xff:" HASH "\n", "TOKENS_FILE: line 1: the prefix"},
        {"secret:r::g" HASH "\n", "TOKENS_FILE: line 1: not of the form"},
        {"secret:r::z"
         "bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90\n",
         "TOKENS_FILE: line 1: the hash"},
        {"a:r::" HASH "\nb:w::" HASH "\n", "TOKENS_FILE: line 2: this token stands in an earlier line"},
        {"# only words\n", "TOKENS_FILE: line 1: the file ends without a token"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        kv_buf_append(&text, kv_slice_text(cases[i].file));
        cr_expect_eq(take("token", ""), KV_INVALID, "case %zu", i);
        cr_expect_eq(strncmp(why, cases[i].sentence, strlen(cases[i].sentence)), 0, "case %zu: %s", i, why);
        cr_expect_null(strstr(why, "secret"), "case %zu: %s", i, why);
    }
}

Test(tokens, a_zero_byte_is_no_end)
{
    kv_buf_append(&text, kv_slice("a:r::\0", 6));
    cr_expect_eq(take("token", ""), KV_INVALID);
}

Test(tokens, a_line_must_not_weaken_the_main_token)
{
    append_line("a:r::", "main");
    cr_expect_eq(take("main", ""), KV_INVALID);
    cr_expect_eq(strncmp(why, "TOKENS_FILE: line 1: this token", 31), 0, "%s", why);
}

Test(tokens, token_file_must_be_visible)
{
    cr_expect_eq(take("", "two words"), KV_INVALID);
    cr_expect_str_eq(why, "TOKEN_FILE: the token holds a byte that is not a visible ASCII character");
    cr_expect_eq(take("", "\nx"), KV_INVALID);
    cr_expect_str_eq(why, "TOKEN_FILE: the token is empty");
}

Test(tokens, limits)
{
    char head[32], token[32];
    for (unsigned i = 0; i < TOKENS_MAX; i++) {
        snprintf(head, sizeof(head), "n%u:r::", i);
        snprintf(token, sizeof(token), "token-%u", i);
        append_line(head, token);
    }
    struct kv_buf full = {0};
    kv_buf_append(&full, kv_buf_peek(&text));
    cr_assert_eq(take("", ""), KV_OK, "%s", why);
    for (unsigned i = 0; i < TOKENS_MAX; i++) {
        snprintf(token, sizeof(token), "token-%u", i);
        cr_expect_not_null(find(token), "%s", token);
    }
    kv_buf_append(&text, kv_buf_peek(&full));
    kv_buf_free(&full);
    append_line("one-more:r::", "one more");
    cr_expect_eq(take("", ""), KV_INVALID);
    cr_expect_str_eq(why, "TOKENS_FILE: line 257: more than 256 tokens");
    for (unsigned bytes = KV_KEY_BYTES_MAX; bytes <= KV_KEY_BYTES_MAX + 1; bytes++) {
        kv_buf_append(&text, kv_slice_text("long:r:"));
        memset(kv_buf_reserve(&text, bytes), 'x', bytes);
        text.bytes += bytes;
        append_line(":", "long");
        cr_expect_eq(take("", ""), bytes == KV_KEY_BYTES_MAX ? KV_OK : KV_INVALID, "%u", bytes);
    }
}

/* ---- grants ------------------------------------------------------------------------------------------------------- */

Test(tokens, what_a_grant_refuses)
{
    struct grant grant = {.rights = TOKEN_READ, .prefix = kv_slice_text("a/")};
    struct kv_slice inside = kv_slice_text("a/b"), outside = kv_slice_text("b/a"), shorter = kv_slice_text("a");
    cr_expect_null(grant_refuses(&grant, TOKEN_READ, inside));
    cr_expect_null(grant_refuses(&grant, TOKEN_READ, kv_slice_text("a/")));
    cr_expect_not_null(grant_refuses(&grant, TOKEN_READ, outside));
    cr_expect_not_null(grant_refuses(&grant, TOKEN_READ, shorter));
    cr_expect_not_null(grant_refuses(&grant, TOKEN_WRITE, inside));
    cr_expect_not_null(grant_refuses(&grant, TOKEN_DELETE, inside));
    cr_expect_null(grant_lacks(&grant, TOKEN_KEYS));
    cr_expect_null(grant_lacks(&grant, 0));
    cr_expect_not_null(grant_lacks(&grant, TOKEN_METRICS));
}
