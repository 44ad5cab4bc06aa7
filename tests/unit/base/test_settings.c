/* Goal: every kind of setting takes what it should and refuses the rest with a sentence that names it; what is handed
 * to the children arrives unchanged. Method: tables of good and bad values, round trips. */
#include <criterion/criterion.h>

#define WIPE explicit_bzero
#include "../wipes.h"
#include "kv/settings.h"

static struct kv_settings settings;
static char why[256];

static void setup(void)
{
    kv_settings_init(&settings);
    why[0] = '\0';
}

static void teardown(void)
{
    kv_settings_free(&settings);
}

TestSuite(settings, .init = setup, .fini = teardown);

static enum kv_err set(const char *name, const char *value)
{
    return kv_settings_set(&settings, name, value, why, sizeof(why));
}

Test(settings, defaults)
{
    cr_expect_str_eq(settings.token, "");
    cr_expect_str_eq(settings.db_path, "./kv_db");
    cr_expect_str_eq(settings.bind_addr, "0.0.0.0:3000");
    cr_expect_eq(settings.compression_level, 1u);
    cr_expect_eq(settings.value_bytes_max, KV_GIB);
    cr_expect_eq(settings.batch_bytes_max, 64 * KV_MIB);
    cr_expect_eq(settings.durability, (uint64_t)KV_DURABILITY_SYNC);
    cr_expect_eq(settings.log_level, 2u);
    cr_expect_eq(settings.shards, 0u);
}

Test(settings, good_values)
{
    static const struct {
        const char *name, *value;
        size_t offset;
        uint64_t expected;
    } good[] = {
#define ROW(name, value, member, expected) {name, value, offsetof(struct kv_settings, member), expected}
        ROW("SHARDS", "1", shards, 1),
        ROW("SHARDS", "16", shards, 16),
        ROW("SHARDS", "007", shards, 7),
        ROW("COMPRESSION_LEVEL", "21", compression_level, 21),
        ROW("MAX_VALUE_BYTES", "1", value_bytes_max, 1),
        ROW("MAX_VALUE_BYTES", "64G", value_bytes_max, 64 * KV_GIB),
        ROW("MAX_VALUE_BYTES", "65536M", value_bytes_max, 64 * KV_GIB),
        ROW("BODY_RATE_MIN", "0", body_rate_min, 0),
        ROW("BODY_RATE_MIN", "0K", body_rate_min, 0),
        ROW("BODY_RATE_MIN", "3k", body_rate_min, 3072),
        ROW("MAP_SIZE", "64T", map_size, 64 * KV_TIB),
        ROW("DURABILITY", "interval", durability, KV_DURABILITY_INTERVAL),
        ROW("DURABILITY", "sync", durability, KV_DURABILITY_SYNC),
        ROW("LOG_LEVEL", "debug", log_level, 3),
        ROW("LOG_FORMAT", "json", log_format, KV_LOG_FORMAT_JSON),
#undef ROW
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        cr_expect_eq(set(good[i].name, good[i].value), KV_OK, "%s=%s: %s", good[i].name, good[i].value, why);
        uint64_t found;
        memcpy(&found, (char *)&settings + good[i].offset, sizeof(found));
        cr_expect_eq(found, good[i].expected, "%s=%s", good[i].name, good[i].value);
    }
}

Test(settings, bad_values_change_nothing_and_say_why)
{
    static const struct {
        const char *name, *value, *sentence;
    } bad[] = {
        {"SHARDS", "", "SHARDS: \"\" is not a whole number"},
        {"SHARDS", "x", "SHARDS: \"x\" is not a whole number"},
        {"SHARDS", "-1", "SHARDS: \"-1\" is not a whole number"},
        {"SHARDS", "+1", "SHARDS: \"+1\" is not a whole number"},
        {"SHARDS", " 1", "SHARDS: \" 1\" is not a whole number"},
        {"SHARDS", "1 ", "SHARDS: \"1 \" is not a whole number"},
        {"SHARDS", "0x4", "SHARDS: \"0x4\" is not a whole number"},
        {"SHARDS", "2K", "SHARDS: \"2K\" is not a whole number"},
        {"SHARDS", "0", "SHARDS: 0 is not between 1 and 16"},
        {"ROUTER_THREADS", "0", "ROUTER_THREADS: 0 is not between 1 and 64"},
        {"SHARDS", "17", "SHARDS: 17 is not between 1 and 16"},
        {"SHARDS", "18446744073709551616", "SHARDS: 18446744073709551616 is not between 1 and 16"},
        {"SHARDS", "18446744073709551617", "SHARDS: 18446744073709551617 is not between 1 and 16"},
        {"FLUSH_INTERVAL_MS", "0", "FLUSH_INTERVAL_MS: 0 is not between 1 and 60000"},
        {"MAX_VALUE_BYTES", "0", "MAX_VALUE_BYTES: 0 is not between 1 and 64G"},
        {"MAX_VALUE_BYTES", "65G", "MAX_VALUE_BYTES: 65G is not between 1 and 64G"},
        {"MAX_VALUE_BYTES", "16777216T", "MAX_VALUE_BYTES: 16777216T is not between 1 and 64G"},
        {"MAX_VALUE_BYTES", "17179869184G", "MAX_VALUE_BYTES: 17179869184G is not between 1 and 64G"},
        {"MAX_VALUE_BYTES", "99999999999999999999T", "MAX_VALUE_BYTES: 99999999999999999999T is not between 1 and 64G"},
        {"MAX_VALUE_BYTES", "1KB", "MAX_VALUE_BYTES: \"1KB\" is not a size (bytes, or with K, M, G or T behind)"},
        {"MAX_VALUE_BYTES", "K", "MAX_VALUE_BYTES: \"K\" is not a size (bytes, or with K, M, G or T behind)"},
        {"MAX_VALUE_BYTES", "1.5G", "MAX_VALUE_BYTES: \"1.5G\" is not a size (bytes, or with K, M, G or T behind)"},
        {"DURABILITY", "", "DURABILITY: \"\" is not one of sync|interval"},
        {"DURABILITY", "syn", "DURABILITY: \"syn\" is not one of sync|interval"},
        {"DURABILITY", "sync|interval", "DURABILITY: \"sync|interval\" is not one of sync|interval"},
        {"LOG_LEVEL", "INFO", "LOG_LEVEL: \"INFO\" is not one of error|warn|info|debug"},
    };
    struct kv_buf before = {0}, after = {0};
    kv_settings_write(&settings, &before);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        cr_expect_eq(set(bad[i].name, bad[i].value), KV_INVALID, "%s=%s", bad[i].name, bad[i].value);
        cr_expect_str_eq(why, bad[i].sentence);
    }
    cr_expect_eq(set("NO_SUCH", "1"), KV_NOT_FOUND);
    cr_expect_eq(set("shards", "1"), KV_NOT_FOUND);
    kv_settings_write(&settings, &after);
    cr_expect(kv_slice_equal(kv_buf_peek(&before), kv_buf_peek(&after)));
    kv_buf_free(&before);
    kv_buf_free(&after);
}

