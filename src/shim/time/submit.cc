// The hooks are one template, made for each slot of submit_entries.h; its parameters come from the
// entry's shape, so all integers and pointers travel as the driver declares them.
//
// The quick way is a load, a test, a load of the driver's address and a jump: the arguments stay
// where they are, nothing is pushed. The watched way counts the thread as submitting, wakes the
// agent, and at level `launch` passes the gate. There is no guard of hook_depth on the quick way:
// what the driver calls of its own entries inside a launch was always seen.
#include "shim/time/submit.h"

#include <utility>

#include "shim/process/burst_counter.h"
#include "shim/process/driver_call.h"
#include "shim/process/hook_guard.h"
#include "shim/process/process.h"
#include "shim/process/swap_gate.h"
#include "shim/time/launch_gate.h"
#include "shim/time/submit_entries.h"
#include "sys/clock.h"

namespace allot::shim {

constinit std::atomic<void (*)()> wake_handler{nullptr};

namespace {

constexpr uint64_t kLostAfterNs = 10'000'000'000;

constinit std::atomic<uint32_t> under_way{0};
constinit std::atomic<uint64_t> last_begin_ns{0};
constinit std::atomic<uint64_t> last_per_thread_ns{0};

void notify() {
  if ((submit_watch.fetch_and(~kWakeOnSubmit, std::memory_order_acq_rel) & kWakeOnSubmit) == 0)
    return;
  void (*handler)() = wake_handler.load(std::memory_order_acquire);
  if (handler != nullptr) handler();
}

// What a watched call carries from its begin to its end.
struct Begun {
  bool counted;
  bool swaps;
  GateTicket ticket;
};

[[gnu::noinline]] Begun submission_begins(const Submission& submission) {
  Begun begun = {};
  uint32_t watch = submit_watch.load(std::memory_order_acquire);
  if ((watch & kBursts) != 0) burst_begins();
  if ((watch & (kWakeOnSubmit | kGate | kSwap)) == 0 || forked_child()) return begun;
  // Inside another hook, that one has passed if it had to.
  if ((watch & kSwap) != 0 && !inside_hook()) {
    swap_enter();
    begun.swaps = true;
    watch = submit_watch.load(std::memory_order_acquire);
  }
  if ((watch & (kWakeOnSubmit | kGate)) == 0) return begun;
  const uint64_t now = sys::monotonic_ns();
  if (uses_own_stream(submission)) last_per_thread_ns.store(now, std::memory_order_relaxed);
  last_begin_ns.store(now, std::memory_order_relaxed);
  begun.counted = true;
  under_way.fetch_add(1, std::memory_order_seq_cst);
  if ((watch & kWakeOnSubmit) != 0) notify();
  if ((watch & kGate) == 0 || inside_hook()) return begun;
  const Inside within;
  begun.ticket = gate_enter(submission);
  return begun;
}

[[gnu::noinline]] void submission_ends(const Submission& submission, const Begun& begun,
                                       CUresult result) {
  if (begun.ticket.passed) {
    const Inside within;
    gate_leave(submission, begun.ticket, result);
  }
  under_way.fetch_sub(1, std::memory_order_seq_cst);
}

template <char letter>
struct Parameter;
template <>
struct Parameter<'l'> {
  using Type = uint64_t;
};
template <>
struct Parameter<'i'> {
  using Type = uint32_t;
};
template <>
struct Parameter<'h'> {
  using Type = uint16_t;
};
template <>
struct Parameter<'c'> {
  using Type = uint8_t;
};
template <>
struct Parameter<'S'> {  // the one structure that a submission takes by value
  using Type = CUmemLocation;
};

// The argument at `index` if it is a pointer or handle, else 0.
template <unsigned index, class First, class... Rest>
uint64_t word_at(First first, Rest... rest) {
  if constexpr (index != 0) {
    return word_at<index - 1>(rest...);
  } else if constexpr (sizeof(First) == sizeof(uint64_t) && !std::is_class_v<First>) {
    return first;
  } else {
    return 0;
  }
}

template <unsigned slot, class... A>
Submission describe(A... arguments) {
  constexpr Places places = places_of(slot);
  Submission submission = {nullptr, kAllEntries[slot].variant != driver::Variant::kNone, slot + 1,
                           places.stream != Place::kNone || places.work_known};
  if constexpr (places.stream == Place::kArgument) {
    submission.stream = reinterpret_cast<CUstream>(word_at<places.stream_argument>(arguments...));
  } else if constexpr (places.stream == Place::kLaunchConfig) {
    const auto* config = reinterpret_cast<const CUlaunchConfig*>(word_at<0>(arguments...));
    if (config != nullptr) submission.stream = config->hStream;
  } else if constexpr (places.stream == Place::kLaunchList) {
    const auto* list = reinterpret_cast<const CUDA_LAUNCH_PARAMS*>(word_at<0>(arguments...));
    if (list != nullptr) submission.stream = list->hStream;
  }
  if constexpr (places.work_known) submission.work = word_at<places.work_argument>(arguments...);
  return submission;
}

template <unsigned slot, class... A>
struct Entry {
  inline static constinit DriverCall<A...> call{kAllEntries[slot].symbol};

