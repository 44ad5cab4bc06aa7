/* tests/tsan/criterion/criterion.h -- Criterion's words for the thread sanitizer (preset tsan only).
 * The real library cannot run there: its sandbox wants memory at addresses that the sanitizer keeps for itself. Here
 * each test is a forked process, tests run one after the other, and the macros are those that our tests use; one that
 * is missing does not compile. One test file makes one executable, so the runner may live in this header.
 * Limits: a test has .timeout seconds, TEST_WAIT_S without one. */
#ifndef KV_TSAN_CRITERION_H
#define KV_TSAN_CRITERION_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEST_WAIT_S 600.0

struct test_options {
    void (*init)(void);
    void (*fini)(void);
    double timeout;
    int signal;
    int exit_code;
};

struct test_entry {
    const char *suite;
    const char *name; /* NULL: the options of the suite */
    struct test_options options;
    void (*run)(void);
    struct test_entry *next;
};

static struct test_entry *test_entries;
static int test_failures;

#define TEST_REGISTER(entry)                                                                                           \
    __attribute__((constructor)) static void entry##_register(void)                                                    \
    {                                                                                                                  \
        entry.next = test_entries;                                                                                     \
        test_entries = &entry;                                                                                         \
    }
#define TestSuite(suite_name, ...)                                                                                     \
    static struct test_entry suite_##suite_name = {.suite = #suite_name, .options = {__VA_ARGS__}};                    \
    TEST_REGISTER(suite_##suite_name)
#define Test(suite_name, test_name, ...)                                                                               \
    static void test_##suite_name##_##test_name(void);                                                                 \
    static struct test_entry entry_##suite_name##_##test_name = {                                                      \
        .suite = #suite_name, .name = #test_name, .options = {__VA_ARGS__}, .run = test_##suite_name##_##test_name};   \
    TEST_REGISTER(entry_##suite_name##_##test_name)                                                                    \
    static void test_##suite_name##_##test_name(void)

/* The words after the condition are a format and its arguments, or nothing. */
#define TEST_SAY(...) fprintf(stderr, " " __VA_ARGS__)
#define TEST_CHECK(condition, text, fatal, ...)                                                                        \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s", __FILE__, __LINE__, text);                                                    \
            TEST_SAY(__VA_ARGS__);                                                                                     \
            fputc('\n', stderr);                                                                                       \
            test_failures++;                                                                                           \
            if (fatal)                                                                                                 \
                _exit(1);                                                                                              \
        }                                                                                                              \
    } while (0)

