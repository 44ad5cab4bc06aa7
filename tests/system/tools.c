/* tests/system/tools.c -- programs run to their end, temp folders, files, digests: see harness.h. */
#include "harness.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "environment.h"
#include "kv/clock.h"

#define TEMP_FOLDERS_MAX 64u

/* A test that fails leaves without freeing: its own leaks say nothing. The servers are other executables and are watched. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

static char temp_folders[TEMP_FOLDERS_MAX][64];
static size_t temp_folder_count;

/* ---- processes ------------------------------------------------------------------------------------------------ */

const char *bin_path(const char *name)
{
    static char path[512];
    const char *folder = getenv("KV_BIN");
    snprintf(path, sizeof path, "%s/%s", folder == NULL || *folder == '\0' ? KV_BIN_FOLDER : folder, name);
    return path;
}

char **environment_make(const char *const *settings)
{
    static const char *const kept[] = {"PATH",         "HOME",         "LD_LIBRARY_PATH",
                                       "ASAN_OPTIONS", "LSAN_OPTIONS", "UBSAN_OPTIONS",
                                       "TSAN_OPTIONS", "GCOV_PREFIX",  "KV_BIN"};
    char **env = kv_alloc_zero(sizeof kept / sizeof *kept + SETTINGS_MAX + 8, sizeof *env);
    size_t count = 0;
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        const char *value = getenv(kept[i]);
        if (value != NULL && asprintf(&env[count], "%s=%s", kept[i], value) > 0)
            count++;
    }
    for (size_t i = 0; settings[i] != NULL; i++)
        env[count++] = strdup(settings[i]);
    return env;
}

static const char *program_path(const char *name)
{
    return strchr(name, '/') == NULL && access(bin_path(name), X_OK) == 0 ? bin_path(name) : name;
}

static _Noreturn void exec_tool(const char *const *argv, const struct run_opts *opts, int out, int err)
{
    char **env = environment_make((const char *const[]){NULL});
    size_t count = 0;
    while (env[count] != NULL)
        count++;
    for (size_t i = 0; i < SETTINGS_MAX && opts->env[i] != NULL; i++)
        env[count++] = strdup(opts->env[i]);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    setpgid(0, 0);
    bool ready = opts->folder == NULL || chdir(opts->folder) == 0;
    if (ready && opts->uid != 0)
        ready = setgroups(0, NULL) == 0 && setgid(opts->uid) == 0 && setuid(opts->uid) == 0;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* behind setuid, which clears it */
    if (ready)
        execvpe(program_path(argv[0]), (char *const *)argv, env);
    fprintf(stderr, "harness: cannot execute %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

static int wait_for(pid_t pid, unsigned wait_ms)
{
    uint64_t until = kv_clock_ms() + wait_ms;
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) != pid) {
        if (kv_clock_ms() > until) {
            kill(-pid, SIGKILL);
            waitpid(pid, &status, 0);
            return -1;
        }
        sleep_ms(2);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static struct kv_buf read_all(int fd)
{
    struct kv_buf buf = {0};
    for (;;) {
        ssize_t got = pread(fd, kv_buf_reserve(&buf, 65536), 65536, (off_t)buf.bytes);
        if (got <= 0)
            return buf;
        buf.bytes += (size_t)got;
    }
}

struct outcome run(const char *const *argv, struct run_opts opts)
{
    struct outcome outcome = {0};
    int out = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    int err = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    CHECK(out >= 0 && err >= 0, "/tmp: %s", strerror(errno));
    pid_t pid = fork();
    CHECK(pid >= 0, "fork: %s", strerror(errno));
    if (pid == 0)
        exec_tool(argv, &opts, out, err);
    outcome.exit_code = wait_for(pid, opts.wait_ms == 0 ? 30000 : opts.wait_ms);
    outcome.out = read_all(out);
    outcome.err = read_all(err);
    close(out);
    close(err);
    return outcome;
}

void outcome_free(struct outcome *outcome)
{
    kv_buf_free(&outcome->out);
    kv_buf_free(&outcome->err);
}

unsigned free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, bytes) == 0, "%s", strerror(errno));
    CHECK(getsockname(fd, (struct sockaddr *)&address, &bytes) == 0);
    close(fd);
    return ntohs(address.sin_port);
}

void sleep_ms(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000}, NULL);
}

/* ---- files ---------------------------------------------------------------------------------------------------- */

const char *temp_folder(void)
{
    CHECK(temp_folder_count < TEMP_FOLDERS_MAX);
    char *path = temp_folders[temp_folder_count];
    snprintf(path, sizeof temp_folders[0], "/tmp/kv-system-XXXXXX");
    CHECK(mkdtemp(path) != NULL, "%s", strerror(errno));
    temp_folder_count++;
    return path;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
    (void)info;
    (void)type;
    (void)walk;
    return remove(path);
}

void remove_tree(const char *path)
{
    nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

void temp_folders_remove(void)
{
    while (temp_folder_count > 0)
        remove_tree(temp_folders[--temp_folder_count]);
}

struct kv_buf read_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        cr_assert_fail("%s: %s", path, strerror(errno));
    struct kv_buf buf = read_all(fd);
    close(fd);
    return buf;
}

/* ---- digests -------------------------------------------------------------------------------------------------- */

void hex_of(const uint8_t *bytes, size_t count, char *out)
{
    for (size_t i = 0; i < count; i++)
        sprintf(out + 2 * i, "%02x", bytes[i]);
}

void sha256_hex(struct kv_slice bytes, char out[65])
{
    uint8_t digest[32];
    EVP_Digest(bytes.bytes == 0 ? "" : (const void *)bytes.data, bytes.bytes, digest, NULL, EVP_sha256(), NULL);
    hex_of(digest, sizeof digest, out);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static void digest_folder(EVP_MD_CTX *digest, const char *folder)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, NULL, by_name);
    CHECK(count >= 0, "%s: %s", folder, strerror(errno));
    for (int i = 0; i < count; i++) {
        char path[1024], line[1200];
        struct stat info;
        bool dots = strcmp(entries[i]->d_name, ".") == 0 || strcmp(entries[i]->d_name, "..") == 0;
        snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name);
        free(entries[i]);
        if (dots)
            continue;
        CHECK(lstat(path, &info) == 0, "%s: %s", path, strerror(errno));
        snprintf(line, sizeof line, "%s %o %lld\n", path, info.st_mode,
                 S_ISREG(info.st_mode) ? (long long)info.st_size : 0);
        EVP_DigestUpdate(digest, line, strlen(line));
        if (S_ISDIR(info.st_mode))
            digest_folder(digest, path);
        if (!S_ISREG(info.st_mode))
            continue;
        struct kv_buf bytes = read_file(path);
        EVP_DigestUpdate(digest, bytes.data, bytes.bytes);
        kv_buf_free(&bytes);
    }
    free(entries);
}

void tree_digest(const char *folder, char out[65])
{
    uint8_t bytes[32];
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    EVP_DigestInit_ex(digest, EVP_sha256(), NULL);
    digest_folder(digest, folder);
    EVP_DigestFinal_ex(digest, bytes, NULL);
    EVP_MD_CTX_free(digest);
    hex_of(bytes, sizeof bytes, out);
}