  [[gnu::noinline]] static CUresult watched(A... arguments) {
    if ((submit_watch.load(std::memory_order_relaxed) & (kRefuse | kUnheld)) != 0) {
      return CUDA_ERROR_NOT_PERMITTED;
    }
    const Submission submission = describe<slot>(arguments...);
    const Begun begun = submission_begins(submission);
    const CUresult result = call(arguments...);
    if (begun.counted) submission_ends(submission, begun, result);
    if (begun.swaps) swap_leave();
    if (!submission.returns_at_once && bursts_are_counted()) burst_ends();
    return result;
  }

  static CUresult hook(A... arguments) {
    const auto target = call.target.load(std::memory_order_acquire);
    if (submit_watch.load(std::memory_order_relaxed) == 0 && target != nullptr) [[likely]] {
      return target(arguments...);
    }
    return watched(arguments...);
  }
};

template <unsigned slot, size_t... i>
Entry<slot, typename Parameter<shape_of(slot)[i]>::Type...> entry_of(std::index_sequence<i...>);

template <unsigned slot>
using EntryAt = decltype(entry_of<slot>(std::make_index_sequence<shape_of(slot).size()>()));

constexpr bool launches_graph(unsigned slot) {
  return slot == driver::kCuda_cuGraphLaunch || slot == driver::kCuda_cuGraphLaunch_ptsz;
}

constexpr size_t kHooks = kSubmitSlots.size() - 2;

// hook() of hooks.h is not asked: the parameters are made from what it would compare them with.
template <size_t... i>
constexpr std::array<Hook, kHooks> make_hooks(std::index_sequence<i...>) {
  const Hook all[] = {
      {kAllEntries[kSubmitSlots[i]].symbol, address_of<&EntryAt<kSubmitSlots[i]>::hook>}...};
  std::array<Hook, kHooks> hooks = {};
  size_t count = 0;
  for (size_t k = 0; k < kSubmitSlots.size(); ++k) {
    if (!launches_graph(kSubmitSlots[k])) hooks[count++] = all[k];
  }
  return hooks;
}

}  // namespace

CUresult submit_graph(uint64_t exec, uint64_t stream) {
  return EntryAt<driver::kCuda_cuGraphLaunch>::hook(exec, stream);
}
CUresult submit_graph_ptsz(uint64_t exec, uint64_t stream) {
  return EntryAt<driver::kCuda_cuGraphLaunch_ptsz>::hook(exec, stream);
}

void submission_waits() {
  under_way.fetch_sub(1, std::memory_order_seq_cst);
}

void submission_goes_on() {
  last_begin_ns.store(sys::monotonic_ns(), std::memory_order_relaxed);
  under_way.fetch_add(1, std::memory_order_seq_cst);
}

uint32_t submissions_under_way() {
  const uint32_t count = under_way.load(std::memory_order_seq_cst);
  if (count == 0) return 0;
  const uint64_t begin = last_begin_ns.load(std::memory_order_relaxed);
  const uint64_t now = sys::monotonic_ns();
  return now > begin && now - begin > kLostAfterNs ? 0 : count;
}

uint64_t last_per_thread_submission() {
  return last_per_thread_ns.load(std::memory_order_relaxed);
}

void abandon_submissions() {
  abandon_submit_watch();
  under_way.store(0);
  last_per_thread_ns.store(0);
  abandon_gate();
}

std::span<const Hook> submit_hooks() {
  static constexpr std::array<Hook, kHooks> hooks =
      make_hooks(std::make_index_sequence<kSubmitSlots.size()>());
  return hooks;
}

}  // namespace allot::shim
