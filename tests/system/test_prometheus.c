/* Goal: what an operator gets works as shipped: /metrics, docker/prometheus.yml, docker/rules.yml, docker/grafana-dashboard.json.
 * Method: Debian's promtool judges the page of a store under load and the rules, each alert of which has its case in rules_test.yml;
 * a real Prometheus scrapes a real store with the shipped configuration, in which only address, token file and pauses are other
 * ones; every query of rules and dashboard is evaluated by it, and every metric that they name is on the page. */
#include <criterion/criterion.h>

#include <ctype.h>
#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"
#include "kv/clock.h"

#define SHARDS 3u
#define RULES 17u

static pid_t prometheus; /* 0: none runs */

static void stop_prometheus(void)
{
    if (prometheus != 0) {
        kill(prometheus, SIGKILL);
        waitpid(prometheus, NULL, 0);
    }
    prometheus = 0;
    harness_close();
}

TestSuite(prometheus, .fini = stop_prometheus, .timeout = 600);

/* ---- files -------------------------------------------------------------------------------------------------------- */

/* A file of the source tree; static storage. */
static const char *source_path(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof path, "%s/%s", KV_SOURCE_FOLDER, name);
    return path;
}

/* The whole file as a string; freed by the caller. */
static char *read_text(const char *path)
{
    struct kv_buf bytes = read_file(path);
    kv_buf_append(&bytes, kv_slice("", 1));
    return (char *)bytes.data;
}

static void write_text(const char *folder, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "we");
    CHECK(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0, "%s", path);
}

/* A shipped file copied into `folder`. */
static void copy_source(const char *source, const char *folder, const char *name)
{
    char *text = read_text(source_path(source));
    write_text(folder, name, text);
    free(text);
}

/* Replaces the one place of `from`. */
static void replace(char **text, const char *from, const char *to)
{
    char *at = strstr(*text, from), *changed = NULL;
    CHECK(at != NULL && strstr(at + 1, from) == NULL, "\"%s\" is not there exactly once", from);
    CHECK(asprintf(&changed, "%.*s%s%s", (int)(at - *text), *text, to, at + strlen(from)) > 0);
    free(*text);
    *text = changed;
}

/* ---- promtool ----------------------------------------------------------------------------------------------------- */

/* `silent`: not even a word of praise. */
static void expect_success(const char *folder, const char *command, bool silent)
{
    struct outcome outcome = run((const char *const[]){"sh", "-c", command, NULL}, (struct run_opts){.folder = folder});
    kv_buf_append(&outcome.out, kv_slice("", 1));
    kv_buf_append(&outcome.err, kv_slice("", 1));
    CHECK(outcome.exit_code == 0, "%s: exit code %d: %s%s", command, outcome.exit_code, (char *)outcome.out.data,
          (char *)outcome.err.data);
    CHECK(outcome.err.bytes == 1 && (!silent || outcome.out.bytes == 1), "%s says: %s%s", command,
          (char *)outcome.out.data, (char *)outcome.err.data);
    outcome_free(&outcome);
}

static void use(struct client *client)
{
    for (unsigned i = 0; i < 40; i++) {
        char target[32];
        snprintf(target, sizeof target, "/key-%02u", i);
        CHECK(client_put(client, target, kv_slice("twice", 5 - i % 2))->status == 201);
        CHECK(client_get(client, target)->status == 200);
    }
    CHECK(client_delete(client, "/key-00")->status == 204);
    CHECK(client_get(client, "/key-00")->status == 404);
    CHECK(client_get(client, "/keys?limit=5")->status == 200);
}

static char *metrics_page(struct client *client)
{
    const struct response *response = client_get(client, "/metrics");
    CHECK(response->status == 200 && response->body.bytes > 0, "/metrics: %ld", response->status);
    return strndup((const char *)response->body.data, response->body.bytes);
}

