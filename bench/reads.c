/* libmodbus reads 60 holding registers COUNT times and prints its own CPU seconds.
 *
 *   reads tcp PORT COUNT
 *   reads rtu PATH BAUD COUNT SILENCE_US     sleeping SILENCE_US before each request
 */
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int rtu = argc == 6 && !strcmp(argv[1], "rtu");
    if (!rtu && !(argc == 4 && !strcmp(argv[1], "tcp")))
        return 2;
    int count = atoi(argv[rtu ? 4 : 3]), silence = rtu ? atoi(argv[5]) : 0;
    modbus_t *ctx = rtu ? modbus_new_rtu(argv[2], atoi(argv[3]), 'N', 8, 1)
                        : modbus_new_tcp("127.0.0.1", atoi(argv[2]));
    modbus_set_slave(ctx, 1);
    if (modbus_connect(ctx))
        return 1;
    uint16_t words[125];
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    for (int i = count; i > 0; i--) {
        if (silence)
            usleep(silence);
        if (modbus_read_registers(ctx, 0, 60, words) != 60)
            return 1;
    }
    getrusage(RUSAGE_SELF, &after);
    double cpu = 0, sign = -1;
    for (struct rusage *u = &before; u; u = u == &before ? &after : NULL, sign = 1)
        cpu += sign * (u->ru_utime.tv_sec + u->ru_stime.tv_sec
                       + (u->ru_utime.tv_usec + u->ru_stime.tv_usec) / 1e6);
    printf("%.6f\n", cpu);
    return 0;
}
