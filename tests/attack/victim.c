/* tests/attack/victim.c -- see victim.h. */
#include "victim.h"

#include <curl/curl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kv/buf.h"
#include "kv/clock.h"

enum { VALUE_BYTES = 1024, SAMPLES_MAX = 1 << 20, ANSWER_WAIT_MS = 60000 };

/* ---- the process -------------------------------------------------------------------------------------------------- */

static bool is_router(pid_t pid)
{
    char path[64], name[32] = "";
    snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
    FILE *file = fopen(path, "re");
    bool is = file != NULL && fgets(name, sizeof(name), file) != NULL && strcmp(name, "kv-router\n") == 0;
    if (file != NULL)
        fclose(file);
    return is;
}

void victim_look(struct victim *victim)
{
    char path[64];
    pid_t found = 0;
    int pid;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)victim->supervisor, (int)victim->supervisor);
    FILE *file = fopen(path, "re");
    while (file != NULL && fscanf(file, "%d", &pid) == 1)
        if (is_router(pid))
            found = pid;
    if (file != NULL)
        fclose(file);
    if (found == 0 || found == victim->router)
        return;
    victim->deaths += victim->router != 0;
    victim->router = found;
}

void victim_memory_reset(const struct victim *victim)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/clear_refs", (int)victim->router);
    FILE *file = fopen(path, "we");
    if (file == NULL || fputs("5", file) < 0 || fclose(file) != 0)
        fprintf(stderr, "%s: the peak of memory is that of the router's whole life\n", path);
}

unsigned long victim_memory_peak_mb(const struct victim *victim)
{
    char path[64], line[128];
    unsigned long kb = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)victim->router);
    FILE *file = fopen(path, "re");
    while (file != NULL && fgets(line, sizeof(line), file) != NULL && sscanf(line, "VmHWM: %lu kB", &kb) != 1)
        ;
    if (file != NULL)
        fclose(file);
    return kb / 1000;
}

/* The listening sockets', from which all others inherit it. */
bool victim_clip(const struct victim *victim, int send_bytes)
{
    int router = (int)syscall(SYS_pidfd_open, victim->router, 0);
    unsigned clipped = 0;
    for (unsigned number = 0; number < 64; number++) {
        int fd = (int)syscall(SYS_pidfd_getfd, router, number, 0), listens = 0;
        socklen_t bytes = sizeof(listens);
        if (fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes) == 0 && listens != 0)
            clipped += setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_bytes, sizeof(send_bytes)) == 0;
        close(fd);
    }
    close(router);
    return clipped > 0;
}

/* ---- one honest request ------------------------------------------------------------------------------------------- */

struct client {
    const struct victim *victim;
    unsigned index;
    pthread_t id;
    uint64_t until_ms;
    CURL *curl;
    struct curl_slist *headers;
    float *get_ms, *put_ms;
    size_t gets, puts;
    uint64_t failed;
    char first_failure[128];
};

static struct client clients[HONEST_CLIENTS];

static size_t on_bytes(char *data, size_t size, size_t count, void *arg)
{
    if (arg != NULL)
        kv_buf_append(arg, kv_slice(data, size * count));
    return size * count;
}

static void client_open(struct client *client, const struct victim *victim)
{
    client->victim = victim;
    client->curl = curl_easy_init();
    client->headers = curl_slist_append(NULL, "Authorization: Bearer " TOKEN);
    client->headers = curl_slist_append(client->headers, "Expect:");
    curl_easy_setopt(client->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(client->curl, CURLOPT_TIMEOUT_MS, (long)ANSWER_WAIT_MS);
    curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, client->headers);
    curl_easy_setopt(client->curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(client->curl, CURLOPT_HTTP_VERSION,
                     (long)(client->index % 2 == 0 ? CURL_HTTP_VERSION_1_1 : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE));
}

static void client_close(struct client *client)
{
    curl_easy_cleanup(client->curl);
    curl_slist_free_all(client->headers);
}

/* `body` without data: a GET. The status; 0: none, `why` says why. */
static long client_ask(struct client *client, const char *path, struct kv_slice body, struct kv_buf *answer,
                       const char **why)
{
    char url[256];
    long status = 0;
    CURL *curl = client->curl;
    snprintf(url, sizeof(url), "http://127.0.0.1:%u/%s", client->victim->port, path);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    if (body.data == NULL) {
        curl_easy_setopt(curl, CURLOPT_HTTPGET, 1L);
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, NULL);
    } else {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body.data);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.bytes);
        curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, "PUT");
    }
    CURLcode code = curl_easy_perform(curl);
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    *why = code == CURLE_OK ? "" : curl_easy_strerror(code);
    if (client->index % 2 == 1) /* libcurl 7.88 refuses to use a connection of prior knowledge again under that name */
        curl_easy_setopt(curl, CURLOPT_HTTP_VERSION,
                         (long)(code == CURLE_OK ? CURL_HTTP_VERSION_2_0 : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE));
    return code == CURLE_OK ? status : 0;
}

