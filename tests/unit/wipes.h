/* tests/unit/wipes.h -- what the code under test has wiped: takes the place of explicit_bzero, or of OPENSSL_cleanse, in the whole
 * program. The memory is free afterwards, so that only the call can be seen. Before the #include:
 *   #define WIPE explicit_bzero */
#ifndef KV_TEST_WIPES_H
#define KV_TEST_WIPES_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <criterion/criterion.h>

static uint8_t wiped[65536]; /* one behind the other */
static size_t wiped_bytes;

static inline void wipe(void *data, size_t bytes)
{
    size_t room = sizeof wiped - wiped_bytes, kept = bytes < room ? bytes : room;
    const uint8_t *from = data;
    __asm__("" : "+r"(from)); /* the declaration of explicit_bzero promises gcc that nothing is read */
    if (kept > 0)
        memcpy(wiped + wiped_bytes, from, kept);
    wiped_bytes += kept;
    if (bytes > 0)
        memset(data, 0, bytes);
}

void WIPE(void *data, size_t bytes)
{
    wipe(data, bytes);
}

/* What explicit_bzero is called in a release build, by _FORTIFY_SOURCE. */
void __explicit_bzero_chk(void *data, size_t bytes, size_t data_bytes)
{
    cr_assert_leq(bytes, data_bytes);
    wipe(data, bytes);
}

/* Since wiped_bytes was 0. */
static inline bool was_wiped(const char *text)
{
    return memmem(wiped, wiped_bytes, text, strlen(text)) != NULL;
}

#endif
