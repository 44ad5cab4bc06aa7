/* router/list.c -- see list.h. */
#include "list.h"

#include <strings.h>

struct kv_slice list_trim(struct kv_slice text)
{
    while (text.bytes > 0 && (text.data[0] == ' ' || text.data[0] == '\t'))
        text = kv_slice(text.data + 1, text.bytes - 1);
    while (text.bytes > 0 && (text.data[text.bytes - 1] == ' ' || text.data[text.bytes - 1] == '\t'))
        text.bytes--;
    return text;
}

bool list_next(struct kv_slice *rest, char separator, struct kv_slice *out)
{
    if (rest->bytes == 0)
        return false;
    bool quoted = false;
    size_t end = 0;
    for (; end < rest->bytes && (quoted || rest->data[end] != (uint8_t)separator); end++) {
        if (rest->data[end] == '"')
            quoted = !quoted;
        else if (quoted && rest->data[end] == '\\' && end + 1 < rest->bytes)
            end++;
    }
    *out = list_trim(kv_slice(rest->data, end));
    size_t used = end < rest->bytes ? end + 1 : end;
    *rest = kv_slice(rest->data + used, rest->bytes - used);
    return true;
}

bool list_is(struct kv_slice text, const char *word)
{
    size_t bytes = strlen(word);
    return text.bytes == bytes && (bytes == 0 || strncasecmp((const char *)text.data, word, bytes) == 0);
}
