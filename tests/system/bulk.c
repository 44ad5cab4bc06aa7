/* tests/system/bulk.c -- see bulk.h. */
#include "bulk.h"

#include <stdlib.h>

struct slot {
    struct exchange exchange;
    bool busy;
    size_t number; /* of the request under way */
};

static void start_next(const struct bulk *bulk, CURLM *multi, struct slot *slot, size_t number)
{
    struct request request = {.method = "GET"};
    slot->number = number;
    slot->busy = true;
    bulk->make(bulk->arg, number, &request);
    exchange_prepare(&slot->exchange, bulk->server, bulk->http, &request);
    curl_easy_setopt(slot->exchange.easy, CURLOPT_PRIVATE, slot);
    curl_easy_setopt(slot->exchange.easy, CURLOPT_PIPEWAIT, 1L); /* a stream of an open connection, not a new one */
    curl_multi_add_handle(multi, slot->exchange.easy);
}

/* Hands over finished exchanges; returns how many ended. Their slots are free again. */
static size_t collect(const struct bulk *bulk, CURLM *multi, struct slot **idle, size_t *idle_count)
{
    size_t ended = 0;
    int left;
    for (CURLMsg *message; (message = curl_multi_info_read(multi, &left)) != NULL;) {
        struct slot *slot = NULL;
        if (message->msg != CURLMSG_DONE)
            continue;
        CURLcode code = message->data.result; /* message dies with the handle's removal */
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&slot);
        exchange_finish(&slot->exchange, code);
        curl_multi_remove_handle(multi, slot->exchange.easy);
        slot->busy = false;
        bulk->done(bulk->arg, slot->number, &slot->exchange.response);
        idle[(*idle_count)++] = slot;
        ended++;
    }
    return ended;
}

static CURLMcode poll_or_nudge(const struct bulk *bulk, CURLM *multi, struct slot *slots)
{
    int active = 0;
    CURLMcode code = curl_multi_poll(multi, NULL, 0, EXCHANGE_NUDGE_MS, &active);
    for (size_t i = 0; i < bulk->in_flight && active == 0; i++) {
        if (slots[i].busy)
            exchange_nudge(&slots[i].exchange);
    }
    return code;
}

static CURLMcode run_all(const struct bulk *bulk, CURLM *multi, struct slot *slots, struct slot **idle,
                         size_t idle_count)
{
    size_t next = 0, ended = 0;
    bool connected = false;
    CURLMcode code = CURLM_OK;
    while (ended < bulk->count && code == CURLM_OK) {
        while (next < bulk->count && idle_count > 0 && (connected || next == 0)) {
            struct slot *slot = idle[--idle_count];
            slot->exchange.connected = connected;
            start_next(bulk, multi, slot, next++);
        }
        int running;
        code = curl_multi_perform(multi, &running);
        size_t now = collect(bulk, multi, idle, &idle_count);
        ended += now;
        connected |= now > 0;
        if (now == 0 && code == CURLM_OK)
            code = poll_or_nudge(bulk, multi, slots);
    }
    return code;
}

bool bulk_run(const struct bulk *bulk)
{
    size_t slot_count = bulk->in_flight;
    struct slot *slots = kv_alloc_zero(slot_count, sizeof *slots);
    struct slot **idle = kv_alloc(slot_count * sizeof(struct slot *));
    for (size_t i = 0; i < slot_count; i++) {
        exchange_init(&slots[i].exchange);
        idle[i] = &slots[i];
    }
    CURLM *multi = curl_multi_init();
    curl_multi_setopt(multi, CURLMOPT_MAX_TOTAL_CONNECTIONS, 1L);
    curl_multi_setopt(multi, CURLMOPT_MAX_CONCURRENT_STREAMS, 100L);
    CURLMcode code = run_all(bulk, multi, slots, idle, slot_count);
    for (size_t i = 0; i < slot_count; i++) {
        curl_multi_remove_handle(multi, slots[i].exchange.easy);
        exchange_free(&slots[i].exchange);
    }
    curl_multi_cleanup(multi);
    free(idle);
    free(slots);
    return code == CURLM_OK;
}
