/* Goal: a good configuration is taken, a bad one refused with the sentence that names the variable, and no sentence
 * shows the token. Method: tables of environments and arguments. */
#include <criterion/criterion.h>

#include "config.h"
#include "kv/files.h"
#include "temp.h"

TestSuite(config, .init = temp_setup, .fini = temp_teardown);

#define MAX 8

static struct kv_settings settings;
static enum config_action action;
static struct why why;

static enum kv_err read_config(char *const *environment, char *const *arguments)
{
    char *argv[MAX + 2] = {(char *)"kv-storage"};
    int argc = 1;
    for (; arguments[argc - 1] != NULL; argc++)
        argv[argc] = arguments[argc - 1];
    why.text[0] = '\0';
    return config_read(argc, argv, environment, &settings, &action, &why);
}

#define ENV(...) ((char *[MAX]){__VA_ARGS__})
#define ARGS(...) ((char *[MAX]){__VA_ARGS__})

Test(config, environment_then_flags)
{
    cr_assert_eq(read_config(ENV("TOKEN=t", "SHARDS=2", "DB_PATH=/env", "BODY_RATE_MIN=1M", "SHARDSX=9"),
                             ARGS("--shards=3", "--max-value-bytes", "2K", "--db-path=/a=b")),
                 KV_OK, "%s", why.text);
    cr_expect_eq((int)action, (int)CONFIG_RUN);
    cr_expect_str_eq(settings.token, "t");
    cr_expect_str_eq(settings.db_path, "/a=b");
    cr_expect_eq(settings.shards, 3u);
    cr_expect_eq(settings.value_bytes_max, 2048u);
    cr_expect_eq(settings.body_rate_min, KV_MIB);
    cr_expect_geq(settings.router_threads, 1u, "resolved");
    kv_settings_free(&settings);
}

Test(config, an_empty_variable_is_not_set)
{
    cr_assert_eq(read_config(ENV("TOKEN=t", "SHARDS=", "DB_PATH="), ARGS(NULL)), KV_OK, "%s", why.text);
    cr_expect_eq(settings.shards, 0u);
    cr_expect_str_eq(settings.db_path, "./kv_db");
    kv_settings_free(&settings);
}

Test(config, internal_settings_are_not_for_users)
{
    cr_assert_eq(read_config(ENV("TOKEN=t", "KV_EPOCH=7", "KV_SHARD_COUNT=x"), ARGS(NULL)), KV_OK, "%s", why.text);
    cr_expect_eq(settings.epoch, 0u);
    kv_settings_free(&settings);
    cr_expect_eq(read_config(ENV("TOKEN=t"), ARGS("--kv-epoch=7")), KV_INVALID);
    cr_expect_not_null(strstr(why.text, "--kv-epoch"));
}

Test(config, actions)
{
    static const struct {
        const char *argument;
        enum config_action action;
    } cases[] = {
        {"--help", CONFIG_HELP}, {"-h", CONFIG_HELP}, {"--version", CONFIG_VERSION}, {"health", CONFIG_HEALTH}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        cr_assert_eq(read_config(ENV(NULL), ARGS((char *)cases[i].argument)), KV_OK, "%s: no token needed", why.text);
        cr_expect_eq((int)action, (int)cases[i].action, "%s", cases[i].argument);
        kv_settings_free(&settings);
    }
    cr_assert_eq(read_config(ENV("SHARDS=bad"), ARGS("--help")), KV_OK, "help is there for those who err");
    kv_settings_free(&settings);
}

struct bad {
    char *environment[MAX];
    char *arguments[MAX];
    const char *begins;
};

static const struct bad bad_cases[] = {
    {{NULL}, {NULL}, "TOKEN: required"},
    {{"TOKEN="}, {NULL}, "TOKEN: required"},
    {{"TOKEN=secret b"}, {NULL}, "TOKEN: the token holds a byte"},
    {{"TOKEN=secret\n"}, {NULL}, "TOKEN: the token holds a byte"},
    {{"TOKEN=secret\xc3\xa4"}, {NULL}, "TOKEN: the token holds a byte"},
    {{"TOKEN=secret", "SHARDS=x"}, {NULL}, "SHARDS: \"x\" is not a whole number"},
    {{"TOKEN=secret"}, {"--shards=17"}, "SHARDS: 17 is not between 1 and 16"},
    {{"TOKEN=secret"}, {"--shards"}, "--shards: a value must follow"},
    {{"TOKEN=secret"}, {"--shard=1"}, "--shard=1: no such flag"},
    {{"TOKEN=secret"}, {"--=1"}, "--=1: no such flag"},
    {{"TOKEN=secret"}, {"start"}, "start: not a flag"},
    {{"TOKEN=secret"}, {"--shards=1", "health"}, "health: not a flag"},
    {{"TOKEN=secret"}, {"--db-path="}, "DB_PATH: a directory must be named"},
    {{"TOKEN=secret", "TLS_CERT=/dev/null"}, {NULL}, "TLS_KEY: TLS_CERT and TLS_KEY must be set together"},
    {{"TOKEN=secret", "TLS_KEY=/dev/null"}, {NULL}, "TLS_CERT: TLS_CERT and TLS_KEY must be set together"},
    {{"TOKEN=secret", "BIND_ADDR=off"}, {NULL}, "BIND_ADDR: off leaves nothing to listen on"},
    {{"TOKEN=secret", "BIND_ADDR=3000"}, {NULL}, "BIND_ADDR: \"3000\" is not host:port"},
    {{"TOKEN=secret", "TLS_BIND_ADDR=x"}, {NULL}, "TLS_BIND_ADDR: \"x\" is not host:port"},
    {{"TOKEN=secret", "BIND_ADDR=off", "TLS_KEY=/dev/null", "TLS_CERT=/dev/null", "TLS_BIND_ADDR=off"},
     {NULL},
     "BIND_ADDR: off leaves nothing"},
};

