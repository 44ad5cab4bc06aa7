/* router/condition.c -- see condition.h. */
#include "condition.h"

#include <time.h>

enum kv_err condition_date(struct kv_slice text, uint64_t *out_s)
{
    static const char *const forms[] = {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT",
                                        "%a %b %d %H:%M:%S %Y"};
    char copy[48];
    if (text.bytes == 0 || text.bytes >= sizeof(copy))
        return KV_INVALID;
    memcpy(copy, text.data, text.bytes);
    copy[text.bytes] = '\0';
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        struct tm tm = {0};
        const char *end = strptime(copy, forms[i], &tm);
        time_t seconds = end != NULL && *end == '\0' ? timegm(&tm) : -1;
        if (seconds >= 0) {
            *out_s = (uint64_t)seconds;
            return KV_OK;
        }
    }
    return KV_INVALID;
}

static bool read_date(struct exchange *exchange, const h2o_token_t *token, uint64_t *out_s)
{
    return condition_date(http_header(exchange, token, NULL), out_s) == KV_OK;
}

static enum kv_err read_tags(struct exchange *exchange, const h2o_token_t *token, struct etag_list *out)
{
    size_t count;
    struct kv_slice value = http_header(exchange, token, &count);
    return count > 0 ? etag_list_parse(value, out) : KV_OK;
}

enum kv_err condition_read(struct exchange *exchange, struct condition *out, const char **why)
{
    struct condition condition = {0};
    if (read_tags(exchange, H2O_TOKEN_IF_MATCH, &condition.if_match) != KV_OK) {
        *why = "If-Match is neither '*' nor a list of quoted entity tags.";
        return KV_INVALID;
    }
    if (read_tags(exchange, H2O_TOKEN_IF_NONE_MATCH, &condition.if_none_match) != KV_OK) {
        *why = "If-None-Match is neither '*' nor a list of quoted entity tags.";
        return KV_INVALID;
    }
    condition.has_modified_since = read_date(exchange, H2O_TOKEN_IF_MODIFIED_SINCE, &condition.modified_since_s);
    condition.has_unmodified_since = read_date(exchange, H2O_TOKEN_IF_UNMODIFIED_SINCE, &condition.unmodified_since_s);
    *out = condition;
    return KV_OK;
}

/* If-Match, or in its absence If-Unmodified-Since: RFC 9110, 13.2.2, steps 1 and 2. */
static bool allows_touching(const struct condition *condition, const struct kv_row *row)
{
    if (condition->if_match.present)
        return row != NULL && etag_list_matches(&condition->if_match, &row->hash, true);
    return !condition->has_unmodified_since || row == NULL || row->created_s <= condition->unmodified_since_s;
}

enum kv_err condition_check_read(const struct condition *condition, const struct kv_row *row)
{
    if (!allows_touching(condition, row))
        return KV_PRECONDITION;
    if (condition->if_none_match.present)
        return etag_list_matches(&condition->if_none_match, &row->hash, false) ? KV_END : KV_OK;
    return condition->has_modified_since && row->created_s <= condition->modified_since_s ? KV_END : KV_OK;
}

enum kv_err condition_plan_write(const struct condition *condition, struct backend_op *op)
{
    const struct etag_list *match = &condition->if_match;
    const struct etag_list *none = &condition->if_none_match;
    if ((match->present && none->present) || (none->present && !none->any) ||
        (!match->present && condition->has_unmodified_since))
        return KV_STALE;
    op->match = none->present                  ? BACKEND_MATCH_ABSENT
                : match->present && match->any ? BACKEND_MATCH_ANY
                : match->present               ? BACKEND_MATCH_HASH
                                               : BACKEND_MATCH_NONE;
    if (op->match != BACKEND_MATCH_HASH)
        return KV_OK;
    enum kv_err err = etag_list_only(match, &op->match_hash);
    return err == KV_NOT_FOUND ? KV_PRECONDITION : err == KV_TOO_LARGE ? KV_STALE : KV_OK;
}

enum kv_err condition_check_write(const struct condition *condition, const struct kv_row *row, struct backend_op *op)
{
    if (!allows_touching(condition, row))
        return KV_PRECONDITION;
    if (condition->if_none_match.present && row != NULL &&
        etag_list_matches(&condition->if_none_match, &row->hash, false))
        return KV_PRECONDITION;
    op->match = row == NULL ? BACKEND_MATCH_ABSENT : BACKEND_MATCH_HASH;
    if (row != NULL)
        op->match_hash = row->hash;
    return KV_OK;
}
