// Reads the driver's own log of context switches, to learn who may read it: root, or a user too.
//   ctxsw_log [-t SECONDS] [-p POLL_MS] [-f] [-o FILE.csv]
// It binds one log to the caller's user id and one to all users, prints the result of every step,
// and what the logs say about the programs that run beside it. The log is on while it runs; nothing
// else changes. An alarm ends it.
// -f makes the driver empty the card's buffer at each poll; by itself it does so 30 times a second.
// -o FILE.csv: log, pid, tag, ns, context of each record. gcc -O2 -static builds it.
// Facts: open-gpu-kernel-modules 580.142: nv_escape.h, nvos.h, cl90c{d,dfecs,e}.h, ctrl90cd.h,
// ctrl2080gr.h, ctrl0000gpu.h; event_buffer.c, fecs_event_list.c, no_device_mem.c, nv-mmap.c.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

// clang-format off
typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef unsigned long long u64;
#define SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), "the driver's size")
#define AT(type, member, at) _Static_assert(offsetof(struct type, member) == (at), "the driver's")

// The calls' numbers and their structs, on x86-64: NVOS00, NVOS64, NVOS54, NVOS33 with a file.
enum { kFree = 0x29, kControl, kAlloc, kMapMemory = 0x4E, kCardInfo = 200, kRegisterFd };
struct Free { u32 root, parent, object, status; };
struct Alloc { u32 root, parent, object, klass; u64 params, rights; u32 size, flags, status, pad; };
struct Control { u32 client, object, command, flags; u64 params; u32 size, status; };
struct Map { u32 client, device, memory, pad; u64 at, length, base; u32 status, flags, fd, end; };
struct Card { u32 valid, domain; u8 bus, slot, function, pad; u16 vendor, device; u32 id, line;
              u64 reg, reg_size, fb, fb_size; u32 minor; char name[12]; };
SIZE(Free, 16); SIZE(Alloc, 48); SIZE(Control, 32); SIZE(Map, 56); SIZE(Card, 72);
AT(Alloc, status, 40); AT(Map, status, 40); AT(Map, fd, 48); AT(Card, id, 16); AT(Card, minor, 56);

enum { kClient = 0x41, kDevice = 0x80, kSubdevice = 0x2080, kMemory = 0x90CE, kBuffer = 0x90CD };
enum { kIdInfo = 0x205, kGetTime = 0x20800403, kBind = 0x20801238 };
enum { kEnable = (int)0x90CD0101, kUpdateGet = (int)0x90CD0102, kFlush = (int)0x90CD0104 };
struct DeviceParams { u32 id, share, target[2], flags, pad; u64 va[3]; u32 mode, pad2; };
struct MemoryParams { u32 owner, type, flags, width, height, pitch, attr, attr2, format, cover[3];
                      u64 low, high, size, alignment, offset, limit, address; u32 tail[5], pad2; };
struct BufferParams { u64 header, records; u32 record_bytes, record_count; u64 variable;
                      u32 variable_bytes, threshold; u64 notify; u32 variable_threshold, subdevice,
                      flags, header_memory, record_memory, variable_memory; };
struct BindParams { u32 buffer, record_bytes, detail, filter; u8 all_users, pad[3]; u32 reason; };
struct IdInfo { u32 id, flags, device, subdevice, sli, board, gpu; int numa; };
struct Header { u32 get, put; u64 count, dropped, variable_dropped; };
struct Record { u16 type, subtype; u32 variable; u8 tag, vm; u16 sequence; u32 context, pid;
                u16 reserved; u8 gpu_instance, compute_instance; u64 ns; };
SIZE(DeviceParams, 56); SIZE(MemoryParams, 128); SIZE(BufferParams, 72); SIZE(BindParams, 24);
AT(MemoryParams, attr2, 28); AT(MemoryParams, size, 64); AT(BufferParams, subdevice, 52);
AT(BufferParams, header_memory, 60); AT(BindParams, reason, 20); SIZE(IdInfo, 32); SIZE(Header, 32);
// The driver copies 8 + 24 bytes a record and does not check that they fit.
SIZE(Record, 32); AT(Record, tag, 8); AT(Record, pid, 16); AT(Record, ns, 24);
// clang-format on

