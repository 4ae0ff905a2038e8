// Making, finding and joining the software machine; clearing up after processes that died.
#include "machine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "abi/env.h"
#include "base/units.h"
#include "vram.h"

namespace allot::sim {
namespace {

constexpr uint64_t kMagic = 0x32304d495341ull;  // changes with the meaning of a field

struct Attached {
  std::mutex mutex;
  std::string folder;
  std::atomic<Machine*> machine{nullptr};
  std::atomic<uint32_t> slot{UINT32_MAX};
  std::atomic<void (*)(ProcessSlot&)> serve{nullptr};
};

Attached& attached() {
  static Attached& state = *new Attached;  // never destroyed: threads outlive exit handlers
  return state;
}

// A folder in which all users may make files and nobody may remove another's.
bool for_all_users(const std::string& folder) {
  struct stat about;
  constexpr mode_t kBoth = S_ISVTX | S_IWOTH;
  return stat(folder.c_str(), &about) == 0 && S_ISDIR(about.st_mode) &&
         (about.st_mode & kBoth) == kBoth;
}

std::string folder_name() {
  const char* given = getenv(ALLOT_ENV_SIM_DIR);
  if (given != nullptr && *given != '\0') return given;
  const std::string common = "/dev/shm/allot-sim";
  struct stat about;
  // Root's, or that of a user without a number in our namespace, who may be root.
  const bool trusted =
      stat(common.c_str(), &about) == 0 && (about.st_uid == 0 || about.st_uid == 65534);
  if (trusted && for_all_users(common)) return common;
  std::string own = common + "-" + std::to_string(geteuid());
  // The numbers of another user namespace are other users: 0 there is not root.
  if (stat(own.c_str(), &about) == 0 && about.st_uid != geteuid() &&
      stat("/proc/self/ns/user", &about) == 0) {
    own += "-" + std::to_string(about.st_ino);
  }
  return own;
}

std::string read_boot_id() {
  char text[40] = {};
  if (FILE* file = fopen("/proc/sys/kernel/random/boot_id", "re")) {
    if (fgets(text, sizeof text, file) == nullptr) text[0] = '\0';
    fclose(file);
  }
  text[strcspn(text, "\n")] = '\0';
  return text;
}

// A new machine in a zeroed mapping. The magic comes last.
void build(Machine* m, const std::string& config, const std::vector<uint64_t>& sizes) {
  memset(static_cast<void*>(m), 0, offsetof(Machine, gpus));
  m->layout = sizeof(Machine);
  snprintf(m->boot_id, sizeof m->boot_id, "%s", read_boot_id().c_str());
  snprintf(m->config, sizeof m->config, "%s", config.c_str());
  m->gpu_count = static_cast<uint32_t>(sizes.size());
  m->next_generation = 1;
  init_robust(&m->mutex);
  for (ProcessSlot& slot : m->slots) init_robust(&slot.life);
  for (uint32_t i = 0; i < m->gpu_count; i++) {
    Gpu& gpu = m->gpus[i];
    gpu.bytes = sizes[i];
    gpu.card_pages = gpu.free_pages = static_cast<uint32_t>(sizes[i] / kPageBytes);
    gpu.page_count = std::min(gpu.card_pages * kPlaces, kMaxPages);
    init_robust(&gpu.timeline.lock);
    // Stable for a machine's folder and index, and visibly ours: "allot" in ASCII, then the index.
    const uint64_t hash = std::hash<std::string>{}(machine_folder());
    memcpy(gpu.uuid, "allot", 5);
    gpu.uuid[5] = 0x51;
    gpu.uuid[6] = 0x4d;
    gpu.uuid[7] = static_cast<uint8_t>(i);
    memcpy(gpu.uuid + 8, &hash, 8);
  }
  m->magic = kMagic;
}

bool slot_life(ProcessSlot& slot) {
  const int r = pthread_mutex_trylock(&slot.life);
  if (r == EBUSY) return true;
  if (r == EOWNERDEAD) pthread_mutex_consistent(&slot.life);
  if (r == 0 || r == EOWNERDEAD) pthread_mutex_unlock(&slot.life);
  return false;
}

// Why the last attempt failed, for people. One at a time: attach_machine holds its lock.
char g_problem[512] = "";

__attribute__((format(printf, 1, 2))) void set_problem(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(g_problem, sizeof g_problem, format, arguments);
  va_end(arguments);
}

// "2x16G" of a machine as it stands.
std::string config_of(const Machine* m) {
  std::string text;
  for (uint32_t i = 0; i < m->gpu_count && i < kMaxGpus;) {
    uint32_t same = 1;
    while (i + same < m->gpu_count && m->gpus[i + same].bytes == m->gpus[i].bytes) same++;
    const uint64_t mib = m->gpus[i].bytes >> 20;
    text += (text.empty() ? "" : ",") + std::to_string(same) + "x" +
            (mib % 1024 == 0 ? std::to_string(mib / 1024) + "G" : std::to_string(mib) + "M");
    i += same;
  }
  return text;
}

// By their sizes: "2x80G" and "80G,80G" are one and the same machine.
bool has_sizes(const Machine* m, const std::vector<uint64_t>& sizes) {
  if (m->gpu_count != sizes.size()) return false;
  for (size_t i = 0; i < sizes.size(); i++) {
    if (m->gpus[i].bytes != sizes[i]) return false;
  }
  return true;
}

uint32_t somebody_alive(Machine* m) {
  for (uint32_t i = 0; i < m->slots_high && i < kMaxSlots; i++) {
    if (m->slots[i].used != 0 && slot_life(m->slots[i])) return m->slots[i].pid;
  }
  return 0;
}

bool usable(const Machine* m) {
  return m->magic == kMagic && m->layout == sizeof(Machine) && read_boot_id() == m->boot_id &&
         m->gpu_count > 0 && m->gpu_count <= kMaxGpus;
}

// Takes the room of all that a machine of these sizes touches: without room, a store into the file
// would end the process.
bool take_room(int fd, const std::vector<uint64_t>& sizes) {
  int r = posix_fallocate(fd, 0, offsetof(Machine, gpus));
  for (size_t i = 0; r == 0 && i < sizes.size(); i++) {
    const uint64_t places = std::min<uint64_t>(sizes[i] / kPageBytes * kPlaces, kMaxPages);
    r = posix_fallocate(fd, static_cast<off_t>(offsetof(Machine, gpus) + i * sizeof(Gpu)),
                        static_cast<off_t>(offsetof(Gpu, pages) + places * sizeof(Page)));
  }
  if (r == 0) return true;
  set_problem("no room for its file %s/machine: %s; free some, or set %s to another folder",
              machine_folder().c_str(), strerror(r), ALLOT_ENV_SIM_DIR);
  return false;
}

// With the file locked: decide whether what lies there can be used.
Attach prepare(Machine* m, int fd, const char* wanted) {
  const std::vector<uint64_t> sizes = parse_gpus(wanted != nullptr ? wanted : "1x80G");
  if (sizes.empty()) {
    set_problem("%s=%.64s says no GPUs; write such as 2x80G", ALLOT_ENV_SIM_GPUS, wanted);
    return Attach::kBadConfig;
  }
  if (usable(m)) {
    if (wanted == nullptr || has_sizes(m, sizes)) return Attach::kOk;
    if (const uint32_t pid = somebody_alive(m); pid != 0) {
      set_problem("it is in use as %s by process %u; use it without a specification, or end that",
                  config_of(m).c_str(), pid);
      return Attach::kOtherConfig;
    }
  }
  // Zero what an earlier machine left, then make the new one.
  if (madvise(m, sizeof(Machine), MADV_REMOVE) != 0)
    memset(static_cast<void*>(m), 0, sizeof(Machine));
  for (uint32_t i = 0; i < kMaxGpus; i++) {
    const std::string vram = machine_folder() + "/gpu" + std::to_string(i) + ".vram";
    // Another user's cannot be removed, but emptied.
    if (unlink(vram.c_str()) != 0 && errno != ENOENT) {
      if (truncate(vram.c_str(), 0) != 0) continue;
    }
  }
  if (!take_room(fd, sizes)) return Attach::kSystem;
  build(m, wanted != nullptr ? wanted : "1x80G", sizes);
  return Attach::kOk;
}

// For a listing, which changes nothing: the machine that stands there where it is what is wanted;
// else one of this process's own, as it would be.
Attach look(const std::string& path, const char* wanted, Machine** out) {
  const std::vector<uint64_t> sizes = parse_gpus(wanted != nullptr ? wanted : "1x80G");
  const int fd = open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0 && errno != ENOENT) {
    set_problem("%s cannot be opened: %s; set %s to a folder of your own", path.c_str(),
                strerror(errno), ALLOT_ENV_SIM_DIR);
    return Attach::kNoFolder;
  }
  struct stat info;
  void* at = MAP_FAILED;
  if (fd >= 0 && fstat(fd, &info) == 0 && static_cast<size_t>(info.st_size) == sizeof(Machine))
    at = mmap(nullptr, sizeof(Machine), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd >= 0) close(fd);
  auto* m = static_cast<Machine*>(at);
  if (at != MAP_FAILED && usable(m) && (wanted == nullptr || has_sizes(m, sizes))) {
    *out = m;
    return Attach::kOk;
  }
  if (at != MAP_FAILED) munmap(at, sizeof(Machine));
  if (sizes.empty()) return Attach::kBadConfig;
  at = mmap(nullptr, sizeof(Machine), PROT_READ | PROT_WRITE,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) return Attach::kSystem;
  m = static_cast<Machine*>(at);
  build(m, wanted != nullptr ? wanted : "1x80G", sizes);
  *out = m;
  return Attach::kOk;
}

void clear_shares(Machine* m, uint32_t slot) {
  for (uint32_t i = 0; i < kMaxShares; i++) {
    if (m->shares[i].used != 0) drop_share_locked(m, i, slot);
  }
}

// The machine lock is held and the process of `slot` is gone.
void clear_slot(Machine* m, uint32_t slot) {
  clear_shares(m, slot);
  for (uint32_t g = 0; g < m->gpu_count; g++) {
    if (m->slots[slot].pages[g] != 0 || m->slots[slot].parked[g] != 0) {
      free_all_of_locked(m, g, slot);
    }
    Timeline& line = m->gpus[g].timeline;
    lock_robust(&line.lock);
    for (uint32_t i = 0; i < line.high; i++) {
      Group& group = line.groups[i];
      if (group.used == 0 || group.slot != slot) continue;
      group.waiting = 0;
      if (line.current == i + 1) line.running = 0;
      group.used = 0;
    }
    pthread_mutex_unlock(&line.lock);
  }
  for (IpcEvent& event : m->events) {
    if (event.used != 0 && event.slot == slot) event.used = 0;
  }
  ProcessSlot& gone = m->slots[slot];
  memset(gone.contexts, 0, sizeof gone.contexts);
  memset(gone.pages, 0, sizeof gone.pages);
  memset(gone.parked, 0, sizeof gone.parked);
  gone.pid = 0;
  gone.used = 0;
}

int reclaim_locked(Machine* m) {
  int cleared = 0;
  for (uint32_t i = 0; i < m->slots_high; i++) {
    ProcessSlot& slot = m->slots[i];
    if (slot.used == 0) continue;
    const int r = pthread_mutex_trylock(&slot.life);
    if (r != 0 && r != EOWNERDEAD) continue;
    if (r == EOWNERDEAD) pthread_mutex_consistent(&slot.life);
    clear_slot(m, i);
    pthread_mutex_unlock(&slot.life);
    cleared++;
  }
  drop_closed_shares_locked(m);
  return cleared;
}

[[noreturn]] void serve_requests(ProcessSlot& slot) {
  for (;;) {
    const uint32_t asked = slot.request.load();
    if (asked == slot.answer.load()) {
      wait_word(slot.request, asked, INT64_MAX / 2);
      continue;
    }
    auto* serve = attached().serve.load();
    if (serve != nullptr) serve(slot);
    slot.answer.store(asked);
    wake_word(slot.answer);
  }
}

struct LifeStart {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  Attach result = Attach::kOk;
};

// Body of the thread whose robust lock says that this process lives.
void* hold_life(void* arg) {
  auto* start = static_cast<LifeStart*>(arg);
  Machine* m = machine();
  Attach result = Attach::kFull;
  {
    MachineLock lock;
    reclaim_locked(m);
    for (uint32_t i = 0; i < kDescriptors; i++) {
      ProcessSlot& slot = m->slots[i];
      if (slot.used != 0) continue;
      // A free slot's is nobody's. Tried, not waited for: this thread takes the machine's lock
      // again later, with this one held. A dead owner was between two lines here.
      const int taken = pthread_mutex_trylock(&slot.life);
      if (taken == EBUSY) continue;
      if (taken == EOWNERDEAD) pthread_mutex_consistent(&slot.life);
      slot.pid = static_cast<uint32_t>(getpid());
      slot.start_time = process_start_time(slot.pid);
      slot.cuda_state = 0;
      slot.answer = slot.request.load();  // what was asked of an earlier process is not for us
      slot.used = 1;
      if (i >= m->slots_high) m->slots_high = i + 1;
      attached().slot.store(i);
      result = Attach::kOk;
      break;
    }
  }
  {
    std::lock_guard<std::mutex> lock(start->mutex);
    start->result = result;
    start->done = true;
    start->changed.notify_all();
  }
  if (result == Attach::kOk) serve_requests(m->slots[my_slot()]);
  return nullptr;
}

}  // namespace