Test(prometheus, promtool_accepts_the_page_and_the_rules)
{
    struct server *server = server_start((struct server_opts){.shards = SHARDS});
    struct client *client = client_new(server, HTTP_1);
    const char *folder = temp_folder();
    use(client);
    char *page = metrics_page(client);
    write_text(folder, "page", page);
    copy_source("docker/rules.yml", folder, "rules.yml");
    copy_source("tests/system/rules_test.yml", folder, "rules_test.yml");
    expect_success(folder, "promtool check metrics < page", true);
    expect_success(folder, "promtool check rules rules.yml", false);
    expect_success(folder, "promtool test rules rules_test.yml", false);
    free(page);
    client_free(&client);
}

/* ---- metrics named in our files ----------------------------------------------------------------------------------- */

/* Every name kv_storage_… in a query is a line of the page. Returns how many were looked at. */
static size_t expect_metrics(const char *query, const char *page)
{
    size_t count = 0;
    for (const char *at = query; (at = strstr(at, "kv_storage_")) != NULL; count++) {
        char line[128] = "\n";
        size_t bytes = 0;
        while (isalnum((unsigned char)at[bytes]) || at[bytes] == '_')
            bytes++;
        CHECK(bytes < sizeof line - 2);
        memcpy(line + 1, at, bytes);
        line[1 + bytes] = '\0';
        const char *found = strstr(page, line);
        while (found != NULL && found[1 + bytes] != ' ' && found[1 + bytes] != '{')
            found = strstr(found + 1, line);
        CHECK(found != NULL, "no metric%s on the page; query: %s", line, query);
        at += bytes;
    }
    return count;
}

/* ---- a real one --------------------------------------------------------------------------------------------------- */

static struct server start_prometheus(const struct server *store, const char *folder)
{
    struct server server = {.port = free_port()};
    char listen[64], target[64], *config = read_text(source_path("docker/prometheus.yml"));
    snprintf(target, sizeof target, "127.0.0.1:%u", store->port);
    snprintf(listen, sizeof listen, "--web.listen-address=127.0.0.1:%u", server.port);
    replace(&config, "kv-storage:3000", target);
    replace(&config, "credentials_file: /run/secrets/kv-storage-token", "credentials_file: token");
    replace(&config, "scrape_interval: 15s", "scrape_interval: 1s");
    replace(&config, "scrape_timeout: 5s", "scrape_timeout: 1s");
    replace(&config, "evaluation_interval: 15s", "evaluation_interval: 1s");
    write_text(folder, "prometheus.yml", config);
    write_text(folder, "token", TOKEN "\n");
    copy_source("docker/rules.yml", folder, "rules.yml");
    free(config);
    prometheus = fork();
    CHECK(prometheus >= 0);
    if (prometheus == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (chdir(folder) == 0 && freopen("log", "w", stdout) != NULL && freopen("log", "a", stderr) != NULL)
            execlp("prometheus", "prometheus", "--config.file=prometheus.yml", "--storage.tsdb.path=data", listen,
                   NULL);
        _exit(127);
    }
    return server;
}

/* GET of Prometheus' own API: its `data`, to be freed with json_decref; NULL when it does not answer with success. */
static json_t *ask(struct client *client, const char *target)
{
    const struct response *response =
        client_send(client, &(struct request){.method = "GET", .target = target, .no_token = true, .wait_ms = 5000});
    json_t *answer = json_loadb((const char *)response->body.data, response->body.bytes, 0, NULL);
    const char *status = json_string_value(json_object_get(answer, "status"));
    json_t *data = NULL;
    if (response->status == 200 && status != NULL && strcmp(status, "success") == 0)
        data = json_incref(json_object_get(answer, "data"));
    json_decref(answer);
    return data;
}

/* The value of the first series of an instant query, or -1 without one. `*good`: the query could be evaluated. */
static double query(struct client *client, const char *text, bool *good)
{
    char *escaped = target_of_key(kv_slice_text(text), true), *target = NULL;
    CHECK(asprintf(&target, "/api/v1/query?query=%s", escaped + 1) > 0);
    json_t *data = ask(client, target);
    json_t *value = json_object_get(json_array_get(json_object_get(data, "result"), 0), "value");
    double number = value == NULL ? -1 : strtod(json_string_value(json_array_get(value, 1)), NULL);
    *good = data != NULL;
    json_decref(data);
    free(target);
    free(escaped);
    return number;
}

