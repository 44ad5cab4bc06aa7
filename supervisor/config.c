/* supervisor/config.c -- environment and flags to settings, all checks that need no open file of ours.
 * Does:     collects values, then checks what one row of the table cannot know: the token, TLS in pairs, something
 *           to listen on. What is in files is checked where they are read (kv/files.h).
 * Owns:     nothing; it opens no file.
 * Promises: the sentence of a refusal names the variable (or the flag) and never holds the token.
 * Fails:    KV_INVALID with one sentence; main.c prints it and exits with KV_EXIT_CONFIG.
 * Tests:    unit/supervisor/test_config.c. */
#include <sched.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "address.h"
#include "config.h"
#include "kv/files.h"

#define INTERNAL_NAME "KV_" /* rows that only the supervisor may set */
#define FLAG_BYTES_MAX 64u

enum kv_err why_not(struct why *why, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why->text, sizeof(why->text), format, arguments);
    va_end(arguments);
    return KV_INVALID;
}

static bool is_internal(const struct kv_setting *row)
{
    return strncmp(row->name, INTERNAL_NAME, strlen(INTERNAL_NAME)) == 0;
}

/* DB_PATH to --db-path. */
static void flag_of(const char *name, char flag[FLAG_BYTES_MAX])
{
    size_t at = (size_t)snprintf(flag, FLAG_BYTES_MAX, "--");
    for (; *name != '\0' && at + 1 < FLAG_BYTES_MAX; name++)
        flag[at++] = *name == '_' ? '-' : *name >= 'A' && *name <= 'Z' ? (char)(*name - 'A' + 'a') : *name;
    flag[at] = '\0';
}

/* The row of `--name` or `--name=value`, NULL when there is none. */
static const struct kv_setting *row_of_flag(const char *argument)
{
    size_t bytes = strcspn(argument, "=");
    for (const struct kv_setting *row = kv_settings_rows; row->name != NULL; row++) {
        char flag[FLAG_BYTES_MAX];
        flag_of(row->name, flag);
        if (!is_internal(row) && strlen(flag) == bytes && memcmp(flag, argument, bytes) == 0)
            return row;
    }
    return NULL;
}

/* ---- collecting ----------------------------------------------------------------------------------------------- */

static const char *environment_value(char *const *environment, const char *name)
{
    size_t bytes = strlen(name);
    for (; *environment != NULL; environment++)
        if (strncmp(*environment, name, bytes) == 0 && (*environment)[bytes] == '=')
            return *environment + bytes + 1;
    return NULL;
}

static enum kv_err take_environment(char *const *environment, struct kv_settings *settings, struct why *why)
{
    for (const struct kv_setting *row = kv_settings_rows; row->name != NULL; row++) {
        const char *value = is_internal(row) ? NULL : environment_value(environment, row->name);
        if (value == NULL || *value == '\0')
            continue;
        enum kv_err err = kv_settings_set(settings, row->name, value, why->text, sizeof(why->text));
        if (err != KV_OK)
            return err;
    }
    return KV_OK;
}

static enum kv_err take_flag(int argc, char *const *argv, int *at, struct kv_settings *settings, struct why *why)
{
    const char *argument = argv[*at];
    const struct kv_setting *row = row_of_flag(argument);
    if (row == NULL)
        return why_not(why, "%.64s: no such flag (kv-storage --help lists them)", argument);
    const char *value = strchr(argument, '=');
    if (value != NULL)
        value++;
    else if (++*at < argc)
        value = argv[*at];
    else
        return why_not(why, "%.64s: a value must follow", argument);
    return kv_settings_set(settings, row->name, value, why->text, sizeof(why->text));
}

static enum kv_err take_arguments(int argc, char *const *argv, struct kv_settings *settings, enum config_action *action,
                                  struct why *why)
{
    *action = CONFIG_RUN;
    for (int at = 1; at < argc; at++) {
        if (at == 1 && strcmp(argv[at], "health") == 0) {
            *action = CONFIG_HEALTH;
        } else if (strcmp(argv[at], "--help") == 0 || strcmp(argv[at], "-h") == 0) {
            *action = CONFIG_HELP;
            return KV_OK;
        } else if (strcmp(argv[at], "--version") == 0) {
            *action = CONFIG_VERSION;
            return KV_OK;
        } else if (strncmp(argv[at], "--", 2) != 0) {
            return why_not(why, "%.64s: not a flag and not the word health (kv-storage --help)", argv[at]);
        } else if (take_flag(argc, argv, &at, settings, why) != KV_OK) {
            return KV_INVALID;
        }
    }
    return KV_OK;
}

/* ---- checking ------------------------------------------------------------------------------------------------- */

static enum kv_err check_tokens(const struct kv_settings *settings, struct why *why)
{
    if (*settings->token == '\0' && *settings->token_file == '\0' && *settings->tokens_file == '\0')
        return why_not(why, "TOKEN: required (or TOKEN_FILE, or TOKENS_FILE): the bearer token that clients must send");
    const char *fault = *settings->token == '\0' ? NULL : kv_token_fault(kv_slice_text(settings->token));
    return fault == NULL ? KV_OK : why_not(why, "TOKEN: %s", fault);
}

static enum kv_err check_listeners(const struct kv_settings *settings, struct why *why)
{
    bool cert = *settings->tls_cert != '\0', key = *settings->tls_key != '\0';
    struct address address;
    if (cert != key)
        return why_not(why, "%s: TLS_CERT and TLS_KEY must be set together", cert ? "TLS_KEY" : "TLS_CERT");
    if (*settings->tls_client_ca != '\0' && !cert)
        return why_not(why, "TLS_CLIENT_CA: only with TLS_CERT and TLS_KEY");
    if (address_parse("BIND_ADDR", settings->bind_addr, &address, why) != KV_OK)
        return KV_INVALID;
    bool plain = !address.off;
    if (address_parse("TLS_BIND_ADDR", settings->tls_bind_addr, &address, why) != KV_OK)
        return KV_INVALID;
    if (!plain && (!cert || address.off))
        return why_not(why, "BIND_ADDR: off leaves nothing to listen on without TLS_CERT, TLS_KEY and TLS_BIND_ADDR");
    return KV_OK;
}

