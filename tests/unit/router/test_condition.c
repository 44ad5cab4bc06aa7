/* Goal: conditions are decided as RFC 9110, 13 says, and what a write decided is pinned for the backend.
 * Method: tables over conditions made by hand; the headers themselves are read in http/test_http_values.c. */
#include <criterion/criterion.h>

#include "condition.h"
#include "digest.h"

#define NOT_OURS "\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\""
#define OURS "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\""

static struct kv_row row; /* of "abc", written at 1000 */

static void setup(void)
{
    row = (struct kv_row){.hash = digest_of(kv_slice_text("abc")), .created_s = 1000};
}

TestSuite(condition, .init = setup);

static struct condition tags(const char *match, const char *none)
{
    struct condition condition = {0};
    if (match != NULL)
        cr_assert_eq(etag_list_parse(kv_slice_text(match), &condition.if_match), KV_OK);
    if (none != NULL)
        cr_assert_eq(etag_list_parse(kv_slice_text(none), &condition.if_none_match), KV_OK);
    return condition;
}

static enum kv_err read_with(struct condition condition)
{
    return condition_check_read(&condition, &row);
}

Test(condition, reads)
{
    struct condition dates = {.has_modified_since = true, .modified_since_s = 1000};
    cr_expect_eq(read_with(tags(NULL, NULL)), KV_OK);
    cr_expect_eq(read_with(tags(OURS, NULL)), KV_OK);
    cr_expect_eq(read_with(tags(NOT_OURS, NULL)), KV_PRECONDITION);
    cr_expect_eq(read_with(tags(NULL, "W/" OURS)), KV_END);
    cr_expect_eq(read_with(tags(NULL, NOT_OURS)), KV_OK);
    cr_expect_eq(read_with(tags(NOT_OURS, OURS)), KV_PRECONDITION, "If-Match comes first");
    cr_expect_eq(read_with(dates), KV_END);
    dates.modified_since_s = 999;
    cr_expect_eq(read_with(dates), KV_OK);
    dates = tags(NULL, NOT_OURS);
    dates.has_modified_since = true;
    dates.modified_since_s = 5000;
    cr_expect_eq(read_with(dates), KV_OK, "If-None-Match overrules the date");
    dates = (struct condition){.has_unmodified_since = true, .unmodified_since_s = 999};
    cr_expect_eq(read_with(dates), KV_PRECONDITION);
    dates.unmodified_since_s = 1000;
    cr_expect_eq(read_with(dates), KV_OK);
}

static enum kv_err plan(struct condition condition, struct backend_op *op)
{
    *op = (struct backend_op){.kind = BACKEND_PUT};
    return condition_plan_write(&condition, op);
}

Test(condition, writes_that_the_backend_decides)
{
    struct backend_op op;
    cr_expect(plan(tags(NULL, NULL), &op) == KV_OK && op.match == BACKEND_MATCH_NONE);
    cr_expect(plan(tags("*", NULL), &op) == KV_OK && op.match == BACKEND_MATCH_ANY);
    cr_expect(plan(tags(NULL, "*"), &op) == KV_OK && op.match == BACKEND_MATCH_ABSENT);
    cr_expect(plan(tags(OURS, NULL), &op) == KV_OK && op.match == BACKEND_MATCH_HASH);
    cr_expect(kv_hash_equal(&op.match_hash, &row.hash));
    cr_expect_eq(plan(tags("W/" OURS, NULL), &op), KV_PRECONDITION);
    cr_expect_eq(plan(tags("\"something\"", NULL), &op), KV_PRECONDITION);
    cr_expect_eq(plan(tags(OURS "," NOT_OURS, NULL), &op), KV_STALE);
    cr_expect_eq(plan(tags(NULL, OURS), &op), KV_STALE);
    cr_expect_eq(plan(tags("*", "*"), &op), KV_STALE);
}

Test(condition, writes_that_need_a_look_are_pinned)
{
    struct backend_op op = {0};
    struct condition several = tags(NOT_OURS "," OURS, NULL), none = tags(NULL, OURS), both = tags("*", NOT_OURS);
    cr_expect(condition_check_write(&several, &row, &op) == KV_OK && op.match == BACKEND_MATCH_HASH);
    cr_expect(kv_hash_equal(&op.match_hash, &row.hash));
    cr_expect_eq(condition_check_write(&several, NULL, &op), KV_PRECONDITION);
    cr_expect_eq(condition_check_write(&none, &row, &op), KV_PRECONDITION);
    cr_expect(condition_check_write(&none, NULL, &op) == KV_OK && op.match == BACKEND_MATCH_ABSENT);
    cr_expect(condition_check_write(&both, &row, &op) == KV_OK && op.match == BACKEND_MATCH_HASH);
    cr_expect_eq(condition_check_write(&both, NULL, &op), KV_PRECONDITION);
}

Test(condition, dates_in_their_three_forms)
{
    static const char *const good[] = {"Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT",
                                       "Sun Nov  6 08:49:37 1994"};
    static const char *const bad[] = {"",
                                      "yesterday",
                                      "784111777",
                                      "Sun, 06 Nov 1994 08:49:37 GMT+1",
                                      "Sun, 06 Nov 1994 08:49:37",
                                      "Sun, 99 Nov 1994 08:49:37 GMT"};
    uint64_t seconds = 0;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        cr_expect_eq(condition_date(kv_slice_text(good[i]), &seconds), KV_OK, "%s", good[i]);
        cr_expect_eq(seconds, 784111777, "%s: %lu", good[i], seconds);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect_eq(condition_date(kv_slice_text(bad[i]), &seconds), KV_INVALID, "%s", bad[i]);
}