void Usage::add(int64_t from_ns, int64_t to_ns) {
  if (to_ns <= from_ns) return;
  total_ns.fetch_add(static_cast<uint64_t>(to_ns - from_ns), std::memory_order_relaxed);
  for (int64_t at = from_ns; at < to_ns;) {
    const int64_t number = at / kBucketNs;
    const int64_t end = std::min(to_ns, (number + 1) * kBucketNs);
    const auto i = static_cast<size_t>(number % kBuckets);
    if (epoch[i].load(std::memory_order_relaxed) != number) {
      epoch[i].store(number, std::memory_order_relaxed);
      busy_ns[i].store(0, std::memory_order_relaxed);
    }
    busy_ns[i].fetch_add(static_cast<uint64_t>(end - at), std::memory_order_relaxed);
    at = end;
  }
}

uint64_t Usage::within(int64_t now, int64_t span_ns) const {
  uint64_t sum = 0;
  const int64_t last = now / kBucketNs;
  const int64_t first = last - span_ns / kBucketNs + 1;
  for (size_t i = 0; i < kBuckets; i++) {
    const int64_t number = epoch[i].load(std::memory_order_relaxed);
    if (number >= first && number <= last) sum += busy_ns[i].load(std::memory_order_relaxed);
  }
  return sum;
}

