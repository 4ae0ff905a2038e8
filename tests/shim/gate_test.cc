// The gate: holds what puts work on the GPU and nothing else, releases it again, keeps the work
// behind it short, and never waits for what cannot come.
#include "shim/time/launch_gate.h"

#include <atomic>
#include <thread>
#include <vector>

#include "shim/time/streams.h"
#include "tests/shim/time_support.h"

namespace allot::shim_time {
namespace {

// As the prober does it, which settles the accounts.
shim::Work probe() {
  shim::Work work = shim::Work::kUnknown;
  std::thread([&] { work = shim::unfinished_work(0); }).join();
  return work;
}

class Gate : public ShimTime {
 protected:
  void SetUp() override {
    ShimTime::SetUp();
    shim::abandon_gate();  // what other tests have taught it
    shim::gate_budget_us(10'000);
    shim::submit_watch.store(shim::kGate);
  }
  void TearDown() override {
    ShimTime::TearDown();
    probe();
  }
};

// Runs `submit` on a thread of its own against a closed gate; whether it was held until the gate
// opened.
void expect_held(const std::function<CUresult()>& submit) {
  std::atomic<bool> done{false};
  CUresult result = CUDA_ERROR_UNKNOWN;
  EXPECT_CU(DRIVER(cuCtxSynchronize)());
  probe();
  shim::gate_close();
  std::thread submitter([&] {
    use_context();
    result = submit();
    done.store(true);
  });
  EXPECT_TRUE(wait_until([] { return shim::gate_waiting() == 1; }));
  EXPECT_TRUE(shim::gate_drained());
  EXPECT_FALSE(done.load());
  shim::gate_open();
  submitter.join();
  EXPECT_EQ(result, CUDA_SUCCESS);
  EXPECT_EQ(shim::gate_waiting(), 0u);
}

TEST_F(Gate, HoldsLaunchesGraphsAndCopies) {
  const Stream stream;
  CUdeviceptr block = 0;
  uint32_t host[16] = {};
  CUgraph graph = nullptr;
  CUgraphExec exec = nullptr;
  EXPECT_CU(DRIVER(cuMemAlloc_v2)(&block, size_t{64}));
  EXPECT_CU(DRIVER(cuStreamBeginCapture_v2)(stream.handle, 2));
  EXPECT_CU(
      DRIVER(cuMemsetD8Async)(block, static_cast<unsigned char>(1), size_t{64}, stream.handle));
  EXPECT_CU(DRIVER(cuStreamEndCapture)(stream.handle, &graph));
  EXPECT_CU(DRIVER(cuGraphInstantiateWithFlags)(&exec, graph, 0ull));

  expect_held([&] { return spin(stream.handle, 10); });
  expect_held([&] {
    return HOOK(cuGraphLaunch)(reinterpret_cast<uint64_t>(exec),
                               reinterpret_cast<uint64_t>(stream.handle));
  });
  expect_held([&] {
    return HOOK(cuMemcpyHtoDAsync_v2)(block, static_cast<const void*>(host), size_t{64},
                                      stream.handle);
  });
  expect_held([&] { return HOOK(cuMemcpyDtoH_v2)(static_cast<void*>(host), block, size_t{64}); });
  expect_held([&] { return HOOK(cuMemsetD32Async)(block, 5u, size_t{16}, stream.handle); });
  EXPECT_CU(DRIVER(cuCtxSynchronize)());
  EXPECT_CU(DRIVER(cuGraphExecDestroy)(exec));
  EXPECT_CU(DRIVER(cuGraphDestroy)(graph));
  EXPECT_CU(DRIVER(cuMemFree_v2)(block));
}

TEST_F(Gate, LetsAllThreadsGoAtOnce) {
  uint64_t fastest = UINT64_MAX;  // of the ways from the opened gate to the last thread's end
  for (int round = 0; round < 5; ++round) {
    std::vector<std::thread> threads;
    shim::gate_close();
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([] { EXPECT_CU(spin(nullptr, 1)); });
    }
    EXPECT_TRUE(wait_until([] { return shim::gate_waiting() == 8; }));
    const uint64_t begin = now_us();
    shim::gate_open();
    for (std::thread& thread : threads) thread.join();
    fastest = std::min(fastest, now_us() - begin);
  }
  EXPECT_LT(fastest, 50'000u);  // woken, and not after having looked again
}

// A window's end between any two instructions of a submitter: whoever closes sees it inside or it
// waits.
TEST_F(Gate, NobodyPassesAGateSeenClosedAndEmpty) {
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> launched{0};
  std::thread submitter([&] {
    use_context();
    CUdeviceptr block = 0;
    EXPECT_CU(DRIVER(cuMemAlloc_v2)(&block, size_t{64}));
    while (!stop.load()) {
      EXPECT_CU(HOOK(cuMemsetD8_v2)(block, static_cast<unsigned char>(1), size_t{64}));
      launched.fetch_add(1);
    }
    EXPECT_CU(DRIVER(cuMemFree_v2)(block));
  });
  for (int i = 0; i < 200; ++i) {
    shim::gate_close();
    EXPECT_TRUE(wait_until([] { return shim::gate_drained() && shim::gate_waiting() == 1; }));
    const uint64_t seen = launched.load();
    std::this_thread::yield();
    EXPECT_EQ(launched.load(), seen);
    shim::gate_open();
    EXPECT_TRUE(wait_until([&] { return launched.load() > seen; }));
  }
  stop.store(true);
  submitter.join();
}

TEST_F(Gate, CapturesGoOnWhileItIsClosed) {
  const Stream stream;
  CUgraph graph = nullptr;
  shim::gate_close();
  const uint64_t begin = now_us();
  EXPECT_CU(HOOK(cuStreamBeginCapture_v2)(stream.handle, 0));
  EXPECT_CU(spin(stream.handle, 10));
  EXPECT_CU(spin(stream.handle, 10));
  EXPECT_CU(HOOK(cuStreamEndCapture)(stream.handle, &graph));
  EXPECT_LT(now_us() - begin, 2'000'000u);  // not only after the gate has given up
  size_t nodes = 0;
  EXPECT_CU(DRIVER(cuGraphGetNodes)(graph, static_cast<CUgraphNode*>(nullptr), &nodes));
  EXPECT_EQ(nodes, 2u);  // no marker of ours among them
  EXPECT_CU(DRIVER(cuGraphDestroy)(graph));
  EXPECT_EQ(shim::gate_in_flight_us(), 0u);
}

TEST_F(Gate, OpensWhenItsCloserIsLost) {
  shim::gate_close();
  const uint64_t begin = now_us();
  EXPECT_CU(spin(nullptr, 1));
  EXPECT_GT(now_us() - begin, 2'000'000u);
}

TEST_F(Gate, OpensWhenNobodyWatchesAnyMore) {
  shim::gate_close();
  std::thread submitter([] { EXPECT_CU(spin(nullptr, 1)); });
  EXPECT_TRUE(wait_until([] { return shim::gate_waiting() == 1; }));
  shim::submit_watch.store(0);  // no wake: the thread looks again by itself
  submitter.join();
}

// What is really in flight, by events of the test's own behind every launch.
class Flight {
 public:
  explicit Flight(CUstream stream) : stream_(stream) {}
  ~Flight() {
    EXPECT_CU(DRIVER(cuStreamSynchronize)(stream_));
    for (const CUevent event : events_) EXPECT_CU(DRIVER(cuEventDestroy_v2)(event));
  }
  Flight(const Flight&) = delete;
  Flight& operator=(const Flight&) = delete;
  void launch(uint64_t us) {
    CUevent event = nullptr;
    EXPECT_CU(DRIVER(cuEventCreate)(&event, unsigned{CU_EVENT_DISABLE_TIMING}));
    EXPECT_CU(spin(stream_, us));
    EXPECT_CU(DRIVER(cuEventRecord)(event, stream_));
    events_.push_back(event);
    while (done_ < events_.size() && DRIVER(cuEventQuery)(events_[done_]) == CUDA_SUCCESS) ++done_;
    most_ = std::max(most_, events_.size() - done_);
  }
  size_t most() const { return most_; }
  void forget() { most_ = 0; }

