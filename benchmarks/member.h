/* How the benchmarks' C programs become a member: of an IPN network by a raw stream (QEMU framing: four bytes of
 * length, then the frame), by bare SEQPACKET or datagrams, as a program for AF_IPN, or of a VDE switch (vde2 protocol 3: a request on its control
 * socket, then datagrams).
 */
#ifndef MEMBER_H
#define MEMBER_H
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct vde_request {
    uint32_t magic, version;
    int type;
    struct sockaddr_un sock;
    char description[64];
} __attribute__((packed));

static volatile sig_atomic_t stopped;
static char own_path[108];

static void on_term(int signo) { (void)signo; stopped = 1; }

static void die(const char *what) { perror(what); exit(1); }

static struct sockaddr_un address_of(const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    snprintf(sun.sun_path, sizeof sun.sun_path, "%s", path);
    return sun;
}

static int join_unix(int type, const char *path)
{
    struct sockaddr_un sun = address_of(path);
    int fd = socket(AF_UNIX, type, 0);
    if (connect(fd, (struct sockaddr *)&sun, sizeof sun) < 0) die(path);
    return fd;
}

static int join_stream(const char *path) { return join_unix(SOCK_STREAM, path); }

/* As if the kernel had AF_IPN. */
static int join_ipn(const char *path)
{
    enum { AF_IPN = 34, IPN_ANY = 0 };
    struct sockaddr_un sun = address_of(path);
    sun.sun_family = AF_IPN;
    int fd = socket(AF_IPN, SOCK_RAW, IPN_ANY);
    if (fd < 0) die("AF_IPN");
    if (connect(fd, (struct sockaddr *)&sun, sizeof sun) < 0) die(path);
    return fd;
}

/* As vfkit and libkrun do: bound, connected, and a first datagram that says hello. */
static int join_dgram(const char *path)
{
    snprintf(own_path, sizeof own_path, "%s.%d", path, getpid());
    struct sockaddr_un own = address_of(own_path), sun = address_of(path);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (bind(fd, (struct sockaddr *)&own, sizeof own) < 0) die(own_path);
    if (connect(fd, (struct sockaddr *)&sun, sizeof sun) < 0) die(path);
    if (send(fd, "VFKT", 4, 0) < 0) die("hello");
    return fd;
}

/* The switch holds the port as long as the control connection is open: to the end of the process. */
static int join_vde(const char *directory)
{
    char ctl[108];
    snprintf(ctl, sizeof ctl, "%s/ctl", directory);
    int control = join_stream(ctl);
    snprintf(own_path, sizeof own_path, "%s/.load.%d", directory, getpid());
    struct vde_request request = {.magic = 0xfeedface, .version = 3, .type = 0, .sock = address_of(own_path)};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (bind(fd, (struct sockaddr *)&request.sock, sizeof request.sock) < 0) die(own_path);
    if (send(control, &request, sizeof request - sizeof request.description + 1, 0) < 0) die("vde request");
    struct sockaddr_un peer;
    if (recv(control, &peer, sizeof peer, 0) <= 0) die("vde reply");
    if (connect(fd, (struct sockaddr *)&peer, sizeof peer) < 0) die("vde data socket");
    return fd;
}

/* To be called before the process ends: the switch leaves the sockets of its members behind. */
static void leave(void)
{
    if (*own_path) unlink(own_path);
}

#endif
