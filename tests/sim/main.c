/* tests/sim/main.c -- kv-sim: runs the simulation from the command line.
 *   kv-sim                       20,000 runs on all cores, seeds 1, 2, 3 …
 *   --seed S                     the first seed; alone: that run only
 *   --runs N, --seconds T        how many runs, or for how long
 *   --jobs J                     processes (default: cores)
 *   --fault NAME                 with a deliberate mistake: succeeds when a run finds it
 *   --trace                      prints every event of the run
 * Exit code 0: all runs were good (with --fault: one was not). A run that fails prints the command that replays it. */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "report.h"

#define JOBS_MAX 64u

struct options {
    uint64_t seed, runs, seconds, jobs;
    bool has_seed, trace;
    enum fault fault;
};

jmp_buf report_failed;
char report_why[512];
static const char *program;
static uint64_t seed_now; /* for the signal handler */

int __real_clock_gettime(clockid_t clock, struct timespec *out);

static double now_s(void)
{
    struct timespec now;
    __real_clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* ---- one run -------------------------------------------------------------------------------------------------- */

/* True when all was well; else report_why says what was not. */
static bool run_seed(const struct options *options, uint64_t seed)
{
    static struct sim sim; /* static: longjmp leaves it as it was */
    sim = (struct sim){.seed = seed, .random = {seed}, .trace = options->trace, .fault = options->fault};
    heap_init(&sim.heap);
    seed_now = seed;
    sim_running = &sim;
    struct heap *before = heap_enter(&sim.heap);
    static bool good;
    good = setjmp(report_failed) == 0;
    if (good)
        sim_run(&sim);
    heap_enter(before);
    sim_end(&sim);
    sim_running = NULL;
    return good;
}

static void print_failure(const struct options *options, uint64_t seed)
{
    printf("seed %llu: %s\nreplay: %s --seed %llu%s%s --trace\n", (unsigned long long)seed, report_why, program,
           (unsigned long long)seed, options->fault == FAULT_NONE ? "" : " --fault ",
           options->fault == FAULT_NONE ? "" : fault_name(options->fault));
    fflush(stdout);
}

static void on_signal(int signal)
{
    char text[64];
    int length = snprintf(text, sizeof text, "died of signal %d at seed %llu\n", signal, (unsigned long long)seed_now);
    if (write(STDERR_FILENO, text, (size_t)length) < 0)
        _exit(3);
    raise(signal); /* SA_RESETHAND: this time it ends us */
}

static void watch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGABRT, &action, NULL);
}

/* Seeds seed + job, seed + job + jobs, … Exit code 0: all good. */
static int run_job(const struct options *options, uint64_t job, uint64_t *ran)
{
    double end_s = now_s() + (double)options->seconds;
    for (uint64_t i = job; options->seconds > 0 ? now_s() < end_s : i < options->runs; i += options->jobs) {
        ++*ran;
        if (run_seed(options, options->seed + i))
            continue;
        print_failure(options, options->seed + i);
        return 1;
    }
    return 0;
}

/* ---- many ----------------------------------------------------------------------------------------------------- */

static pid_t start_job(const struct options *options, uint64_t job, int *count_fd)
{
    int fds[2];
    if (pipe(fds) != 0)
        return -1;
    pid_t pid = fork();
    if (pid != 0) {
        close(fds[1]);
        *count_fd = fds[0];
        return pid;
    }
    uint64_t ran = 0;
    int code = run_job(options, job, &ran);
    if (write(fds[1], &ran, sizeof ran) != (ssize_t)sizeof ran)
        code = 2;
    exit(code);
}

/* One that fails stops the others. */
static bool wait_jobs(pid_t *pids, uint64_t jobs)
{
    bool good = true;
    for (uint64_t left = jobs; left > 0; left--) {
        int status = 0;
        pid_t pid = wait(&status);
        for (uint64_t i = 0; i < jobs; i++)
            pids[i] = pids[i] == pid ? 0 : pids[i];
        if (status == 0)
            continue;
        if (good && WIFSIGNALED(status))
            printf("a job died of signal %d\n", WTERMSIG(status));
        good = false;
        for (uint64_t i = 0; i < jobs; i++) {
            if (pids[i] > 0)
                kill(pids[i], SIGTERM);
        }
    }
    return good;
}

