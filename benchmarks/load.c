/* Load for the benchmarks: sends, receives, pings and echoes Ethernet frames, on a raw stream member of an
 * IPN network (QEMU framing) or on a VDE switch (datagrams). Prints one JSON line at its end.
 *
 *   load KIND ADDRESS send SIZE SECONDS [FLOWS]   one system call a frame; FLOWS: destinations taken in turn,
 *                                                  beginning at SIGUSR1
 *   load KIND ADDRESS recv [ID]                    until SIGTERM; ID: announce that MAC at first and at SIGUSR1
 *   load KIND ADDRESS stuck                        joins and never reads
 *   load KIND ADDRESS fill COUNT ID                announces COUNT addresses of its own, then reads and forgets
 *   load KIND ADDRESS ping SIZE COUNT | pong
 *
 * Announcing is for learning switches, and again when all have joined: vde_switch forgets its addresses whenever
 * a port is added. KIND is "stream" (ADDRESS: the network's path), "vde" (ADDRESS: the switch's directory),
 * "seqpacket" or "dgram" (ADDRESS: the socket's path), "ipn" (ADDRESS: the network's path; as a program for AF_IPN, under
 * ipnctl run) or, for ping and pong between hosts, "udp" (ADDRESS: OWN:PEER, IPv4; the frames are what the datagrams
 * carry).
 */
#define _GNU_SOURCE
#include "member.h"
#include <arpa/inet.h>
#include <errno.h>
#include <time.h>

enum { HEADER = 14, MAXFRAME = 65536, BATCH = 262144, MAXFLOWS = 64, UDP_PORT = 4009 };

static volatile sig_atomic_t told;
static int is_stream;
static int announcing = -1;
static unsigned char announcement[64];

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + t.tv_nsec;
}

/* OWN:PEER: addresses of this host and of the other, which does the same the other way round. */
static int join_udp(const char *pair)
{
    char own[64], *peer;
    struct sockaddr_in end = {.sin_family = AF_INET, .sin_port = htons(UDP_PORT)};
    snprintf(own, sizeof own, "%s", pair);
    if (!(peer = strchr(own, ':'))) die(pair);
    *peer++ = 0;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (inet_pton(AF_INET, own, &end.sin_addr) != 1 || bind(fd, (struct sockaddr *)&end, sizeof end) < 0) die(own);
    if (inet_pton(AF_INET, peer, &end.sin_addr) != 1 || connect(fd, (struct sockaddr *)&end, sizeof end) < 0) die(peer);
    return fd;
}

static void header(unsigned char *frame, int destination, int source)
{
    static const unsigned char local[5] = {0x02, 0, 0, 0, 0};
    memset(frame, 0xff, 6);
    if (destination >= 0) {
        memcpy(frame, local, 5);
        frame[5] = destination;
    }
    memcpy(frame + 6, local, 5);
    frame[11] = source;
    frame[12] = 0x88;
    frame[13] = 0xb5;
}

/* Sends one frame; buffer has 4 bytes of room for the length before the frame. */
static int put(int fd, unsigned char *buffer, int size)
{
    unsigned char *start = buffer + 4;
    int length = size;
    if (is_stream) {
        uint32_t prefix = htonl(size);
        memcpy(buffer, &prefix, 4);
        start = buffer;
        length += 4;
    }
    while (length > 0) {
        ssize_t sent = send(fd, start, length, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR && !stopped) continue;
            if (errno == ENOBUFS) { usleep(10); continue; }
            return -1;
        }
        start += sent;
        length -= sent;
    }
    return 0;
}

/* Receives one frame; returns its size. */
static int get(int fd, unsigned char *frame)
{
    if (!is_stream) return recv(fd, frame, MAXFRAME, 0);
    uint32_t prefix;
    if (recv(fd, &prefix, 4, MSG_WAITALL) != 4) return -1;
    return recv(fd, frame, ntohl(prefix), MSG_WAITALL);
}

static void on_usr1(int signo)
{
    (void)signo;
    int before = errno;
    told = 1;
    if (announcing >= 0) put(announcing, announcement, 60);
    errno = before;
}

static void do_send(int fd, int size, double seconds, int flows)
{
    static unsigned char buffers[MAXFLOWS][MAXFRAME + 4];
    uint64_t sent[MAXFLOWS] = {0}, total = 0;
    int count = flows ? flows : 1;
    for (int i = 0; i < count; i++) header(buffers[i] + 4, flows ? i + 1 : -1, 100);
    while (flows && !told && !stopped) usleep(1000);
    uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9);
    for (int i = 0; !stopped; i = i + 1 < count ? i + 1 : 0) {
        memcpy(buffers[i] + 4 + HEADER, &sent[i], 8);
        sent[i]++;
        if (put(fd, buffers[i], size) < 0) break;
        if ((++total & 63) == 0 && now_ns() >= end) break;
    }
    printf("{\"sent\": %llu, \"seconds\": %.4f}\n", (unsigned long long)total, (now_ns() - start) / 1e9);
}

static uint64_t received, expected, lost, reordered, first_ns, last_ns;

