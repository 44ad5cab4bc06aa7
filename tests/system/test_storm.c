/* Goal: no crash breaks a promise. Whatever is killed or stopped, and whenever: acknowledged writes are there, batches are whole,
 * refused writes are not there, an unanswered one is there entirely or not at all, references are exact, the files are whole, and
 * everything can be deleted down to nothing. With only shards killed clients notice time, not one error.
 * Method: the clients of storm.h against 4 shards, the deaths of killer.h, both from a seed. After each round everything is healed, read
 * back, stopped, checked by `kv-shard --check`, and counted against the model; at the end all is deleted.
 * As a program of its own: kv-storm --seconds N --seed S --kills N --only shards|router|all (`tests/storm` builds and starts it).
 * --kills ends the campaign by kills instead of by time. What was done is printed; a failure names the command that repeats it. */
#include <criterion/criterion.h>
#include <criterion/options.h>

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "killer.h"
#include "kv/clock.h"
#include "storm.h"

#define SHARDS 4u
#define ROUND_MS 60000u
#define PROGRESS_MS_MAX 20000u

struct campaign {
    uint64_t seconds, seed, kills; /* kills 0: as many as fit */
    unsigned prey;
    struct server *server;
    struct storm storm;
    struct killer killer;
};

TestSuite(storm, .fini = harness_close);

/* ---- one round ------------------------------------------------------------------------------------------------ */

static bool is_over(const struct campaign *campaign, uint64_t until_ms)
{
    if (campaign->kills > 0)
        return killer_kills(&campaign->killer) >= campaign->kills;
    return kv_clock_ms() >= until_ms;
}

/* Four in five deaths come when clients are at work again; the others hit whoever is still recovering. */
static void wait_for_prey(struct campaign *campaign)
{
    uint64_t before = atomic_load(&campaign->storm.acknowledged), begin = kv_clock_ms();
    bool recovering = random_chance(&campaign->killer.random, 200);
    killer_sleep(&campaign->killer, (unsigned)random_between(&campaign->killer.random, 5, recovering ? 60 : 160));
    while (!recovering && atomic_load(&campaign->storm.acknowledged) < before + 10 &&
           !atomic_load(&campaign->storm.failed)) {
        CHECK(kv_clock_ms() - begin < PROGRESS_MS_MAX, "no client has got anywhere for %u ms", PROGRESS_MS_MAX);
        killer_sleep(&campaign->killer, 5);
    }
}

static void check_counts(struct campaign *campaign)
{
    const struct model *model = &campaign->storm.model;
    struct store_counts counts = server_check_files(campaign->server, SHARDS);
    CHECK(counts.keys == model_keys(model) && counts.objects == model_objects(model),
          "%llu keys and %llu objects in the files, the model has %llu and %llu", (unsigned long long)counts.keys,
          (unsigned long long)counts.objects, (unsigned long long)model_keys(model),
          (unsigned long long)model_objects(model));
    CHECK(model_keys(model) > 0 || counts.stored_bytes == 0, "%llu bytes are stored without a key",
          (unsigned long long)counts.stored_bytes);
}

static void run_round(struct campaign *campaign, uint64_t until_ms)
{
    uint64_t round_until = kv_clock_ms() + ROUND_MS;
    storm_start(&campaign->storm);
    while (!is_over(campaign, until_ms) && kv_clock_ms() < round_until && !atomic_load(&campaign->storm.failed)) {
        wait_for_prey(campaign);
        killer_strike(&campaign->killer);
    }
    killer_heal(&campaign->killer);
    storm_stop(&campaign->storm);
    server_wait_ready(campaign->server);
    storm_verify(&campaign->storm);
    server_stop(campaign->server);
    check_counts(campaign);
}

/* ---- the campaign --------------------------------------------------------------------------------------------- */

static void print_report(const struct campaign *campaign, uint64_t took_ms)
{
    static const char *const ops[] = {"PUT", "GET", "DELETE", "replace", "create", "batch", "list", "peek"};
    static const char *const fates[] = {"done", "precondition", "refused", "uncertain", "wrong"};
    const struct killer *killer = &campaign->killer;
    uint64_t slowest = 0, landed = 0;
    fprintf(stderr,
            "storm: seed %llu, %u kills in %.1f s: %u of shards, %u of the router, %u of the supervisor, %u of all;"
            " %u stops\nstorm:",
            (unsigned long long)campaign->seed, killer_kills(killer), (double)took_ms / 1000, killer->shard_kills,
            killer->router_kills, killer->supervisor_kills, killer->all_kills, killer->stops);
    for (size_t op = 0, sum; op < STORM_OPS; op++) {
        sum = 0;
        for (size_t i = 0; i < STORM_CLIENTS; i++)
            sum += campaign->storm.clients[i].asked[op];
        fprintf(stderr, " %s %zu", ops[op], sum);
    }
    fprintf(stderr, "\nstorm:");
    for (size_t fate = 0, sum; fate < FATE_COUNT; fate++) {
        sum = 0;
        for (size_t i = 0; i < STORM_CLIENTS; i++)
            sum += campaign->storm.clients[i].fates[fate];
        fprintf(stderr, " %s %zu", fates[fate], sum);
    }
    for (size_t i = 0; i < STORM_CLIENTS; i++) {
        const struct storm_client *client = &campaign->storm.clients[i];
        slowest = client->slowest_ms > slowest ? client->slowest_ms : slowest;
        landed += client->landed;
    }
    fprintf(stderr, "; %llu of the uncertain had landed; longest wait %llu ms\n", (unsigned long long)landed,
            (unsigned long long)slowest);
}

