/* include/kv/files.h -- the files of the configuration that SIGHUP loads again: secrets, read by the supervisor, used by the router.
 * Does:     the supervisor reads them (before it drops root, and again on SIGHUP), seals their bytes into a memfd and sends its
 *           descriptor over a socket of pairs, KV_FD_ROUTER_FILES; the router, which opens no files, takes them from there.
 * Promises: a file is whole or the load fails; bytes are wiped before their memory is given back.
 * Limits:   KV_FILE_BYTES_MAX each.
 *           A token has 1 to KV_TOKEN_BYTES_MAX visible ASCII characters: what `Authorization: Bearer …` carries unambiguously.
 * Implementation: supervisor/base/files.c. Tests: unit/base/test_files.c, system/test_tokens.c. */
#ifndef KV_FILES_H
#define KV_FILES_H

#include "kv/buf.h"
#include "kv/err.h"

#define KV_FILE_BYTES_MAX 1048576u
#define KV_TOKEN_BYTES_MAX 4096u

/* FILE(member of struct kv_files and, with _file or as it is, of struct kv_settings; setting that names the path) */
#define KV_FILES_TABLE(FILE)                                                                                           \
    FILE(token, token_file, TOKEN_FILE)                                                                                \
    FILE(tokens, tokens_file, TOKENS_FILE)                                                                             \
    FILE(tls_cert, tls_cert, TLS_CERT)                                                                                 \
    FILE(tls_key, tls_key, TLS_KEY)                                                                                    \
    FILE(tls_client_ca, tls_client_ca, TLS_CLIENT_CA)

/* Zero-initialised is empty and valid. A file that is not configured has no bytes. */
struct kv_files {
#define FILE_MEMBER(member, setting, name) struct kv_buf member;
    KV_FILES_TABLE(FILE_MEMBER)
#undef FILE_MEMBER
};

struct kv_settings;

/* NULL, or what is wrong with a token, to follow the name of its variable. */
const char *kv_token_fault(struct kv_slice token);
/* The first line of the file `token`: the token itself. */
struct kv_slice kv_files_token(const struct kv_files *files);

/* Of the contents only the token is looked at, by kv_token_fault. KV_INVALID: one sentence that names the variable. */
enum kv_err kv_files_load(const struct kv_settings *settings, struct kv_files *out, char *why, size_t why_bytes);
void kv_files_free(struct kv_files *files);

/* A sealed memfd; -1 when the system has none to give (errno). */
int kv_files_seal(const struct kv_files *files);
/* Both: loads them and seals them into `*fd`. */
enum kv_err kv_files_open(const struct kv_settings *settings, int *fd, char *why, size_t why_bytes);
/* KV_INVALID: not what kv_files_seal wrote. */
enum kv_err kv_files_unseal(int fd, struct kv_files *out);

/* One message that carries the memfd; never waits. False: errno. */
bool kv_files_send(int socket_fd, int files_fd);
/* The files of the last message that has come. KV_NOT_FOUND: there is none; KV_INVALID: it holds something else. */
enum kv_err kv_files_receive(int socket_fd, struct kv_files *out);

#endif
