/* N Modbus TCP meters in one process: port FIRST … FIRST+N-1, every unit, every register answered.
 *
 * Registers hold single precision floats that move with the wall clock (register a: seconds since
 * the start of the day plus a). Written for the bench: it costs next to nothing beside what it
 * feeds, for any number of meters. On SIGUSR1 it prints how many requests it has answered.
 * Usage: meters FIRST N
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t asked;

static void ask(int signal)
{
    asked = signal;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    int first = atoi(argv[1]), n = atoi(argv[2]), poll = epoll_create1(0), one = 1;
    for (int i = 0; i < n; i++) {
        int s = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(first + i)};
        a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(s, (struct sockaddr *)&a, sizeof a) || listen(s, 64)) {
            perror("listen");
            return 1;
        }
        struct epoll_event e = {.events = EPOLLIN, .data.u64 = ((uint64_t)1 << 32) | s};
        epoll_ctl(poll, EPOLL_CTL_ADD, s, &e);
    }
    long long answered = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGUSR1, ask);
    puts("ready");
    for (;;) {
        struct epoll_event events[64];
        int got = epoll_wait(poll, events, 64, -1);
        if (asked) {
            asked = 0;
            printf("%lld\n", answered);
        }
        for (int i = 0; i < got; i++) {
            int fd = events[i].data.u64 & 0xffffffff;
            if (events[i].data.u64 >> 32) {
                int c = accept(fd, NULL, NULL);
                if (c < 0)
                    continue;
                setsockopt(c, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                struct epoll_event e = {.events = EPOLLIN, .data.u64 = c};
                epoll_ctl(poll, EPOLL_CTL_ADD, c, &e);
                continue;
            }
            uint8_t in[1024], out[300];
            ssize_t length = recv(fd, in, sizeof in, 0);
            if (length <= 0) {
                close(fd);
                continue;
            }
            for (uint8_t *q = in; q + 12 <= in + length; q += 12) {
                int address = q[8] << 8 | q[9], count = q[10] << 8 | q[11];
                if (count < 1 || count > 125)
                    continue;
                memcpy(out, q, 8);
                out[4] = 0, out[5] = 3 + 2 * count, out[8] = 2 * count;
                struct timespec now;
                clock_gettime(CLOCK_REALTIME, &now);
                for (int r = 0; r < count; r++) {
                    float value = (now.tv_sec % 86400) + ((address + r) & ~1) / 1000.0f;
                    uint32_t bits;
                    memcpy(&bits, &value, 4);
                    uint16_t word = (address + r) & 1 ? bits & 0xffff : bits >> 16;
                    out[9 + 2 * r] = word >> 8, out[10 + 2 * r] = word & 0xff;
                }
                if (send(fd, out, 9 + 2 * count, MSG_NOSIGNAL) < 0)
                    break;
                answered++;
            }
        }
    }
}
