/* Goal: `kv-storage health` says ready only for a 200. Method: a forked twin of the router that gives one canned answer. */
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <stdio.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "address.h"
#include "health.h"

static struct why why;

static enum kv_err listen_somewhere(int *fd, struct kv_settings *settings)
{
    struct address address = {.host = "127.0.0.1", .port = "0"};
    char shown[64], everywhere[80];
    enum kv_err err = address_listen("X", &address, fd, &why);
    address_of_socket(*fd, shown, sizeof(shown));
    snprintf(everywhere, sizeof(everywhere), "0.0.0.0%s", strchr(shown, ':'));
    kv_settings_init(settings);
    kv_settings_set(settings, "BIND_ADDR", everywhere, why.text, sizeof(why.text));
    return err;
}

/* Answers one connection with `answer`, after having read a request. */
static pid_t serve_once(int listening, const char *answer)
{
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    char request[1024] = "";
    int fd = -1;
    while ((fd = accept(listening, NULL, NULL)) < 0)
        usleep(1000);
    ssize_t got = read(fd, request, sizeof(request) - 1);
    bool good =
        got > 0 && strncmp(request, "GET /-/ready HTTP/1.1\r\n", 23) == 0 && strstr(request, "\r\n\r\n") != NULL;
    bool sent = write(fd, answer, strlen(answer)) == (ssize_t)strlen(answer);
    _exit(good && sent ? 0 : 1);
}

Test(health, only_200_is_ready, .timeout = 600)
{
    static const struct {
        const char *answer;
        enum kv_err err;
        const char *sentence;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", KV_OK, ""},
        {"HTTP/1.1 503 Service Unavailable\r\n\r\nError: shard 1 is down\n", KV_INVALID,
         "not ready: status 503 Error: shard 1 is down"},
        {"SSH-2.0-OpenSSH\r\n", KV_INVALID, "the answer is not HTTP/1.1"},
        {"", KV_INVALID, "no answer: the connection was closed"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct kv_settings settings;
        int listening, status = 0;
        cr_assert_eq(listen_somewhere(&listening, &settings), KV_OK, "%s", why.text);
        pid_t pid = serve_once(listening, cases[i].answer);
        why.text[0] = '\0';
        cr_expect_eq(health_check(&settings, &why), cases[i].err, "case %zu: %s", i, why.text);
        cr_expect_str_eq(why.text, cases[i].sentence);
        waitpid(pid, &status, 0);
        cr_expect_eq(status, 0, "case %zu: the request", i);
        close(listening);
        kv_settings_free(&settings);
    }
}

Test(health, nobody_listens)
{
    struct kv_settings settings;
    int listening;
    cr_assert_eq(listen_somewhere(&listening, &settings), KV_OK);
    close(listening);
    cr_expect_eq(health_check(&settings, &why), KV_INVALID);
    cr_expect_not_null(strstr(why.text, "does not answer: Connection refused"), "%s", why.text);
    kv_settings_free(&settings);
}

Test(health, without_plaintext_the_tls_port_must_accept)
{
    struct kv_settings settings;
    int listening;
    cr_assert_eq(listen_somewhere(&listening, &settings), KV_OK);
    kv_settings_set(&settings, "TLS_BIND_ADDR", settings.bind_addr, why.text, sizeof(why.text));
    kv_settings_set(&settings, "BIND_ADDR", "off", why.text, sizeof(why.text));
    cr_expect_eq(health_check(&settings, &why), KV_OK, "%s", why.text);
    close(listening);
    cr_expect_eq(health_check(&settings, &why), KV_INVALID);
    kv_settings_free(&settings);
}
