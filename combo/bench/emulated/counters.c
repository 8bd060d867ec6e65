/*
 * A plugin of QEMU that counts what each processor of an x86 machine executes, by mode, and leaves out what is not a
 * program's: the idle task. `host.sh` builds and loads it; it takes the file to count in, which the machine may read
 * at any time. It never changes what is executed.
 *
 * It counts as hardware does: one for a repeated string instruction, however often it repeats.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* What is used of QEMU's `qemu-plugin.h`, version 1, which no package of Debian has. */
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { NO_REGISTERS = 0 };
enum { READS_OR_WRITES = 3 };
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, void (*)(unsigned, void *), int, void *);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, void (*)(unsigned, uint32_t, uint64_t, void *), int,
                                      int, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);

#define PUBLIC __attribute__((visibility("default")))
#define PROCESSORS 2

/* The kind of a block of instructions, which is where in a processor's counters it goes. */
enum { USER, KERNEL, REPEATS, IDLE, KINDS };

/* The counters: a row for each processor. */
static volatile uint64_t (*counters)[KINDS];

/* The task that each processor is in, by where it keeps its stack pointer, and the one that halts it. */
static struct {
    uint64_t task, idle;
} processors[PROCESSORS];

PUBLIC int qemu_plugin_version = 1;

static void executed(unsigned processor, void *block) {
    unsigned kind = (uintptr_t)block % KINDS;
    if (processors[processor].task == processors[processor].idle)
        kind = IDLE;
    counters[processor][kind] += (uintptr_t)block / KINDS;
}

static void halted(unsigned processor, void *nothing) {
    (void)nothing;
    processors[processor].idle = processors[processor].task;
}

static void switched(unsigned processor, uint32_t access, uint64_t address, void *nothing) {
    (void)access, (void)nothing;
    processors[processor].task = address;
}

/* Whether this is a string instruction with a prefix that repeats it. */
static bool repeats(const uint8_t *bytes, size_t size) {
    bool repeated = false;
    size_t i = 0;
    for (; i < size && (bytes[i] == 0xf2 || bytes[i] == 0xf3 || bytes[i] == 0x66 || bytes[i] == 0x67); i++)
        repeated |= bytes[i] >= 0xf2;
    if (i < size && bytes[i] >> 4 == 4) /* REX */
        i++;
    return repeated && i + 1 == size && ((bytes[i] >= 0xa4 && bytes[i] <= 0xa7) || (bytes[i] >= 0xaa && bytes[i] <= 0xaf));
}

/* Whether this is `hlt`. */
static bool halts(const uint8_t *bytes, size_t size) { return size == 1 && bytes[0] == 0xf4; }

/* Whether this is `mov rsp, [rsi + …]`, by which Linux takes the stack of the next task, and which nothing else does. */
static bool switches(const uint8_t *bytes, size_t size) { return size == 7 && memcmp(bytes, "\x48\x8b\xa6", 3) == 0; }

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
    size_t count = qemu_plugin_tb_n_insns(block);
    uintptr_t kind = qemu_plugin_tb_vaddr(block) >> 63 ? KERNEL : USER;
    (void)id;
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
        const uint8_t *bytes = qemu_plugin_insn_data(instruction);
        size_t size = qemu_plugin_insn_size(instruction);
        /* The first time it is at the end of a block; then it is a block of its own that jumps to itself. */
        if (i == 0 && repeats(bytes, size))
            kind = REPEATS;
        if (kind == KERNEL && halts(bytes, size))
            qemu_plugin_register_vcpu_insn_exec_cb(instruction, halted, NO_REGISTERS, NULL);
        if (kind == KERNEL && switches(bytes, size))
            qemu_plugin_register_vcpu_mem_cb(instruction, switched, NO_REGISTERS, READS_OR_WRITES, NULL);
    }
    qemu_plugin_register_vcpu_tb_exec_cb(block, executed, NO_REGISTERS, (void *)(count * KINDS + kind));
}

PUBLIC int qemu_plugin_install(qemu_plugin_id_t id, const void *machine, int argc, char **argv) {
    const char *path = argc == 1 ? strchr(argv[0], '=') : NULL;
    int file = path ? open(path + 1, O_RDWR | O_CREAT | O_TRUNC, 0644) : -1;
    (void)machine;
    if (file < 0 || ftruncate(file, sizeof *counters * PROCESSORS) != 0)
        return 1;
    counters = mmap(NULL, sizeof *counters * PROCESSORS, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (counters == MAP_FAILED)
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