static void fill(uint8_t *content, size_t bytes, uint64_t seed)
{
    for (size_t i = 0; i < bytes; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        content[i] = (uint8_t)(seed >> 56);
    }
}

bool honest_store(const struct victim *victim, const char *key, size_t bytes)
{
    struct client client = {0};
    const char *why;
    uint8_t *content = kv_alloc(bytes + 1);
    fill(content, bytes, bytes);
    client_open(&client, victim);
    long status = client_ask(&client, key, kv_slice(content, bytes), NULL, &why);
    if (status != 200 && status != 201)
        fprintf(stderr, "kv-attack: PUT /%s: %ld %s\n", key, status, why);
    client_close(&client);
    free(content);
    return status == 200 || status == 201;
}

uint64_t victim_counter(const struct victim *victim, const char *name)
{
    struct client client = {0};
    struct kv_buf page = {0};
    const char *why;
    uint64_t value = 0;
    client_open(&client, victim);
    client_ask(&client, "metrics", kv_slice(NULL, 0), &page, &why);
    *kv_buf_reserve(&page, 1) = '\0';
    for (const char *at = strstr((char *)page.data, name); at != NULL; at = strstr(at + 1, name))
        if (at[-1] == '\n' && at[strlen(name)] == ' ')
            value = strtoull(at + strlen(name), NULL, 10);
    client_close(&client);
    kv_buf_free(&page);
    return value;
}

/* ---- honest clients ----------------------------------------------------------------------------------------------- */

static void act(struct client *client, uint64_t number, uint64_t due_ns)
{
    char key[64];
    uint8_t content[VALUE_BYTES];
    const char *why;
    bool puts = number % 2 == 0;
    snprintf(key, sizeof(key), "honest-%u-%lu", client->index, number / 2 % 100);
    fill(content, sizeof(content), number << 8 | client->index);
    long status = client_ask(client, key, kv_slice(puts ? content : NULL, sizeof(content)), NULL, &why);
    float took_ms = (float)(kv_clock_ns() - due_ns) / 1e6f;
    bool good = status == 200 || (puts && status == 201);
    if (puts && client->puts < SAMPLES_MAX)
        client->put_ms[client->puts++] = took_ms;
    else if (!puts && client->gets < SAMPLES_MAX)
        client->get_ms[client->gets++] = took_ms;
    if (!good && client->failed++ == 0)
        snprintf(client->first_failure, sizeof(client->first_failure), "%s: %ld %s", puts ? "PUT" : "GET", status, why);
}

static void *client_main(void *arg)
{
    struct client *client = arg;
    uint64_t due_ns = kv_clock_ns() + client->index * 1000000u;
    for (uint64_t number = 0; kv_clock_ms() < client->until_ms; number++, due_ns += HONEST_EVERY_MS * 1000000u) {
        uint64_t now_ns = kv_clock_ns();
        if (due_ns > now_ns)
            usleep((useconds_t)((due_ns - now_ns) / 1000));
        act(client, number, due_ns);
    }
    return NULL;
}

void honest_start(const struct victim *victim, uint64_t until_ms)
{
    for (unsigned i = 0; i < HONEST_CLIENTS; i++) {
        struct client *client = &clients[i];
        *client = (struct client){.index = i, .until_ms = until_ms};
        client->get_ms = kv_alloc(SAMPLES_MAX * sizeof(float));
        client->put_ms = kv_alloc(SAMPLES_MAX * sizeof(float));
        client_open(client, victim);
        pthread_create(&client->id, NULL, client_main, client);
    }
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Of all clients together. */
static void quantiles(bool puts, double *p50, double *p99, double *max)
{
    size_t count = 0;
    float *all = kv_alloc(HONEST_CLIENTS * SAMPLES_MAX * sizeof(float));
    for (unsigned i = 0; i < HONEST_CLIENTS; i++) {
        size_t more = puts ? clients[i].puts : clients[i].gets;
        memcpy(all + count, puts ? clients[i].put_ms : clients[i].get_ms, more * sizeof(float));
        count += more;
    }
    qsort(all, count, sizeof(float), by_size);
    *p50 = count == 0 ? 0 : (double)all[count / 2];
    *p99 = count == 0 ? 0 : (double)all[count * 99 / 100];
    if (count > 0 && (double)all[count - 1] > *max)
        *max = (double)all[count - 1];
    free(all);
}

struct honest_report honest_wait(void)
{
    struct honest_report report = {0};
    for (unsigned i = 0; i < HONEST_CLIENTS; i++)
        pthread_join(clients[i].id, NULL);
    quantiles(false, &report.get_p50_ms, &report.get_p99_ms, &report.max_ms);
    quantiles(true, &report.put_p50_ms, &report.put_p99_ms, &report.max_ms);
    for (unsigned i = 0; i < HONEST_CLIENTS; i++) {
        report.requests += clients[i].gets + clients[i].puts;
        report.failed += clients[i].failed;
        if (clients[i].failed > 0)
            memcpy(report.first_failure, clients[i].first_failure, sizeof(report.first_failure));
        client_close(&clients[i]);
        free(clients[i].get_ms);
        free(clients[i].put_ms);
    }
    return report;
}
