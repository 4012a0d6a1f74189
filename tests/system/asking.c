/* Asks a server that upper-cases, on a new connection each time, until its standard input ends:

   ./asking PORT CLIENTS PAUSE_MS

   Each client connects, sends a line, closes its sending side and reads to the end, as `nc -N` does,
   then rests. It prints how many were answered, and how often anything else happened: not connected,
   reset, nothing (an end without a reply), and wrong. In C, so that nothing of ours judges us. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { ANSWERED, NOT_CONNECTED, RESET, NOTHING, WRONG, OUTCOMES };
static const char *names[OUTCOMES] = {"answered", "not-connected", "reset", "nothing", "wrong"};
static atomic_ullong counts[OUTCOMES];
static atomic_int over;
static int port, pause_ms;

static int ask(unsigned long long number) {
    char request[64], expected[64], got[64];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct timeval patience = {.tv_sec = 90};
    size_t size = sprintf(request, "hello %llu\n", number), have = 0;
    sprintf(expected, "HELLO %llu\n", number);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int sock = socket(AF_INET, SOCK_STREAM, 0), outcome = NOT_CONNECTED;
    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (sock >= 0 && connect(sock, (void *)&to, sizeof to) == 0) {
        outcome = RESET;
        if (send(sock, request, size, MSG_NOSIGNAL) == (ssize_t)size && shutdown(sock, SHUT_WR) == 0) {
            ssize_t more;
            while ((more = recv(sock, got + have, sizeof got - have, 0)) > 0)
                have += more;
            if (more == 0)
                outcome = have == 0 ? NOTHING
                          : have == size && !memcmp(got, expected, size) ? ANSWERED : WRONG;
        }
    }
    close(sock);
    return outcome;
}

static void *ask_on(void *unused) {
    for (unsigned long long number = 0; !over; number++) {
        counts[ask(number)]++;
        usleep(pause_ms * 1000);
    }
    return unused;
}

int main(int count, char **words) {
    if (count != 4)
        return fprintf(stderr, "usage: asking PORT CLIENTS PAUSE_MS\n"), 2;
    int clients = atoi(words[2]);
    port = atoi(words[1]), pause_ms = atoi(words[3]);
    pthread_t *threads = calloc(clients, sizeof *threads);
    for (int i = 0; i < clients; i++)
        if (pthread_create(&threads[i], NULL, ask_on, NULL))
            return perror("pthread_create"), 1;
    while (getchar() != EOF)
        ;
    over = 1;
    for (int i = 0; i < clients; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < OUTCOMES; i++)
        printf("%s %llu\n", names[i], (unsigned long long)counts[i]);
}