static int run_jobs(const struct options *options)
{
    pid_t pids[JOBS_MAX] = {0};
    int fds[JOBS_MAX] = {0};
    uint64_t total = 0;
    double begin_s = now_s();
    fflush(stdout);
    for (uint64_t i = 0; i < options->jobs; i++) {
        pids[i] = start_job(options, i, &fds[i]);
        if (pids[i] < 0) {
            perror(program);
            exit(2); /* the jobs that run print and end by themselves */
        }
    }
    bool good = wait_jobs(pids, options->jobs);
    for (uint64_t i = 0; i < options->jobs; i++) {
        uint64_t ran = 0;
        if (read(fds[i], &ran, sizeof ran) == (ssize_t)sizeof ran)
            total += ran;
        close(fds[i]);
    }
    double seconds = now_s() - begin_s;
    printf("%llu runs from seed %llu in %.1f s, %.0f a minute: %s\n", (unsigned long long)total,
           (unsigned long long)options->seed, seconds, (double)total / seconds * 60, good ? "all good" : "FAILED");
    return good ? 0 : 1;
}

/* The mistake must be found; how many runs that took is the proof. */
static int find_fault(const struct options *options)
{
    for (uint64_t i = 0; i < options->runs; i++) {
        if (run_seed(options, options->seed + i))
            continue;
        printf("%s: found by run %llu: ", fault_name(options->fault), (unsigned long long)i + 1);
        print_failure(options, options->seed + i);
        return 0;
    }
    printf("%s: NOT found in %llu runs\n", fault_name(options->fault), (unsigned long long)options->runs);
    return 1;
}

/* ---- the command line ----------------------------------------------------------------------------------------- */

static int usage(void)
{
    fprintf(stderr, "usage: %s [--seed S] [--runs N] [--seconds T] [--jobs J] [--trace] [--fault NAME]\nfaults:\n",
            program);
#define X(name, text, what) fprintf(stderr, "  %-22s %s\n", text, what);
    FAULT_TABLE(X)
#undef X
    return 2;
}

static bool parse_number(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && end != text && *end == '\0';
}

static bool parse_option(struct options *options, const char *name, const char *value)
{
    const struct {
        const char *name;
        uint64_t *number;
    } numbers[] = {{"--seed", &options->seed},
                   {"--runs", &options->runs},
                   {"--seconds", &options->seconds},
                   {"--jobs", &options->jobs}};
    options->has_seed = options->has_seed || strcmp(name, "--seed") == 0;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(numbers[i].name, name) == 0)
            return parse_number(value, numbers[i].number);
    }
    options->fault = strcmp(name, "--fault") == 0 ? fault_named(value) : FAULT_NONE;
    return options->fault != FAULT_NONE;
}

static bool parse(int argc, char **argv, struct options *options)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--trace") == 0)
            options->trace = true;
        else if (i + 1 == argc || !parse_option(options, argv[i], argv[i + 1]))
            return false;
        else
            i++;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct options options = {.seed = 1};
    program = argv[0];
    if (!parse(argc, argv, &options))
        return usage();
    bool one = options.has_seed && options.runs == 0 && options.seconds == 0;
    if (options.runs == 0)
        options.runs = one ? 1 : 20000;
    if (options.jobs == 0)
        options.jobs = options.trace || one ? 1 : (uint64_t)sysconf(_SC_NPROCESSORS_ONLN);
    if (options.jobs > JOBS_MAX)
        options.jobs = JOBS_MAX;
    mallopt(M_MMAP_THRESHOLD, 1 << 26); /* the arenas of overlays come and go: keep them */
    mallopt(M_TRIM_THRESHOLD, 1 << 28);
    watch_signals();
    client_contents_init();
    return options.fault != FAULT_NONE ? find_fault(&options) : run_jobs(&options);
}
