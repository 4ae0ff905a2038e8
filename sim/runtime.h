// One process's side of the software driver: contexts, streams, events and the work in them.
//
// Every call that submits work makes a Body and hands it to submit(), which puts it into its
// stream's queue (or, while the stream is being captured, into a graph). Each context has one
// executor thread: it takes the heads of its streams that may run, oldest first within a priority,
// lays kernels onto the GPU's timeline (timeline.h) and does everything else at once. Host
// functions run on a thread of their own, so that one which waits for another stream does not stop
// it.
//
// Locks, in the order they may be taken: graph_lock() > Context::mutex > memory (memory.h) >
// machine lock > Timeline::lock. None is held while a host function or kernel runs.
//
// Objects behind handles are never unmapped: a destroyed one loses its magic word and is kept for
// reuse, so a stale handle is found to be one.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <variant>
#include <vector>

#include "driver/cuda_abi.h"
#include "machine.h"
#include "timeline.h"
#include "vram.h"

#define SIM_EXPORT extern "C" __attribute__((visibility("default")))
#define SIM_API SIM_EXPORT CUresult

namespace allot::sim {

// One call of the program into the driver: it waits while the process is locked by a checkpoint
// call, and a checkpoint waits until it has ended. Calls from inside calls pass.
class ApiCall {
 public:
  ApiCall() {
    if (depth_++ == 0) begin();
  }
  ~ApiCall() {
    if (--depth_ == 0) under_way.fetch_sub(1);
  }
  ApiCall(const ApiCall&) = delete;
  ApiCall& operator=(const ApiCall&) = delete;

  static std::atomic<uint32_t> under_way;
  static std::atomic<uint32_t> locked;  // futex

 private:
  static void begin() {
    under_way.fetch_add(1);
    if (__builtin_expect(locked.load() != 0, 0)) wait_unlocked();
  }
  static void wait_unlocked();
  static thread_local uint32_t depth_;
};

}  // namespace allot::sim

// First line of an entry: is the driver usable, and does a scripted fault apply?
#define SIM_ENTER()                                                     \
  const ::allot::sim::ApiCall api_call_;                                \
  do {                                                                  \
    const CUresult entered_ = ::allot::sim::enter(__func__);            \
    if (__builtin_expect(entered_ != CUDA_SUCCESS, 0)) return entered_; \
  } while (0)
// The same for entries that need a current context; declares it.
#define SIM_CONTEXT(name)                                           \
  SIM_ENTER();                                                      \
  ::allot::sim::Context* name = nullptr;                            \
  do {                                                              \
    const CUresult found_ = ::allot::sim::current_context(&name);   \
    if (__builtin_expect(found_ != CUDA_SUCCESS, 0)) return found_; \
  } while (0)

namespace allot::sim {

struct Context;
struct Stream;
struct Graph;
struct Function;
struct Capture;
class Heap;

// ---- the driver as a whole ------------------------------------------------------------------
enum class State : int { kOff, kReady, kGone, kForked };
extern std::atomic<State> g_state;
extern std::atomic<bool> g_faults;  // ALLOT_SIM_FAULTS names something
CUresult enter_slowly(const char* function);
inline CUresult enter(const char* function) {
  if (__builtin_expect(g_state.load(std::memory_order_acquire) == State::kReady &&
                           !g_faults.load(std::memory_order_relaxed),
                       1)) {
    return CUDA_SUCCESS;
  }
  return enter_slowly(function);
}
CUresult initialise();
int device_count();                // after CUDA_VISIBLE_DEVICES
uint32_t gpu_of(CUdevice device);  // index in the machine
bool valid_device(CUdevice device);

// Those who wait for work to end. Completions are atomics; whoever changed one calls notify().
class Hub {
 public:
  template <class Predicate>
  void wait(Predicate done) {
    if (done()) return;
    waiters_.fetch_add(1);
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, done);
    }
    waiters_.fetch_sub(1);
  }
  void notify() {
    if (waiters_.load() == 0) return;
    std::lock_guard<std::mutex> lock(mutex_);
    changed_.notify_all();
  }

 private:
  std::atomic<int> waiters_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};
Hub& hub();

// ---- events ---------------------------------------------------------------------------------
struct EventState {
  std::atomic<uint64_t> recorded{0}, completed{0};
  std::atomic<int64_t> time_ns{0};
  Context* context = nullptr;
  IpcEvent* shared = nullptr;  // of an interprocess event
};
inline constexpr uint32_t kEventMagic = 0x45564e54, kStreamMagic = 0x5354524d,
                          kContextMagic = 0x43545854;

