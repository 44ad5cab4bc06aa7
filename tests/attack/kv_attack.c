/* tests/attack/kv_attack.c -- kv-attack: attacks a running store while honest clients use it, and prints a table.
 *   kv-attack --port P --supervisor PID [--seconds S] [--quiet S] [--only "a b"] [--seed N] [--expect-harm]
 * For each attack: the honest clients alone (--quiet seconds), then beside it (--seconds). Exit code 0: no router died and no
 * honest request failed. With --expect-harm only the table is of interest (a router without its guard): exit code 0. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <curl/curl.h>

#include "attacks.h"
#include "kv/clock.h"
#include "victim.h"

enum { THREADS_MAX = 4 };

struct options {
    double attack_s, quiet_s;
    const char *only; /* NULL: all */
    uint64_t seed;
    bool expect_harm;
};

static struct {
    pthread_t id;
    struct attacker attacker;
    const struct attack *attack;
} threads[THREADS_MAX];

static void *attacker_main(void *arg)
{
    unsigned index = *(unsigned *)arg;
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19);
    threads[index].attack->run(&threads[index].attacker);
    return NULL;
}

static void start_attack(const struct attack *attack, const struct victim *victim, uint64_t until_ms, uint64_t seed)
{
    static unsigned indices[THREADS_MAX] = {0, 1, 2, 3};
    for (unsigned i = 0; i < attack->threads; i++) {
        threads[i].attack = attack;
        threads[i].attacker =
            (struct attacker){.port = victim->port, .index = i + 1, .until_ms = until_ms, .seed = seed + i};
        pthread_create(&threads[i].id, NULL, attacker_main, &indices[i]);
    }
}

static struct attacker end_attack(const struct attack *attack)
{
    struct attacker sum = {0};
    for (unsigned i = 0; i < attack->threads; i++) {
        pthread_join(threads[i].id, NULL);
        sum.units += threads[i].attacker.units;
        sum.connections += threads[i].attacker.connections;
        sum.cut += threads[i].attacker.cut;
    }
    return sum;
}

/* The router's process is looked at all the time: the peak of one that died is lost with it. */
static unsigned long watch(struct victim *victim, bool clipped, uint64_t until_ms)
{
    unsigned long peak_mb = 0;
    pid_t clipped_router = 0;
    while (kv_clock_ms() < until_ms) {
        unsigned long now_mb = victim_memory_peak_mb(victim);
        peak_mb = now_mb > peak_mb ? now_mb : peak_mb;
        victim_look(victim);
        if (clipped && victim->router != clipped_router && victim_clip(victim, VICTIM_SEND_BYTES_ORDINARY))
            clipped_router = victim->router;
        usleep(20000);
    }
    if (clipped && !victim_clip(victim, VICTIM_SEND_BYTES_WANTED))
        fprintf(stderr,
                "kv-attack: the router's sockets cannot be changed from here: they may be too large for this\n");
    return peak_mb;
}

static struct honest_report measure(struct victim *victim, const struct attack *attack, double seconds, uint64_t seed,
                                    struct attacker *did, unsigned long *peak_mb)
{
    uint64_t until_ms = kv_clock_ms() + (uint64_t)(seconds * 1000);
    honest_start(victim, until_ms);
    if (attack != NULL)
        start_attack(attack, victim, until_ms, seed);
    *peak_mb = watch(victim, attack != NULL && attack->clipped, until_ms);
    if (attack != NULL)
        *did = end_attack(attack);
    return honest_wait();
}

