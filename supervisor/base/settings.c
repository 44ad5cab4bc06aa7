/* supervisor/base/settings.c -- the settings table of include/kv/settings.h as data, and its text form.
 * Does:     one row of kv_settings_rows per setting, one small parser per kind, NAME=value lines out and back in.
 * Promises: what kv_settings_write wrote reads back equal; a refused value changes nothing; a sentence about a
 *           secret never repeats it; strings are wiped before they are freed.
 * Limits:   TEXT_BYTES_MAX per text, so that the lines of all settings stay below child.c's SETTINGS_BYTES_MAX.
 * Tests:    unit/base/test_settings.c. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv/log.h"
#include "kv/settings.h"

#define TEXT_BYTES_MAX 4096u /* PATH_MAX, and the longest token */

const struct kv_setting kv_settings_rows[] = {
#define MEMBER(member) offsetof(struct kv_settings, member)
#define TEXT(member, name, standard, help) {KV_SETTING_TEXT, #name, help, MEMBER(member), standard, 0, 0, 0},
#define NUMBER(member, name, standard, min, max, help)                                                                 \
    {KV_SETTING_NUMBER, #name, help, MEMBER(member), "", standard, min, max},
#define SIZE(member, name, standard, min, max, help)                                                                   \
    {KV_SETTING_SIZE, #name, help, MEMBER(member), "", standard, min, max},
#define CHOICE(member, name, words, standard, help)                                                                    \
    {KV_SETTING_CHOICE, #name, help, MEMBER(member), words, standard, 0, 0},
    KV_SETTINGS_TABLE(TEXT, NUMBER, SIZE, CHOICE)
#undef TEXT
#undef NUMBER
#undef SIZE
#undef CHOICE
#undef MEMBER
        {.name = NULL},
};

static char **text_of(const struct kv_setting *row, struct kv_settings *settings)
{
    return (char **)(void *)((char *)settings + row->offset);
}

static uint64_t *number_of(const struct kv_setting *row, struct kv_settings *settings)
{
    return (uint64_t *)(void *)((char *)settings + row->offset);
}

static char *copy_text(const char *text)
{
    size_t bytes = strlen(text) + 1;
    return memcpy(kv_alloc(bytes), text, bytes);
}

static void wipe_text(char **text)
{
    if (*text != NULL)
        explicit_bzero(*text, strlen(*text));
    free(*text);
    *text = NULL;
}

void kv_settings_init(struct kv_settings *out)
{
    memset(out, 0, sizeof(*out));
    for (const struct kv_setting *row = kv_settings_rows; row->name != NULL; row++) {
        if (row->kind == KV_SETTING_TEXT)
            *text_of(row, out) = copy_text(row->text);
        else
            *number_of(row, out) = row->standard;
    }
}

void kv_settings_free(struct kv_settings *settings)
{
    for (const struct kv_setting *row = kv_settings_rows; row->name != NULL; row++)
        if (row->kind == KV_SETTING_TEXT)
            wipe_text(text_of(row, settings));
}

static const struct kv_setting *find_row(const char *name)
{
    for (const struct kv_setting *row = kv_settings_rows; row->name != NULL; row++)
        if (strcmp(row->name, name) == 0)
            return row;
    return NULL;
}

/* Digits only: no sign, no space, no hexadecimal. Returns what follows the digits, NULL when there are none. A number
 * that does not fit is UINT64_MAX, which every range excludes. */
static const char *parse_digits(const char *text, uint64_t *out)
{
    uint64_t number = 0;
    const char *end = text;
    for (; *end >= '0' && *end <= '9'; end++) {
        uint64_t digit = (uint64_t)(*end - '0');
        number = number > (UINT64_MAX - digit) / 10 ? UINT64_MAX : number * 10 + digit;
    }
    *out = number;
    return end == text ? NULL : end;
}

static uint64_t unit_of(char letter)
{
    switch (letter) {
    case 'k':
    case 'K':
        return KV_KIB;
    case 'm':
    case 'M':
        return KV_MIB;
    case 'g':
    case 'G':
        return KV_GIB;
    case 't':
    case 'T':
        return KV_TIB;
    default:
        return 0;
    }
}

void kv_settings_print_size(uint64_t bytes, char *out, size_t out_bytes)
{
    static const char units[] = " KMGT";
    size_t unit = 0;
    while (bytes != 0 && bytes % 1024 == 0 && unit < 4) {
        bytes /= 1024;
        unit++;
    }
    snprintf(out, out_bytes, unit == 0 ? "%" PRIu64 : "%" PRIu64 "%c", bytes, units[unit]);
}

static enum kv_err parse_number(const struct kv_setting *row, const char *value, uint64_t *out, char *why,
                                size_t why_bytes)
{
    uint64_t number;
    const char *end = parse_digits(value, &number);
    if (end == NULL || *end != '\0') {
        snprintf(why, why_bytes, "%s: \"%.64s\" is not a whole number", row->name, value);
        return KV_INVALID;
    }
    if (number < row->min || number > row->max) {
        snprintf(why, why_bytes, "%s: %.64s is not between %" PRIu64 " and %" PRIu64, row->name, value, row->min,
                 row->max);
        return KV_INVALID;
    }
    *out = number;
    return KV_OK;
}

static enum kv_err parse_size(const struct kv_setting *row, const char *value, uint64_t *out, char *why,
                              size_t why_bytes)
{
    uint64_t number;
    const char *end = parse_digits(value, &number);
    uint64_t unit = end == NULL ? 0 : *end == '\0' ? 1 : end[1] == '\0' ? unit_of(*end) : 0;
    if (unit == 0) {
        snprintf(why, why_bytes, "%s: \"%.64s\" is not a size (bytes, or with K, M, G or T behind)", row->name, value);
        return KV_INVALID;
    }
    if (number > UINT64_MAX / unit || number * unit < row->min || number * unit > row->max) {
        char min[32], max[32];
        kv_settings_print_size(row->min, min, sizeof(min));
        kv_settings_print_size(row->max, max, sizeof(max));
        snprintf(why, why_bytes, "%s: %.64s is not between %s and %s", row->name, value, min, max);
        return KV_INVALID;
    }
    *out = number * unit;
    return KV_OK;
}

static enum kv_err parse_choice(const struct kv_setting *row, const char *value, uint64_t *out, char *why,
                                size_t why_bytes)
{
    size_t bytes = strlen(value);
    uint64_t index = 0;
    for (const char *word = row->text;; index++) {
        size_t length = strcspn(word, "|");
        if (length == bytes && memcmp(word, value, bytes) == 0) {
            *out = index;
            return KV_OK;
        }
        if (word[length] == '\0')
            break;
        word += length + 1;
    }
    snprintf(why, why_bytes, "%s: \"%.64s\" is not one of %s", row->name, value, row->text);
    return KV_INVALID;
}

static enum kv_err set_text(const struct kv_setting *row, struct kv_settings *settings, const char *value, char *why,
                            size_t why_bytes)
{
    if (strlen(value) > TEXT_BYTES_MAX) {
        snprintf(why, why_bytes, "%s: longer than %u bytes", row->name, TEXT_BYTES_MAX);
        return KV_INVALID;
    }
    char *copy = copy_text(value); /* first: `value` may be the old text itself */
    wipe_text(text_of(row, settings));
    *text_of(row, settings) = copy;
    return KV_OK;
}

enum kv_err kv_settings_set(struct kv_settings *settings, const char *name, const char *value, char *why,
                            size_t why_bytes)
{
    const struct kv_setting *row = find_row(name);
    if (row == NULL) {
        snprintf(why, why_bytes, "%.64s: no such setting", name);
        return KV_NOT_FOUND;
    }
    switch (row->kind) {
    case KV_SETTING_TEXT:
        return set_text(row, settings, value, why, why_bytes);
    case KV_SETTING_NUMBER:
        return parse_number(row, value, number_of(row, settings), why, why_bytes);
    case KV_SETTING_SIZE:
        return parse_size(row, value, number_of(row, settings), why, why_bytes);
    case KV_SETTING_CHOICE:
        return parse_choice(row, value, number_of(row, settings), why, why_bytes);
    }
    return KV_INVALID;
}

struct kv_slice kv_setting_word(const struct kv_setting *row, uint64_t index)
{
    const char *word = row->text;
    for (; index > 0; index--) {
        word += strcspn(word, "|");
        kv_assert(*word == '|');
        word++;
    }
    return kv_slice(word, strcspn(word, "|"));
}

/* ---- lines ---------------------------------------------------------------------------------------------------- */

static void append_text(struct kv_buf *out, const char *text)
{
    kv_buf_append(out, kv_slice_text(text));
}

static void append_escaped(struct kv_buf *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\n')
            append_text(out, "\\n");
        else if (*text == '\\')
            append_text(out, "\\\\");
        else
            kv_buf_append(out, kv_slice(text, 1));
    }
}

/* Below what may be given: it was not, and a reader has the same default. */
static bool is_ungiven(const struct kv_setting *row, struct kv_settings *settings)
{
    return row->kind != KV_SETTING_TEXT && *number_of(row, settings) < row->min;
}

void kv_settings_write(const struct kv_settings *settings, struct kv_buf *out)
{
    struct kv_settings view = *settings; /* text_of and number_of serve writers too */
    for (const struct kv_setting *row = kv_settings_rows; row->name != NULL; row++) {
        if (is_ungiven(row, &view))
            continue;
        append_text(out, row->name);
        append_text(out, "=");
        if (row->kind == KV_SETTING_TEXT) {
            append_escaped(out, *text_of(row, &view));
        } else if (row->kind == KV_SETTING_CHOICE) {
            kv_buf_append(out, kv_setting_word(row, *number_of(row, &view))); /* read back with kv_settings_set */
        } else {
            char digits[24];
            snprintf(digits, sizeof(digits), "%" PRIu64, *number_of(row, &view));
            append_text(out, digits);
        }
        append_text(out, "\n");
    }
}

/* Undoes append_escaped in place; false when an escape is unknown or cut. */
static bool unescape(char *text)
{
    char *to = text;
    for (const char *from = text; *from != '\0'; from++) {
        char byte = *from;
        if (byte == '\\') {
            from++;
            if (*from != 'n' && *from != '\\')
                return false;
            byte = *from == 'n' ? '\n' : '\\';
        }
        *to++ = byte;
    }
    *to = '\0';
    return true;
}

/* `line` is NUL-terminated, without its line feed, and is changed. */
static enum kv_err read_line(char *line, struct kv_settings *settings)
{
    char why[256];
    char *equals = strchr(line, '=');
    if (equals == NULL || !unescape(equals + 1))
        return KV_INVALID;
    *equals = '\0';
    return kv_settings_set(settings, line, equals + 1, why, sizeof(why)) == KV_OK ? KV_OK : KV_INVALID;
}

static enum kv_err read_lines(char *text, size_t bytes, struct kv_settings *settings)
{
    char *end = text + bytes;
    while (text < end) {
        char *line_end = memchr(text, '\n', (size_t)(end - text));
        if (line_end == NULL || memchr(text, '\0', (size_t)(line_end - text)) != NULL)
            return KV_INVALID; /* cut, or bytes that a C string cannot hold */
        *line_end = '\0';
        if (read_line(text, settings) != KV_OK)
            return KV_INVALID;
        text = line_end + 1;
    }
    return KV_OK;
}

enum kv_err kv_settings_read(struct kv_slice lines, struct kv_settings *out)
{
    struct kv_settings settings;
    kv_settings_init(&settings);
    char *copy = (char *)kv_copy(lines);
    enum kv_err err = read_lines(copy, lines.bytes, &settings);
    explicit_bzero(copy, lines.bytes);
    free(copy);
    if (err == KV_OK)
        *out = settings;
    else
        kv_settings_free(&settings);
    return err;
}