Test(config, bad_ones_are_refused_with_the_variable)
{
    for (size_t i = 0; i < sizeof(bad_cases) / sizeof(bad_cases[0]); i++) {
        const struct bad *bad = &bad_cases[i];
        cr_expect_eq(read_config(bad->environment, bad->arguments), KV_INVALID, "case %zu", i);
        cr_expect_eq(strncmp(why.text, bad->begins, strlen(bad->begins)), 0, "case %zu: %s", i, why.text);
        cr_expect_null(strstr(why.text, "secret"), "case %zu: %s", i, why.text);
        cr_expect_null(strchr(why.text, '\n'), "case %zu: one line", i);
    }
}

Test(config, each_source_of_tokens_is_enough)
{
    cr_expect_eq(read_config(ENV("TOKENS_FILE=/any"), ARGS(NULL)), KV_OK, "%s", why.text);
    cr_expect_str_eq(settings.tokens_file, "/any");
    kv_settings_free(&settings);
    cr_expect_eq(read_config(ENV("TOKEN_FILE=/any"), ARGS(NULL)), KV_OK, "%s", why.text);
    cr_expect_str_eq(settings.token, "", "the router reads it");
    kv_settings_free(&settings);
    cr_expect_eq(read_config(ENV("TOKEN=t", "TOKENS_FILE=/any", "TOKEN_FILE=/any"), ARGS(NULL)), KV_OK, "%s", why.text);
    kv_settings_free(&settings);
}

Test(config, token_has_a_limit)
{
    static char variable[4200] = "TOKEN=";
    memset(variable + 6, 'x', KV_TOKEN_BYTES_MAX);
    cr_expect_eq(read_config(ENV(variable), ARGS(NULL)), KV_OK, "%s", why.text);
    kv_settings_free(&settings);
}

Test(config, wipe_leaves_no_token_behind)
{
    setenv("TOKEN", "from-environment", 1);
    char flag[] = "--token=from-flag", word[] = "--token", value[] = "from-word", other[] = "--shards=1";
    char *argv[] = {(char *)"kv-storage", flag, word, value, other, NULL};
    config_wipe_token(5, argv);
    cr_expect_null(getenv("TOKEN"));
    char first[] = "TOKEN=first", second[] = "TOKEN=second", rest[] = "TOKENS=x";
    char *twice[] = {first, rest, second, NULL}, **before = environ;
    environ = twice;
    config_wipe_token(0, argv);
    cr_expect(first[6] == '\0' && second[6] == '\0' && strcmp(rest, "TOKENS=x") == 0);
    cr_expect_str_eq(environ[0], rest);
    cr_expect_null(environ[1]);
    environ = before;
    cr_expect_str_eq(flag, "--token=*********");
    cr_expect_str_eq(value, "*********");
    cr_expect_str_eq(other, "--shards=1");
}

Test(config, help_lists_every_setting_but_internal_ones)
{
    FILE *file = fopen(temp_path("help"), "w");
    config_print_help(file);
    fclose(file);
    const char *help = temp_read("help");
    cr_expect_not_null(strstr(help, "--db-path=TEXT  [./kv_db]\n"));
    cr_expect_not_null(strstr(help, "--max-value-bytes=SIZE  [1G]  1 to 64G\n"));
    cr_expect_not_null(strstr(help, "--log-level=error|warn|info|debug  [info]\n"));
    cr_expect_not_null(strstr(help, "--drain-wait-ms=NUMBER  [10000]  1 to 3600000\n"));
    cr_expect_not_null(strstr(help, "--shards=NUMBER  1 to 16\n"));
    cr_expect_null(strstr(help, "internal"));
    cr_expect_null(strstr(help, "kv-epoch"));
}