/* Whether no harm was done. */
static bool run(const struct attack *attack, struct victim *victim, const struct options *options)
{
    struct attacker did = {0};
    unsigned long before_mb, peak_mb;
    unsigned deaths = victim->deaths;
    struct honest_report before = measure(victim, NULL, options->quiet_s, 0, NULL, &before_mb);
    victim_memory_reset(victim);
    before_mb = victim_memory_peak_mb(victim);
    struct honest_report during = measure(victim, attack, options->attack_s, options->seed, &did, &peak_mb);
    printf("%-16s %10lu %8lu %7lu %6u %8lu %7lu %7.1f %7.1f %7.1f %7.1f %7.0f %6lu %6lu\n", attack->name, did.units,
           did.connections, did.cut, victim->deaths - deaths, during.requests, during.failed, before.get_p99_ms,
           during.get_p99_ms, before.put_p99_ms, during.put_p99_ms, during.max_ms, before_mb, peak_mb);
    if (during.failed + before.failed > 0)
        printf("    first failure: %s%s\n", before.first_failure, during.first_failure);
    fflush(stdout);
    usleep(300000);
    victim_look(victim);
    return victim->deaths == deaths && during.failed + before.failed == 0 && during.requests > 0;
}

static void usage(void)
{
    fprintf(stderr, "usage: kv-attack --port P --supervisor PID [--seconds S] [--quiet S] [--only \"a b\"] [--seed N] "
                    "[--expect-harm]\nattacks:\n");
    for (const struct attack *attack = attacks; attack->name != NULL; attack++)
        fprintf(stderr, "  %-16s %s\n", attack->name, attack->what);
    exit(2);
}

static void read_options(int argc, char **argv, struct options *options, struct victim *victim)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--expect-harm") == 0) {
            options->expect_harm = true;
            continue;
        }
        if (strcmp(argv[i], "--port") == 0)
            victim->port = (unsigned short)atoi(value);
        else if (strcmp(argv[i], "--supervisor") == 0)
            victim->supervisor = atoi(value);
        else if (strcmp(argv[i], "--seconds") == 0)
            options->attack_s = atof(value);
        else if (strcmp(argv[i], "--quiet") == 0)
            options->quiet_s = atof(value);
        else if (strcmp(argv[i], "--only") == 0)
            options->only = value;
        else if (strcmp(argv[i], "--seed") == 0)
            options->seed = strtoull(value, NULL, 10);
        else
            usage();
        i++;
    }
    victim_look(victim);
    if (victim->port == 0 || victim->router == 0)
        usage();
}

static bool is_wanted(const struct options *options, const char *name)
{
    char words[1024], word[64];
    if (options->only == NULL)
        return true;
    snprintf(words, sizeof(words), " %s ", options->only);
    snprintf(word, sizeof(word), " %s ", name);
    return strstr(words, word) != NULL;
}

int main(int argc, char **argv)
{
    struct options options = {.attack_s = 5, .quiet_s = 2, .seed = (uint64_t)time(NULL)};
    struct victim victim = {0};
    struct rlimit files;
    bool harmless = true;
    unsigned count = 0;
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_ALL);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    read_options(argc, argv, &options, &victim);
    if (!honest_store(&victim, ATTACK_KEY_LARGE, ATTACK_LARGE_BYTES) ||
        !honest_store(&victim, ATTACK_KEY_MIDDLE, ATTACK_MIDDLE_BYTES) ||
        !honest_store(&victim, ATTACK_KEY_FRAME, ATTACK_FRAME_BYTES))
        return 1;
    printf("seed %lu; latencies in ms, router's memory in MB\n", options.seed);
    printf("%-16s %10s %8s %7s %6s %8s %7s %15s %15s %7s %13s\n", "", "attackers'", "", "", "router", "honest", "",
           "GET p99", "PUT p99", "", "memory");
    printf("%-16s %10s %8s %7s %6s %8s %7s %7s %7s %7s %7s %7s %6s %6s\n", "attack", "units", "connects", "cut",
           "deaths", "requests", "failed", "before", "during", "before", "during", "max", "before", "peak");
    for (const struct attack *attack = attacks; attack->name != NULL; attack++) {
        if (!is_wanted(&options, attack->name))
            continue;
        harmless &= run(attack, &victim, &options);
        count++;
    }
    if (count == 0)
        usage();
    return harmless || options.expect_harm ? 0 : 1;
}