#define cr_expect(a, ...) TEST_CHECK(a, #a, 0, __VA_ARGS__)
#define cr_assert(a, ...) TEST_CHECK(a, #a, 1, __VA_ARGS__)
#define cr_assert_fail(...) TEST_CHECK(0, "failed", 1, __VA_ARGS__)
#define cr_expect_fail(...) TEST_CHECK(0, "failed", 0, __VA_ARGS__)
#define cr_expect_not(a, ...) TEST_CHECK(!(a), "not " #a, 0, __VA_ARGS__)
#define cr_assert_not(a, ...) TEST_CHECK(!(a), "not " #a, 1, __VA_ARGS__)
#define cr_expect_null(a, ...) TEST_CHECK((a) == NULL, #a " is NULL", 0, __VA_ARGS__)
#define cr_assert_null(a, ...) TEST_CHECK((a) == NULL, #a " is NULL", 1, __VA_ARGS__)
#define cr_expect_not_null(a, ...) TEST_CHECK((a) != NULL, #a " is not NULL", 0, __VA_ARGS__)
#define cr_assert_not_null(a, ...) TEST_CHECK((a) != NULL, #a " is not NULL", 1, __VA_ARGS__)
#define cr_expect_eq(a, b, ...) TEST_CHECK((a) == (b), #a " == " #b, 0, __VA_ARGS__)
#define cr_assert_eq(a, b, ...) TEST_CHECK((a) == (b), #a " == " #b, 1, __VA_ARGS__)
#define cr_expect_neq(a, b, ...) TEST_CHECK((a) != (b), #a " != " #b, 0, __VA_ARGS__)
#define cr_assert_neq(a, b, ...) TEST_CHECK((a) != (b), #a " != " #b, 1, __VA_ARGS__)
#define cr_expect_lt(a, b, ...) TEST_CHECK((a) < (b), #a " < " #b, 0, __VA_ARGS__)
#define cr_assert_lt(a, b, ...) TEST_CHECK((a) < (b), #a " < " #b, 1, __VA_ARGS__)
#define cr_expect_leq(a, b, ...) TEST_CHECK((a) <= (b), #a " <= " #b, 0, __VA_ARGS__)
#define cr_assert_leq(a, b, ...) TEST_CHECK((a) <= (b), #a " <= " #b, 1, __VA_ARGS__)
#define cr_expect_gt(a, b, ...) TEST_CHECK((a) > (b), #a " > " #b, 0, __VA_ARGS__)
#define cr_assert_gt(a, b, ...) TEST_CHECK((a) > (b), #a " > " #b, 1, __VA_ARGS__)
#define cr_expect_geq(a, b, ...) TEST_CHECK((a) >= (b), #a " >= " #b, 0, __VA_ARGS__)
#define cr_assert_geq(a, b, ...) TEST_CHECK((a) >= (b), #a " >= " #b, 1, __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...) TEST_CHECK(strcmp(a, b) == 0, #a " equals " #b, 0, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) TEST_CHECK(strcmp(a, b) == 0, #a " equals " #b, 1, __VA_ARGS__)
#define cr_expect_str_neq(a, b, ...) TEST_CHECK(strcmp(a, b) != 0, #a " differs from " #b, 0, __VA_ARGS__)
#define cr_expect_str_empty(a, ...) TEST_CHECK(*(a) == '\0', #a " is empty", 0, __VA_ARGS__)
#define cr_expect_arr_eq(a, b, n, ...) TEST_CHECK(memcmp(a, b, n) == 0, #a " equals " #b, 0, __VA_ARGS__)
#define cr_assert_arr_eq(a, b, n, ...) TEST_CHECK(memcmp(a, b, n) == 0, #a " equals " #b, 1, __VA_ARGS__)

static void test_call(void (*function)(void))
{
    if (function != NULL)
        function();
}

/* The suite's options, unless the test has its own. */
static struct test_options test_options_of(const struct test_entry *test)
{
    struct test_options options = test->options, suite = {0};
    for (const struct test_entry *entry = test_entries; entry != NULL; entry = entry->next)
        if (entry->name == NULL && strcmp(entry->suite, test->suite) == 0)
            suite = entry->options;
    options.init = options.init != NULL ? options.init : suite.init;
    options.fini = options.fini != NULL ? options.fini : suite.fini;
    options.timeout = options.timeout > 0 ? options.timeout : suite.timeout;
    return options;
}

static bool test_run_one(const struct test_entry *test)
{
    struct test_options options = test_options_of(test);
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        alarm((unsigned)(options.timeout > 0 ? options.timeout : TEST_WAIT_S));
        test_call(options.init);
        test->run();
        test_call(options.fini);
        exit(test_failures == 0 ? 0 : 1); /* the sanitizer's own exit code is 66 */
    }
    waitpid(pid, &status, 0);
    bool passed = options.signal != 0 ? WIFSIGNALED(status) && WTERMSIG(status) == options.signal
                                      : WIFEXITED(status) && WEXITSTATUS(status) == options.exit_code;
    if (!passed)
        fprintf(stderr, "[FAIL] %s::%s, wait status %#x\n", test->suite, test->name, (unsigned)status);
    return passed;
}

int main(void)
{
    int passing = 0, failing = 0;
    for (const struct test_entry *test = test_entries; test != NULL; test = test->next)
        if (test->name != NULL)
            *(test_run_one(test) ? &passing : &failing) += 1;
    fprintf(stderr, "Tested: %d | Passing: %d | Failing: %d\n", passing + failing, passing, failing);
    return failing == 0 && passing > 0 ? 0 : 1;
}

#endif
