/* router/metrics_text.c -- see metrics_text.h. */
#include "metrics_text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "kv/log.h"

static void print(struct kv_buf *out, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void print(struct kv_buf *out, const char *format, ...)
{
    enum { LINE_BYTES_MAX = 1024 };
    va_list arguments;
    char *space = (char *)kv_buf_reserve(out, LINE_BYTES_MAX);
    va_start(arguments, format);
    int bytes = vsnprintf(space, LINE_BYTES_MAX, format, arguments);
    va_end(arguments);
    kv_assert(bytes >= 0 && bytes < LINE_BYTES_MAX);
    out->bytes += (size_t)bytes;
}

void metrics_family(struct kv_buf *out, const char *metric, enum metrics_kind kind, const char *help)
{
    static const char *const kinds[] = {[METRICS_KIND_COUNTER] = "counter",
                                        [METRICS_KIND_GAUGE] = "gauge",
                                        [METRICS_KIND_UNTYPED] = "untyped",
                                        [METRICS_KIND_HISTOGRAM] = "histogram"};
    print(out, "# HELP kv_storage_%s %s\n# TYPE kv_storage_%s %s\n", metric, help, metric, kinds[kind]);
}

static void print_number(struct kv_buf *out, uint64_t value, unsigned decimals)
{
    uint64_t unit = 1;
    for (unsigned i = 0; i < decimals; i++)
        unit *= 10;
    if (decimals == 0)
        print(out, "%" PRIu64, value);
    else
        print(out, "%" PRIu64 ".%0*" PRIu64, value / unit, (int)decimals, value % unit);
}

void metrics_sample(struct kv_buf *out, const char *metric, const char *labels, uint64_t value, unsigned decimals)
{
    print(out, *labels == '\0' ? "kv_storage_%s%s " : "kv_storage_%s{%s} ", metric, labels);
    print_number(out, value, decimals);
    print(out, "\n");
}

void metrics_single(struct kv_buf *out, const char *metric, enum metrics_kind kind, const char *help, uint64_t value)
{
    metrics_family(out, metric, kind, help);
    metrics_sample(out, metric, "", value, 0);
}

/* 50000 with 9 decimals is 0.00005: a bound has no zeros at its end. */
static void print_bound(struct kv_buf *out, uint64_t bound, unsigned decimals)
{
    print_number(out, bound, decimals);
    while (decimals > 0 && out->data[out->bytes - 1] == '0')
        out->bytes--;
    if (decimals > 0 && out->data[out->bytes - 1] == '.')
        out->bytes--;
}

void metrics_histogram(struct kv_buf *out, const char *metric, const char *labels,
                       const struct kv_histogram_shape *shape, unsigned decimals, const struct kv_histogram *histogram)
{
    char name[96];
    uint64_t count = 0;
    for (unsigned i = 0; i < shape->bound_count; i++) {
        count += histogram->buckets[i];
        print(out, "kv_storage_%s_bucket{%s,le=\"", metric, labels);
        print_bound(out, shape->bounds[i], decimals);
        print(out, "\"} %" PRIu64 "\n", count);
    }
    count += histogram->buckets[shape->bound_count];
    print(out, "kv_storage_%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", metric, labels, count);
    snprintf(name, sizeof(name), "%s_sum", metric);
    metrics_sample(out, name, labels, histogram->sum, decimals);
    snprintf(name, sizeof(name), "%s_count", metric);
    metrics_sample(out, name, labels, count, 0);
}