void init_robust(pthread_mutex_t* mutex) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(mutex, &attributes);
  pthread_mutexattr_destroy(&attributes);
}

bool lock_robust(pthread_mutex_t* mutex) {
  if (pthread_mutex_lock(mutex) != EOWNERDEAD) return false;
  pthread_mutex_consistent(mutex);
  return true;
}

int64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

uint64_t process_start_time(uint32_t pid) {
  char path[40], text[1024];
  snprintf(path, sizeof path, "/proc/%u/stat", pid);
  FILE* file = fopen(path, "re");
  if (file == nullptr) return 0;
  const size_t n = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[n] = '\0';
  const char* at = strrchr(text, ')');  // the name before it may hold anything
  for (int field = 2; at != nullptr && field < 22; field++) at = strchr(at + 1, ' ');
  return at != nullptr ? strtoull(at + 1, nullptr, 10) : 0;
}

std::vector<uint64_t> parse_gpus(const char* text) {
  std::vector<uint64_t> sizes;
  std::string rest = text;
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    std::string part = rest.substr(0, comma);
    rest = comma == std::string::npos ? "" : rest.substr(comma + 1);
    unsigned long count = 1;
    if (const size_t x = part.find('x'); x != std::string::npos) {
      char* end = nullptr;
      count = strtoul(part.c_str(), &end, 10);
      if (end != part.c_str() + x) return {};
      part = part.substr(x + 1);
    }
    const auto bytes = parse_size(part);
    if (!bytes || *bytes < 64 * kPageBytes || *bytes > kMaxPages * kPageBytes) return {};
    if (count == 0 || count + sizes.size() > kMaxGpus) return {};
    sizes.insert(sizes.end(), count, *bytes / kPageBytes * kPageBytes);
  }
  return sizes;
}