enum { kRecords = 8192, kPrinted = 40, kPids = 64 };
enum { kReadOnlyMemory = 1 << 22, kMapReadOnly = 1, kKeepOldest = 1 };
#define CACHED_MEMORY (5u << 29)

struct Process {
  u32 pid;
  u64 sum_ns, since_ns, starts, ends;
};

struct Log {
  const char* name;
  u32 buffer, get;
  const volatile struct Header* header;
  const volatile struct Record* records;
  u64 seen, dropped, age_max_ns, first_ns, last_ns;
  struct Process processes[kPids];
};

static int g_control = -1;
static u32 g_client, g_subdevice, g_next = 0x5A000001;  // Handles; any number will do.
static FILE* g_csv;

static const char* status_name(u32 status) {
  if (status == 0x1B) return "INSUFFICIENT_PERMISSIONS";
  if (status == 0x1F) return "INVALID_ARGUMENT";
  return status == 0 ? "OK" : status == 0x56 ? "NOT_SUPPORTED" : "see nvstatuscodes.h";
}

static int call(int fd, unsigned number, void* argument, size_t bytes) {
  int result;
  do result = ioctl(fd, _IOC(_IOC_READ | _IOC_WRITE, 'F', number, bytes), argument);
  while (result < 0 && errno == EINTR);
  return result;
}

// Prints a step; true if it worked. A failed call leaves the status as it was set: 0xFFFF.
static int step(const char* log, const char* what, int result, u32 status) {
  printf("%-4s %-34s ioctl %d (%s), RM status 0x%x (%s)\n", log, what, result,
         result < 0 ? strerror(errno) : "ok", status, result < 0 ? "-" : status_name(status));
  return result >= 0 && status == 0;
}

static u32 allocate(const char* log, const char* what, u32 up, u32 klass, void* params, u32 size) {
  u32 object = klass == kClient ? 0 : g_next++;
  struct Alloc alloc = {g_client, up, object, klass, (uintptr_t)params, 0, size, 0, 0xFFFF, 0};
  int result = call(g_control, kAlloc, &alloc, sizeof alloc);
  return step(log, what, result, alloc.status) ? alloc.object : 0;
}

static int control(u32 object, u32 command, void* params, u32 bytes, u32* status) {
  struct Control control = {g_client, object, command, 0, (uintptr_t)params, bytes, 0xFFFF};
  int result = call(g_control, kControl, &control, sizeof control);
  *status = control.status;
  return result;
}

// Memory of the client, which only the driver may write: the driver takes nothing else from a user.
static const volatile void* shared(const char* log, const char* what, u32 bytes, u32* handle) {
  struct MemoryParams params = {.attr = CACHED_MEMORY, .attr2 = kReadOnlyMemory, .size = bytes};
  *handle = allocate(log, what, g_client, kMemory, &params, sizeof params);
  if (*handle == 0) return NULL;
  // A control file holds one mapping of system memory (nv-usermap.c), so each gets its own.
  struct Map map = {g_client, g_client, *handle, 0, 0, bytes, 0, 0xFFFF, kMapReadOnly, 0, 0};
  map.fd = (u32)open("/dev/nvidiactl", O_RDWR | O_CLOEXEC);
  int result = call(g_control, kMapMemory, &map, sizeof map);
  if (!step(log, "  map it", result, map.status)) return NULL;
  void* address = mmap(NULL, bytes, PROT_READ, MAP_SHARED, (int)map.fd, 0);
  return step(log, "  mmap", address == MAP_FAILED ? -1 : 0, 0) ? address : NULL;
}

