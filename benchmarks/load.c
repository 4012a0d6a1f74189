/* Puts load on a server that upper-cases ASCII, and checks every byte of every reply.

   ./load ask     PORT CLIENTS DEPTH SIZE SECONDS   DEPTH requests in one write, then their replies
   ./load stream  PORT CLIENTS 1     SIZE SECONDS   writes of SIZE as fast as they are taken
   ./load connect PORT CLIENTS 1     SIZE SECONDS   a connection for each request
   ./load udp     PORT CLIENTS DEPTH SIZE SECONDS   CLIENTS sockets, DEPTH datagrams under way each

   It says "ready" once all CLIENTS are connected and served, waits for a line on its standard input,
   works, and prints: requests, bytes of replies, seconds, datagrams repeated, and microseconds of
   round trip (median, 99th percentile, longest). A wrong byte or an end of a connection ends it with
   status 1. In C, so that it is not the bottleneck. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 256, MAX_DEPTH = 64, LATENCIES = 1 << 20 };
#define REPEAT_AFTER 0.2 /* seconds of silence before a socket's datagrams are sent again */

typedef struct {
    int sock;
    size_t sent, got;       /* of this round of requests */
    unsigned watched;       /* what epoll looks for */
    double since;           /* when this round began */
    uint64_t next;          /* datagrams: the number of the next one */
    uint64_t under_way[MAX_DEPTH];
    double sent_at[MAX_DEPTH];
} Client;

static int port, clients, depth, size;
static double seconds;
static size_t whole; /* bytes of one round of one client */
static char *request, *reply, *buffer;
static Client *all;
static int epoll;
static uint64_t requests, bytes, repeated;
static uint32_t latencies[LATENCIES];
static size_t latency_count;
static int working, warm; /* `warm` clients have been served once */
static void (*begin)(Client *);
static void (*on_event)(Client *, unsigned);
static void on_stream(Client *, unsigned);

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void took(double since) {
    latencies[latency_count++ % LATENCIES] = (now() - since) * 1e6;
}

static void watch(int operation, Client *client, unsigned events) {
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(epoll, operation, client->sock, &event) != 0)
        die("epoll_ctl");
}