static void count_frame(const unsigned char *frame, int size)
{
    uint64_t sequence;
    if (size < HEADER + 8 || frame[12] != 0x88 || frame[13] != 0xb5 || frame[11] != 100) return;
    memcpy(&sequence, frame + HEADER, 8);
    if (sequence < expected)
        reordered++;
    else {
        lost += sequence - expected;
        expected = sequence + 1;
    }
    received++;
}

static void do_recv(int fd)
{
    static unsigned char buffer[BATCH + MAXFRAME];
    size_t kept = 0;
    while (!stopped) {
        ssize_t got = recv(fd, buffer + kept, is_stream ? BATCH : MAXFRAME, 0);
        if (got <= 0) {
            if (got < 0 && errno == EINTR) continue;
            break;
        }
        uint64_t before = received;
        if (!is_stream)
            count_frame(buffer, got);
        else {
            size_t position = 0, end = kept + got;
            uint32_t prefix;
            while (end - position >= 4) {
                memcpy(&prefix, buffer + position, 4);
                size_t size = ntohl(prefix);
                if (end - position - 4 < size) break;
                count_frame(buffer + position + 4, size);
                position += 4 + size;
            }
            kept = end - position;
            memmove(buffer, buffer + position, kept);
        }
        if (received != before && (is_stream || (received & 255) == 0 || !first_ns)) {
            last_ns = now_ns();
            if (!first_ns) first_ns = last_ns;
        }
    }
    printf("{\"received\": %llu, \"expected\": %llu, \"lost\": %llu, \"reordered\": %llu, \"seconds\": %.4f}\n",
           (unsigned long long)received, (unsigned long long)expected, (unsigned long long)lost,
           (unsigned long long)reordered, (last_ns - first_ns) / 1e9);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void do_ping(int fd, int size, int count)
{
    static unsigned char out[MAXFRAME + 4], in[MAXFRAME];
    uint64_t *times = malloc(count * sizeof *times);
    header(out + 4, -1, 100);
    for (int i = 0; i < count && !stopped; i++) {
        uint64_t start = now_ns();
        if (put(fd, out, size) < 0) die("ping");
        while (get(fd, in) > 0 && in[11] != 101) {}
        times[i] = now_ns() - start;
    }
    qsort(times, count, sizeof *times, compare);
    printf("{\"p50_us\": %.2f, \"p99_us\": %.2f}\n", times[count / 2] / 1e3, times[count * 99 / 100] / 1e3);
}

static void do_fill(int fd, int count, int id)
{
    static unsigned char frame[64], in[MAXFRAME];
    for (int i = 0; i < count && !stopped; i++) {
        header(frame + 4, -1, 0);
        frame[4 + 7] = id;
        frame[4 + 9] = i >> 16;
        frame[4 + 10] = i >> 8;
        frame[4 + 11] = i;
        frame[4 + 12] = 0x88;
        frame[4 + 13] = 0xb6;
        put(fd, frame, 60);
    }
    fprintf(stderr, "filled\n");
    while (!stopped && recv(fd, in, sizeof in, 0) > 0) {}
}

static void do_pong(int fd)
{
    static unsigned char buffer[MAXFRAME + 4];
    int size;
    while (!stopped && (size = get(fd, buffer + 4)) > 0) {
        if (buffer[4 + 11] != 100) continue;
        header(buffer + 4, -1, 101);
        if (put(fd, buffer, size) < 0) break;
    }
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: load stream|vde|seqpacket|dgram|ipn|udp ADDRESS send SIZE SECONDS [FLOWS] | recv [ID] | stuck | fill COUNT ID | ping SIZE COUNT | pong\n");
        return 2;
    }
    struct sigaction action = {.sa_handler = on_term};
    sigaction(SIGTERM, &action, NULL);
    struct sigaction telling = {.sa_handler = on_usr1};
    sigaction(SIGUSR1, &telling, NULL);
    const char *kind = argv[1], *what = argv[3];
    is_stream = !strcmp(kind, "stream");
    int fd = is_stream ? join_stream(argv[2])
        : !strcmp(kind, "udp") ? join_udp(argv[2])
        : !strcmp(kind, "dgram") ? join_dgram(argv[2])
        : !strcmp(kind, "ipn") ? join_ipn(argv[2])
        : !strcmp(kind, "seqpacket") ? join_unix(SOCK_SEQPACKET, argv[2])
        : join_vde(argv[2]);
    fprintf(stderr, "joined\n");
    if (!strcmp(what, "send") && argc > 5)
        do_send(fd, atoi(argv[4]), atof(argv[5]), argc > 6 ? atoi(argv[6]) : 0);
    else if (!strcmp(what, "recv")) {
        if (argc > 4) {
            header(announcement + 4, -1, atoi(argv[4]));
            put(fd, announcement, 60);
            announcing = fd;
        }
        do_recv(fd);
    } else if (!strcmp(what, "fill") && argc > 5)
        do_fill(fd, atoi(argv[4]), atoi(argv[5]));
    else if (!strcmp(what, "stuck"))
        while (!stopped) pause();
    else if (!strcmp(what, "ping") && argc > 5)
        do_ping(fd, atoi(argv[4]), atoi(argv[5]));
    else if (!strcmp(what, "pong"))
        do_pong(fd);
    else
        return 2;
    leave();
    return 0;
}
