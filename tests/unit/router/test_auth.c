/* Goal: only the right token opens the door, however the header is written.
 * Method: a table of Authorization values. */
#include <criterion/criterion.h>

#include "auth.h"

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
    struct auth auth = auth_of(kv_slice_text("secret"));
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        cr_expect(auth_allows(&auth, kv_slice_text(good[i])), "%s", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_not(auth_allows(&auth, kv_slice_text(bad[i])), "%s", bad[i]);
}

Test(auth, parses_the_token_out)
{
    struct kv_slice token = {NULL, 0};
    cr_expect_eq(auth_bearer(kv_slice_text("Bearer a.b-c~d+e/f=="), &token), KV_OK);
    cr_expect(kv_slice_equal(token, kv_slice_text("a.b-c~d+e/f==")));
    cr_expect_eq(auth_bearer(kv_slice_text("Bearer  \t"), &token), KV_INVALID);
}