/* Each thousand sockets come from an address of their own, so that ports in TIME_WAIT do not run out. */
static int reach(int type) {
    static unsigned made;
    int on = 1, sock = socket(AF_INET, type, 0);
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl((127u << 24) + 2 + ((unsigned)getpid() * 64 + made++ / 1000) % 65000);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(port);
    setsockopt(sock, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
    if (type == SOCK_STREAM)
        setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (sock < 0 || bind(sock, (void *)&from, sizeof from) || connect(sock, (void *)&to, sizeof to))
        die("cannot connect");
    return sock;
}

/* TCP: whole rounds of `depth` requests, or the same without an end and both ways at once */

/* Send what the kernel takes of this round. */
static void push(Client *client) {
    const char *rest = request + client->sent;
    ssize_t sent = send(client->sock, rest, whole - client->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        die("cannot send");
    client->sent += sent < 0 ? 0 : sent;
    if (on_event == on_stream)
        client->sent %= whole;
    unsigned wanted = client->sent < whole ? EPOLLIN | EPOLLOUT : EPOLLIN;
    if (client->watched != wanted)
        watch(client->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, client, wanted);
    client->watched = wanted;
}

/* Return whether the round is complete. */
static int take(Client *client) {
    ssize_t got = recv(client->sock, buffer, whole - client->got, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return 0;
    if (got < 0)
        die("cannot receive");
    if (got == 0)
        fail("the server closed a connection");
    if (memcmp(buffer, reply + client->got, got))
        fail("a reply is wrong");
    client->got += got;
    bytes += got;
    return client->got == whole;
}

static void begin_ask(Client *client) {
    client->sent = client->got = 0;
    client->since = now();
    push(client);
}

static void begin_connect(Client *client) {
    if (client->sock)
        close(client->sock); /* epoll forgets it */
    client->since = now();
    client->sock = reach(SOCK_STREAM);
    client->watched = client->sent = client->got = 0;
    push(client);
}

static void on_ask(Client *client, unsigned events) {
    if (events & EPOLLOUT)
        push(client);
    if (!(events & EPOLLIN) || !take(client))
        return;
    if (!working) {
        warm++;
        return;
    }
    took(client->since);
    requests += depth;
    begin(client);
}

static void on_stream(Client *client, unsigned events) {
    if (events & EPOLLOUT)
        push(client);
    if (events & EPOLLIN) {
        client->got %= whole;
        take(client);
        requests = bytes / whole;
    }
}

/* UDP: each datagram begins with its number, in letters that upper-casing changes */

static void number_it(char *data, uint64_t number, char first) {
    for (int i = 0; i < 12; i++, number /= 16)
        data[i] = first + number % 16;
}

static void send_numbers(Client *client, const uint64_t *numbers, int count) {
    static struct mmsghdr batch[MAX_DEPTH];
    static struct iovec parts[MAX_DEPTH];
    for (int i = 0; i < count; i++) {
        char *data = buffer + i * size;
        memcpy(data, request, size);
        number_it(data, numbers[i], 'a');
        parts[i] = (struct iovec){data, size};
        batch[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    for (int sent = 0, more; sent < count; sent += more)
        if ((more = sendmmsg(client->sock, batch + sent, count - sent, 0)) <= 0)
            die("cannot send");
    client->since = now();
}

static void on_udp(Client *client, unsigned events) {
    static struct mmsghdr batch[MAX_DEPTH];
    static struct iovec parts[MAX_DEPTH];
    uint64_t fresh[MAX_DEPTH];
    int count = 0;
    (void)events;
    for (int i = 0; i < depth; i++) {
        parts[i] = (struct iovec){buffer + i * (size + 1), size + 1};
        batch[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    int got = recvmmsg(client->sock, batch, depth, MSG_DONTWAIT, NULL);
    if (got < 0 && errno != EAGAIN)
        die("cannot receive");
    for (int i = 0; i < got; i++) {
        const char *data = parts[i].iov_base;
        int which = 0;
        for (; which < depth; which++) {
            number_it(reply, client->under_way[which], 'A');
            if (batch[i].msg_len == (unsigned)size && !memcmp(data, reply, size))
                break;
        }
        if (which == depth) {
            if (repeated == 0)
                fail("a reply is wrong");
            continue; /* the second reply to one that was repeated */
        }
        took(client->sent_at[which]);
        client->sent_at[which] = now();
        client->under_way[which] = fresh[count++] = client->next++;
        requests++;
        bytes += size;
    }
    if (count)
        send_numbers(client, fresh, count);
}

static void repeat_lost(void) {
    for (Client *client = all; client < all + clients; client++)
        if (now() - client->since > REPEAT_AFTER) {
            repeated += depth;
            send_numbers(client, client->under_way, depth);
        }
}

static void begin_udp(Client *client) {
    for (int i = 0; i < depth; i++) {
        client->under_way[i] = client->next++;
        client->sent_at[i] = now();
    }
    send_numbers(client, client->under_way, depth);
}

static int by_size(const void *left, const void *right) {
    uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
    return (a > b) - (a < b);
}

static void report(double spent) {
    size_t count = latency_count < LATENCIES ? latency_count : LATENCIES;
    qsort(latencies, count, sizeof *latencies, by_size);
    printf("%llu %llu %.6f %llu", (unsigned long long)requests, (unsigned long long)bytes, spent,
           (unsigned long long)repeated);
    for (int i = 0; i < 3; i++) {
        double part[] = {0.5, 0.99, 1.0};
        printf(" %u", count ? latencies[(size_t)(part[i] * (count - 1))] : 0);
    }
    printf("\n");
}

static void choose(const char *kind) {
    int is_udp = !strcmp(kind, "udp");
    begin = is_udp ? begin_udp : strcmp(kind, "connect") ? begin_ask : begin_connect;
    on_event = is_udp ? on_udp : strcmp(kind, "stream") ? on_ask : on_stream;
    for (Client *client = all; client < all + clients && begin != begin_connect; client++) {
        client->sock = reach(is_udp ? SOCK_DGRAM : SOCK_STREAM);
        if (is_udp)
            watch(EPOLL_CTL_ADD, client, EPOLLIN);
    }
}

static void turn(void) {
    static struct epoll_event events[EVENTS];
    int ready = epoll_wait(epoll, events, EVENTS, 100);
    for (int i = 0; i < ready; i++)
        on_event(events[i].data.ptr, events[i].events);
}

static void begin_all(void) {
    for (Client *client = all; client < all + clients; client++)
        begin(client);
}

static void run(void) {
    if (on_event == on_ask)
        for (begin_all(); warm < clients;)
            turn();
    puts("ready");
    fflush(stdout);
    if (getchar() == EOF)
        exit(1);
    double started = now(), checked = started, time;
    bytes = 0, working = 1;
    begin_all();
    do {
        turn();
        time = now();
        if (on_event == on_udp && time - checked > REPEAT_AFTER) {
            repeat_lost();
            checked = time;
        }
    } while (time - started < seconds);
    report(time - started);
}

int main(int count, char **words) {
    if (count != 7)
        return fprintf(stderr, "usage: load ask|stream|connect|udp PORT CLIENTS DEPTH SIZE SECONDS\n"), 2;
    port = atoi(words[2]), clients = atoi(words[3]), depth = atoi(words[4]), size = atoi(words[5]);
    seconds = atof(words[6]);
    whole = (size_t)depth * size;
    if (clients < 1 || depth < 1 || depth > MAX_DEPTH || size < (strcmp(words[1], "udp") ? 1 : 16))
        fail("CLIENTS of at least 1, DEPTH of 1 to 64 and SIZE of at least 1 are accepted; for udp, 16");
    request = malloc(whole), reply = malloc(whole);
    buffer = malloc(whole + depth), all = calloc(clients, sizeof *all);
    if (!request || !reply || !buffer || !all)
        die("malloc");
    for (size_t i = 0; i < whole; i++) {
        int last = (i + 1) % size == 0;
        request[i] = last ? '\n' : 'a' + i % 26;
        reply[i] = last ? '\n' : 'A' + i % 26;
    }
    epoll = epoll_create1(0);
    choose(words[1]);
    run();
}
