/* Holds a pod's namespaces open, and reaps the pod's orphans where containers share a process namespace. */
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int number) {
    (void)number;
    _exit(0);
}

static void reap(int number) {
    (void)number;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

int main(void) {
    struct sigaction leaving = {.sa_handler = leave};
    struct sigaction reaping = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
    if (sigaction(SIGINT, &leaving, NULL) || sigaction(SIGTERM, &leaving, NULL) || sigaction(SIGCHLD, &reaping, NULL))
        return 1;
    for (;;)
        pause();
}
