/* libmodbus reads 60 holding registers COUNT times and prints its own CPU seconds.
 * Usage: reads PORT COUNT */
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    modbus_t *ctx = modbus_new_tcp("127.0.0.1", atoi(argv[1]));
    modbus_set_slave(ctx, 1);
    if (modbus_connect(ctx))
        return 1;
    uint16_t words[125];
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    for (int i = atoi(argv[2]); i > 0; i--)
        if (modbus_read_registers(ctx, 0, 60, words) != 60)
            return 1;
    getrusage(RUSAGE_SELF, &after);
    double cpu = 0, sign = -1;
    for (struct rusage *u = &before; u; u = u == &before ? &after : NULL, sign = 1)
        cpu += sign * (u->ru_utime.tv_sec + u->ru_stime.tv_sec
                       + (u->ru_utime.tv_usec + u->ru_stime.tv_usec) / 1e6);
    printf("%.6f\n", cpu);
    return 0;
}
