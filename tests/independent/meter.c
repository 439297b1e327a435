/* A meter served by libmodbus, an implementation that is not ours.
 *
 *   meter rtu PATH BAUD UNIT KIND START_MS      one unit on a serial line
 *   meter tcp PORT UNIT KIND START_MS           one unit behind a TCP port of loopback
 *
 * Its energy counter is a function of the wall clock alone, so that a test can tell what it stood
 * at on any stamp: milliseconds since START_MS, in steps of its resolution. KIND says how:
 *
 *   sdm630   f32 kWh at input register 72, 0.01 kWh each 10 ms   (Eastron)
 *   b23      u64 at holding register 0x5000, 0.01 kWh each 10 ms (ABB)
 *   em24     s32 low word first at input register 0x0034, 0.1 kWh each 100 ms (Carlo Gavazzi E1)
 */
#include <errno.h>
#include <modbus.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint16_t *words(modbus_mapping_t *map, int input, int address)
{
    return (input ? map->tab_input_registers : map->tab_registers) + address;
}

static void show(modbus_mapping_t *map, const char *kind, int64_t elapsed_ms)
{
    if (!strcmp(kind, "sdm630")) {
        float kwh = (float)(elapsed_ms / 10) / 100.0f;
        uint32_t bits;
        memcpy(&bits, &kwh, 4);
        uint16_t *at = words(map, 1, 72);
        at[0] = bits >> 16, at[1] = bits & 0xffff;
    } else if (!strcmp(kind, "b23")) {
        uint64_t raw = elapsed_ms / 10;
        uint16_t *at = words(map, 0, 0x5000);
        for (int i = 0; i < 4; i++)
            at[i] = (raw >> (48 - 16 * i)) & 0xffff;
    } else if (!strcmp(kind, "em24")) {
        uint32_t raw = elapsed_ms / 100;
        uint16_t *at = words(map, 1, 0x0034), *twin = words(map, 0, 0x0034);
        at[0] = twin[0] = raw & 0xffff, at[1] = twin[1] = raw >> 16;
    } else {
        fprintf(stderr, "unknown kind %s\n", kind);
        exit(2);
    }
}

int main(int argc, char **argv)
{
    int rtu = argc == 7 && !strcmp(argv[1], "rtu");
    if (!rtu && !(argc == 6 && !strcmp(argv[1], "tcp")))
        return 2;
    char **rest = argv + (rtu ? 4 : 3);
    int unit = atoi(rest[0]);
    const char *kind = rest[1];
    int64_t start = atoll(rest[2]);
    modbus_t *ctx = rtu ? modbus_new_rtu(argv[2], atoi(argv[3]), 'N', 8, 1)
                        : modbus_new_tcp("127.0.0.1", atoi(argv[2]));
    modbus_mapping_t *map = modbus_mapping_new(1, 1, 65536, 65536);
    modbus_set_slave(ctx, unit);
    int listener = -1;
    if (rtu) {
        if (modbus_connect(ctx)) {
            perror("connect");
            return 1;
        }
    } else if ((listener = modbus_tcp_listen(ctx, 1)) < 0) {
        perror("listen");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    for (;;) {
        if (!rtu)
            modbus_tcp_accept(ctx, &listener);
        for (;;) {
            int length = modbus_receive(ctx, query);
            if (length == 0)
                continue; /* a request for another unit */
            if (length < 0) {
                if (rtu)
                    continue;
                break;
            }
            struct timespec now;
            clock_gettime(CLOCK_REALTIME, &now);
            show(map, kind, now.tv_sec * 1000LL + now.tv_nsec / 1000000 - start);
            modbus_reply(ctx, query, length, map);
        }
        modbus_close(ctx);
    }
}
