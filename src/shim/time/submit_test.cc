// The hooks of submissions against a driver that only notes who called it with what: every entry of
// the class `submit` is hooked or has a reason not to be, goes to the entry of its own name, keeps
// its arguments on both ways, and wakes the agent once.
#include "shim/time/submit.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <set>
#include <string>

#include "shim/process/driver_call.h"
#include "shim/process/hook_guard.h"
#include "shim/process/process.h"
#include "shim/time/launch_gate.h"
#include "shim/time/submit_entries.h"
#include "sys/clock.h"

namespace allot::shim {

constinit Process process;
constinit thread_local uint32_t hook_depth = 0;
void wait_for_start() {}

namespace {

constexpr unsigned kMostArguments = 12;
using Fake = CUresult (*)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                          uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);

std::string asked_for;  // the last entry that was looked up in the driver
uint64_t seen[kMostArguments];
int calls = 0;
int rings = 0;
int entered = 0;
int left = 0;
Submission gated = {};

CUresult driver(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g,
                uint64_t h, uint64_t i, uint64_t j, uint64_t k, uint64_t l) {
  const uint64_t all[kMostArguments] = {a, b, c, d, e, f, g, h, i, j, k, l};
  memcpy(seen, all, sizeof(seen));
  ++calls;
  return CUDA_ERROR_NOT_PERMITTED;
}

}  // namespace

void* find_in_driver(const char* name) {
  asked_for = name;
  return reinterpret_cast<void*>(&driver);
}
void* find_in_nvml(const char*) {
  return nullptr;
}
CUresult entry_not_supported() {
  return CUDA_ERROR_NOT_SUPPORTED;
}

GateTicket gate_enter(const Submission& submission) {
  gated = submission;
  ++entered;
  GateTicket ticket = {};
  ticket.passed = true;
  ticket.work.ns = 77;
  return ticket;
}
void gate_leave(const Submission& submission, const GateTicket& ticket, CUresult result) {
  EXPECT_EQ(submission.work, gated.work);
  EXPECT_EQ(ticket.work.ns, 77u);
  EXPECT_EQ(result, CUDA_ERROR_NOT_PERMITTED);
  ++left;
}
void abandon_gate() {}