static void wait_until_scraped(struct client *client, double keys)
{
    uint64_t until = kv_clock_ms() + 30000;
    bool good;
    while ((query(client, "kv_storage_keys_total", &good) != keys || query(client, "up", &good) != 1) &&
           kv_clock_ms() < until)
        sleep_ms(200);
    double found = query(client, "kv_storage_keys_total", &good);
    CHECK(good && found == keys, "Prometheus sees %g keys", found);
    CHECK(query(client, "count(kv_storage_shard_up == 1)", &good) == SHARDS, "not every shard is up");
    CHECK(query(client, "up{job=\"kv-storage\"}", &good) == 1, "the target is not up");
}

/* The rules as this Prometheus has evaluated them. Returns how many are in order; any error fails the test. */
static size_t check_rules(struct client *client, const char *page)
{
    size_t evaluated = 0, i, k;
    json_t *data = ask(client, "/api/v1/rules"), *group, *rule;
    CHECK(data != NULL);
    json_array_foreach(json_object_get(data, "groups"), i, group)
    {
        json_array_foreach(json_object_get(group, "rules"), k, rule)
        {
            const char *health = json_string_value(json_object_get(rule, "health"));
            const char *error = json_string_value(json_object_get(rule, "lastError"));
            CHECK(error == NULL || *error == '\0', "rule: %s", error);
            expect_metrics(json_string_value(json_object_get(rule, "query")), page);
            CHECK(json_array_size(json_object_get(rule, "alerts")) == 0, "an alert without a reason: %s",
                  json_string_value(json_object_get(rule, "name")));
            evaluated += strcmp(health, "ok") == 0;
        }
    }
    json_decref(data);
    return evaluated;
}

/* What Grafana would do with a variable: `value` is not longer than its name. */
static void fill_in(char *text, const char *variable, const char *value)
{
    for (char *at; (at = strstr(text, variable)) != NULL;) {
        memcpy(at, value, strlen(value));
        memmove(at + strlen(value), at + strlen(variable), strlen(at + strlen(variable)) + 1);
    }
}

static void check_dashboard(struct client *client, const char *page)
{
    size_t queries = 0, metrics = 0, i, k;
    json_t *dashboard = json_load_file(source_path("docker/grafana-dashboard.json"), JSON_REJECT_DUPLICATES, NULL);
    json_t *panel, *target;
    CHECK(dashboard != NULL, "not JSON");
    json_array_foreach(json_object_get(dashboard, "panels"), i, panel)
    {
        json_array_foreach(json_object_get(panel, "targets"), k, target)
        {
            char *text = strdup(json_string_value(json_object_get(target, "expr")));
            bool good;
            fill_in(text, "$__rate_interval", "10s");
            fill_in(text, "$instance", ".*");
            query(client, text, &good);
            CHECK(good, "cannot be evaluated: %s", text);
            metrics += expect_metrics(text, page);
            queries++;
            free(text);
        }
    }
    CHECK(queries >= 50 && metrics >= queries, "%zu queries, %zu metrics", queries, metrics);
    json_decref(dashboard);
}

Test(prometheus, a_real_one_scrapes_and_evaluates)
{
    struct server *store = server_start((struct server_opts){.shards = SHARDS});
    struct client *client = client_new(store, HTTP_1);
    const char *folder = temp_folder();
    use(client);
    struct server server = start_prometheus(store, folder);
    struct client *reader = client_new(&server, HTTP_1);
    char *page = metrics_page(client);
    wait_until_scraped(reader, 39);
    uint64_t until = kv_clock_ms() + 30000;
    while (check_rules(reader, page) < RULES && kv_clock_ms() < until)
        sleep_ms(200);
    CHECK(check_rules(reader, page) == RULES, "not all rules were evaluated");
    check_dashboard(reader, page);
    free(page);
    client_free(&reader);
    client_free(&client);
}
