/* router/admit.c -- see admit.h. */
#include "admit.h"

#include <stdarg.h>
#include <stdio.h>

#include "answer.h"
#include "auth.h"
#include "h2o_guard.h"
#include "thread.h"

/* ---- 401 ---------------------------------------------------------------------------------------------------------- */

static void refuse(struct exchange *exchange)
{
    answer_error(exchange, 401, "unauthorized", "A valid token is needed: Authorization: Bearer <token>.");
}

static void on_delay_over(h2o_timeout_entry_t *entry)
{
    struct exchange *exchange = H2O_STRUCT_FROM_MEMBER(struct exchange, delayed, entry);
    exchange->thread->refusals_delayed--;
    refuse(exchange);
}

static void refuse_later(struct exchange *exchange)
{
    struct router_thread *thread = exchange->thread;
    struct guarded *guarded = h2o_guard_of(exchange->req);
    if (thread->refusals_delayed >= ADMIT_DELAYED_MAX && guarded != NULL) {
        h2o_guard_cut(guarded, METRICS_CUT_TOKENS);
        refuse(exchange); /* to nobody: libh2o sees the end of the connection after this */
        return;
    }
    metrics_add(thread->metrics, METRICS_REFUSALS_DELAYED, 1);
    thread->refusals_delayed++;
    exchange->delayed.cb = on_delay_over;
    h2o_timeout_link(thread->context.loop, &thread->context.one_sec_timeout, &exchange->delayed);
}

void admit_forget(struct exchange *exchange)
{
    if (!h2o_timeout_is_linked(&exchange->delayed))
        return;
    h2o_timeout_unlink(&exchange->delayed);
    exchange->thread->refusals_delayed--;
}

static void count_failure(struct exchange *exchange, enum auth_outcome outcome)
{
    static const enum metrics_auth_failure reasons[] = {
        [AUTH_MISSING] = METRICS_AUTH_MISSING,
        [AUTH_SCHEME] = METRICS_AUTH_SCHEME,
        [AUTH_UNKNOWN] = METRICS_AUTH_UNKNOWN,
    };
    metrics_auth_failure(exchange->thread->metrics, reasons[outcome]);
}

static enum auth_outcome check(struct exchange *exchange, struct kv_slice value, const struct grant **grant)
{
    struct guarded *guarded = exchange->req->version >= 0x200 ? h2o_guard_of(exchange->req) : NULL;
    struct tokens *tokens = exchange->thread->tokens;
    return guarded == NULL ? auth_check(tokens, value, grant) : auth_check_again(&guarded->seen, tokens, value, grant);
}

bool admit_authenticate(struct exchange *exchange, const struct route *route)
{
    const struct grant *grant = NULL;
    if (route->is_public && (route->methods & exchange->method) != 0)
        return true;
    struct kv_slice value = http_header(exchange, H2O_TOKEN_AUTHORIZATION, NULL);
    enum auth_outcome outcome = check(exchange, value, &grant);
    if (outcome == AUTH_GRANTED) {
        exchange->grant = *grant;
        if (grant->prefix.bytes > 0) /* another set of tokens may come while the request lives */
            exchange->grant.prefix = answer_copy(exchange, grant->prefix);
        return true;
    }
    count_failure(exchange, outcome);
    if (h2o_guard_may_fail(exchange->req))
        refuse(exchange);
    else
        refuse_later(exchange);
    return false;
}

/* ---- 403 ---------------------------------------------------------------------------------------------------------- */

void admit_forbid(struct exchange *exchange, const char *sentence, ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, sentence);
    vsnprintf(text, sizeof(text), sentence, arguments);
    va_end(arguments);
    metrics_auth_failure(exchange->thread->metrics, METRICS_AUTH_FORBIDDEN);
    answer_error(exchange, 403, "forbidden", "%s", text);
}

static const char *why_not(const struct grant *grant, const struct route *route, struct kv_slice key)
{
    return routes_is_value(route) ? grant_refuses(grant, route->rights, key) : grant_lacks(grant, route->rights);
}

bool admit_right(struct exchange *exchange, const struct route *route, struct kv_slice key)
{
    const char *why = why_not(&exchange->grant, route, key);
    if (why != NULL)
        admit_forbid(exchange, "Not allowed: %s.", why);
    return why == NULL;
}

bool admit_may_send(h2o_req_t *req, const struct route *route, struct kv_slice key)
{
    const struct router_thread *thread = H2O_STRUCT_FROM_MEMBER(struct router_thread, context, req->conn->ctx);
    const struct grant *grant = NULL;
    ssize_t at = h2o_find_header(&req->headers, H2O_TOKEN_AUTHORIZATION, -1);
    if (at < 0)
        return false;
    h2o_iovec_t value = req->headers.entries[at].value;
    return auth_check(thread->tokens, kv_slice(value.base, value.len), &grant) == AUTH_GRANTED &&
           why_not(grant, route, key) == NULL;
}
