/*
 * Who called whom: linked into every program of tests/ccg, which is compiled with -finstrument-functions.
 *
 * Each thread has a stack of the functions that are running. When a function begins, the pair (innermost function
 * that still runs, this function) is noted; at the end every pair is written once to the file that CCG_PAIRS names,
 * as two addresses, 0 standing for the program's start. The program is linked without PIE, so that addresses are
 * those of the executable.
 *
 * A function that was left by longjmp never says so: entries are compared with the frame that begins, and those below
 * it are dropped, for frames of callers lie higher on the stack. A function that is inlined shares its caller's frame
 * and its return address; one that was left has at most the frame in common with its successor, or is that very function.
 *
 * What the system calls of its own accord is charged to the function that asked for it: handlers of signals and of
 * the program's end, and bodies of threads. The linker's --wrap leads the calls that install them here.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define QUIET __attribute__((no_instrument_function))
#define DEPTH 4096
#define PAIRS 4096
#define SIGNALS 65
#define AT_EXIT 32

struct entry {
    void *function;
    void *site;
    uintptr_t frame;
};

static __thread struct entry stack[DEPTH];
static __thread int depth;

static void *pairs[PAIRS][2];
static int count;
static char lock;

static void QUIET note(void *caller, void *callee)
{
    int i;

    while (__atomic_test_and_set(&lock, __ATOMIC_ACQUIRE)) {
    }
    for (i = 0; i < count; i++) {
        if (pairs[i][0] == caller && pairs[i][1] == callee) {
            break;
        }
    }
    if (i == count && count < PAIRS) {
        pairs[count][0] = caller;
        pairs[count][1] = callee;
        count++;
    }
    __atomic_clear(&lock, __ATOMIC_RELEASE);
}

static void *QUIET innermost(void)
{
    return depth > 0 ? stack[depth - 1].function : NULL;
}

static void QUIET push(void *function, void *site, uintptr_t frame)
{
    if (depth < DEPTH) {
        stack[depth].function = function;
        stack[depth].site = site;
        stack[depth].frame = frame;
        depth++;
    }
}

static void QUIET drop_below(uintptr_t frame)
{
    while (depth > 0 && stack[depth - 1].frame < frame) {
        depth--;
    }
}

void QUIET __cyg_profile_func_enter(void *function, void *site)
{
    uintptr_t frame = (uintptr_t)__builtin_frame_address(1);

    drop_below(frame);
    while (depth > 0 && stack[depth - 1].frame == frame
           && (stack[depth - 1].site != site || stack[depth - 1].function == function)) {
        depth--;
    }
    note(innermost(), function);
    push(function, site, frame);
}

void QUIET __cyg_profile_func_exit(void *function, void *site)
{
    drop_below((uintptr_t)__builtin_frame_address(1));
    if (depth > 0 && stack[depth - 1].function == function) {
        depth--;
    }
}

/* ---- threads ---- */

struct start {
    void *(*body)(void *);
    void *opaque;
    void *creator;
};

int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

static void *QUIET begin(void *opaque)
{
    struct start start = *(struct start *)opaque;

    free(opaque);
    push(start.creator, NULL, (uintptr_t)__builtin_frame_address(0));
    return start.body(start.opaque);
}

int QUIET __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *), void *opaque)
{
    struct start *start = malloc(sizeof(*start));

    start->body = body;
    start->opaque = opaque;
    start->creator = innermost();
    return __real_pthread_create(thread, attr, begin, start);
}

/* ---- signals ---- */

static struct {
    struct sigaction action;
    void *installer;
} handlers[SIGNALS];

int __real_sigaction(int, const struct sigaction *, struct sigaction *);

static void QUIET deliver(int number, siginfo_t *info, void *context)
{
    struct sigaction action = handlers[number].action;
    int before = depth;

    push(handlers[number].installer, NULL, (uintptr_t)__builtin_frame_address(0));
    if (action.sa_flags & SA_SIGINFO) {
        action.sa_sigaction(number, info, context);
    } else {
        action.sa_handler(number);
    }
    depth = before;
}

int QUIET __wrap_sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
    struct sigaction before = handlers[number].action, ours;
    int failed;

    if (!action) {
        if (old) {
            *old = before;
        }
        return 0;
    }
    handlers[number].action = *action;
    handlers[number].installer = innermost();
    ours = *action;
    if (action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN) {
        ours.sa_flags |= SA_SIGINFO;
        ours.sa_sigaction = deliver;
    }
    failed = __real_sigaction(number, &ours, NULL);
    if (old) {
        *old = before;
    }
    return failed;
}

void (*QUIET __wrap_signal(int number, void (*handler)(int)))(int)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART}, old;

    return __wrap_sigaction(number, &action, &old) ? SIG_ERR : old.sa_handler;
}

/* ---- the program's end ---- */

static struct {
    void (*handler)(void);
    void *registrar;
} at_exit[AT_EXIT];
static int registered;

int __real_atexit(void (*)(void));

static void QUIET run_last(void)
{
    registered--;
    if (depth > 0) {
        note(at_exit[registered].registrar, (void *)at_exit[registered].handler);
    } else {
        push(at_exit[registered].registrar, NULL, (uintptr_t)__builtin_frame_address(0));
    }
    at_exit[registered].handler();
}

int QUIET __wrap_atexit(void (*handler)(void))
{
    at_exit[registered].handler = handler;
    at_exit[registered].registrar = innermost();
    registered++;
    return __real_atexit(run_last);
}

static void QUIET __attribute__((destructor(101))) write_pairs(void)
{
    const char *path = getenv("CCG_PAIRS");
    FILE *file = path ? fopen(path, "w") : NULL;

    if (file) {
        for (int i = 0; i < count; i++) {
            fprintf(file, "%#lx %#lx\n", (unsigned long)pairs[i][0], (unsigned long)pairs[i][1]);
        }
        fclose(file);
    }
}
