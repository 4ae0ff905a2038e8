// The state of one software machine, shared by every process that uses it.
//
// A folder (ALLOT_SIM_DIR; /dev/shm/allot-sim where root has made it for all users, mode 1777; else
// /dev/shm/allot-sim-<uid>) holds one file `machine` with everything
// below and one sparse file `gpu<N>.vram` for each GPU's memory. Processes map them; there is no
// server. Facts that several processes change (page owners, process slots, shares) are guarded by
// one robust mutex; the running of kernels has a lock of its own per GPU (timeline.h).
//
//   machine: | header, mutex | slots[1024] | shares[2048] | gpus[32]: timeline, pages[131072] |
//
// A process is alive while a thread of it holds its slot's `life` mutex: the kernel marks a robust
// mutex whose owner ended, for killed processes, exec and zombies alike, so asking is a memory read
// and pids that come again do no harm. Whoever looks next gives a dead process's memory back.
//
// What must not happen here: a rule of CUDA (those live in the API files), or a process waiting for
// another one for longer than a critical section.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace allot::sim {

inline constexpr uint64_t kPageBytes = 2ull << 20;  // granule of physical memory, as on the card
inline constexpr uint32_t kMaxGpus = 32;
inline constexpr uint32_t kMaxPages = 131072;  // 256 GiB
inline constexpr uint32_t kPlaces = 3;       // per page of a card: those of evicted processes stay
inline constexpr uint16_t kParked = 0x8000;  // in Page::share: on the host, not on the card
inline constexpr uint32_t kMaxSlots = 1024;
inline constexpr uint32_t kDescriptors =
    kMaxSlots - 1;  // no process: has what its maker left to others
inline constexpr uint32_t kMaxShares = 2048;  // more than a slice knows handles
inline constexpr uint32_t kMaxGroups = 512;
inline constexpr uint32_t kMaxIpcEvents = 256;
inline constexpr uint32_t kBuckets = 16;  // of kBucketNs, for utilisation
inline constexpr int64_t kBucketNs = 100'000'000;

// One process. Guarded by Machine::mutex, `life` and the checkpoint words excepted.
struct ProcessSlot {
  pthread_mutex_t life;
  uint32_t used;
  uint32_t pid;
  uint64_t start_time;  // /proc/PID/stat field 22, for people
  uint32_t pages[kMaxGpus];
  uint32_t contexts[kMaxGpus];
  uint32_t parked[kMaxGpus];  // pages whose contents are on the host
  // cuCheckpointProcess*: the caller asks, the process's own thread (the one that holds `life`)
  // answers.
  std::atomic<uint32_t> cuda_state;  // CUprocessState
  std::atomic<uint32_t> request;     // futex; raised by whoever asks
  std::atomic<uint32_t> answer;      // futex; the last request that was answered
  uint32_t operation;
  uint32_t timeout_ms;
  int32_t result;
};

// Physical memory that more than one process may hold (IPC handles, exported VMM handles). Its
// pages are a chain (Page::next). It lives until its last holder has dropped it.
struct Share {
  uint32_t used;
  uint32_t gpu;
  uint32_t first_page;
  uint32_t page_count;
  uint64_t generation;
  uint64_t holders[kMaxSlots / 64];
};

struct Page {
  uint16_t owner;  // slot + 1; 0 = free
  uint16_t share;  // share + 1; 0 = private; or kParked
  uint32_t next;   // of a share: the page after this one
};

// Busy time in steps of kBucketNs. Written with relaxed order: a figure for people.
struct Usage {
  std::atomic<uint64_t> total_ns;
  std::atomic<int64_t> epoch[kBuckets];
  std::atomic<uint64_t> busy_ns[kBuckets];
  void add(int64_t from_ns, int64_t to_ns);
  uint64_t within(int64_t now_ns, int64_t span_ns) const;
};

// What the scheduler knows of one context. See turns.h.
struct Group {
  std::atomic<uint32_t> used;
  std::atomic<uint32_t> wake_seq;  // futex: raised when the group should look again
  std::atomic<uint32_t> stopped;
  std::atomic<uint32_t> timeslice_us;
  std::atomic<int64_t> resume_ns;
  std::atomic<uint64_t> grant;    // counts grants
  std::atomic<uint64_t> over;     // the last grant that has ended
  std::atomic<int64_t> end_ns;    // of the last grant; earlier when somebody comes to wait
  std::atomic<int64_t> ended_ns;  // where grant `over` ended: at or before its end
  std::atomic<int64_t> laid_ns;   // where the kernel that runs began or resumed
  uint32_t slot;
  uint32_t waiting;
  uint32_t cut;  // its last grant ended in the middle of a kernel, whose state waits to be restored
  int64_t ready_ns;
  int64_t grant_ns;  // where the grant starts; time before it is accounted
  Usage usage;
};

