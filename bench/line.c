/* A serial line at wire speed, and on it meters that libmodbus serves.
 *
 *   line BAUD UNITS TURNAROUND_US
 *
 * Prints the path to open, then a line for each request: the microsecond at which its first byte
 * came, the microseconds of silence before it, the unit asked, and the microsecond at which the
 * answer had left, 0 where there was none. The line is a pty, 8N1: the request reaches the meter,
 * and each 8 bytes of the answer (a UART's FIFO) reach the client, when their last bit would have
 * gone over the wire. Units 1 to UNITS answer, when 3.5 characters of silence and the turnaround
 * have passed. Only reads of functions 1 to 4 are understood.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <modbus.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST = 8, FIFO = 8, REGISTERS = 2000 };

static int64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void wait_until(int64_t moment)
{
    struct timespec t = {moment / 1000000000, moment % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

/* Both ends of a pty; the other end stays open, so that nobody's leaving is an error. */
static int new_pty(char *path)
{
    int master, other;
    struct termios raw;
    if (openpty(&master, &other, path, NULL, NULL)) {
        perror("openpty");
        exit(1);
    }
    tcgetattr(other, &raw);
    cfmakeraw(&raw);
    tcsetattr(other, TCSANOW, &raw);
    return master;
}

static void *serve(void *ctx)
{
    modbus_mapping_t *map = modbus_mapping_new(REGISTERS, REGISTERS, REGISTERS, REGISTERS);
    for (int i = 0; i < REGISTERS; i += 2) {
        float value = 230 + i / 100.0f;
        uint32_t bits;
        memcpy(&bits, &value, 4);
        map->tab_registers[i] = map->tab_input_registers[i] = bits >> 16;
        map->tab_registers[i + 1] = map->tab_input_registers[i + 1] = bits & 0xffff;
    }
    uint8_t query[MODBUS_RTU_MAX_ADU_LENGTH];
    for (;;) {
        int length = modbus_receive(ctx, query);
        if (length > 0)
            modbus_reply(ctx, query, length, map);
    }
}

/* As many bytes as come until nothing came for that long. */
static int receive(int from, uint8_t *into, int most, int wait_ms)
{
    int got = 0;
    struct pollfd ready = {.fd = from, .events = POLLIN};
    while (got < most && poll(&ready, 1, wait_ms) > 0) {
        ssize_t length = read(from, into + got, most - got);
        if (length <= 0)
            break;
        got += length;
    }
    return got;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    double character = 10e9 / atoi(argv[1]);
    int64_t silence = atoi(argv[1]) > 19200 ? 1750000 : 3.5 * character;
    int64_t turnaround = atoi(argv[3]) * 1000LL;
    int units = atoi(argv[2]);
    char path[64], inner[64];
    int line = new_pty(path), inside = new_pty(inner);
    pthread_t thread;
    modbus_t *ctx = modbus_new_rtu(inner, 115200, 'N', 8, 1);
    modbus_set_slave(ctx, 1);
    if (modbus_connect(ctx)) {
        perror("connect");
        return 1;
    }
    pthread_create(&thread, NULL, serve, ctx);
    /* Where it may: its own lateness would be taken for the client's silence. */
    sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 10});
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts(path);
    for (int64_t quiet_since = now();;) {
        uint8_t request[REQUEST], answer[300];
        int got = receive(line, request, 1, -1);
        int64_t start = now();
        got += receive(line, request + got, REQUEST - got, 20);
        if (got < REQUEST)
            continue;
        int64_t end = start + REQUEST * character;
        int answers = request[0] >= 1 && request[0] <= units;
        printf("%lld %lld %d%s", (long long)(start / 1000),
               (long long)((start - quiet_since) / 1000), request[0], answers ? "" : " 0\n");
        wait_until(end);
        quiet_since = end;
        if (!answers)
            continue;
        modbus_set_slave(ctx, request[0]); /* it waits for the next request meanwhile */
        tcflush(inside, TCIFLUSH);         /* what a stranger wrote to its port is no answer */
        if (write(inside, request, REQUEST) != REQUEST)
            return 1;
        int count = request[4] << 8 | request[5];
        int length = 5 + (request[1] < 3 ? (count + 7) / 8 : 2 * count);
        length = receive(inside, answer, length, 500);
        int64_t at = end + silence + turnaround;
        for (int sent = 0; sent < length; sent += FIFO) {
            int bytes = length - sent < FIFO ? length - sent : FIFO;
            at += bytes * character;
            wait_until(at);
            quiet_since = now();
            if (write(line, answer + sent, bytes) != bytes)
                return 1;
        }
        printf(" %lld\n", (long long)(quiet_since / 1000));
    }
}
