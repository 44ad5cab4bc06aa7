/* Goal: money is neither made nor lost. ACCOUNTS accounts over all shards hold TOTAL together at every moment that anybody can see,
 * whatever dies, and at the end in the files too.
 * Method: tellers read two accounts in one batch and move an amount in another one: two puts, each on condition that the account still
 * holds what was read. A third of the transfers also writes a receipt. Auditors read all accounts in one batch, all the time, and add
 * up. Balances are short texts: accounts with the same balance share one content, so references move with the money. */
#include <criterion/criterion.h>

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "batch.h"
#include "fate.h"
#include "killer.h"
#include "kv/clock.h"
#include "kv/placement.h"

#define SHARDS 4u
#define ACCOUNTS 16u
#define START_BALANCE 100
#define TOTAL (START_BALANCE * (int)ACCOUNTS)
#define TELLERS 8u
#define AUDITORS 3u
#define PEOPLE (TELLERS + AUDITORS)

struct bank;
struct person {
    struct bank *bank;
    unsigned index;
    struct random random;
    struct client *http;
    pthread_t thread;
};

struct bank {
    struct server *server;
    bool no_errors;
    struct person people[PEOPLE];
    atomic_ulong transfers, collisions, audits, errors;
    atomic_bool stop;
    pthread_mutex_t mutex;
    char failure[512];
};

TestSuite(bank, .fini = harness_close, .timeout = 600);

static void fail(struct person *person, const char *what, const struct response *response, int sum)
{
    struct bank *bank = person->bank;
    pthread_mutex_lock(&bank->mutex);
    if (bank->failure[0] == '\0')
        snprintf(bank->failure, sizeof bank->failure, "%s: status %ld, sum %d: %.*s %s", what, response->status, sum,
                 (int)(response->body.bytes > 200 ? 200 : response->body.bytes), (const char *)response->body.data,
                 response->problem);
    pthread_mutex_unlock(&bank->mutex);
    atomic_store(&bank->stop, true);
}

static void account_name(unsigned account, char out[32])
{
    snprintf(out, 32, "bank/account/%02u", account);
}

static struct kv_slice balance_text(int balance, char space[16])
{
    snprintf(space, 16, "%d", balance);
    return kv_slice_text(space);
}

/* ---- asking --------------------------------------------------------------------------------------------------- */

/* Balances of the accounts in one batch. The fate of the request; FATE_WRONG: failed already. */
static enum fate read_balances(struct person *person, const unsigned *accounts, size_t count, int *out)
{
    struct batch batch = {0};
    struct batch_results results;
    char key[32];
    for (size_t i = 0; i < count; i++) {
        account_name(accounts[i], key);
        batch_get(&batch, key);
    }
    const struct response *response = batch_send(person->http, &batch);
    enum fate fate = fate_of(response);
    batch_free(&batch);
    if (fate != FATE_DONE)
        return fate;
    if (!batch_results_read(response, count, &results)) {
        fail(person, "these are not results", response, 0);
        return FATE_WRONG;
    }
    for (size_t i = 0; i < count; i++) {
        kv_buf_append(&results.results[i].value, kv_slice("", 1));
        out[i] = results.results[i].found ? atoi((const char *)results.results[i].value.data) : -1;
    }
    batch_results_free(&results);
    return FATE_DONE;
}

static void add_put(struct batch *batch, unsigned account, int before, int after)
{
    char key[32], old[16], new[16];
    account_name(account, key);
    batch_put(batch, key, balance_text(after, new), false, match_content(balance_text(before, old)));
}

static enum fate transfer(struct person *person, const unsigned accounts[2], const int before[2], int amount)
{
    struct batch batch = {0};
    char key[48];
    add_put(&batch, accounts[0], before[0], before[0] - amount);
    add_put(&batch, accounts[1], before[1], before[1] + amount);
    if (random_chance(&person->random, 333)) {
        snprintf(key, sizeof key, "bank/receipt/%u/%llu", person->index,
                 (unsigned long long)random_below(&person->random, 50));
        batch_put(&batch, key, kv_slice_text(key), true, (struct match){.kind = MATCH_NONE});
    }
    const struct response *response = batch_send(person->http, &batch);
    enum fate fate = fate_of(response);
    batch_free(&batch);
    if (fate == FATE_WRONG || (person->bank->no_errors && fate_is_error(fate)))
        fail(person, "transfer", response, 0);
    return fate;
}

/* ---- people --------------------------------------------------------------------------------------------------- */

static void note_error(struct person *person, enum fate fate)
{
    if (!fate_is_error(fate))
        return;
    atomic_fetch_add(&person->bank->errors, 1);
    sleep_ms(3);
}

static void tell(struct person *person)
{
    unsigned accounts[2] = {(unsigned)random_below(&person->random, ACCOUNTS), 0};
    int balances[2] = {0};
    accounts[1] = (accounts[0] + 1 + (unsigned)random_below(&person->random, ACCOUNTS - 1)) % ACCOUNTS;
    enum fate fate = read_balances(person, accounts, 2, balances);
    note_error(person, fate);
    if (fate != FATE_DONE || balances[0] <= 0)
        return;
    fate = transfer(person, accounts, balances, 1 + (int)random_below(&person->random, (uint64_t)balances[0]));
    note_error(person, fate);
    atomic_fetch_add(&person->bank->transfers, fate == FATE_DONE);
    atomic_fetch_add(&person->bank->collisions, fate == FATE_PRECONDITION);
}

