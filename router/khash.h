/* router/khash.h -- stands in for klib's header, which Debian's libh2o-dev does not ship although h2o/http2_internal.h includes
 * it. We include that one for the layout of connections and streams; no table of klib's is ever touched from here. */
#ifndef KV_ROUTER_KHASH_H
#define KV_ROUTER_KHASH_H

typedef unsigned khint_t;
typedef khint_t khiter_t;
#define khash_t(name) struct kh_##name##_s
#define KHASH_MAP_INIT_INT64(name, type)                                                                               \
    struct kh_##name##_s {                                                                                             \
        type value;                                                                                                    \
    };
#define kh_get(name, table, key) ((void)(table), (khiter_t)(key)) /* for an inline function that nobody calls */
#define kh_end(table) ((void)(table), 0u)
#define kh_val(table, at) ((void)(at), (table)->value)

#endif