static const char *name_of(unsigned prey)
{
    return prey == PREY_SHARDS   ? " --only shards"
           : prey == PREY_ROUTER ? " --only router"
           : prey == PREY_ALL    ? " --only all"
                                 : "";
}

static void run_campaign(struct campaign *campaign)
{
    uint64_t begin = kv_clock_ms(), until = begin + campaign->seconds * 1000;
    fprintf(stderr, "storm: kv-storm --seed %llu --seconds %llu --kills %llu%s\n", (unsigned long long)campaign->seed,
            (unsigned long long)campaign->seconds, (unsigned long long)campaign->kills, name_of(campaign->prey));
    campaign->server = server_start((struct server_opts){.shards = SHARDS, .settings = {"ROUTER_THREADS=2"}});
    storm_init(&campaign->storm, campaign->server, campaign->seed, campaign->prey == PREY_SHARDS);
    killer_init(&campaign->killer, campaign->server, campaign->prey, campaign->seed);
    do {
        run_round(campaign, until);
        server_spawn(campaign->server);
        server_wait_ready(campaign->server);
    } while (!is_over(campaign, until));
    print_report(campaign, kv_clock_ms() - begin);
    CHECK(killer_kills(&campaign->killer) > 0, "nothing was killed");
    storm_verify(&campaign->storm);
    storm_delete_all(&campaign->storm);
    server_stop(campaign->server);
    check_counts(campaign);
    free(campaign);
}

static struct campaign *campaign_new(unsigned prey, uint64_t seconds, uint64_t seed)
{
    struct campaign *campaign = kv_alloc_zero(1, sizeof *campaign);
    campaign->prey = prey;
    campaign->seconds = seconds;
    campaign->seed = seed;
    return campaign;
}

/* Under ctest: 30 s between the two. */
Test(storm, of_everything)
{
    run_campaign(campaign_new(PREY_EVERY, 18, 1));
}

Test(storm, of_shards_costs_clients_only_time)
{
    run_campaign(campaign_new(PREY_SHARDS, 8, 2));
}

/* ---- as a program --------------------------------------------------------------------------------------------- */

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

TestSuite(campaign, .fini = harness_close);

/* Criterion runs a test in a process of its own: what main was told comes by the environment. */
Test(campaign, as_told)
{
    struct campaign *campaign =
        campaign_new((unsigned)number_of("KV_STORM_PREY", PREY_EVERY), number_of("KV_STORM_SECONDS", 30),
                     number_of("KV_STORM_SEED", kv_clock_ns() % 1000000));
    campaign->kills = number_of("KV_STORM_KILLS", 0);
    run_campaign(campaign);
}

static int usage(void)
{
    fprintf(stderr, "usage: kv-storm [--seconds N] [--seed S] [--kills N] [--only shards|router|all]\n");
    return 2;
}

static bool take_number(const char *name, const char *text)
{
    char *end = NULL;
    strtoull(text, &end, 10);
    return *text >= '0' && *text <= '9' && *end == '\0' && setenv(name, text, 1) == 0;
}

static bool take_prey(const char *text)
{
    char number[8];
    unsigned prey = strcmp(text, "shards") == 0   ? PREY_SHARDS
                    : strcmp(text, "router") == 0 ? PREY_ROUTER
                    : strcmp(text, "all") == 0    ? PREY_ALL
                                                  : 0;
    snprintf(number, sizeof number, "%u", prey);
    return prey != 0 && setenv("KV_STORM_PREY", number, 1) == 0;
}

/* Flags of a campaign into the environment; false: none of ours, or a bad one. */
static bool take_flags(int argc, char **argv)
{
    static const struct option flags[] = {{"seconds", required_argument, NULL, 't'},
                                          {"seed", required_argument, NULL, 's'},
                                          {"kills", required_argument, NULL, 'k'},
                                          {"only", required_argument, NULL, 'o'},
                                          {NULL, 0, NULL, 0}};
    bool good = true;
    for (int flag; good && (flag = getopt_long(argc, argv, "", flags, NULL)) != -1;) {
        good = flag == 't'   ? take_number("KV_STORM_SECONDS", optarg)
               : flag == 's' ? take_number("KV_STORM_SEED", optarg)
               : flag == 'k' ? take_number("KV_STORM_KILLS", optarg)
               : flag == 'o' ? take_prey(optarg)
                             : false;
    }
    return good && optind == argc;
}

int main(int argc, char **argv)
{
    bool under_ctest = argc > 1 && strncmp(argv[1], "-j", 2) == 0;
    struct criterion_test_set *tests = criterion_initialize();
    if (!under_ctest && !take_flags(argc, argv))
        return usage();
    if (under_ctest && !criterion_handle_args(argc, argv, true))
        return 2;
    criterion_options.jobs = 1;
    criterion_options.pattern = under_ctest ? "storm/*" : "campaign/*";
    bool passed = criterion_run_all_tests(tests) != 0;
    criterion_finalize(tests);
    return passed ? 0 : 1;
}