struct Timeline {
  pthread_mutex_t lock;
  uint32_t current;  // group + 1
  uint32_t running;  // `current` has work; else it only was the last one
  uint32_t high;     // groups ever used
  uint32_t saves;    // the last one to leave did so in the middle of a kernel
  int64_t free_ns;   // the GPU's work so far ends here
  Usage usage;
  Group groups[kMaxGroups];
};

struct Gpu {
  uint64_t bytes;
  uint32_t page_count;  // places in the file: kPlaces times the card, or what kMaxPages allows
  uint32_t free_pages;  // of the card
  uint32_t cursor;
  uint32_t card_pages;
  uint8_t uuid[16];
  Timeline timeline;
  Page pages[kMaxPages];
};

// State of an event that several processes see.
struct IpcEvent {
  std::atomic<uint32_t> used;  // references
  uint32_t slot;
  std::atomic<uint64_t> generation;
  std::atomic<uint64_t> recorded;
  std::atomic<uint64_t> done;
  std::atomic<int64_t> time_ns;
};

struct Machine {
  uint64_t magic;
  uint64_t layout;  // sizeof(Machine): another build's file is made anew
  char boot_id[40];
  char config[64];
  uint32_t gpu_count;
  uint32_t slots_high;
  uint64_t next_generation;
  pthread_mutex_t mutex;
  ProcessSlot slots[kMaxSlots];
  Share shares[kMaxShares];
  IpcEvent events[kMaxIpcEvents];
  Gpu gpus[kMaxGpus];
};

enum class Attach { kOk, kNoFolder, kBadConfig, kOtherConfig, kFull, kSystem };

// Maps the machine, making it on first use, and returns it through `out`. Once per process; later
// calls return the same. kBadConfig: ALLOT_SIM_GPUS cannot be read. kOtherConfig: it differs from
// the machine that live processes use.
Attach attach_machine(Machine** out);
const char*
attach_problem();    // why the last attempt failed, in words that follow "the software GPU: "
Machine* machine();  // null before attach_machine
const std::string& machine_folder();
// Opens a file of the machine, making it where there is none; -1 with errno. In a folder of all
// users (sticky, writable by all) everybody may write it.
int open_machine_file(const std::string& path);

// Takes a process slot and starts the thread that proves this process alive. kFull: no slot left.
Attach join_machine();
uint32_t my_slot();  // valid after join_machine
// Called by the thread that proves this process alive, for each request in its slot; sets
// slot.result. Before join_machine.
void on_request(void (*serve)(ProcessSlot& slot));
void wake_word(std::atomic<uint32_t>& word);
// Sleeps while it reads `seen`, at most `ns`.
void wait_word(std::atomic<uint32_t>& word, uint32_t seen, int64_t ns);

// Locks Machine::mutex; repairs derived counts when its last owner died inside.
class MachineLock {
 public:
  MachineLock();
  ~MachineLock();
  MachineLock(const MachineLock&) = delete;
  MachineLock& operator=(const MachineLock&) = delete;
};

// True while the process of `slot` runs. Any thread; needs no lock.
bool slot_alive(uint32_t slot);

// Gives the memory, shares and groups of dead processes back. Takes the machine lock.
// Returns the number of processes cleared.
int reclaim_dead();

// "2x80G" or "80G,24G" as bytes per GPU; empty when it cannot be read.
std::vector<uint64_t> parse_gpus(const char* text);
// "GPU-" and its UUID; "MIG-" where ALLOT_SIM_MIG is set to other than 0, as for instances of a
// card.
std::string uuid_text(const Gpu& gpu);

void init_robust(pthread_mutex_t* mutex);
// pthread_mutex_lock for robust mutexes; true when the last owner died holding it (now consistent).
bool lock_robust(pthread_mutex_t* mutex);
int64_t now_ns();  // CLOCK_MONOTONIC
uint64_t process_start_time(uint32_t pid);

}  // namespace allot::sim