struct Event {
  uint32_t magic = kEventMagic;
  unsigned flags = 0;
  std::shared_ptr<EventState> state = std::make_shared<EventState>();
  // Recorded in a stream that was being captured: the nodes it stands for.
  std::shared_ptr<Capture> capture;
  std::vector<CUgraphNode> capture_nodes;
};

inline Event* to_event(CUevent handle) {
  auto* e = reinterpret_cast<Event*>(handle);
  return e != nullptr && e->magic == kEventMagic ? e : nullptr;
}

// ---- work -----------------------------------------------------------------------------------
struct Params {  // kernel parameters as one block, laid out as the PTX says
  uint32_t bytes = 0;
  std::array<uint8_t, 96> small{};
  std::vector<uint8_t> large;
  uint8_t* data() { return bytes > small.size() ? large.data() : small.data(); }
  const uint8_t* data() const { return bytes > small.size() ? large.data() : small.data(); }
};
struct KernelBody {
  const Function* function = nullptr;
  unsigned grid[3] = {1, 1, 1}, block[3] = {1, 1, 1}, shared_bytes = 0;
  Params params;
};
struct CopySide {  // address of element (0,0,0), strides in bytes
  uint64_t base = 0;
  size_t row = 0, slice = 0;
};
struct CopyBody {
  CopySide from, to;
  size_t width = 0, height = 1, depth = 1;
};
struct SetBody {
  uint64_t base = 0;
  size_t pitch = 0, width = 0, height = 1;  // width in elements
  uint32_t value = 0, element = 1;
};
struct EmptyBody {};
struct HostBody {
  CUhostFn function = nullptr;
  void* data = nullptr;
};
struct CallbackBody {
  void (*function)(CUstream, CUresult, void*) = nullptr;
  CUstream stream = nullptr;
  void* data = nullptr;
};
struct RecordBody {
  std::shared_ptr<EventState> event;
  uint64_t number = 0;
};
struct WaitBody {
  std::shared_ptr<EventState> event;
  uint64_t number = 0;
};
struct ValueBody {  // stream memory operations
  bool wait = false, wide = false;
  uint64_t address = 0, value = 0;
  unsigned flags = 0;
};
struct TaskBody {  // our own step in a stream's order: memory given back, and the like
  std::function<void()> run;
};
using Body = std::variant<EmptyBody, KernelBody, CopyBody, SetBody, HostBody, CallbackBody,
                          RecordBody, WaitBody, ValueBody, TaskBody>;

struct Work {
  uint64_t order;    // within the context, over all streams
  int64_t ready_ns;  // submitted at
  Body body;
};

// ---- streams --------------------------------------------------------------------------------
inline constexpr size_t kQueueLimit = 1024;  // as on the card: then a launch waits

struct Stream {
  uint32_t magic = kStreamMagic;
  unsigned flags = 0;  // CU_STREAM_NON_BLOCKING
  int priority = 0;
  bool legacy = false;
  bool destroyed = false;
  bool in_host = false;  // the head is a host function under way
  uint64_t id = 0;
  Context* context = nullptr;
  std::deque<Work> queue;
  std::atomic<uint64_t> submitted{0}, completed{0};
  std::atomic<uint64_t> wake_at{UINT64_MAX};  // the lowest `completed` that somebody waits for
  int64_t end_ns = 0;                         // of the last work, on the timeline; the executor's
  std::atomic<bool> in_capture{false};
  std::shared_ptr<Capture> capture;  // guarded by graph_lock()
  std::vector<CUgraphNode> capture_nodes;
  bool capture_origin = false;
  std::vector<std::pair<int, std::array<char, 64>>> attributes;
};

// ---- contexts -------------------------------------------------------------------------------
struct Context {
  uint32_t magic = kContextMagic;
  CUdevice device = 0;
  uint32_t gpu = 0;
  uint32_t group = UINT32_MAX;
  unsigned flags = 0;
  bool primary = false;
  bool alive = false;
  bool green = false;  // a part of the primary one's device: takes little memory
  int retained = 0;
  int attached = 0;  // of a created one: by cuCtxCreate and cuCtxAttach, until cuCtxDetach
  uint64_t id = 0;
  uint64_t serial = 0;  // changes with every life of a primary context
  Runs overhead;        // what a context takes on the card
  Runs device_heap;     // for malloc() in kernels, taken when the first is launched
  std::unique_ptr<Heap> heap;
  std::atomic<CUresult> error{CUDA_SUCCESS};  // sticky
  size_t limits[CU_LIMIT_MAX] = {};
  int cache_config = 0, shared_config = 0;
  std::vector<void*> modules;  // Module*, guarded by module_lock()
  void* rm = nullptr;          // rm.cc's handles