static int sum_of(const int *balances)
{
    int sum = 0;
    for (unsigned i = 0; i < ACCOUNTS; i++)
        sum += balances[i] < 0 ? 1000000 : balances[i];
    return sum;
}

static void audit(struct person *person)
{
    unsigned accounts[ACCOUNTS];
    int balances[ACCOUNTS];
    for (unsigned i = 0; i < ACCOUNTS; i++)
        accounts[i] = (i + person->index) % ACCOUNTS; /* another order each */
    enum fate fate = read_balances(person, accounts, ACCOUNTS, balances);
    note_error(person, fate);
    if (fate != FATE_DONE)
        return;
    atomic_fetch_add(&person->bank->audits, 1);
    if (sum_of(balances) != TOTAL)
        fail(person, "an audit saw another total", &(struct response){0}, sum_of(balances));
}

static void *person_main(void *arg)
{
    struct person *person = arg;
    while (!atomic_load(&person->bank->stop)) {
        if (person->index < TELLERS)
            tell(person);
        else
            audit(person);
    }
    return NULL;
}

/* ---- the bank ------------------------------------------------------------------------------------------------- */

static void open_accounts(struct bank *bank)
{
    struct client *client = client_new(bank->server, HTTP_2);
    char target[33] = "/", space[16];
    unsigned shards = 0;
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        account_name(i, target + 1);
        CHECK(client_put(client, target, balance_text(START_BALANCE, space))->status == 201);
        shards |= 1u << kv_shard_of(kv_slice_text(target + 1), SHARDS);
    }
    CHECK(shards == (1u << SHARDS) - 1, "the accounts are not on all shards");
    client_free(&client);
}

static void expect_total(struct bank *bank)
{
    struct client *client = client_new(bank->server, HTTP_2);
    int sum = 0;
    for (unsigned i = 0; i < ACCOUNTS; i++) {
        char target[33] = "/", text[16];
        account_name(i, target + 1);
        const struct response *response = client_get(client, target);
        CHECK(response->status == 200, "%s: %ld", target, response->status);
        snprintf(text, sizeof text, "%.*s", (int)response->body.bytes, (const char *)response->body.data);
        sum += atoi(text);
    }
    CHECK(sum == TOTAL, "the accounts hold %d, not %d", sum, TOTAL);
    client_free(&client);
}

static void start_people(struct bank *bank, uint64_t seed)
{
    for (unsigned i = 0; i < PEOPLE; i++) {
        struct person *person = &bank->people[i];
        *person = (struct person){
            .bank = bank, .index = i, .random = {seed * 100 + i}, .http = client_new(bank->server, HTTP_2)};
        CHECK(pthread_create(&person->thread, NULL, person_main, person) == 0);
    }
}

static void stop_people(struct bank *bank)
{
    atomic_store(&bank->stop, true);
    for (unsigned i = 0; i < PEOPLE; i++)
        pthread_join(bank->people[i].thread, NULL);
    for (unsigned i = 0; i < PEOPLE; i++)
        client_free(&bank->people[i].http);
    CHECK(bank->failure[0] == '\0', "%s", bank->failure);
}

static void run_bank(unsigned prey, unsigned ms, uint64_t seed)
{
    struct bank *bank = kv_alloc_zero(1, sizeof *bank);
    struct killer killer;
    pthread_mutex_init(&bank->mutex, NULL);
    bank->no_errors = prey == 0 || prey == PREY_SHARDS;
    bank->server = server_start((struct server_opts){.shards = SHARDS, .settings = {"ROUTER_THREADS=2"}});
    killer_init(&killer, bank->server, prey, seed);
    open_accounts(bank);
    start_people(bank, seed);
    for (uint64_t until = kv_clock_ms() + ms; kv_clock_ms() < until && !atomic_load(&bank->stop);) {
        killer_sleep(&killer, (unsigned)random_between(&killer.random, 100, 400));
        if (prey != 0)
            killer_strike(&killer);
    }
    killer_heal(&killer);
    stop_people(bank);
    expect_total(bank);
    fprintf(stderr, "bank: seed %llu, %u kills, %u stops; %lu transfers, %lu collisions, %lu audits, %lu errors\n",
            (unsigned long long)seed, killer_kills(&killer), killer.stops, atomic_load(&bank->transfers),
            atomic_load(&bank->collisions), atomic_load(&bank->audits), atomic_load(&bank->errors));
    CHECK(atomic_load(&bank->transfers) >= 20 && atomic_load(&bank->audits) >= 20, "too little happened");
    CHECK(!bank->no_errors || atomic_load(&bank->errors) == 0, "errors without a reason");
    server_stop(bank->server);
    server_check_files(bank->server, SHARDS);
    server_spawn(bank->server);
    server_wait_ready(bank->server);
    expect_total(bank);
    free(bank);
}

Test(bank, total_never_changes)
{
    run_bank(0, 3000, 21);
}

Test(bank, total_never_changes_while_shards_die)
{
    run_bank(PREY_SHARDS, 5000, 22);
}

Test(bank, total_never_changes_while_the_router_dies)
{
    run_bank(PREY_ROUTER, 5000, 23);
}

Test(bank, total_never_changes_while_anything_dies)
{
    run_bank(PREY_EVERY, 8000, 24);
}