 private:
  CUstream stream_;
  std::vector<CUevent> events_;
  size_t done_ = 0;
  size_t most_ = 0;
};

TEST_F(Gate, NoMoreThanTheBudgetIsInFlight) {
  const Stream stream;
  Flight flight(stream.handle);
  shim::gate_budget_us(5'000);
  for (int i = 0; i < 40; ++i) flight.launch(1'000);
  EXPECT_LE(flight.most(), 6u);  // 5 ms and one kernel
  EXPECT_GE(flight.most(), 3u);  // and the GPU is not left idle
  EXPECT_EQ(shim::gate_gave_way(), 0u);
}

// The same kernel with other arguments: known as short, then long.
TEST_F(Gate, WorkThatBecomesLongerIsLearnedAgain) {
  const Stream stream;
  for (int i = 0; i < 100; ++i) EXPECT_CU(spin(stream.handle, 50));
  EXPECT_CU(DRIVER(cuStreamSynchronize)(stream.handle));
  shim::gate_budget_us(5'000);
  Flight flight(stream.handle);
  for (int i = 0; i < 150; ++i) flight.launch(1'000);
  flight.forget();
  for (int i = 0; i < 40; ++i) flight.launch(1'000);
  EXPECT_LE(flight.most(), 8u);
}

TEST_F(Gate, LongKernelsGoOneByOneOnceTheirLengthIsKnown) {
  const Stream stream;
  EXPECT_CU(spin(stream.handle, 100'000));
  EXPECT_CU(DRIVER(cuStreamSynchronize)(stream.handle));
  probe();
  // Twice 100 ms is what they are given; a machine without a free core may take longer.
  uint64_t gave_way = 0;
  size_t most = 0;
  for (int attempt = 0; attempt < 3; ++attempt) {
    const uint64_t before = shim::gate_gave_way();
    Flight flight(stream.handle);
    for (int i = 0; i < 4; ++i) flight.launch(100'000);
    most = flight.most();
    gave_way = shim::gate_gave_way() - before;
    if (gave_way == 0 && most == 1) break;
  }
  EXPECT_EQ(most, 1u);
  EXPECT_EQ(gave_way, 0u);
}

TEST_F(Gate, BeforeItClosesNoMoreGoesThanWillHaveEnded) {
  const Stream stream;
  for (int i = 0; i < 8; ++i) EXPECT_CU(spin(stream.handle, 2'000));
  EXPECT_CU(DRIVER(cuStreamSynchronize)(stream.handle));
  probe();
  Flight before(stream.handle);
  for (int i = 0; i < 20; ++i) before.launch(2'000);
  EXPECT_GE(before.most(), 3u);
  EXPECT_CU(DRIVER(cuStreamSynchronize)(stream.handle));
  probe();
  shim::gate_closes_at(now_us() * 1000 + 500'000'000);  // now_us() counts as the gate does
  Flight far(stream.handle);
  for (int i = 0; i < 10; ++i) far.launch(2'000);
  EXPECT_GE(far.most(), 3u);
  EXPECT_CU(DRIVER(cuStreamSynchronize)(stream.handle));
  probe();
  shim::gate_closes_at(now_us() * 1000);  // just now: one may always go
  Flight near(stream.handle);
  for (int i = 0; i < 10; ++i) near.launch(2'000);
  EXPECT_EQ(near.most(), 1u);
  shim::gate_closes_at(UINT64_MAX);
}

TEST_F(Gate, IsStuckWhenNothingEndsForFarLongerThanItShould) {
  const Stream stream;
  for (int i = 0; i < 8; ++i) EXPECT_CU(spin(stream.handle, 1'000));
  EXPECT_CU(DRIVER(cuStreamSynchronize)(stream.handle));
  probe();
  EXPECT_FALSE(shim::gate_stuck(now_us() * 1000));
  Barrier barrier(stream.handle);
  EXPECT_CU(spin(stream.handle, 1'000));
  shim::gate_close();
  const uint64_t begin = now_us() * 1000;
  EXPECT_FALSE(shim::gate_stuck(begin));
  EXPECT_FALSE(shim::gate_stuck(begin + 40'000'000));
  EXPECT_TRUE(shim::gate_stuck(begin + 60'000'000));
  barrier.open();
  EXPECT_CU(DRIVER(cuStreamSynchronize)(stream.handle));
  EXPECT_EQ(probe(), shim::Work::kNone);
  EXPECT_FALSE(shim::gate_stuck(begin + 70'000'000));
}

TEST_F(Gate, ShortKernelsShareAMarker) {
  const Stream stream;
  Flight flight(stream.handle);
  for (int i = 0; i < 400; ++i) flight.launch(20);
  flight.forget();
  for (int i = 0; i < 1'000; ++i) flight.launch(20);
  EXPECT_LE(flight.most(), 10'000u / 20 + 32);
}

// A kernel that waits for what the host does later; here a stream that waits for a value in memory.
TEST_F(Gate, GivesWayToWorkThatWaitsForTheHost) {
  const Stream stream;
  for (int i = 0; i < 8; ++i) EXPECT_CU(spin(stream.handle, 1'000));
  EXPECT_CU(DRIVER(cuStreamSynchronize)(stream.handle));
  const uint64_t before = shim::gate_gave_way();
  Barrier barrier(stream.handle);
  const uint64_t begin = now_us();
  for (int i = 0; i < 200; ++i) EXPECT_CU(spin(stream.handle, 1'000));  // 200 ms of work
  EXPECT_LT(now_us() - begin, 5'000'000u);
  EXPECT_GE(shim::gate_gave_way(), before + 1);
  EXPECT_LE(shim::gate_gave_way(), before + 10);  // not for each launch
  EXPECT_GT(shim::gate_in_flight_us(), 10'000u);
  barrier.open();
  EXPECT_CU(DRIVER(cuStreamSynchronize)(stream.handle));
  EXPECT_EQ(probe(), shim::Work::kNone);
  EXPECT_EQ(shim::gate_in_flight_us(), 0u);
}

// Stream A waits for an event that another thread records later, behind work of its own.
TEST_F(Gate, AnEventRecordedLaterByAnotherThreadIsReached) {
  const Stream first, second;
  CUevent event = nullptr;
  EXPECT_CU(DRIVER(cuEventCreate)(&event, 0u));
  Barrier barrier(second.handle);
  EXPECT_CU(DRIVER(cuEventRecord)(event, second.handle));
  EXPECT_CU(HOOK(cuStreamWaitEvent)(first.handle, event, 0u));
  for (int i = 0; i < 60; ++i) EXPECT_CU(spin(first.handle, 1'000));
  std::thread other([&] {
    use_context();
    EXPECT_CU(spin(second.handle, 1'000));
    barrier.open();
  });
  other.join();
  EXPECT_CU(DRIVER(cuStreamSynchronize)(first.handle));
  EXPECT_CU(DRIVER(cuEventDestroy_v2)(event));
}

TEST_F(Gate, LearnsWhatWorkTakes) {
  const Stream stream;
  shim::WorkCost* cost = shim::cost_of(reinterpret_cast<uint64_t>(spin_function()));
  ASSERT_NE(cost, nullptr);
  for (const uint64_t us : {500u, 3'000u}) {
    const auto learned = [&] {
      for (int i = 0; i < 200; ++i) {
        EXPECT_CU(spin(stream.handle, us));
        if (i % 8 == 7) {
          EXPECT_CU(DRIVER(cuStreamSynchronize)(stream.handle));
          probe();
        }
      }
      return cost->ns.load() > us * 700 && cost->ns.load() < us * 1'400;
    };
    // On a busy machine the software GPU's kernels take longer, too: then it learns that.
    bool close = false;
    for (int round = 0; round < 5 && !close; ++round) close = learned();
    EXPECT_TRUE(close) << us << " us, learned " << cost->ns.load() << " ns";
  }
}

TEST_F(Gate, ContextsEndWithMarkersOut) {
  int with_markers_out = 0;  // on a busy machine some rounds' work has ended before this looks
  for (int i = 0; i < 20; ++i) {
    CUcontext second = nullptr;
    CUstream stream = nullptr;
    CUdeviceptr block = 0;
    ASSERT_EQ(DRIVER(cuCtxCreate_v2)(&second, 0u, 0), CUDA_SUCCESS);
    shim::context_made(second, 0);
    EXPECT_CU(HOOK(cuStreamCreate)(&stream, 0u));
    EXPECT_CU(DRIVER(cuMemAlloc_v2)(&block, size_t{64}));
    for (int k = 0; k < 4; ++k) {
      shim::abandon_costs();  // work that is not known has a marker behind each launch
      EXPECT_CU(HOOK(cuMemsetD8Async)(block, static_cast<unsigned char>(1), size_t{64}, stream));
    }
    with_markers_out += shim::markers_out() > 0 ? 1 : 0;
    shim::context_ends(second);
    EXPECT_CU(DRIVER(cuCtxDestroy_v2)(second));
    shim::context_gone(second);
    use_context();
    EXPECT_EQ(shim::in_flight_count(), 0u);
  }
  EXPECT_GT(with_markers_out, 0);
  // Their markers can be used again.
  const Stream stream;
  Flight flight(stream.handle);
  shim::gate_budget_us(5'000);
  for (int i = 0; i < 30; ++i) flight.launch(1'000);
  EXPECT_LE(flight.most(), 6u);
}

TEST_F(Gate, RefusedWorkIsNotInFlight) {
  EXPECT_NE(HOOK(cuLaunchKernel)(spin_function(), 0u, 1u, 1u, 32u, 1u, 1u, 0u, CUstream{nullptr},
                                 static_cast<void**>(nullptr), static_cast<void**>(nullptr)),
            CUDA_SUCCESS);
  EXPECT_EQ(shim::in_flight_count(), 0u);
}

}  // namespace
}  // namespace allot::shim_time