  Stream* legacy = nullptr;  // streams[0], for those who do not hold the lock

  std::mutex mutex;  // guards what follows
  std::condition_variable work;
  std::vector<Stream*> streams;  // [0] is the legacy stream
  std::unordered_map<int, Stream*> thread_streams;
  std::unordered_set<Context*> peers;
  std::deque<std::pair<Stream*, Body>> host_queue;
  std::condition_variable host_work;
  uint64_t next_order = 0;
  bool executor_waits = false;
  bool polls = false;  // the executor waits for a value in memory
  std::thread executor, host_thread;
  std::atomic<uint64_t> pending{0};
  std::atomic<bool> quit{false};
};

inline Context* to_context(CUcontext handle) {
  auto* c = reinterpret_cast<Context*>(handle);
  return c != nullptr && c->magic == kContextMagic && c->alive ? c : nullptr;
}
CUresult current_context(Context** out);  // INVALID_CONTEXT, a sticky error, or success
Context* current_or_null();
uint64_t context_overhead_bytes();

// Makes a context alive: memory on the card, scheduler group, RM calls. OUT_OF_MEMORY, UNKNOWN.
CUresult open_context(Context* context, CUdevice device, unsigned flags);
// The heap that CU_LIMIT_MALLOC_HEAP_SIZE asks for, beyond the 8 MiB that are in the overhead.
// OUT_OF_MEMORY.
CUresult take_device_heap(Context* context);
// Ends all its work (unfinished work is dropped) and gives everything back.
void close_context(Context* context);
Context* primary_context(CUdevice device);
bool primary_active(CUdevice device);
std::vector<Context*> living_contexts();
int living_context_count();

// The stream a handle means for `context`; 0 is the legacy stream, or with `ptds` the thread's own.
// INVALID_HANDLE / INVALID_CONTEXT.
CUresult find_stream(CUstream handle, bool ptds, Stream** out);
Stream* make_stream(Context* context, unsigned flags, int priority);
void destroy_stream(Stream* stream);

// Queues `body`, or adds it to the graph being captured. May wait while the queue is full.
CUresult submit(Stream* stream, Body&& body);
CUresult submit_all(Stream* stream, std::vector<Body>&& bodies);  // without anything in between
CUresult synchronize(Stream* stream);
CUresult synchronize(Context* context);
bool idle(const Context* context);
void wake_executors();  // something outside their streams changed (an event of another process)

// Runs one body's effect now, on the calling thread; for kernels also says how long the device
// takes.
CUresult do_copy(const CopyBody& copy);
CUresult do_set(const SetBody& set);
struct KernelOutcome {
  CUresult result;
  int64_t duration_ns;
};
KernelOutcome do_kernel(const KernelBody& kernel);

// Memory that streams gave back becomes free for others when the host has synchronised (pool.cc).
void pools_after_sync(uint32_t gpu);
void drop_context_pools(Context* context);
void drop_context_modules(Context* context);

// ---- capture (capture.cc) ---------------------------------------------------------------------
std::recursive_mutex& graph_lock();
CUresult capture_body(Stream* stream, Body&& body);
CUresult capture_record(Stream* stream, Event* event);
// Joins `stream` to the capture that `event` belongs to; `done` when that is all there is to do.
CUresult capture_wait(Stream* stream, Event* event, bool* done);
CUresult capture_allocation(Stream* stream, CUdevice device, size_t bytes, CUdeviceptr* out);
CUresult capture_free(Stream* stream, CUdeviceptr address);
// UNSUPPORTED and an invalid capture, when `stream` is being captured. For the legacy stream, or
// null (the whole context), as refuse_unsafe().
CUresult refuse_in_capture(Stream* stream);
// The same for calls that must not happen while a capture of this thread's mode is under way.
CUresult refuse_unsafe();
inline bool capturing(const Stream* stream) {
  return stream->in_capture.load(std::memory_order_relaxed);
}

// ---- checkpoints (cu_checkpoint.cc) -----------------------------------------------------------
void serve_checkpoints();   // before join_machine
void forget_checkpoints();  // in a forked child

// ---- faults (faults.cc) -----------------------------------------------------------------------
void load_faults();
bool take_fault(const char* name, int* result);  // sleeps for delays; true: answer `result`

}  // namespace allot::sim
