/* Goal: buffers grow, shrink and move without losing a byte; the texts of errors exist. Method: small cases against
 * plain arrays; memory errors are found by the address sanitizer of the dev preset. */
#include <signal.h>
#include <stdlib.h>

#include <criterion/criterion.h>

#include "kv/buf.h"
#include "kv/err.h"

Test(buf, append_keeps_order_over_many_growths)
{
    struct kv_buf buf = {0};
    for (uint32_t i = 0; i < 10000; i++)
        kv_buf_append(&buf, kv_slice(&i, sizeof(i)));
    cr_assert_eq(buf.bytes, 10000 * sizeof(uint32_t));
    for (uint32_t i = 0; i < 10000; i++) {
        uint32_t found;
        memcpy(&found, buf.data + i * sizeof(found), sizeof(found));
        cr_assert_eq(found, i);
    }
    cr_expect_lt(buf.capacity, buf.bytes * 2 + 1, "capacity doubles, it does not run away");
    kv_buf_free(&buf);
    cr_expect_null(buf.data);
    cr_expect_eq(buf.capacity, 0u);
}

Test(buf, reserve_does_not_change_bytes)
{
    struct kv_buf buf = {0};
    kv_buf_append(&buf, kv_slice_text("abc"));
    uint8_t *end = kv_buf_reserve(&buf, 5000);
    cr_expect_eq(end, buf.data + 3);
    cr_expect_eq(buf.bytes, 3u);
    cr_expect_geq(buf.capacity, 5003u);
    memset(end, 'x', 5000);
    kv_buf_free(&buf);
    cr_expect_not_null(kv_buf_reserve(&buf, 0), "an address even for nothing");
    kv_buf_free(&buf);
}

Test(buf, consume_moves_the_rest_to_the_front)
{
    struct kv_buf buf = {0};
    kv_buf_append(&buf, kv_slice_text("head|tail"));
    kv_buf_consume(&buf, 0);
    kv_buf_consume(&buf, 5);
    cr_expect(kv_slice_equal(kv_buf_peek(&buf), kv_slice_text("tail")));
    kv_buf_consume(&buf, 4);
    cr_expect_eq(buf.bytes, 0u);
    kv_buf_free(&buf);
}

Test(buf, consume_of_more_than_there_is_aborts, .signal = SIGABRT)
{
    struct kv_buf buf = {0};
    kv_buf_append(&buf, kv_slice_text("x"));
    kv_buf_consume(&buf, 2);
}

Test(buf, a_size_that_overflows_aborts, .signal = SIGABRT)
{
    struct kv_buf buf = {0};
    kv_buf_append(&buf, kv_slice_text("x"));
    kv_buf_reserve(&buf, SIZE_MAX);
}

Test(buf, allocations_of_nothing_are_addresses)
{
    void *one = kv_alloc(0), *two = kv_alloc_zero(0, 8), *three = kv_realloc(NULL, 0);
    uint8_t *copy = kv_copy(kv_slice(NULL, 0));
    cr_expect_not_null(one);
    cr_expect_not_null(two);
    cr_expect_not_null(three);
    cr_expect_not_null(copy);
    free(one);
    free(two);
    free(three);
    free(copy);
}

Test(err, every_error_has_words)
{
    cr_expect_str_eq(kv_err_text(KV_OK), "ok");
    cr_expect_str_eq(kv_err_text(KV_CANCELLED), "cancelled");
    for (int err = 0; err < KV_ERR_COUNT; err++)
        cr_expect_str_neq(kv_err_text((enum kv_err)err), "unknown error", "error %d", err);
    cr_expect_str_eq(kv_err_text(KV_ERR_COUNT), "unknown error");
    cr_expect_str_eq(kv_err_text((enum kv_err)9999), "unknown error");
}
