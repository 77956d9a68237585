/* A host on an Ethernet, as programs for AF_IPN were written in 2007: nothing in it knows of ipnd.
 *
 *   cc -o peer2007 peer2007.c
 *   ipnctl run -- ./peer2007 NETWORK ADDRESS         answers ARP and ping for ADDRESS; lines that it is given on its
 *                                                     standard input it sends to everybody, and those that others
 *                                                     send it prints
 *   ipnctl run -- ./peer2007 NETWORK ADDRESS OTHER    pings OTHER until that answers
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* <sys/socket.h> never had these: the patch to the kernel brought them. */
#define AF_IPN 34
#define PF_IPN AF_IPN
#define IPN_ANY 0

#define MTU 1514
#define HEADER 14
#define TYPE_IP 0x0800
#define TYPE_ARP 0x0806
#define TYPE_TEXT 0x88b5 /* for experiments (IEEE 802): the lines */
#define ICMP_SEEN 1
#define ECHO_REPLY 0
#define ECHO_REQUEST 8

static int net;
static unsigned char address[4], mac[6];
static const unsigned char everybody[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void put16(unsigned char *where, unsigned value)
{
    where[0] = value >> 8;
    where[1] = value;
}

static unsigned get16(const unsigned char *where)
{
    return where[0] << 8 | where[1];
}

/* The checksum of the internet protocols (RFC 1071). */
static unsigned checksum(const unsigned char *data, int size)
{
    unsigned long sum = 0;
    int i;

    for (i = 0; i + 1 < size; i += 2)
        sum += get16(data + i);
    if (size & 1)
        sum += data[size - 1] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return ~sum & 0xffff;
}

static void send_frame(unsigned char *frame, const unsigned char *to, unsigned type, int size)
{
    memcpy(frame, to, 6);
    memcpy(frame + 6, mac, 6);
    put16(frame + 12, type);
    if (size < 60) { /* the shortest that Ethernet has */
        memset(frame + size, 0, 60 - size);
        size = 60;
    }
    if (write(net, frame, size) < 0)
        die("write");
}

/* RFC 826. */
static void send_arp(int operation, const unsigned char *to_mac, const unsigned char *to)
{
    static const unsigned char fixed[6] = {0, 1, 8, 0, 6, 4}; /* Ethernet, IPv4, the sizes of their addresses */
    unsigned char frame[60], *arp = frame + HEADER;

    memcpy(arp, fixed, 6);
    put16(arp + 6, operation);
    memcpy(arp + 8, mac, 6);
    memcpy(arp + 14, address, 4);
    memcpy(arp + 18, to_mac, 6);
    memcpy(arp + 24, to, 4);
    send_frame(frame, operation == 1 ? everybody : to_mac, TYPE_ARP, HEADER + 28);
}

/* RFC 791 and 792; the echo's type, number and data are in the frame already, ``size`` bytes of them. */
static void send_echo(unsigned char *frame, const unsigned char *to_mac, const unsigned char *to, int size)
{
    unsigned char *ip = frame + HEADER, *icmp = ip + 20;

    memset(ip, 0, 20);
    ip[0] = 0x45;
    put16(ip + 2, 20 + size);
    ip[8] = 64;
    ip[9] = ICMP_SEEN;
    memcpy(ip + 12, address, 4);
    memcpy(ip + 16, to, 4);
    put16(ip + 10, checksum(ip, 20));
    put16(icmp + 2, 0);
    put16(icmp + 2, checksum(icmp, size));
    send_frame(frame, to_mac, TYPE_IP, HEADER + 20 + size);
}

static void ping(const unsigned char *to_mac, const unsigned char *to)
{
    unsigned char frame[MTU], *icmp = frame + HEADER + 20;

    memset(icmp, 0, 8 + 56);
    icmp[0] = ECHO_REQUEST;
    send_echo(frame, to_mac, to, 8 + 56);
}

static void got_arp(const unsigned char *arp, int size, const unsigned char *other)
{
    if (size < 28 || memcmp(arp + 24, address, 4))
        return;
    if (get16(arp + 6) == 1)
        send_arp(2, arp + 8, arp + 14);
    else if (other && !memcmp(arp + 14, other, 4))
        ping(arp + 8, other);
}

static void got_ip(unsigned char *frame, int size, const unsigned char *other)
{
    unsigned char *ip = frame + HEADER, *icmp = ip + 20, to_mac[6], to[4];
    int length;

    size -= HEADER;
    if (size < 28 || ip[0] != 0x45 || ip[9] != ICMP_SEEN || memcmp(ip + 16, address, 4))
        return;
    length = get16(ip + 2) - 20;
    if (length < 8 || length > size - 20)
        return;
    memcpy(to_mac, frame + 6, 6);
    memcpy(to, ip + 12, 4);
    if (icmp[0] == ECHO_REQUEST) {
        icmp[0] = ECHO_REPLY;
        send_echo(frame, to_mac, to, length);
    } else if (icmp[0] == ECHO_REPLY && other && !memcmp(to, other, 4)) {
        printf("%d.%d.%d.%d answers\n", to[0], to[1], to[2], to[3]);
        exit(0);
    }
}

static void got_text(const unsigned char *frame, int size)
{
    printf("%02x:%02x:%02x:%02x:%02x:%02x: %.*s\n", frame[6], frame[7], frame[8], frame[9], frame[10], frame[11],
           size - HEADER, (const char *)frame + HEADER);
}

static void got_frame(unsigned char *frame, int size, const unsigned char *other)
{
    if (size < HEADER)
        return;
    switch (get16(frame + 12)) {
    case TYPE_ARP: got_arp(frame + HEADER, size - HEADER, other); break;
    case TYPE_IP: got_ip(frame, size, other); break;
    case TYPE_TEXT: got_text(frame, size); break;
    }
}

/* Send what is on standard input, a line a frame; return whether there may be more. */
static int say(void)
{
    unsigned char frame[MTU];
    int size = read(0, frame + HEADER, sizeof frame - HEADER);

    if (size <= 0)
        return 0;
    if (frame[HEADER + size - 1] == '\n')
        size--;
    send_frame(frame, everybody, TYPE_TEXT, HEADER + size);
    return 1;
}

static void join(const char *path)
{
    struct sockaddr_un sun;

    memset(&sun, 0, sizeof sun);
    sun.sun_family = AF_IPN;
    strncpy(sun.sun_path, path, sizeof sun.sun_path - 1);
    net = socket(PF_IPN, SOCK_RAW, IPN_ANY);
    if (net < 0)
        die("socket");
    if (connect(net, (struct sockaddr *)&sun, sizeof sun) < 0)
        die(path);
}

/* Wait for what comes, and answer it. Without an answer from ``other`` for a second, ask it again. */
static void serve(const unsigned char *other)
{
    unsigned char frame[MTU];
    struct pollfd ready[2];
    int size, listening = !other, events = 0;

    for (;;) {
        if (other && !events)
            send_arp(1, everybody, other);
        ready[0].fd = net;
        ready[1].fd = listening ? 0 : -1;
        ready[0].events = ready[1].events = POLLIN;
        events = poll(ready, 2, other ? 1000 : -1);
        if (events < 0)
            die("poll");
        if (events && ready[0].revents) {
            size = read(net, frame, sizeof frame);
            if (size <= 0)
                return;
            got_frame(frame, size, other);
        }
        if (events && ready[1].revents)
            listening = say();
    }
}

int main(int argc, char **argv)
{
    unsigned char other[4];

    if (argc < 3 || argc > 4 || inet_pton(AF_INET, argv[2], address) != 1
        || (argc == 4 && inet_pton(AF_INET, argv[3], other) != 1)) {
        fprintf(stderr, "usage: peer2007 NETWORK ADDRESS [OTHER]\n");
        return 2;
    }
    mac[0] = 2; /* of one's own choosing */
    memcpy(mac + 2, address, 4);
    setvbuf(stdout, NULL, _IOLBF, 0);
    join(argv[1]);
    printf("%s is on %s\n", argv[2], argv[1]);
    serve(argc == 4 ? other : NULL);
    fprintf(stderr, "the network has ended\n");
    return 1;
}
