// The gate's tables at N + 1: work that finds no place in one is still counted until it ends, and
// the program neither waits for ever nor runs without a bound.
#include <memory>
#include <thread>
#include <vector>

#include "abi/region.h"
#include "driver/entries.h"
#include "shim/time/launch_gate.h"
#include "shim/time/streams.h"
#include "shim/time/tables.h"
#include "tests/shim/time_support.h"

namespace allot::shim_time {
namespace {

constexpr uint64_t kNoBound = 1'000'000'000;  // us

void settle() {
  std::thread([] { shim::unfinished_work(0); }).join();
}

class GateTables : public ShimTime {
 protected:
  void SetUp() override {
    ShimTime::SetUp();
    shim::abandon_gate();
    shim::forget_full_tables();
    shim::submit_watch.store(shim::kGate);
  }
  void TearDown() override {
    ShimTime::TearDown();
    settle();
    shim::gate_budget_us(10'000);
    shim::forget_full_tables();
  }
};

TEST_F(GateTables, WorkOfEachOf300StreamsIsCountedUntilItEnds) {
  shim::gate_budget_us(kNoBound);
  {
    const Stream first;
    for (int i = 0; i < 8; ++i) EXPECT_CU(spin(first.handle, 10));  // known from here on
    EXPECT_CU(DRIVER(cuStreamSynchronize)(first.handle));
  }
  settle();
  std::vector<std::unique_ptr<Stream>> streams;
  std::vector<std::unique_ptr<Barrier>> barriers;
  for (uint32_t i = 0; i < 300; ++i) {
    streams.push_back(std::make_unique<Stream>());
    barriers.push_back(std::make_unique<Barrier>(streams.back()->handle));
    EXPECT_CU(spin(streams.back()->handle, 10));
    EXPECT_EQ(shim::in_flight_count(), i + 1);
  }
  EXPECT_EQ(shim::full_tables(), ALLOT_TABLE_ACCOUNTS);
  for (const auto& barrier : barriers) barrier->open();
  EXPECT_CU(DRIVER(cuCtxSynchronize)());
  settle();
  EXPECT_EQ(shim::in_flight_count(), 0u);
  barriers.clear();
}

// A context with a stream, and a block to set.
class Context {
 public:
  Context() {
    EXPECT_CU(DRIVER(cuCtxCreate_v2)(&handle_, 0u, 0));
    shim::context_made(handle_, 0);
    EXPECT_CU(HOOK(cuStreamCreate)(&stream_, 0u));
    EXPECT_CU(DRIVER(cuMemAlloc_v2)(&block_, size_t{64}));
    EXPECT_CU(DRIVER(cuMemHostAlloc)(&host_, size_t{64}, 0u));
    EXPECT_CU(DRIVER(cuMemHostGetDevicePointer_v2)(&flag_, host_, 0u));
    *flag() = 0;
  }
  ~Context() {
    __atomic_store_n(flag(), 1u, __ATOMIC_SEQ_CST);
    EXPECT_CU(DRIVER(cuCtxSetCurrent)(handle_));
    EXPECT_CU(DRIVER(cuCtxSynchronize)());
    shim::context_ends(handle_);
    EXPECT_CU(DRIVER(cuCtxDestroy_v2)(handle_));
    shim::context_gone(handle_);
    use_context();
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  // What is submitted from now on waits until the end.
  void block_stream() const {
    EXPECT_CU(DRIVER(cuCtxSetCurrent)(handle_));
    EXPECT_CU(DRIVER(cuStreamWaitValue32_v2)(stream_, flag_, 1u, 0u));
  }
  // Work that takes 1 us, as far as is known, and is measured: with a marker behind it.
  void work() const {
    shim::WorkCost* cost = shim::cost_of(driver::kCuda_cuMemsetD8Async + 1);
    cost->ns.store(1'000);
    cost->launches.store(0);
    EXPECT_CU(DRIVER(cuCtxSetCurrent)(handle_));
    EXPECT_CU(HOOK(cuMemsetD8Async)(block_, static_cast<unsigned char>(1), size_t{64}, stream_));
  }

 private:
  uint32_t* flag() const { return static_cast<uint32_t*>(host_); }
  CUcontext handle_ = nullptr;
  CUstream stream_ = nullptr;
  CUdeviceptr block_ = 0, flag_ = 0;
  void* host_ = nullptr;
};

TEST_F(GateTables, ContextsLeaveMarkersToOthersAndTheFirstWithoutAnyIsSaid) {
  shim::gate_budget_us(kNoBound);
  std::vector<std::unique_ptr<Context>> contexts;
  while ((shim::full_tables() & ALLOT_TABLE_MARKERS) == 0 && contexts.size() < 40) {
    const uint32_t before = shim::markers_out();
    contexts.push_back(std::make_unique<Context>());
    contexts.back()->block_stream();
    for (int i = 0; i < 80; ++i) contexts.back()->work();
    if ((shim::full_tables() & ALLOT_TABLE_MARKERS) != 0) break;
    EXPECT_GT(shim::markers_out(), before) << contexts.size();
  }
  EXPECT_EQ(shim::full_tables() & ALLOT_TABLE_MARKERS, ALLOT_TABLE_MARKERS);
  EXPECT_GE(contexts.size(), 12u);
  EXPECT_EQ(shim::in_flight_count(), 80u * contexts.size()) << "counted all the same";
  contexts.clear();
  EXPECT_EQ(shim::in_flight_count(), 0u);
}

TEST_F(GateTables, AContextWithoutMarkersIsBoundByItsOwnStream) {
  shim::gate_budget_us(kNoBound);
  std::vector<std::unique_ptr<Context>> others;
  while ((shim::full_tables() & ALLOT_TABLE_MARKERS) == 0 && others.size() < 40) {
    others.push_back(std::make_unique<Context>());
    others.back()->block_stream();
    for (int i = 0; i < 80; ++i) others.back()->work();
  }
  ASSERT_EQ(shim::full_tables(), ALLOT_TABLE_MARKERS);
  const uint32_t waiting = shim::in_flight_count();
  const Context fresh;
  const uint64_t gave_way = shim::gate_gave_way();
  shim::gate_budget_us(shim::gate_in_flight_us() + 10);  // room for ten more
  uint32_t most = 0;
  for (int i = 0; i < 200; ++i) {
    fresh.work();
    most = std::max(most, shim::in_flight_count() - waiting);
  }
  EXPECT_LE(most, 11u);
  EXPECT_EQ(shim::gate_gave_way(), gave_way) << "nobody waited for what does not come";
}

TEST_F(GateTables, AKernelThatFindsNoPlaceCountsAsHalfABudget) {
  uint64_t work = 1;
  while (shim::cost_of(work) != nullptr && work <= 5'000) work += 1;
  ASSERT_EQ(shim::cost_of(work), nullptr);
  EXPECT_EQ(shim::full_tables(), ALLOT_TABLE_COSTS);
  shim::Submission submission = {};
  submission.work = work;
  EXPECT_EQ(shim::expected_ns(submission, 5'000'000), 5'000'000u);
  shim::abandon_costs();
}

}  // namespace
}  // namespace allot::shim_time
