/* router/value_text.c -- see value_text.h. */
#include "value_text.h"

#include <string.h>
#include <time.h>

#include "kv/log.h"

static void put_two(char *out, int number)
{
    out[0] = (char)('0' + number / 10);
    out[1] = (char)('0' + number % 10);
}

/* Values written in the same second come one after the other: the text of the last one is kept per thread. */
static void write_date(uint64_t seconds, char out[VALUE_TEXT_DATE_BYTES])
{
    static const char form[] = "Thu, 01 Jan 1970 00:00:00 GMT", days[] = "SunMonTueWedThuFriSat",
                      months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static __thread uint64_t written_s = UINT64_MAX;
    static __thread char written[VALUE_TEXT_DATE_BYTES];
    time_t time = (time_t)seconds;
    struct tm tm;
    if (written_s != seconds && gmtime_r(&time, &tm) != NULL && tm.tm_year >= 0 && tm.tm_year < 9999 - 1900) {
        int year = tm.tm_year + 1900;
        memcpy(written, form, sizeof written);
        memcpy(written, days + (size_t)tm.tm_wday * 3, 3);
        put_two(written + 5, tm.tm_mday);
        memcpy(written + 8, months + (size_t)tm.tm_mon * 3, 3);
        put_two(written + 12, year / 100);
        put_two(written + 14, year % 100);
        put_two(written + 17, tm.tm_hour);
        put_two(written + 20, tm.tm_min);
        put_two(written + 23, tm.tm_sec);
        written_s = seconds;
    }
    memcpy(out, written_s == seconds ? written : form, sizeof written);
}

void value_text_write(const struct kv_row *row, uint64_t refs, struct value_text *out)
{
    out->tag[0] = out->tag[sizeof out->tag - 1] = '"';
    digest_hex(&row->hash, out->tag + 1);
    write_date(row->created_s, out->modified);
    out->created_bytes = (uint8_t)digits_write(row->created_s, out->created);
    out->refs_bytes = (uint8_t)digits_write(refs, out->refs);
}
