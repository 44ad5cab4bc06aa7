/* Goal: a router starts with the files that one before it has accepted, whatever SIGHUP brings in between.
 * Method: the bookkeeping alone; this test plays the router at the other end of the channel. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <unistd.h>

#include "handover.h"
#include "kv/files.h"

static struct handover handover;
static struct why why;
static int router_fd = -1;

static int files_of(const char *text)
{
    struct kv_files files = {0};
    kv_buf_append(&files.tokens, kv_slice_text(text));
    int fd = kv_files_seal(&files);
    kv_files_free(&files);
    cr_assert_geq(fd, 0);
    return fd;
}

static void expect_received(const char *text)
{
    struct kv_files files = {0};
    cr_assert_eq(kv_files_receive(router_fd, &files), KV_OK);
    cr_expect(kv_slice_equal(kv_buf_peek(&files.tokens), kv_slice_text(text)), "%.*s is not %s",
              (int)files.tokens.bytes, (const char *)files.tokens.data, text);
    kv_files_free(&files);
}

static void start_router(const char *expected)
{
    cr_assert_eq(handover_open(&handover, &router_fd, &why), KV_OK, "%s", why.text);
    expect_received(expected);
}

static void end_router(void)
{
    handover_close(&handover);
    close(router_fd);
}

static void setup(void)
{
    handover_init(&handover, files_of("first"));
    start_router("first");
}

static void teardown(void)
{
    end_router();
    handover_free(&handover);
}

TestSuite(handover, .init = setup, .fini = teardown);

Test(handover, what_is_accepted_is_for_the_next_router)
{
    cr_expect_not(handover_send(&handover), "nothing is offered");
    handover_offer(&handover, files_of("second"));
    cr_expect(handover_send(&handover));
    cr_expect_not(handover_send(&handover), "twice");
    expect_received("second");
    handover_answer(&handover, true);
    end_router();
    start_router("second");
    cr_expect_not(handover_send(&handover));
}

Test(handover, what_is_refused_is_forgotten)
{
    handover_offer(&handover, files_of("wrong"));
    cr_expect(handover_send(&handover));
    handover_answer(&handover, false);
    end_router();
    start_router("first");
    cr_expect_not(handover_send(&handover));
}

Test(handover, without_an_answer_it_is_offered_again)
{
    handover_offer(&handover, files_of("second"));
    cr_expect(handover_send(&handover));
    end_router();
    cr_expect_not(handover_send(&handover), "there is no router");
    start_router("first");
    cr_expect(handover_send(&handover));
    expect_received("second");
    handover_answer(&handover, true);
    end_router();
    start_router("second");
}

Test(handover, an_answer_is_to_what_was_sent_not_to_what_came_since)
{
    handover_offer(&handover, files_of("good"));
    cr_expect(handover_send(&handover));
    handover_offer(&handover, files_of("wrong"));
    cr_expect_not(handover_send(&handover), "before \"good\" is answered");
    expect_received("good");
    handover_answer(&handover, true);
    cr_expect(handover_send(&handover));
    expect_received("wrong");
    handover_answer(&handover, false);
    end_router();
    start_router("good");
}

Test(handover, a_refusal_does_not_take_what_came_since_with_it)
{
    handover_offer(&handover, files_of("wrong"));
    cr_expect(handover_send(&handover));
    handover_offer(&handover, files_of("revoked"));
    handover_offer(&handover, files_of("good"));
    cr_expect_not(handover_send(&handover), "before \"wrong\" is answered");
    handover_answer(&handover, false);
    cr_expect(handover_send(&handover));
    handover_answer(&handover, true);
    end_router();
    start_router("good");
}

Test(handover, what_came_last_is_offered_to_the_next_router)
{
    handover_offer(&handover, files_of("old"));
    cr_expect(handover_send(&handover));
    handover_offer(&handover, files_of("new"));
    end_router();
    start_router("first");
    cr_expect(handover_send(&handover));
    expect_received("new");
    handover_answer(&handover, true);
    cr_expect_not(handover_send(&handover), "\"old\" is forgotten");
}

static unsigned count_descriptors(void)
{
    unsigned open_ones = 0;
    for (int fd = 0; fd < 1000; fd++)
        open_ones += fcntl(fd, F_GETFD) >= 0;
    return open_ones;
}

Test(handover, no_descriptor_is_left)
{
    unsigned before = count_descriptors();
    for (int i = 0; i < 10; i++) {
        handover_offer(&handover, files_of("x"));
        handover_send(&handover);
        expect_received("x");
        handover_answer(&handover, i % 2 == 0);
    }
    cr_expect_eq(count_descriptors(), before);
}
