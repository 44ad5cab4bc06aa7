/* Goal: Prometheus takes the page of GET /metrics without a word, with every shard up and with one down.
 * Method: promtool check metrics (Debian package prometheus). Without it ctest shows this test as skipped. */
#include "harness.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void setup(void)
{
    http_defaults();
    http_start();
}

TestSuite(promtool, .init = setup, .fini = http_stop);

static struct answer ask(void)
{
    struct answer answer = http_get(H1, "/metrics", NULL);
    cr_assert_eq(answer.status, 200);
    return answer;
}

static void make_some_traffic(void)
{
    static const char *const paths[] = {"/nothing", "/keys", "/keys?limit=0", "/-/ready"};
    struct answer answer = http_put(H2, "/a", kv_slice_text("12345"), NULL);
    answer_free(&answer);
    for (size_t i = 0; i < 4; i++) {
        answer = http_get(H1, paths[i], NULL);
        answer_free(&answer);
    }
}

/* What promtool says to the page, and its exit code (127: it is not there). */
static int promtool(const struct answer *page, char *said, size_t said_bytes)
{
    char path[] = "/tmp/kv-metrics-XXXXXX", command[128];
    int fd = mkstemp(path);
    cr_assert(fd >= 0 && write(fd, page->body.data, page->body.bytes) == (ssize_t)page->body.bytes);
    close(fd);
    snprintf(command, sizeof(command), "promtool check metrics <%s 2>&1", path);
    FILE *pipe = popen(command, "r");
    cr_assert_not_null(pipe);
    size_t bytes = fread(said, 1, said_bytes - 1, pipe);
    said[bytes] = '\0';
    int status = pclose(pipe);
    unlink(path);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

Test(promtool, has_nothing_to_say)
{
    char said[4096];
    make_some_traffic();
    for (int down = -1; down < 1; down++) {
        fake_shard_down(down);
        struct answer page = ask();
        int code = promtool(&page, said, sizeof(said));
        answer_free(&page);
        fake_shard_down(-1);
        if (code == 127) {
            fprintf(stderr, "SKIPPED: promtool is not installed (Debian package prometheus)\n");
            return;
        }
        cr_expect_eq(code, 0, "promtool: %d", code);
        cr_expect_str_eq(said, "", "promtool says: %s", said);
    }
}