Test(settings, texts_have_a_limit_and_secrets_stay_secret)
{
    static char text[4098];
    memset(text, 's', sizeof(text) - 1);
    cr_expect_eq(set("TOKEN", text), KV_INVALID);
    cr_expect_str_eq(why, "TOKEN: longer than 4096 bytes");
    text[4096] = '\0';
    cr_expect_eq(set("TOKEN", text), KV_OK);
    cr_expect_str_eq(settings.token, text);
    cr_expect_eq(set("TOKEN", settings.token), KV_OK, "a setting may be set to itself");
    cr_expect_str_eq(settings.token, text);
    wiped_bytes = 0;
    cr_expect_eq(set("TOKEN", "another"), KV_OK);
    cr_expect(was_wiped(text), "the old one stays in memory");
}

Test(settings, the_sentence_stays_within_its_buffer)
{
    char small[8] = "";
    cr_expect_eq(kv_settings_set(&settings, "SHARDS", "many", small, sizeof(small)), KV_INVALID);
    cr_expect_str_eq(small, "SHARDS:");
}

Test(settings, lines_survive_the_round_trip)
{
    cr_assert_eq(set("TOKEN", "a\nb\\n\\\\c=\"d\" \xc3\xa4\r"), KV_OK);
    cr_assert_eq(set("DB_PATH", "\n"), KV_OK);
    cr_assert_eq(set("MAX_VALUE_BYTES", "3M"), KV_OK);
    cr_assert_eq(set("LOG_FORMAT", "json"), KV_OK);
    cr_assert_eq(set("LOG_LEVEL", "error"), KV_OK);
    cr_assert_eq(set("KV_EPOCH", "1048575"), KV_OK);
    cr_assert_eq(set("KV_STORE_ID", "0123456789abcdef0123456789abcdef"), KV_OK);
    struct kv_buf lines = {0}, again = {0};
    kv_settings_write(&settings, &lines);
    struct kv_settings read;
    cr_assert_eq(kv_settings_read(kv_buf_peek(&lines), &read), KV_OK);
    cr_expect_str_eq(read.token, settings.token);
    cr_expect_str_eq(read.db_path, "\n");
    cr_expect_eq(read.value_bytes_max, 3 * KV_MIB);
    cr_expect_eq(read.log_format, (uint64_t)KV_LOG_FORMAT_JSON);
    cr_expect_eq(read.log_level, 0u);
    cr_expect_eq(read.epoch, 1048575u);
    kv_settings_write(&read, &again);
    cr_expect(kv_slice_equal(kv_buf_peek(&lines), kv_buf_peek(&again)));
    kv_settings_free(&read);
    kv_buf_free(&lines);
    kv_buf_free(&again);
}

Test(settings, malformed_lines_leave_out_untouched)
{
    static const char nul[] = "TOKEN=a\0b\n";
    static const struct kv_slice bad[] = {
        {(const uint8_t *)"SHARDS=4", 8},        {(const uint8_t *)"SHARDS\n", 7},
        {(const uint8_t *)"SHARDS=x\n", 9},      {(const uint8_t *)"NOTHING=1\n", 10},
        {(const uint8_t *)"TOKEN=a\\x\n", 10},   {(const uint8_t *)"TOKEN=a\\\n", 9},
        {(const uint8_t *)nul, sizeof(nul) - 1}, {(const uint8_t *)"\n", 1},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct kv_settings out;
        memset(&out, 0x5a, sizeof(out));
        struct kv_settings before = out;
        cr_expect_eq(kv_settings_read(bad[i], &out), KV_INVALID, "case %zu", i);
        cr_expect_eq(memcmp(&before, &out, sizeof(out)), 0, "case %zu", i);
    }
    struct kv_settings out;
    cr_expect_eq(kv_settings_read(kv_slice_text(""), &out), KV_OK, "no line: all defaults");
    kv_settings_free(&out);
}