void on_request(void (*serve)(ProcessSlot& slot)) {
  attached().serve = serve;
}

void wake_word(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE, INT32_MAX, nullptr, nullptr,
          0);
}

void wait_word(std::atomic<uint32_t>& word, uint32_t seen, int64_t ns) {
  const timespec t{ns / 1'000'000'000, ns % 1'000'000'000};
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT, seen, &t, nullptr, 0);
}

const char* attach_problem() {
  return g_problem;
}

Machine* machine() {
  return attached().machine.load(std::memory_order_acquire);
}
std::string uuid_text(const Gpu& gpu) {
  const char* mig = getenv("ALLOT_SIM_MIG");
  const uint8_t* u = gpu.uuid;
  char text[48];
  snprintf(text, sizeof text,
           "%s-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
           mig != nullptr && mig[0] != '\0' && mig[0] != '0' ? "MIG" : "GPU", u[0], u[1], u[2],
           u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
  return text;
}

const std::string& machine_folder() {
  return attached().folder;
}

// Without O_CREAT first: with fs.protected_regular the kernel refuses that flag on another user's
// file in a sticky folder.
int open_machine_file(const std::string& path) {
  constexpr int kFlags = O_RDWR | O_CLOEXEC | O_NOFOLLOW;
  int fd = open(path.c_str(), kFlags);
  if (fd >= 0 || errno != ENOENT) return fd;
  fd = open(path.c_str(), kFlags | O_CREAT | O_EXCL, 0600);
  if (fd < 0) return errno == EEXIST ? open(path.c_str(), kFlags) : -1;
  if (for_all_users(machine_folder()) && fchmod(fd, 0666) != 0) {
    close(fd);
    return -1;
  }
  return fd;
}
uint32_t my_slot() {
  return attached().slot.load(std::memory_order_relaxed);
}

Attach attach_machine(Machine** out) {
  Attached& state = attached();
  std::lock_guard<std::mutex> guard(state.mutex);
  if (Machine* m = state.machine.load()) {
    *out = m;
    return Attach::kOk;
  }
  state.folder = folder_name();
  const std::string path = state.folder + "/machine";
  if (const char* only = getenv(ALLOT_ENV_SIM_LOOK); only != nullptr && *only == '1') {
    const Attach looked = look(path, getenv(ALLOT_ENV_SIM_GPUS), out);
    if (looked == Attach::kOk) state.machine.store(*out, std::memory_order_release);
    return looked;
  }
  if (mkdir(state.folder.c_str(), 0700) != 0 && errno != EEXIST) {
    set_problem("its folder %s cannot be made: %s; set %s to a folder of your own",
                state.folder.c_str(), strerror(errno), ALLOT_ENV_SIM_DIR);
    return Attach::kNoFolder;
  }
  const int fd = open_machine_file(path);
  if (fd < 0) {
    set_problem("%s cannot be opened: %s; set %s to a folder of your own", path.c_str(),
                strerror(errno), ALLOT_ENV_SIM_DIR);
    return Attach::kNoFolder;
  }
  Attach result = Attach::kSystem;
  struct flock making {};  // one process at a time looks at the file and makes it new
  making.l_type = F_WRLCK;
  making.l_whence = SEEK_SET;
  while (fcntl(fd, F_OFD_SETLKW, &making) != 0 && errno == EINTR) {
  }
  struct stat info;
  set_problem("its file %s cannot be used", path.c_str());
  if (fstat(fd, &info) == 0 && (static_cast<size_t>(info.st_size) == sizeof(Machine) ||
                                ftruncate(fd, sizeof(Machine)) == 0)) {
    void* at = mmap(nullptr, sizeof(Machine), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED) {
      auto* m = static_cast<Machine*>(at);
      result = prepare(m, fd, getenv(ALLOT_ENV_SIM_GPUS));
      if (result == Attach::kOk) {
        madvise(at, sizeof(Machine), MADV_DONTDUMP);
        state.machine.store(m, std::memory_order_release);
        *out = m;
      } else {
        munmap(at, sizeof(Machine));
      }
    }
  }
  making.l_type = F_UNLCK;  // by hand: the mapping keeps the file description open
  fcntl(fd, F_OFD_SETLK, &making);
  close(fd);
  return result;
}

Attach join_machine() {
  auto* start = new LifeStart;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // inherited: the thread takes no signal of the host
  pthread_t thread;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  const int r = pthread_create(&thread, &attributes, hold_life, start);
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  Attach result = Attach::kSystem;
  if (r == 0) {
    std::unique_lock<std::mutex> lock(start->mutex);
    start->changed.wait(lock, [&] { return start->done; });
    result = start->result;
  }
  delete start;
  return result;
}

MachineLock::MachineLock() {
  Machine* m = machine();
  if (lock_robust(&m->mutex)) recount_locked(m);
}

MachineLock::~MachineLock() {
  pthread_mutex_unlock(&machine()->mutex);
}

bool slot_alive(uint32_t slot) {
  pthread_mutex_t* life = &machine()->slots[slot].life;
  const int r = pthread_mutex_trylock(life);
  if (r == EBUSY) return true;
  // Leave the mark for reclaim_dead(): an unlocked life mutex of a used slot means the same.
  if (r == EOWNERDEAD) pthread_mutex_consistent(life);
  if (r == 0 || r == EOWNERDEAD) pthread_mutex_unlock(life);
  return false;
}

int reclaim_dead() {
  MachineLock lock;
  return reclaim_locked(machine());
}

}  // namespace allot::sim