static int open_log(struct Log* log, const char* name, int all_users) {
  log->name = name;
  struct BufferParams params = {.record_bytes = sizeof(struct Record), .record_count = kRecords};
  params.subdevice = g_subdevice;  // Never 0: the driver uses the card it names without a check.
  log->header = shared(name, "header", 4096, &params.header_memory);
  log->records = shared(name, "records", kRecords * sizeof(struct Record), &params.record_memory);
  if (log->header == NULL || log->records == NULL) return 0;
  log->buffer = allocate(name, "event buffer", g_client, kBuffer, &params, sizeof params);
  if (log->buffer == 0) return 0;
  // Detail 0 is all events. The driver gives users and root the simple ones: start and end.
  struct BindParams bind = {log->buffer, sizeof(struct Record), 0, ~0u, (uint8_t)all_users, {0}, 0};
  u32 status;
  int result = control(g_subdevice, kBind, &bind, sizeof bind, &status);
  if (bind.reason != 0) printf("%-4s reason %u (4 admin, 5 capability)\n", name, bind.reason);
  if (!step(name, "bind context switches", result, status)) return 0;
  result = control(log->buffer, kEnable, (u32[]){1, kKeepOldest}, 8, &status);
  return step(name, "enable", result, status);
}

static struct Process* process_of(struct Log* log, u32 pid) {
  for (int i = 0; i < kPids; i++) {
    struct Process* process = &log->processes[i];
    if (process->starts + process->ends == 0) process->pid = pid;
    if (process->pid == pid) return process;
  }
  return &log->processes[kPids - 1];
}

static void account(struct Log* log, const struct Record* record) {
  if (record->ns == 0) return;  // Another user's, and the driver had no time to blur.
  struct Process* process = process_of(log, record->pid);
  if (log->first_ns == 0) log->first_ns = record->ns;
  if (record->ns > log->last_ns) log->last_ns = record->ns;
  if (record->tag == 5 || record->tag == 6) {  // Restored; what users and root get: simple start.
    process->starts++;
    process->since_ns = record->ns;
  } else if (record->tag == 3 || record->tag == 7) {  // Saved; simple end.
    process->ends++;
    if (process->since_ns != 0 && record->ns >= process->since_ns)
      process->sum_ns += record->ns - process->since_ns;
    process->since_ns = 0;
  }
}

static u64 gpu_time(void) {
  u64 ns = 0;
  u32 status;
  return control(g_subdevice, kGetTime, &ns, sizeof ns, &status) < 0 || status != 0 ? 0 : ns;
}

static void drain(struct Log* log) {
  u32 put = __atomic_load_n(&log->header->put, __ATOMIC_ACQUIRE), status;
  if (put >= kRecords || put == log->get) return;
  u64 newest = 0, now = gpu_time();
  for (; log->get != put; log->get = (log->get + 1) % kRecords) {
    const struct Record record = log->records[log->get];
    const char* tag = record.tag == 6 ? "start" : record.tag == 7 ? "end" : "";
    if (log->seen++ < kPrinted)
      printf("%-4s %3llu: pid %u tag %u %s at %llu ns, context 0x%x, no. %u\n", log->name,
             log->seen, record.pid, record.tag, tag, record.ns, record.context, record.sequence);
    if (g_csv != NULL)
      fprintf(g_csv, "%s,%u,%u,%llu,%u\n", log->name, record.pid, record.tag, record.ns,
              record.context);
    account(log, &record);
    if (record.ns > newest) newest = record.ns;
  }
  log->dropped += log->header->dropped;
  if (now > newest && now - newest > log->age_max_ns) log->age_max_ns = now - newest;
  int result = control(log->buffer, kUpdateGet, (u32[]){log->get, 0}, 8, &status);
  if (result < 0 || status != 0) step(log->name, "update the read position", result, status);
}

static void report(const struct Log* log) {
  u64 now = gpu_time();
  double span = (log->last_ns - log->first_ns) / 1e6;
  printf("\n%s: %llu records, %llu dropped, over %.1f ms; age when read at most %.1f ms\n",
         log->name, log->seen, log->dropped, span, log->age_max_ns / 1e6);
  for (int i = 0; i < kPids && log->processes[i].starts + log->processes[i].ends != 0; i++) {
    const struct Process* p = &log->processes[i];
    const char* note = p->pid == 0 ? " (hidden)" : p->pid == ~0u ? " (kernel)" : "";
    printf("  pid %u%s: on the GPU %.3f ms (%.1f %%), %llu starts, %llu ends\n", p->pid, note,
           p->sum_ns / 1e6, span > 0 ? p->sum_ns / 1e4 / span : 0, p->starts, p->ends);
    // A context stays loaded until another one wants the GPU: this is not work that was seen.
    if (p->since_ns != 0 && now > p->since_ns)
      printf("    and loaded for the last %.3f ms\n", (now - p->since_ns) / 1e6);
  }
}

