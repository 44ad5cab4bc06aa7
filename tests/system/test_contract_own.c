/* Goal: every sentence of the HTTP contract that one request can show: tokens, errors, the names that are the server's own.
 * Method: a table of requests and what must come back, in order, against the real processes over every transport: contract.h.
 * Elsewhere: walks of /keys system/test_walk.c, /metrics http/test_http_metrics.c. */
#include "contract.h"

TestSuite(contract_own, .fini = harness_close, .timeout = 600);

static const struct row table[] = {
    /* ---- authentication */
    {"every request needs a token", "GET", "/{}/a", .no_token = true, .status = 401,
     .came = {"www-authenticate: Bearer realm=\"kv-storage\"", ERROR_TEXT}},
    {"on any path", "GET", "/", .no_token = true, .status = 401, .came = {"www-authenticate:"}},
    {"before the key is looked at", "GET", "/%zz", .no_token = true, .status = 401},
    {"before the method is looked at", "PUT", "/keys", .no_token = true, .body = "x", .status = 401},
    {"unknown methods too", "PATCH", "/{}/a", .no_token = true, .status = 401},
    {"listing", "GET", "/keys", .no_token = true, .status = 401},
    {"batch", "POST", "/batch", .no_token = true, .body = "[]", .status = 401},
    {"metrics", "GET", "/metrics", .no_token = true, .status = 401},
    {"the server's own", "GET", "/-/else", .no_token = true, .status = 401},
    {"only GET of the two is free", "PUT", "/-/healthy", .no_token = true, .body = "x", .status = 401},
    {"another scheme", "GET", "/{}/a", .sent = {"Authorization: Basic " TOKEN}, .status = 401},
    {"another token", "GET", "/{}/a", .sent = {"Authorization: Bearer " TOKEN "x"}, .status = 401},
    {"a part of the token", "GET", "/{}/a", .sent = {"Authorization: Bearer correct"}, .status = 401},
    {"an empty token", "GET", "/{}/a", .sent = {"Authorization: Bearer"}, .status = 401},
    {"the scheme's name in any case", "GET", "/{}/a", .sent = {"Authorization: bEARER " TOKEN}, .status = 404},
    {"JSON errors by Accept", "GET", "/{}/a", .sent = {JSON}, .no_token = true, .status = 401,
     .came = {ERROR_JSON("unauthorized")}},
    {"nothing was stored by a refused PUT", "PUT", "/{}/a", .no_token = true, .body = "x", .status = 401},
    {"see above", "GET", "/{}/a", .status = 404},

    /* ---- errors */
    {"no such key", "GET", "/{}/a", .status = 404, .came = {ERROR_TEXT, "x-request-id:"}},
    {"no such key, JSON", "GET", "/{}/a", .sent = {JSON}, .status = 404, .came = {ERROR_JSON("not_found")}},
    {"HEAD of none", "HEAD", "/{}/a", .status = 404, .answer = ""},
    {"no such path", "GET", "/", .status = 404},
    {"no such path", "PUT", "/", .body = "x", .status = 404},
    {"no such path", "DELETE", "/", .status = 404},
    {"the server's own, unknown", "GET", "/-/else", .sent = {JSON}, .status = 404, .came = {ERROR_JSON("not_found")}},
    {"a method that a key does not have", "PATCH", "/{}/a", .body = "x", .sent = {JSON}, .status = 405,
     .came = {"allow: GET, HEAD, PUT, DELETE", ERROR_JSON("method_not_allowed")}},
    {"POST", "POST", "/{}/a", .body = "x", .status = 405, .came = {"allow: GET, HEAD, PUT, DELETE"}},
    {"OPTIONS", "OPTIONS", "/{}/a", .status = 405, .came = {"allow: GET, HEAD, PUT, DELETE"}},
    {"the request id comes back", "GET", "/{}/a", .sent = {"X-Request-Id: my-7"}, .status = 404,
     .came = {"x-request-id: my-7"}},

    /* ---- reserved names, in every method */
    {"keys", "PUT", "/keys", .body = "x", .status = 405, .came = {"allow: GET, HEAD", "~the server's own"}},
    {"keys", "DELETE", "/keys", .status = 405, .came = {"allow: GET, HEAD"}},
    {"keys", "POST", "/keys", .body = "x", .status = 405, .came = {"allow: GET, HEAD"}},
    {"batch", "GET", "/batch", .status = 405, .came = {"allow: POST"}},
    {"batch", "PUT", "/batch", .body = "x", .status = 405, .came = {"allow: POST"}},
    {"batch", "DELETE", "/batch", .status = 405, .came = {"allow: POST"}},
    {"metrics", "PUT", "/metrics", .body = "x", .status = 405, .came = {"allow: GET, HEAD"}},
    {"metrics", "PATCH", "/metrics", .body = "x", .status = 405, .came = {"allow: GET, HEAD"}},
    {"/-/", "PUT", "/-/mine", .body = "x", .status = 405, .came = {"allow: GET, HEAD", "~the server's own"}},
    {"/-/", "DELETE", "/-/healthy", .status = 405, .came = {"allow: GET, HEAD"}},
    {"percent-encoding hides nothing", "PUT", "/%6Beys", .body = "x", .status = 405},
    {"only the whole name is reserved", "PUT", "/keys/{}", .body = "ours {}", .status = 201},
    {"only the whole name is reserved", "PUT", "/-{}", .body = "ours {}", .status = 201},

    /* ---- GET /keys */
    {"something to list", "PUT", "/{}/p", .body = "p {}", .status = 201},
    {"something to list", "PUT", "/{}/p2", .body = "p2 {}", .status = 201},
    {"something to list", "PUT", "/{}/a/x", .body = "a {}", .status = 201},
    {"something to list", "PUT", "/{}/s/y", .body = "s {}", .status = 201},
    {"something to list", "PUT", "/{}/%F0%9F%98%80%0A", .body = "emoji {}", .status = 201},
    {"a listing", "GET", "/keys?prefix={}/p", .status = 200,
     .came = {"content-type: application/json", "~{\"keys\":[{\"key\":\"{}/p\",", "~\"hash_algorithm\":\"sha256\"",
              "~\"refs\":1", "~\"content_type\":\"application/octet-stream\"", "~\"size\":"}},
    {"with prefix no total", "GET", "/keys?prefix={}/p", .status = 200, .came = {"!~\"total\"", "!~\"next\""}},
    {"total", "GET", "/keys?limit=1", .status = 200, .came = {"~\"total\":", "~\"next\":"}},
    {"next continues", "GET", "/keys?prefix={}/p&limit=1", .status = 200, .came = {"~\"next\":\"{}/p\"", "!~{}/p2"}},
    {"from there", "GET", "/keys?prefix={}/p&limit=1&after={}/p", .status = 200,
     .came = {"~\"key\":\"{}/p2\"", "!~\"next\""}},
    {"offset", "GET", "/keys?prefix={}/p&offset=1", .status = 200,
     .came = {"~\"key\":\"{}/p2\"", "!~\"key\":\"{}/p\""}},
    {"delimiter", "GET", "/keys?prefix={}/&delimiter=/", .status = 200,
     .came = {"~\"prefixes\":[", "~\"{}/a/\"", "~\"{}/s/\""}},
    {"something to list", "PUT", "/{}/w%20x", .body = "w {}", .status = 201},
    {"a space as curl --data-urlencode writes it", "GET", "/keys?prefix={}/w+x", .status = 200,
     .came = {"~\"key\":\"{}/w x\""}},
    {"escaped", "GET", "/keys?prefix={}/%F0%9F%98%80", .status = 200, .came = {"~\\n"}},
    {"HEAD", "HEAD", "/keys", .status = 200, .came = {"content-type: application/json"}, .answer = ""},
    {"limit=0", "GET", "/keys?limit=0", .sent = {JSON}, .status = 400, .came = {ERROR_JSON("invalid_request")}},
    {"limit=1001", "GET", "/keys?limit=1001", .status = 400},
    {"limit=x", "GET", "/keys?limit=x", .status = 400},
    {"offset=-1", "GET", "/keys?offset=-1", .status = 400},
    {"offset=x", "GET", "/keys?offset=x", .status = 400},
    {"limit beyond every number", "GET", "/keys?limit=99999999999999999999", .status = 400},
    {"nothing behind the last", "GET", "/keys?after=%F4%8F%BF%BF", .status = 200,
     .came = {"~{\"keys\":[]", "!~\"next\""}},
    {"a prefix that is not UTF-8", "GET", "/keys?prefix=%ff", .status = 400},
    {"% without digits", "GET", "/keys?prefix=%4", .status = 400},
    {"a delimiter of two characters", "GET", "/keys?delimiter=ab", .status = 400},

    /* ---- POST /batch */
    {"a batch", "POST", "/batch",
     .body = "[{\"op\":\"put\",\"key\":\"{}/b1\",\"value\":\"text\"},{\"op\":\"get\",\"key\":\"{}/"
             "b1\"},{\"op\":\"head\",\"key\":\"{}/b1\"},"
             "{\"op\":\"delete\",\"key\":\"{}/b1\"},{\"op\":\"get\",\"key\":\"{}/b1\"}]",
     .status = 200,
     .came = {"content-type: application/json", "~{\"results\":[{\"put\":{\"key\":\"{}/b1\",\"hash\":\"",
              "~\"created\":true}}", "~{\"get\":{\"key\":\"{}/b1\",\"value\":\"text\",\"found\":true}}",
              "~\"found\":true}},{\"delete\":{\"key\":\"{}/b1\",\"deleted\":true}}",
              "~{\"get\":{\"key\":\"{}/b1\",\"found\":false}}"}},
    {"base64", "POST", "/batch",
     .body = "[{\"op\":\"put\",\"key\":\"{}/b2\",\"value\":\"/w==\",\"encoding\":\"base64\",\"content_type\":\"image/"
             "png\"},"
             "{\"op\":\"get\",\"key\":\"{}/b2\"}]",
     .status = 200, .came = {"~\"value\":\"/w==\"", "~\"encoding\":\"base64\""}},
    {"it is there", "GET", "/{}/b2", .status = 200, .came = {"content-type: image/png"}, .answer = "\xff"},
    {"deleting what is not there", "POST", "/batch", .body = "[{\"op\":\"delete\",\"key\":\"{}/nil\"}]", .status = 200,
     .came = {"~\"deleted\":false"}},
    {"a failed precondition refuses all", "POST", "/batch",
     .body = "[{\"op\":\"put\",\"key\":\"{}/b3\",\"value\":\"x\"},{\"op\":\"put\",\"key\":\"{}/"
             "b2\",\"value\":\"x\",\"if_none_match\":\"*\"}]",
     .sent = {JSON}, .status = 412, .came = {ERROR_JSON("precondition_failed"), "~1"}},
    {"none took effect", "GET", "/{}/b3", .status = 404},
    {"malformed JSON", "POST", "/batch", .body = "[{", .sent = {JSON}, .status = 400,
     .came = {ERROR_JSON("invalid_json")}},
    {"an unknown op names its index", "POST", "/batch",
     .body = "[{\"op\":\"get\",\"key\":\"a\"},{\"op\":\"copy\",\"key\":\"a\"}]", .status = 400, .came = {"~1"}},
    {"a missing member", "POST", "/batch", .body = "[{\"op\":\"put\",\"key\":\"a\"}]", .status = 400},
    {"a bad key", "POST", "/batch", .body = "[{\"op\":\"get\",\"key\":\"\"}]", .status = 400},
    {"nothing is reserved in a batch", "POST", "/batch", .body = "[{\"op\":\"head\",\"key\":\"keys\"}]", .status = 200},
    {"a mistyped member", "POST", "/batch", .body = "[{\"op\":\"put\",\"key\":\"a\",\"value\":7}]", .status = 400,
     .came = {"~0"}},
    {"not an array", "POST", "/batch", .body = "{}x", .status = 400},
    {"no operation at all", "POST", "/batch", .body = "[]", .status = 200, .came = {"~{\"results\":[]}"}},
    {"base64 that is none", "POST", "/batch",
     .body = "[{\"op\":\"put\",\"key\":\"a\",\"value\":\"*\",\"encoding\":\"base64\"}]", .status = 400},
    {"if_match", "POST", "/batch",
     .body = "[{\"op\":\"put\",\"key\":\"{}/b2\",\"value\":\"new\",\"if_match\":\"*\"},"
             "{\"op\":\"delete\",\"key\":\"{}/b2\",\"if_match\":\"*\"}]",
     .status = 200, .came = {"~\"created\":false", "~\"deleted\":true"}},
    {"MessagePack", "POST", "/batch", .sent = {"Content-Type: application/msgpack"},
     .body = "\x92\x83\xa2op\xa3put\xa3key\xa6{}/mp\xa5value\xa3\xe2\x82\xac\x82\xa2op\xa3get\xa3key\xa6{}/mp",
     .status = 200, .came = {"content-type: application/msgpack", "~\xa7results\x92\x81\xa3put", "~\xa5value"}},
    {"its value is there", "GET", "/{}/mp", .status = 200, .answer = "\xe2\x82\xac"},
    {"malformed MessagePack", "POST", "/batch", .sent = {"Content-Type: application/msgpack"}, .body = "\x92\x83",
     .status = 400},

    {"above MAX_BATCH_BYTES", "POST", "/batch", .body = " ", .body_bytes = CONTRACT_BATCH_BYTES_MAX + 1, .sent = {JSON},
     .status = 413, .came = {ERROR_JSON("too_large")}},

    /* ---- metrics and status */
    {"Prometheus", "GET", "/metrics", .status = 200,
     .came = {"content-type: text/plain; version=0.0.4; charset=utf-8", "~kv_storage_keys_total ",
              "~kv_storage_objects_total ", "~kv_storage_bytes_total ", "~kv_storage_ops_total{operation=\"put\"}",
              "~kv_storage_dedup_hits_total ", "~shard=\"1\""}},
    {"HEAD", "HEAD", "/metrics", .status = 200, .answer = ""},
    {"healthy, without a token", "GET", "/-/healthy", .no_token = true, .status = 200},
    {"ready, without a token", "GET", "/-/ready", .no_token = true, .status = 200},
    {"with one", "GET", "/-/ready", .status = 200},
    {"HEAD", "HEAD", "/-/healthy", .no_token = true, .status = 200, .answer = ""},
    {"HEAD", "HEAD", "/-/ready", .no_token = true, .status = 200, .answer = ""},
};

Test(contract_own, every_row_over_every_transport)
{
    contract_check(table, sizeof table / sizeof *table);
}