namespace {

Fake as_fake(void* function) {
  return reinterpret_cast<Fake>(function);
}

std::map<std::string, Fake> all_hooks() {
  std::map<std::string, Fake> hooks;
  for (const Hook& hook : submit_hooks()) {
    EXPECT_TRUE(hooks.emplace(hook.symbol, as_fake(hook.function())).second);
  }
  hooks.emplace("cuGraphLaunch", as_fake(address_of<&submit_graph>()));
  hooks.emplace("cuGraphLaunch_ptsz", as_fake(address_of<&submit_graph_ptsz>()));
  return hooks;
}

std::string shape(const std::string& symbol) {
  for (const driver::Shape& known : driver::kCudaShapes) {
    if (known.symbol == symbol) return std::string(known.shape);
  }
  return "none";
}

uint64_t cut(uint64_t value, char letter) {
  switch (letter) {
    case 'i':
      return static_cast<uint32_t>(value);
    case 'h':
      return static_cast<uint16_t>(value);
    case 'c':
      return static_cast<uint8_t>(value);
    default:
      return value;
  }
}

// Arguments that may be read as structures: addresses in a block of zeroes, each another one.
alignas(64) char block[4096];
uint64_t argument(unsigned index) {
  return reinterpret_cast<uint64_t>(block) + 64 * index + 0x0108;
}

CUresult call(Fake hook) {
  return hook(argument(0), argument(1), argument(2), argument(3), argument(4), argument(5),
              argument(6), argument(7), argument(8), argument(9), argument(10), argument(11));
}

void expect_arguments(const std::string& symbol) {
  const std::string letters = shape(symbol);
  for (unsigned i = 0; i < letters.size(); ++i) {
    EXPECT_EQ(cut(seen[i], letters[i]), cut(argument(i), letters[i])) << symbol << " " << i;
  }
}

class Submit : public testing::Test {
 protected:
  void SetUp() override {
    submit_watch.store(0);
    wake_handler.store([] { ++rings; });
    calls = rings = entered = left = 0;
  }
};

TEST_F(Submit, EveryEntryIsHookedOrHasAReason) {
  const auto hooks = all_hooks();
  for (const driver::Entry& entry : driver::cuda().entries()) {
    bool reason = false;
    for (const NotHooked& not_hooked : kNotHooked) {
      reason = reason || not_hooked.name == entry.name;
    }
    const bool hooked = hooks.count(entry.symbol) != 0;
    if (entry.cls == driver::Class::kSubmit) {
      EXPECT_NE(hooked, reason) << entry.symbol;
    } else {
      EXPECT_FALSE(hooked || reason) << entry.symbol;
    }
  }
  // The rules that choose them must not lose what carries the load.
  for (const char* symbol :
       {"cuLaunchKernel", "cuLaunchKernel_ptsz", "cuLaunchKernelEx", "cuLaunchKernelEx_ptsz",
        "cuLaunchCooperativeKernel", "cuGraphLaunch", "cuMemcpyHtoDAsync_v2", "cuMemcpyDtoH_v2",
        "cuMemcpyAsync", "cuMemsetD8Async", "cuMemsetD32_v2_ptds", "cuMemPrefetchAsync_v2",
        "cuMemcpyBatchAsync_v2", "cuLaunchGrid", "cuMemcpy3DPeerAsync_ptsz",
        "cuMemcpyWithAttributesAsync", "cuMemcpyWithAttributesAsync_ptsz",
        "cuMemcpy3DWithAttributesAsync", "cuMemcpy3DWithAttributesAsync_ptsz"}) {
    EXPECT_EQ(hooks.count(symbol), 1u) << symbol;
  }
}

TEST_F(Submit, ReachesItsOwnEntryWithItsArguments) {
  for (const auto& [symbol, hook] : all_hooks()) {
    asked_for.clear();
    EXPECT_EQ(call(hook), CUDA_ERROR_NOT_PERMITTED);  // the first call looks the entry up
    EXPECT_EQ(asked_for, symbol);
    expect_arguments(symbol);
    memset(seen, 0, sizeof(seen));
    EXPECT_EQ(call(hook), CUDA_ERROR_NOT_PERMITTED);  // the quick way
    expect_arguments(symbol);
    memset(seen, 0, sizeof(seen));
    submit_watch.store(kWakeOnSubmit);
    EXPECT_EQ(call(hook), CUDA_ERROR_NOT_PERMITTED);  // the watched way
    expect_arguments(symbol);
    EXPECT_EQ(submit_watch.load(), 0u) << symbol;
  }
  EXPECT_EQ(static_cast<size_t>(rings), all_hooks().size());
  EXPECT_EQ(entered, 0);
  EXPECT_EQ(submissions_under_way(), 0u);
}

TEST_F(Submit, OneWakeForAFirstSubmission) {
  const Fake hook = all_hooks()["cuLaunchKernel"];
  call(hook);
  EXPECT_EQ(rings, 0);
  submit_watch.store(kWakeOnSubmit | kCapture);
  call(hook);
  call(hook);
  EXPECT_EQ(rings, 1);
  EXPECT_EQ(submit_watch.load(), kCapture);  // another owner's bit stays
  wake_handler.store(nullptr);
  submit_watch.store(kWakeOnSubmit);
  call(hook);
  EXPECT_EQ(submit_watch.load(), 0u);
}

TEST_F(Submit, TheGateLearnsStreamAndWork) {
  auto hooks = all_hooks();
  submit_watch.store(kGate);
  const auto stream = reinterpret_cast<CUstream>(argument(8));
  call(hooks["cuLaunchKernel"]);
  EXPECT_EQ(gated.stream, stream);
  EXPECT_EQ(gated.work, argument(0));
  EXPECT_FALSE(gated.per_thread);
  EXPECT_TRUE(gated.returns_at_once);
  call(hooks["cuLaunchCooperativeKernel_ptsz"]);
  EXPECT_EQ(gated.stream, stream);
  EXPECT_TRUE(gated.per_thread);
  call(hooks["cuMemcpyAsync"]);
  EXPECT_EQ(gated.stream, reinterpret_cast<CUstream>(argument(3)));
  const uint64_t copies = gated.work;
  call(hooks["cuMemsetD8Async"]);
  EXPECT_NE(gated.work, copies);
  call(hooks["cuMemcpyDtoH_v2_ptds"]);
  EXPECT_EQ(gated.stream, nullptr);
  EXPECT_TRUE(gated.per_thread);
  EXPECT_FALSE(gated.returns_at_once);
  call(hooks["cuGraphLaunch"]);
  EXPECT_EQ(gated.stream, reinterpret_cast<CUstream>(argument(1)));
  EXPECT_EQ(gated.work, argument(0));

  CUlaunchConfig config = {};
  config.hStream = stream;
  const Fake extended = hooks["cuLaunchKernelEx"];
  extended(reinterpret_cast<uint64_t>(&config), argument(1), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  EXPECT_EQ(gated.stream, stream);
  EXPECT_EQ(gated.work, argument(1));
  CUDA_LAUNCH_PARAMS list[2] = {};
  list[0].hStream = stream;
  const Fake devices = hooks["cuLaunchCooperativeKernelMultiDevice"];
  devices(reinterpret_cast<uint64_t>(list), 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  EXPECT_EQ(gated.stream, stream);
  EXPECT_EQ(entered, 8);
  EXPECT_EQ(left, 8);
}

TEST_F(Submit, CallsOfTheDriverItselfPassTheGate) {
  submit_watch.store(kGate);
  {
    const Inside within;
    call(all_hooks()["cuLaunchKernel"]);
  }
  EXPECT_EQ(entered, 0);
  EXPECT_EQ(calls, 1);
}

TEST_F(Submit, AThreadsOwnStreamIsNoted) {
  auto hooks = all_hooks();
  submit_watch.store(kGate);
  const uint64_t before = last_per_thread_submission();
  const Fake copy = hooks["cuMemcpyAsync"];
  copy(1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  EXPECT_EQ(last_per_thread_submission(), before);
  const uint64_t now = sys::monotonic_ns();
  copy(1, 2, 3, reinterpret_cast<uint64_t>(CU_STREAM_PER_THREAD), 0, 0, 0, 0, 0, 0, 0, 0);
  EXPECT_GE(last_per_thread_submission(), now);
  const Fake copy_ptsz = hooks["cuMemcpyAsync_ptsz"];
  copy_ptsz(1, 2, 3, reinterpret_cast<uint64_t>(CU_STREAM_LEGACY), 0, 0, 0, 0, 0, 0, 0, 0);
  const uint64_t second = last_per_thread_submission();
  copy_ptsz(1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  EXPECT_GT(last_per_thread_submission(), second);
}

}  // namespace
}  // namespace allot::shim