static int open_gpu(void) {
  g_control = open("/dev/nvidiactl", O_RDWR | O_CLOEXEC);
  printf("open /dev/nvidiactl: %s\n", g_control < 0 ? strerror(errno) : "ok");
  char path[32];
  int gpu = -1;
  for (int i = 0; gpu < 0 && i < 32; i++) {
    sprintf(path, "/dev/nvidia%d", i);
    gpu = open(path, O_RDWR | O_CLOEXEC);
    if (gpu >= 0 || errno != ENOENT)
      printf("open %s: %s\n", path, gpu < 0 ? strerror(errno) : "ok");
  }
  if (g_control < 0 || gpu < 0) return 0;
  step("", "tie the files", call(gpu, kRegisterFd, &g_control, sizeof g_control), 0);
  g_client = allocate("", "client", 0, kClient, NULL, 0);
  if (g_client == 0) return 0;
  static struct Card cards[32];
  struct stat file;
  struct DeviceParams device = {0};
  u32 subdevice = 0, status;
  step("", "cards", call(g_control, kCardInfo, cards, sizeof cards), 0);
  for (int i = 0; fstat(gpu, &file) == 0 && i < 32; i++) {
    if ((cards[i].valid & 0xFF) == 0 || cards[i].minor != minor(file.st_rdev)) continue;
    struct IdInfo info = {.id = cards[i].id};
    int result = control(g_client, kIdInfo, &info, sizeof info, &status);
    if (step("", "the card's device number", result, status)) device.id = info.device;
    printf("     device %u of card 0x%x, minor %u\n", device.id, info.id, cards[i].minor);
  }
  u32 handle = allocate("", "device", g_client, kDevice, &device, sizeof device);
  if (handle != 0)
    g_subdevice = allocate("", "subdevice", handle, kSubdevice, &subdevice, sizeof subdevice);
  return g_subdevice != 0;
}

static u64 now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
}

int main(int argc, char** argv) {
  int seconds = 5, poll_ms = 20, flush = 0, option;
  while ((option = getopt(argc, argv, "t:p:fo:")) != -1) {
    if (option == 't') seconds = atoi(optarg);
    if (option == 'p') poll_ms = atoi(optarg);
    if (option == 'f') flush = 1;
    if (option == 'o') g_csv = fopen(optarg, "w");
    if (option == '?') return 2;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  alarm((unsigned)seconds + 20);  // Ends the program, whatever it waits for.
  printf("uid %u, pid %d, %d s, poll %d ms, flush %d\n", geteuid(), getpid(), seconds, poll_ms,
         flush);
  if (!open_gpu()) return 1;
  static struct Log logs[2];
  int on[2] = {open_log(&logs[0], "own", 0), 0};
  on[1] = open_log(&logs[1], "all", 1);
  printf("GPU time %llu ns\n", gpu_time());
  struct timespec pause = {poll_ms / 1000, poll_ms % 1000 * 1000000L};
  u64 flushes = 0, flush_ns = 0, until_ns = now_ns() + (u64)seconds * 1000000000;
  for (int last = 0; !last && (on[0] || on[1]);) {
    nanosleep(&pause, NULL);
    last = now_ns() >= until_ns;
    if (flush || last) {
      u32 status;
      u64 before_ns = now_ns();
      int result = control(logs[on[0] ? 0 : 1].buffer, kFlush, NULL, 0, &status);
      flush_ns += now_ns() - before_ns;
      flushes++;
      if (result < 0 || status != 0) flush = step("", "flush", result, status);
    }
    for (int i = 0; i < 2; i++)
      if (on[i]) drain(&logs[i]);
  }
  if (flushes != 0) printf("%llu flushes, %.1f us each\n", flushes, flush_ns / 1e3 / flushes);
  for (int i = 0; i < 2; i++)
    if (on[i]) report(&logs[i]);
  if (g_csv != NULL) fclose(g_csv);
  struct Free all = {g_client, 0, g_client, 0xFFFF};
  step("", "free everything", call(g_control, kFree, &all, sizeof all), all.status);
  return on[0] || on[1] ? 0 : 1;
}
