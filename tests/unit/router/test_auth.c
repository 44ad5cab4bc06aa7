/* Goal: only the right token opens the door, however the header is written.
 * Method: a table of Authorization values. */
#include <criterion/criterion.h>

#define WIPE OPENSSL_cleanse
#include "../wipes.h"
#include "auth.h"
#include "digest.h"

static enum auth_outcome check(const char *value)
{
    static const struct kv_files no_files;
    char why[256];
    struct tokens *tokens = NULL;
    const struct grant *grant = NULL;
    struct kv_hash hash = digest_of(kv_slice_text("secret"));
    cr_assert_eq(tokens_new(&hash, &no_files, &tokens, why, sizeof(why)), KV_OK);
    enum auth_outcome outcome = auth_check(tokens, kv_slice_text(value), &grant);
    cr_expect_eq(outcome == AUTH_GRANTED, grant != NULL && grant->rights == TOKEN_ALL);
    tokens_release(&tokens);
    return outcome;
}

Test(auth, allows_the_token_alone)
{
    static const char *const good[] = {"Bearer secret", "bearer secret", "BEARER   secret", "bEaReR secret \t"};
    static const char *const bad[] = {"",
                                      "secret",
                                      "Bearer",
                                      "Bearer ",
                                      "Bearer secre",
                                      "Bearersecret",
                                      "Bearer secrets",
                                      "Basic secret",
                                      "Bearer Secret",
                                      "Bearer secret x",
                                      " Bearer secret",
                                      "Bearer\tsecret",
                                      "Token secret",
                                      "Bearer \"secret\""};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        cr_expect_eq(check(good[i]), AUTH_GRANTED, "%s", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_neq(check(bad[i]), AUTH_GRANTED, "%s", bad[i]);
}

Test(auth, says_what_was_wrong)
{
    cr_expect_eq(check(""), AUTH_MISSING);
    cr_expect_eq(check("Basic secret"), AUTH_SCHEME);
    cr_expect_eq(check("Bearer "), AUTH_SCHEME);
    cr_expect_eq(check("Bearer secrets"), AUTH_UNKNOWN);
}

Test(auth, parses_the_token_out)
{
    struct kv_slice token = {NULL, 0};
    cr_expect_eq(auth_bearer(kv_slice_text("Bearer a.b-c~d+e/f=="), &token), KV_OK);
    cr_expect(kv_slice_equal(token, kv_slice_text("a.b-c~d+e/f==")));
    cr_expect_eq(auth_bearer(kv_slice_text("Bearer  \t"), &token), KV_INVALID);
}

static struct tokens *tokens_of(const char *token)
{
    static const struct kv_files no_files;
    char why[256];
    struct tokens *tokens = NULL;
    struct kv_hash hash = digest_of(kv_slice_text(token));
    cr_assert_eq(tokens_new(&hash, &no_files, &tokens, why, sizeof(why)), KV_OK);
    return tokens;
}

static enum auth_outcome again(struct auth_seen *seen, struct tokens *tokens, const char *value)
{
    const struct grant *grant = NULL;
    enum auth_outcome outcome = auth_check_again(seen, tokens, kv_slice_text(value), &grant);
    cr_expect_eq(outcome == AUTH_GRANTED, grant != NULL && grant->rights == TOKEN_ALL);
    return outcome;
}

Test(auth, what_was_seen_opens_no_other_door)
{
    struct auth_seen seen = {0};
    struct tokens *one = tokens_of("secret"), *other = tokens_of("another");
    cr_expect_eq(again(&seen, one, "Bearer secrets"), AUTH_UNKNOWN);
    cr_expect_eq(again(&seen, one, ""), AUTH_MISSING);
    for (int i = 0; i < 3; i++) {
        cr_expect_eq(again(&seen, one, "Bearer secret"), AUTH_GRANTED);
        cr_expect_eq(again(&seen, one, "Bearer secreT"), AUTH_UNKNOWN);
        cr_expect_eq(again(&seen, one, "Bearer secre"), AUTH_UNKNOWN);
        cr_expect_eq(again(&seen, one, ""), AUTH_MISSING);
        cr_expect_eq(again(&seen, one, "bearer  secret"), AUTH_GRANTED);
    }
    cr_expect_eq(again(&seen, other, "bearer  secret"), AUTH_UNKNOWN, "other tokens hold now");
    tokens_release(&one); /* what was seen keeps its set: no other one has its address */
    cr_expect_eq(again(&seen, other, "Bearer another"), AUTH_GRANTED);
    cr_expect_eq(again(&seen, other, "Bearer secret"), AUTH_UNKNOWN);
    tokens_release(&other);
    wiped_bytes = 0;
    auth_forget(&seen);
    cr_expect_null(seen.value.data);
    cr_expect(was_wiped("Bearer another"), "the token stays in memory");
}