unsigned config_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) != 0 || CPU_COUNT(&set) < 1)
        return 1;
    return (unsigned)CPU_COUNT(&set);
}

static enum kv_err check(struct kv_settings *settings, struct why *why)
{
    enum kv_err err = check_tokens(settings, why);
    if (err == KV_OK)
        err = check_listeners(settings, why);
    if (err == KV_OK && settings->upload_bytes_max < settings->value_bytes_max)
        err = why_not(why, "UPLOAD_BYTES_MAX: less than MAX_VALUE_BYTES, so the largest values could never arrive");
    if (err == KV_OK && *settings->db_path == '\0')
        err = why_not(why, "DB_PATH: a directory must be named");
    if (err == KV_OK && settings->router_threads == 0)
        settings->router_threads = config_cores() > 3 ? config_cores() / 2 : 1;
    return err;
}

enum kv_err config_read(int argc, char *const *argv, char *const *environment, struct kv_settings *settings,
                        enum config_action *action, struct why *why)
{
    struct kv_settings read;
    enum config_action wanted;
    kv_settings_init(&read);
    enum kv_err err = take_arguments(argc, argv, &read, &wanted, why);
    if (err == KV_OK && (wanted == CONFIG_RUN || wanted == CONFIG_HEALTH)) {
        kv_settings_free(&read);
        kv_settings_init(&read);
        err = take_environment(environment, &read, why);
        if (err == KV_OK)
            err = take_arguments(argc, argv, &read, &wanted, why); /* again, on top: flags win */
        if (err == KV_OK && wanted == CONFIG_RUN)
            err = check(&read, why);
    }
    if (err != KV_OK) {
        kv_settings_free(&read);
        return KV_INVALID;
    }
    *settings = read;
    *action = wanted;
    return KV_OK;
}

/* ---- the token's traces --------------------------------------------------------------------------------------- */

static void wipe_argument(char *argument)
{
    memset(argument, '*', strlen(argument));
}

void config_wipe_token(int argc, char **argv)
{
    for (char **at = environ; *at != NULL; at++) /* the same name may come twice */
        if (strncmp(*at, "TOKEN=", 6) == 0)
            explicit_bzero(*at + 6, strlen(*at + 6));
    unsetenv("TOKEN");
    for (int i = 1; i < argc; i++) {
        if (strncmp(argv[i], "--token=", 8) == 0)
            wipe_argument(argv[i] + 8);
        else if (strcmp(argv[i], "--token") == 0 && i + 1 < argc)
            wipe_argument(argv[++i]);
    }
}

/* ---- help ----------------------------------------------------------------------------------------------------- */

static void number_text(const struct kv_setting *row, uint64_t number, char *out, size_t out_bytes)
{
    if (row->kind == KV_SETTING_SIZE)
        kv_settings_print_size(number, out, out_bytes);
    else
        snprintf(out, out_bytes, "%llu", (unsigned long long)number);
}

/* The default as a user would write it; nothing when it is a number that nobody can give: its help says what happens then. */
static void standard_text(const struct kv_setting *row, char *out, size_t out_bytes)
{
    *out = '\0';
    if (row->kind == KV_SETTING_TEXT) {
        snprintf(out, out_bytes, "%s", row->text);
    } else if (row->kind == KV_SETTING_CHOICE) {
        struct kv_slice word = kv_setting_word(row, row->standard);
        snprintf(out, out_bytes, "%.*s", (int)word.bytes, (const char *)word.data);
    } else if (row->standard >= row->min) {
        number_text(row, row->standard, out, out_bytes);
    }
}

static void range_text(const struct kv_setting *row, char *out, size_t out_bytes)
{
    char min[32], max[32];
    *out = '\0';
    if (row->kind != KV_SETTING_NUMBER && row->kind != KV_SETTING_SIZE)
        return;
    number_text(row, row->min, min, sizeof(min));
    number_text(row, row->max, max, sizeof(max));
    snprintf(out, out_bytes, "  %s to %s", min, max);
}

void config_print_help(FILE *out)
{
    fputs("usage: kv-storage [--flag=value]...         run the store in the foreground\n"
          "       kv-storage health [--flag=value]...  exit 0 when a store with this configuration is ready\n"
          "       kv-storage --help | --version\n\n"
          "Each flag has an environment variable of the same name (--db-path, DB_PATH); flags win.\n"
          "Sizes are bytes, or have K, M, G or T behind. Defaults are in brackets, ranges behind.\n\n",
          out);
    static const char *const kinds[] = {"TEXT", "NUMBER", "SIZE", NULL};
    for (const struct kv_setting *row = kv_settings_rows; row->name != NULL; row++) {
        char flag[FLAG_BYTES_MAX], standard[64], range[80];
        if (is_internal(row))
            continue;
        flag_of(row->name, flag);
        standard_text(row, standard, sizeof(standard));
        range_text(row, range, sizeof(range));
        fprintf(out, "  %s=%s", flag, row->kind == KV_SETTING_CHOICE ? row->text : kinds[row->kind]);
        fprintf(out, *standard == '\0' ? "%s" : "  [%s]", standard);
        fprintf(out, "%s\n        %s\n", range, row->help);
    }
    fputs("\nExit codes: 0 stopped in order, 1 stopped by force or not ready, 2 the start was wrong.\n", out);
}
