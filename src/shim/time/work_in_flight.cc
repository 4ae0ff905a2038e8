// See work_in_flight.h.
//
// A marker's places change hands by its state: free -> filling -> out -> asking -> out or free. Who
// exchanges the numbers out of an account or a marker subtracts them: nothing is subtracted twice.
#include "shim/time/work_in_flight.h"

#include "abi/region.h"
#include "shim/process/cuda_calls.h"
#include "shim/process/process.h"
#include "shim/time/streams.h"
#include "shim/time/tables.h"

namespace allot::shim {
namespace {

constexpr uint32_t kMarkers = 64;
constexpr uint32_t kAccounts = 256;
constexpr uint32_t kProbes = 8;
constexpr uint32_t kForContextsWithFew = 16;  // the last markers: for contexts with less than kFew
constexpr uint32_t kForContextsWithNone = 8;
constexpr uint32_t kFew = 4;
constexpr uint32_t kMostUnmarked = 16;  // submissions of a stream without a marker behind them

enum MarkerState : uint32_t { kFree, kFilling, kOut, kAsking };

struct Marker {
  std::atomic<uint32_t> state;
  std::atomic<uint64_t> context;  // of the two events, made with the marker's first use; 0 = none
  CUevent before;
  CUevent behind;
  WorkCost* measured;  // the cost that the two events tell, or null
  uint32_t lesson;     // of `lessons` when it began
  std::atomic<uint64_t> ns;
  std::atomic<uint32_t> count;
};

struct Account {
  std::atomic<uint64_t> stream;  // its key; 0 = free
  std::atomic<uint64_t> context;
  std::atomic<uint64_t> ns;
  std::atomic<uint32_t> count;
};

constinit Marker markers[kMarkers] = {};
constinit Account accounts[kAccounts] = {};
constinit std::atomic<uint64_t> flying_ns{0};
constinit std::atomic<uint32_t> flying_count{0};
constinit std::atomic<uint32_t> out{0};
constinit std::atomic<uint64_t> passed{0};
constinit std::atomic<uint32_t> lessons{0};

template <class Number>
void subtract(std::atomic<Number>& total, Number part) {
  Number known = total.load();
  while (!total.compare_exchange_weak(known, known > part ? known - part : Number{0})) {
  }
}

template <class Holder>
void unload(Holder& holder) {
  subtract(flying_ns, holder.ns.exchange(0));
  subtract(flying_count, holder.count.exchange(0));
}

// Streams by handle, default streams by context, threads' own ones by thread.
uint64_t stream_key(const Submission& submission, uint64_t context) {
  if (uses_own_stream(submission)) return reinterpret_cast<uint64_t>(&hook_depth) | 1;
  if (submission.stream == nullptr || submission.stream == CU_STREAM_LEGACY) return context | 1;
  return reinterpret_cast<uint64_t>(submission.stream);
}

// Where there is none left it is another stream's, too: a marker behind either takes over what both
// have without one, 16 submissions or an eighth of the budget at most.
Account& account_of(uint64_t stream, uint64_t context) {
  const uint64_t hash = (stream * 0x9E3779B97F4A7C15ull) >> 40;
  for (uint32_t i = 0; i < kProbes; ++i) {
    Account& account = accounts[(hash + i) & (kAccounts - 1)];
    uint64_t known = account.stream.load();
    if (known == stream) {
      if (account.context.load() != context) account.context.store(context);
      return account;
    }
    // An empty account may be another stream's from now on.
    if (account.count.load() == 0 && account.stream.compare_exchange_strong(known, stream)) {
      account.context.store(context);
      return account;
    }
  }
  table_full(ALLOT_TABLE_ACCOUNTS);
  return accounts[hash & (kAccounts - 1)];
}

bool make_events(Marker& marker, uint64_t context) {
  const CUstreamCaptureMode mode = relax_capture_mode();
  bool made = real::cuEventCreate(&marker.before, CU_EVENT_DEFAULT) == CUDA_SUCCESS;
  if (made && real::cuEventCreate(&marker.behind, CU_EVENT_DEFAULT) != CUDA_SUCCESS) {
    real::cuEventDestroy_v2(marker.before);
    made = false;
  }
  restore_capture_mode(mode);
  if (made) marker.context.store(context);
  return made;
}

// Whether one more marker may become this context's: the first contexts leave some to later ones.
bool may_take_fresh(uint64_t context) {
  uint32_t left = 0, own = 0;
  for (const Marker& marker : markers) {
    const uint64_t owner = marker.context.load();
    left += owner == 0 ? 1u : 0u;
    own += owner == context ? 1u : 0u;
  }
  if (left == 0 && own == 0) table_full(ALLOT_TABLE_MARKERS);
  return left > (own == 0 ? 0 : own < kFew ? kForContextsWithNone : kForContextsWithFew);
}

// A marker with events of the current context, in state kFilling; -1 when there is none.
int claim_marker(uint64_t context) {
  for (const bool fresh : {false, true}) {
    if (fresh && !may_take_fresh(context)) return -1;
    for (uint32_t i = 0; i < kMarkers; ++i) {
      Marker& marker = markers[i];
      uint32_t free = kFree;
      if (marker.context.load() != (fresh ? 0 : context)) continue;
      if (!marker.state.compare_exchange_strong(free, kFilling)) continue;
      const uint64_t now = marker.context.load();
      marker.measured = nullptr;
      if (now == context || (now == 0 && make_events(marker, context))) return static_cast<int>(i);
      marker.state.store(kFree);
      if (fresh) return -1;
    }
  }
  return -1;
}

bool record(CUevent event, const Submission& submission) {
  const CUresult result = submission.per_thread ? real::cuEventRecord_ptsz(event, submission.stream)
                                                : real::cuEventRecord(event, submission.stream);
  return result == CUDA_SUCCESS;
}

// The marker has passed, or its context is no more of use.
void marker_passed(Marker& marker) {
  unload(marker);
  marker.state.store(kFree);
  out.fetch_sub(1);
  passed.fetch_add(1);
}

void learn(const Marker& marker) {
  float ms = 0;
  if (marker.measured == nullptr || marker.lesson != lessons.load()) return;
  if (real::cuEventElapsedTime(&ms, marker.before, marker.behind) != CUDA_SUCCESS) return;
  if (ms >= 0) learn_cost(*marker.measured, static_cast<uint64_t>(ms * 1e6f));
}

}  // namespace

uint64_t expected_ns(const Submission& submission, uint64_t unknown_ns) {
  const WorkCost* cost = submission.work != 0 ? cost_of(submission.work) : nullptr;
  const uint64_t known = cost != nullptr ? cost->ns.load(std::memory_order_relaxed) : 0;
  return known != 0 ? known : unknown_ns;
}

WorkTicket begin_work(const Submission& submission, uint64_t unknown_ns) {
  WorkTicket work = {false, unknown_ns, 0, -1};
  CUcontext context = nullptr;
  if (real::cuCtxGetCurrent(&context) != CUDA_SUCCESS || context == nullptr) return work;
  work.counted = true;
  work.context = reinterpret_cast<uint64_t>(context);
  WorkCost* cost = submission.work != 0 ? cost_of(submission.work) : nullptr;
  if (cost != nullptr) {
    const uint64_t known = cost->ns.load(std::memory_order_relaxed);
    if (known != 0) work.ns = known;
    if (measure_this(*cost)) work.marker = claim_marker(work.context);
  }
  if (work.marker >= 0) {
    Marker& marker = markers[work.marker];
    marker.measured = cost;
    marker.lesson = lessons.load();
    if (!record(marker.before, submission)) {
      marker.state.store(kFree);
      work.marker = -1;
    }
  }
  flying_ns.fetch_add(work.ns);
  flying_count.fetch_add(1);
  return work;
}

void end_work(const Submission& submission, const WorkTicket& work, CUresult result,
              uint64_t most_ns) {
  if (result != CUDA_SUCCESS) {
    if (work.marker >= 0) markers[work.marker].state.store(kFree);
    subtract(flying_ns, work.ns);
    subtract(flying_count, 1u);
    return;
  }
  Account& account = account_of(stream_key(submission, work.context), work.context);
  const uint64_t ns = work.ns + account.ns.fetch_add(work.ns);
  const uint32_t count = 1 + account.count.fetch_add(1);
  if (work.marker < 0 && ns < most_ns && count < kMostUnmarked) return;
  const int index = work.marker >= 0 ? work.marker : claim_marker(work.context);
  if (index < 0) return;  // all are out: the account waits for the next one
  Marker& marker = markers[index];
  // Taken before the event is recorded: what others add from now on is behind it.
  marker.ns.store(account.ns.exchange(0));
  marker.count.store(account.count.exchange(0));
  // Without a context: it has ended meanwhile and nobody would query the marker any more.
  if (record(marker.behind, submission) && marker.context.load() == work.context) {
    out.fetch_add(1);
    marker.state.store(kOut);
    return;
  }
  unload(marker);  // not of this context, or the context is lost: better too little than for ever
  marker.state.store(kFree);
}

uint64_t in_flight_ns() {
  return flying_ns.load();
}
uint32_t in_flight_count() {
  return flying_count.load();
}
uint32_t markers_out() {
  return out.load();
}
uint64_t markers_passed() {
  return passed.load();
}

void ask_markers(uint64_t context) {
  if (out.load() == 0) return;
  const CUstreamCaptureMode mode = relax_capture_mode();
  for (Marker& marker : markers) {
    uint32_t state = kOut;
    if (marker.context.load() != context) continue;
    if (!marker.state.compare_exchange_strong(state, kAsking)) continue;
    const CUresult result = real::cuEventQuery(marker.behind);
    if (result == CUDA_ERROR_NOT_READY) {
      marker.state.store(kOut);
      continue;
    }
    if (result == CUDA_SUCCESS) learn(marker);
    marker_passed(marker);
  }
  restore_capture_mode(mode);
}

void ask_stream(const Submission& submission, uint64_t context) {
  const CUstream stream = uses_own_stream(submission) ? CU_STREAM_PER_THREAD : submission.stream;
  Account& account = account_of(stream_key(submission, context), context);
  if (account.count.load() == 0 || real::cuStreamQuery(stream) != CUDA_SUCCESS) return;
  unload(account);
  passed.fetch_add(1);
}

void distrust_measurements() {
  lessons.fetch_add(1);
}

void nothing_in_flight(uint64_t context) {
  if (flying_count.load() == 0) return;
  for (Marker& marker : markers) {
    if (marker.context.load() == context) unload(marker);
  }
  for (Account& account : accounts) {
    if (account.context.load() == context) unload(account);
  }
}

void in_flight_context_gone(uint64_t context) {
  nothing_in_flight(context);
  for (Marker& marker : markers) {
    if (marker.context.load() != context) continue;
    marker.context.store(0);  // its events went with it
    uint32_t state = kOut;
    if (marker.state.compare_exchange_strong(state, kAsking)) marker_passed(marker);
  }
}

void abandon_in_flight() {
  for (Marker& marker : markers) {
    marker.context.store(0);
    marker.ns.store(0);
    marker.count.store(0);
    marker.state.store(kFree);
  }
  for (Account& account : accounts) {
    account.stream.store(0);
    account.ns.store(0);
    account.count.store(0);
  }
  flying_ns.store(0);
  flying_count.store(0);
  out.store(0);
  abandon_costs();
}

}  // namespace allot::shim
