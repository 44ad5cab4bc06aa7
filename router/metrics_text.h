/* router/metrics_text.h -- the lines of the text format 0.0.4 that Prometheus reads. Metrics are named without their kv_storage_.
 * Promises: numbers are exact: integers carry their decimals, nanoseconds become seconds without a rounding.
 * Tests:    unit/router/test_metrics.c, http/test_http_promtool.c. */
#ifndef KV_ROUTER_METRICS_TEXT_H
#define KV_ROUTER_METRICS_TEXT_H

#include "kv/buf.h"
#include "kv/histogram.h"

/* UNTYPED: by nature a gauge, but the contract's name ends in _total. */
enum metrics_kind { METRICS_KIND_COUNTER, METRICS_KIND_GAUGE, METRICS_KIND_UNTYPED, METRICS_KIND_HISTOGRAM };

/* HELP and TYPE, once before the samples of a metric. */
void metrics_family(struct kv_buf *out, const char *metric, enum metrics_kind kind, const char *help);
/* `labels` without braces, or empty; `decimals` of 9 turns nanoseconds into seconds. */
void metrics_sample(struct kv_buf *out, const char *metric, const char *labels, uint64_t value, unsigned decimals);
/* A family of one sample without labels. */
void metrics_single(struct kv_buf *out, const char *metric, enum metrics_kind kind, const char *help, uint64_t value);
/* The samples of a histogram; bounds and sum have `decimals`. */
void metrics_histogram(struct kv_buf *out, const char *metric, const char *labels,
                       const struct kv_histogram_shape *shape, unsigned decimals, const struct kv_histogram *histogram);

#endif
