/* The reference: what a server of this kind costs where no language stands in its way.

   ./reference tcp|udp PORT     upper-cases ASCII on 127.0.0.1 until it is killed

   One thread, level-triggered epoll; UDP by recvmmsg and sendmmsg, in place. It has no guard, no
   limit and no counter: a lower bound, not a server to run. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CHUNK = 65536, BATCH = 64, EVENTS = 256, CONNECTIONS = 65536 };

/* What a connection's peer has not taken yet; it is not read from until it has. */
static struct {
    char *data;
    size_t length;
} owed[CONNECTIONS];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void upper(unsigned char *data, size_t length) {
    for (size_t i = 0; i < length; i++)
        data[i] -= (unsigned char)(data[i] - 'a') < 26 ? 32 : 0;
}

static int open_socket(int type, int port) {
    struct sockaddr_in where = {.sin_family = AF_INET, .sin_port = htons(port)};
    int sock = socket(AF_INET, type | SOCK_NONBLOCK, 0), on = 1;
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (sock < 0 || bind(sock, (void *)&where, sizeof where) != 0)
        die("cannot bind");
    return sock;
}

static void watch(int epoll, int operation, int sock, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = sock};
    if (epoll_ctl(epoll, operation, sock, &event) != 0)
        die("epoll_ctl");
}

static void end(int sock) {
    free(owed[sock].data);
    owed[sock].data = NULL;
    owed[sock].length = 0;
    close(sock);
}

/* Keep what the kernel does not take. */
static void owe(int epoll, int sock, const char *data, size_t length) {
    if (owed[sock].length == 0) {
        if ((owed[sock].data = malloc(CHUNK)) == NULL)
            die("malloc");
        watch(epoll, EPOLL_CTL_MOD, sock, EPOLLOUT);
    }
    memmove(owed[sock].data, data, length);
    owed[sock].length = length;
}

static void pay(int epoll, int sock) {
    ssize_t sent = send(sock, owed[sock].data, owed[sock].length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return end(sock);
    if (sent < 0)
        return;
    owed[sock].length -= sent;
    if (owed[sock].length) {
        memmove(owed[sock].data, owed[sock].data + sent, owed[sock].length);
        return;
    }
    free(owed[sock].data);
    owed[sock].data = NULL;
    watch(epoll, EPOLL_CTL_MOD, sock, EPOLLIN);
}

static void answer(int epoll, int sock) {
    static unsigned char chunk[CHUNK];
    ssize_t got = recv(sock, chunk, CHUNK, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        return end(sock);
    upper(chunk, got);
    ssize_t sent = send(sock, chunk, got, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return end(sock);
    sent = sent < 0 ? 0 : sent;
    if (sent < got)
        owe(epoll, sock, (char *)chunk + sent, got - sent);
}

static void serve_tcp(int port) {
    int listening = open_socket(SOCK_STREAM, port), epoll = epoll_create1(0), on = 1;
    struct epoll_event events[EVENTS];
    if (listen(listening, 1024) != 0)
        die("cannot listen");
    watch(epoll, EPOLL_CTL_ADD, listening, EPOLLIN);
    for (;;) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            int sock = events[i].data.fd;
            if (sock != listening) {
                (owed[sock].length ? pay : answer)(epoll, sock);
                continue;
            }
            while ((sock = accept4(listening, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                if (sock >= CONNECTIONS) {
                    close(sock);
                    continue;
                }
                setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                watch(epoll, EPOLL_CTL_ADD, sock, EPOLLIN);
            }
        }
    }
}

static void serve_udp(int port) {
    static unsigned char data[BATCH][CHUNK];
    static struct sockaddr_in peers[BATCH];
    static struct iovec parts[BATCH];
    static struct mmsghdr batch[BATCH];
    int sock = open_socket(SOCK_DGRAM, port), epoll = epoll_create1(0), room = 4 << 20;
    struct epoll_event event;
    setsockopt(sock, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    watch(epoll, EPOLL_CTL_ADD, sock, EPOLLIN);
    for (;;) {
        epoll_wait(epoll, &event, 1, -1);
        for (int i = 0; i < BATCH; i++) {
            parts[i] = (struct iovec){data[i], CHUNK};
            batch[i].msg_hdr = (struct msghdr){.msg_name = &peers[i], .msg_iov = &parts[i]};
            batch[i].msg_hdr.msg_namelen = sizeof peers[i];
            batch[i].msg_hdr.msg_iovlen = 1;
        }
        int got = recvmmsg(sock, batch, BATCH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < got; i++) {
            upper(data[i], batch[i].msg_len);
            parts[i].iov_len = batch[i].msg_len;
        }
        if (got > 0)
            sendmmsg(sock, batch, got, MSG_DONTWAIT);
    }
}

int main(int count, char **words) {
    if (count != 3 || (strcmp(words[1], "tcp") && strcmp(words[1], "udp")))
        return fprintf(stderr, "usage: reference tcp|udp PORT\n"), 2;
    (strcmp(words[1], "tcp") ? serve_udp : serve_tcp)(atoi(words[2]));
}
