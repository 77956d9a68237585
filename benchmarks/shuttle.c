/* The guest of the benchmarks: carries frames between a TAP that it makes in its network namespace and a switch,
 * as a virtual machine's network card would, with plain frames (no offloads) and many of them to a system call.
 *
 *   shuttle KIND ADDRESS TAP      until SIGTERM
 *
 * KIND is "stream" (ADDRESS: the path of an IPN network) or "vde" (ADDRESS: the directory of a VDE switch). What the
 * switch does not take waits here, and what comes after it in the TAP's queue, where the kernel drops the excess.
 * Says "joined" on standard error when it is in, and counts on standard output, as JSON, at its end.
 */
#define _GNU_SOURCE
#include "member.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sys/ioctl.h>

enum { MAXFRAME = 16384, FRAMES = 64, BATCH = 262144 };

static int tap, net;
static unsigned long long from_tap, from_net, reads, refused;

static int would_block(void) { return errno == EAGAIN || errno == EINTR || errno == ENOBUFS; }

static int open_tap(const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    strncpy(request.ifr_name, name, IFNAMSIZ - 1);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0) die("/dev/net/tun");
    return fd;
}

/* Gives a frame to the TAP; while the interface is down it is lost, as on a wire. */
static void give(const unsigned char *frame, size_t size)
{
    if (write(tap, frame, size) < 0)
        refused++;
    else
        from_net++;
}

/* -- stream: frames one after the other in a buffer, as many as there are by one send and one recv ---------------- */

static unsigned char out[BATCH + MAXFRAME + 4], in[BATCH];
static size_t out_start, out_end, in_kept;

static int stream_flush(void)
{
    while (out_start < out_end) {
        ssize_t sent = send(net, out + out_start, out_end - out_start, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            if (!would_block()) die("send");
            return 0;
        }
        out_start += sent;
    }
    out_start = out_end = 0;
    return 1;
}

static void stream_from_tap(void)
{
    for (int i = 0; i < FRAMES && out_end < BATCH; i++) {
        ssize_t size = read(tap, out + out_end + 4, MAXFRAME);
        if (size <= 0) break;
        uint32_t prefix = htonl(size);
        memcpy(out + out_end, &prefix, 4);
        out_end += 4 + size;
        from_tap++;
    }
}

static int stream_into_tap(void)
{
    ssize_t got = recv(net, in + in_kept, BATCH - in_kept, MSG_DONTWAIT);
    if (got <= 0) return got < 0 && would_block();
    size_t position = 0, end = in_kept + got;
    uint32_t prefix;
    while (end - position >= 4) {
        memcpy(&prefix, in + position, 4);
        size_t size = ntohl(prefix);
        if (size > MAXFRAME) return 0;
        if (end - position - 4 < size) break;
        give(in + position + 4, size);
        position += 4 + size;
    }
    in_kept = end - position;
    memmove(in, in + position, in_kept);
    reads++;
    return 1;
}

/* -- vde: datagrams, as many as there are by one sendmmsg and one recvmmsg ------------------------------------------ */

static unsigned char out_frames[FRAMES][MAXFRAME], in_frames[FRAMES][MAXFRAME];
static struct iovec out_vectors[FRAMES], in_vectors[FRAMES];
static struct mmsghdr out_messages[FRAMES], in_messages[FRAMES];
static int out_next, out_count;

static void vde_prepare(void)
{
    for (int i = 0; i < FRAMES; i++) {
        out_vectors[i].iov_base = out_frames[i];
        in_vectors[i] = (struct iovec){in_frames[i], MAXFRAME};
        out_messages[i].msg_hdr = (struct msghdr){.msg_iov = &out_vectors[i], .msg_iovlen = 1};
        in_messages[i].msg_hdr = (struct msghdr){.msg_iov = &in_vectors[i], .msg_iovlen = 1};
    }
}

static int vde_flush(void)
{
    while (out_next < out_count) {
        int sent = sendmmsg(net, out_messages + out_next, out_count - out_next, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            if (!would_block()) die("sendmmsg");
            return 0;
        }
        out_next += sent;
    }
    out_next = out_count = 0;
    return 1;
}

static void vde_from_tap(void)
{
    while (out_count < FRAMES) {
        ssize_t size = read(tap, out_frames[out_count], MAXFRAME);
        if (size <= 0) break;
        out_vectors[out_count++].iov_len = size;
        from_tap++;
    }
}

static int vde_into_tap(void)
{
    int got = recvmmsg(net, in_messages, FRAMES, MSG_DONTWAIT, NULL);
    if (got <= 0) return got < 0 && would_block();
    for (int i = 0; i < got; i++) give(in_frames[i], in_messages[i].msg_len);
    reads++;
    return 1;
}

/* -- both ------------------------------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    int (*join)(const char *address);
    void (*from_tap)(void); /* read what the TAP has, at most a batch; only when nothing waits */
    int (*flush)(void);     /* send what waits; whether all is sent */
    int (*into_tap)(void);  /* take what the switch has sent, at most a batch; 0 when it is gone */
} kinds[] = {
    {"stream", join_stream, stream_from_tap, stream_flush, stream_into_tap},
    {"vde", join_vde, vde_from_tap, vde_flush, vde_into_tap},
};

int main(int argc, char **argv)
{
    unsigned kind = 0;
    while (argc == 4 && kind < 2 && strcmp(argv[1], kinds[kind].name)) kind++;
    if (argc != 4 || kind == 2) {
        fprintf(stderr, "usage: shuttle stream|vde ADDRESS TAP\n");
        return 2;
    }
    struct sigaction action = {.sa_handler = on_term};
    sigaction(SIGTERM, &action, NULL);
    vde_prepare();
    tap = open_tap(argv[3]);
    net = kinds[kind].join(argv[2]);
    fprintf(stderr, "joined\n");
    int waiting = 0, there = 1;
    while (!stopped && there) {
        struct pollfd ready[2] = {{net, POLLIN | (waiting ? POLLOUT : 0), 0}, {waiting ? -1 : tap, POLLIN, 0}};
        if (poll(ready, 2, -1) < 0) continue;
        if (ready[0].revents & (POLLIN | POLLHUP | POLLERR)) there = kinds[kind].into_tap();
        if (ready[1].revents) kinds[kind].from_tap();
        waiting = !kinds[kind].flush();
    }
    printf("{\"from_tap\": %llu, \"from_net\": %llu, \"reads\": %llu, \"refused\": %llu}\n", from_tap, from_net, reads,
           refused);
    leave();
    return there ? 0 : 1;
}
