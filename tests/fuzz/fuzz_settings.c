/* The configuration: lines as a child reads them, single values as a user gives them, addresses. Input: a kind, then text. */
#include "fuzz.h"

#include "address.h"
#include "kv/settings.h"

/* What was read can be written, and reads back the same. */
static void read_lines(struct kv_slice lines)
{
    struct kv_settings settings, again;
    struct kv_buf first = {0}, second = {0};
    if (kv_settings_read(lines, &settings) != KV_OK)
        return;
    kv_settings_write(&settings, &first);
    FUZZ_CHECK(kv_settings_read(kv_buf_peek(&first), &again) == KV_OK);
    kv_settings_write(&again, &second);
    FUZZ_CHECK(kv_slice_equal(kv_buf_peek(&first), kv_buf_peek(&second)));
    kv_buf_free(&first);
    kv_buf_free(&second);
    kv_settings_free(&settings);
    kv_settings_free(&again);
}

static void set_one(char *text)
{
    struct kv_settings settings;
    struct why why = {""};
    char *value = strchr(text, '=');
    if (value == NULL)
        return;
    *value++ = '\0';
    kv_settings_init(&settings);
    enum kv_err err = kv_settings_set(&settings, text, value, why.text, sizeof(why.text));
    FUZZ_CHECK(err == KV_OK || err == KV_NOT_FOUND || (err == KV_INVALID && strstr(why.text, text) == why.text));
    kv_settings_free(&settings);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct kv_slice input = kv_slice(data, bytes);
    struct address address;
    struct why why = {""};
    uint64_t kind = fuzz_number(&input, 1);
    char *text = calloc(1, input.bytes + 1);
    if (input.bytes > 0)
        memcpy(text, input.data, input.bytes);
    if (kind == 'l')
        read_lines(input);
    else if (kind == 's')
        set_one(text);
    else
        FUZZ_CHECK(address_parse("BIND_ADDR", text, &address, &why) == KV_OK || why.text[0] != '\0');
    free(text);
    return 0;
}
