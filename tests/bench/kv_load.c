/* tests/bench/kv_load.c -- kv-load: one measurement from the command line, one line of `name=value` pairs on standard output.
 *   kv-load --port P [--host 127.0.0.1] [--token T] --kind get [--connections 8] [--streams 32] [--seconds 3 | --requests N]
 *           [--warm-seconds 0] [--prefix k] [--keys 100000] [--value-bytes 1024] [--batch 100] [--text] [--path /] [--seed 1]
 * Kinds: workload.h. Exit code 1 when any request failed. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "client.h"

static const struct option long_options[] = {
    {"host", required_argument, NULL, 'h'},
    {"port", required_argument, NULL, 'p'},
    {"token", required_argument, NULL, 't'},
    {"kind", required_argument, NULL, 'k'},
    {"connections", required_argument, NULL, 'c'},
    {"streams", required_argument, NULL, 's'},
    {"seconds", required_argument, NULL, 'd'},
    {"requests", required_argument, NULL, 'n'},
    {"warm-seconds", required_argument, NULL, 'w'},
    {"keys", required_argument, NULL, 'K'},
    {"value-bytes", required_argument, NULL, 'v'},
    {"batch", required_argument, NULL, 'b'},
    {"text", no_argument, NULL, 'T'},
    {"path", required_argument, NULL, 'P'},
    {"prefix", required_argument, NULL, 'x'},
    {"seed", required_argument, NULL, 'S'},
    {NULL, 0, NULL, 0},
};

static _Noreturn void refuse(const char *why)
{
    fprintf(stderr, "kv-load: %s; see the head of tests/bench/kv_load.c\n", why);
    exit(2);
}

static uint64_t number(const char *text, uint64_t min, uint64_t max)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || value < min || value > max)
        refuse("a number is wrong or out of range");
    return value;
}

static uint64_t nanoseconds(const char *seconds)
{
    char *end;
    double value = strtod(seconds, &end);
    if (end == seconds || *end != '\0' || !(value >= 0 && value < 1e6))
        refuse("a duration is wrong or out of range");
    return (uint64_t)(value * 1e9);
}

/* With room for two slashes and a number. */
static const char *short_text(const char *text)
{
    if (strlen(text) + 32 > WORKLOAD_PATH_BYTES)
        refuse("a path or a prefix is too long");
    return text;
}

static void set(int option, const char *value, struct client_options *client, struct workload_options *workload)
{
    static char bearer[512];
    switch (option) {
    case 'h':
        client->host = value;
        break;
    case 'p':
        client->port = (unsigned)number(value, 1, 65535);
        break;
    case 't':
        snprintf(bearer, sizeof bearer, "Bearer %s", value);
        client->token = bearer;
        break;
    case 'k':
        workload->kind = workload_kind_of(value);
        break;
    case 'c':
        client->connections = (unsigned)number(value, 1, 10000);
        break;
    case 's':
        client->streams = (unsigned)number(value, 1, 100);
        break;
    case 'd':
        client->duration_ns = nanoseconds(value);
        break;
    case 'n':
        client->requests = number(value, 1, UINT64_MAX);
        break;
    case 'w':
        client->warm_ns = nanoseconds(value);
        break;
    case 'K':
        workload->keys = number(value, 1, UINT32_MAX);
        break;
    case 'v':
        workload->value_bytes = number(value, 0, WORKLOAD_VALUE_BYTES_MAX);
        break;
    case 'b':
        workload->batch = number(value, 1, 10000);
        break;
    case 'T':
        workload->text = true;
        break;
    case 'P':
        workload->path = short_text(value);
        break;
    case 'x':
        workload->prefix = short_text(value);
        break;
    case 'S':
        workload->seed = number(value, 0, UINT64_MAX);
        break;
    default:
        refuse("an option is unknown or lacks its value");
    }
}

static double microseconds(const struct client_result *result, double share)
{
    return (double)histogram_at(&result->latency, share) / 1e3;
}

/* Of this program: the machine is shared, so what it takes, the server does not have. */
static uint64_t cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void print(const struct client_options *client, const struct workload_options *workload,
                  const struct client_result *result)
{
    double seconds = (double)result->duration_ns / 1e9;
    printf("kind=%s connections=%u streams=%u value_bytes=%zu requests=%lu errors=%lu seconds=%.3f per_s=%.0f "
           "ops_per_s=%.0f "
           "client_cpu_us=%lu mib_per_s=%.1f p50_us=%.1f p90_us=%.1f p99_us=%.1f p999_us=%.1f max_us=%.1f\n",
           workload_kind_name(workload->kind), client->connections, client->streams, workload->value_bytes,
           result->requests, result->errors, seconds, (double)result->requests / seconds, (double)result->ops / seconds,
           cpu_us(), (double)result->body_bytes / seconds / 1048576, microseconds(result, 0.5),
           microseconds(result, 0.9), microseconds(result, 0.99), microseconds(result, 0.999),
           (double)result->latency.max_ns / 1e3);
}

int main(int argc, char **argv)
{
    struct client_options client = {.host = "127.0.0.1", .connections = 8, .streams = 32};
    struct workload_options workload = {.kind = WORKLOAD_KINDS,
                                        .path = "/",
                                        .prefix = "k",
                                        .keys = 100000,
                                        .value_bytes = 1024,
                                        .batch = 100,
                                        .seed = 1};
    static struct client_result result;
    signal(SIGPIPE, SIG_IGN);
    for (int option; (option = getopt_long(argc, argv, "", long_options, NULL)) != -1;)
        set(option, optarg, &client, &workload);
    if (optind != argc || client.port == 0 || workload.kind == WORKLOAD_KINDS)
        refuse("--port and a known --kind are needed");
    if (client.requests == 0 && client.duration_ns == 0 && workload.kind != WORKLOAD_FILL)
        client.duration_ns = 3000000000u;
    client.workload = workload_new(&workload);
    client_run(&client, &result);
    workload_free(&client.workload);
    print(&client, &workload, &result);
    return result.errors > 0;
}
