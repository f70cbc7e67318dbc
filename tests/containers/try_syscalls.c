/* Tries every system call, each in a process of its own, and prints "NUMBER OUTCOME" for it.
 *
 * OUTCOME is the error that it failed with, 0 if it did not fail, or minus the signal that ended the process. The
 * arguments are -1: nothing lies there and no descriptor, process or flag is that, so what passes the filter fails soon
 * after, in the same way with and without one. The exceptions have arguments that the filter looks at.
 *
 *   try_syscalls [LAST]                every number from 0 on
 *   try_syscalls call NR ARGUMENT...   one call, and what comes of it
 *   try_syscalls call32 NR ARGUMENT... the same by the 32-bit entry of x86-64
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static long call32(long number, long a, long b, long c) {
    long result = -ENOSYS;
#ifdef __x86_64__
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
#endif
    return (int)result;
}

static int outcome(long number, const long *arguments, int wide) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        pid_t self = getpid();
#ifdef SYS_pause
        if (number == SYS_pause) /* what passes waits for ever */
            ualarm(200000, 0);
#endif
        errno = 0;
        if (wide) {
            if (syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]) != -1)
                errno = 0;
        } else {
            long result = call32(number, arguments[0], arguments[1], arguments[2]);
            errno = result < 0 && result > -4096 ? -result : 0;
        }
        int error = errno;
        if (syscall(SYS_getpid) != self) /* it made a process, and this is that one */
            _exit(0);
        _exit(error);
    }
    while (waitpid(child, &status, 0) == -1 && errno == EINTR)
        ;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

int main(int count, char **words) {
    if (count > 2 && strncmp(words[1], "call", 4) == 0) {
        long arguments[6] = {0};
        for (int i = 3; i < count && i < 9; i++)
            arguments[i - 3] = strtol(words[i], NULL, 0);
        printf("%d\n", outcome(strtol(words[2], NULL, 0), arguments, words[1][4] == 0));
        return 0;
    }
    long last = count > 1 ? strtol(words[1], NULL, 0) : 480;
    for (long number = 0; number <= last; number++) {
        long arguments[6] = {-1, -1, -1, -1, -1, -1};
        switch (number) {
        case SYS_socket: case SYS_socketpair: arguments[0] = 1; break;
        case SYS_personality: arguments[0] = 0xffffffff; break;
        case SYS_unshare: arguments[0] = 0; break;
        case SYS_clone: memset(arguments, 0, sizeof arguments); arguments[0] = SIGCHLD; break;
        }
        printf("%ld %d\n", number, outcome(number, arguments, 1));
        fflush(stdout);
    }
    return 0;
}
