// unfinished_work(): right about what runs, and harmless to captures and to streams and contexts
// that end.
#include "shim/time/streams.h"

#include <atomic>
#include <thread>

#include "shim/time/stream_table.h"
#include "shim/time/submit.h"
#include "tests/shim/time_support.h"

namespace allot::shim_time {
namespace {

using shim::Work;

// The prober is a thread of its own.
Work ask(int gpu = 0) {
  Work work = Work::kUnknown;
  std::thread([&] { work = shim::unfinished_work(gpu); }).join();
  return work;
}

// Asks without pause until it is stopped.
class Prober {
 public:
  Prober() : thread_([this] { run(); }) {}
  ~Prober() { stop(); }
  void stop() {
    stop_.store(true);
    if (thread_.joinable()) thread_.join();
  }
  uint64_t asked() const { return asked_.load(); }

 private:
  void run() {
    while (!stop_.load()) {
      shim::unfinished_work(0);
      asked_.fetch_add(1);
    }
  }
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> asked_{0};
  std::thread thread_;
};

class Streams : public ShimTime {};

TEST_F(Streams, IdleThenBusyThenIdle) {
  const Stream stream;
  EXPECT_EQ(ask(), Work::kNone);
  {
    Barrier barrier(stream.handle);
    EXPECT_EQ(ask(), Work::kUnfinished);
    EXPECT_EQ(ask(1), Work::kNone);  // a GPU without a context
  }
  EXPECT_EQ(ask(), Work::kNone);
  EXPECT_CU(spin(stream.handle, 300'000));
  EXPECT_EQ(ask(), Work::kUnfinished);
  EXPECT_CU(DRIVER(cuStreamSynchronize)(stream.handle));
  EXPECT_EQ(ask(), Work::kNone);
}

TEST_F(Streams, EveryStreamIsAsked) {
  const Stream first, second, third;
  for (const CUstream busy : {first.handle, third.handle, second.handle, CUstream{nullptr}}) {
    Barrier barrier(busy);
    EXPECT_EQ(ask(), Work::kUnfinished) << busy;
  }
  EXPECT_EQ(ask(), Work::kNone);
}

TEST_F(Streams, AnotherContextOfTheGpuCounts) {
  CUcontext second = nullptr;
  CUstream stream = nullptr;
  ASSERT_EQ(DRIVER(cuCtxCreate_v2)(&second, 0u, 0), CUDA_SUCCESS);
  shim::context_made(second, 0);
  EXPECT_CU(HOOK(cuStreamCreate)(&stream, unsigned{CU_STREAM_NON_BLOCKING}));
  CUdeviceptr flag = 0;
  void* host = nullptr;
  EXPECT_CU(DRIVER(cuMemHostAlloc)(&host, size_t{64}, 0u));
  *static_cast<uint32_t*>(host) = 0;
  EXPECT_CU(DRIVER(cuMemHostGetDevicePointer_v2)(&flag, host, 0u));
  EXPECT_CU(DRIVER(cuStreamWaitValue32_v2)(stream, flag, 1u, 0u));
  EXPECT_EQ(ask(), Work::kUnfinished);
  __atomic_store_n(static_cast<uint32_t*>(host), 1u, __ATOMIC_SEQ_CST);
  EXPECT_CU(DRIVER(cuStreamSynchronize)(stream));
  EXPECT_EQ(ask(), Work::kNone);
  shim::context_ends(second);
  EXPECT_EQ(ask(), Work::kUnknown);  // not asked while it may be ending
  EXPECT_CU(DRIVER(cuCtxDestroy_v2)(second));
  shim::context_gone(second);
  EXPECT_EQ(shim::streams::find_stream(shim::streams::number(stream)), nullptr);
  EXPECT_EQ(ask(), Work::kNone);
}

TEST_F(Streams, AContextThatLivesOnIsAskedAgain) {
  shim::context_ends(context);
  EXPECT_EQ(ask(), Work::kUnknown);
  shim::context_kept(context);
  EXPECT_EQ(ask(), Work::kNone);
}

// The agent is woken before the driver has the work: who is woken by it must not find the GPU idle.
TEST_F(Streams, ASubmissionOnItsWayIsUnfinished) {
  static std::atomic<Work> seen{Work::kNone};
  shim::wake_handler.store([] { seen.store(ask()); });
  shim::submit_watch.store(shim::kWakeOnSubmit);
  EXPECT_CU(spin(nullptr, 1));
  shim::wake_handler.store(nullptr);
  EXPECT_EQ(seen.load(), Work::kUnfinished);
  EXPECT_CU(DRIVER(cuCtxSynchronize)());
  EXPECT_EQ(ask(), Work::kNone);
}

TEST_F(Streams, AThreadsOwnStreamIsUnknownForAWhile) {
  shim::submit_watch.store(shim::kWakeOnSubmit);
  CUdeviceptr block = 0;
  EXPECT_CU(DRIVER(cuMemAlloc_v2)(&block, size_t{64}));
  EXPECT_CU(HOOK(cuMemsetD8Async_ptsz)(block, static_cast<unsigned char>(1), size_t{64},
                                       CUstream{nullptr}));
  EXPECT_NE(ask(), Work::kNone);
  EXPECT_TRUE(wait_until([] { return ask() == Work::kNone; }));
  EXPECT_CU(DRIVER(cuMemFree_v2)(block));
}

// A query of a stream during its capture makes the capture useless.
TEST_F(Streams, CapturesAreNotBroken) {
  const Stream stream, side;
  Prober prober;
  CUevent fork = nullptr;
  CUevent join = nullptr;
  EXPECT_CU(DRIVER(cuEventCreate)(&fork, 0u));
  EXPECT_CU(DRIVER(cuEventCreate)(&join, 0u));
  for (int i = 0; i < 300; ++i) {
    CUgraph graph = nullptr;
    const int mode = i % 3;
    ASSERT_EQ(HOOK(cuStreamBeginCapture_v2)(stream.handle, mode), CUDA_SUCCESS);
    EXPECT_NE(shim::submit_watch.load() & shim::kCapture, 0u);
    EXPECT_TRUE(shim::thread_captures());
    EXPECT_TRUE(shim::stream_captures(stream.handle, false));
    EXPECT_CU(spin(stream.handle, 1));
    EXPECT_CU(DRIVER(cuEventRecord)(fork, stream.handle));
    EXPECT_CU(HOOK(cuStreamWaitEvent)(side.handle, fork, 0u));
    EXPECT_CU(spin(side.handle, 1));
    EXPECT_CU(DRIVER(cuEventRecord)(join, side.handle));
    EXPECT_CU(HOOK(cuStreamWaitEvent)(stream.handle, join, 0u));
    ASSERT_EQ(HOOK(cuStreamEndCapture)(stream.handle, &graph), CUDA_SUCCESS) << i;
    EXPECT_CU(DRIVER(cuGraphDestroy)(graph));
    EXPECT_EQ(shim::submit_watch.load() & shim::kCapture, 0u);
    EXPECT_FALSE(shim::stream_captures(stream.handle, false));
  }
  EXPECT_TRUE(wait_until([&, from = prober.asked()] { return prober.asked() > from + 3; }));
  prober.stop();
  EXPECT_CU(DRIVER(cuEventDestroy_v2)(fork));
  EXPECT_CU(DRIVER(cuEventDestroy_v2)(join));
  EXPECT_EQ(ask(), Work::kNone);
}

TEST_F(Streams, WhileSomethingIsCapturedTheRestIsAsked) {
  const Stream captured, other;
  ASSERT_EQ(HOOK(cuStreamBeginCapture_v2)(captured.handle, 2), CUDA_SUCCESS);
  EXPECT_EQ(ask(), Work::kUnknown);  // the default stream cannot be asked now
  {
    Barrier barrier(other.handle);
    EXPECT_EQ(ask(), Work::kUnfinished);
    barrier.open();
    EXPECT_TRUE(wait_until([] { return ask() == Work::kUnknown; }));
    CUgraph graph = nullptr;
    EXPECT_CU(HOOK(cuStreamEndCapture)(captured.handle, &graph));
    EXPECT_CU(DRIVER(cuGraphDestroy)(graph));
  }
  EXPECT_EQ(ask(), Work::kNone);
}

TEST_F(Streams, AFailedBeginAndAStreamThatEndsInCaptureAreNoCaptures) {
  EXPECT_NE(HOOK(cuStreamBeginCapture_v2)(CU_STREAM_LEGACY, 0), CUDA_SUCCESS);
  EXPECT_EQ(shim::streams::table.captures.load(), 0u);
  {
    const Stream stream;
    EXPECT_CU(HOOK(cuStreamBeginCapture_v2)(stream.handle, 2));
    EXPECT_NE(HOOK(cuStreamBeginCapture_v2)(stream.handle, 2), CUDA_SUCCESS);
    EXPECT_EQ(shim::streams::table.captures.load(), 1u);
  }
  EXPECT_EQ(shim::streams::table.captures.load(), 0u);
  EXPECT_EQ(ask(), Work::kNone);
}

TEST_F(Streams, AThreadsOwnStreamCanBeCaptured) {
  CUgraph graph = nullptr;
  EXPECT_CU(HOOK(cuStreamBeginCapture_v2_ptsz)(CUstream{nullptr}, 0));
  EXPECT_TRUE(shim::thread_captures());
  EXPECT_EQ(ask(), Work::kUnknown);
  bool elsewhere = true;
  std::thread([&] { elsewhere = shim::thread_captures(); }).join();
  EXPECT_FALSE(elsewhere);
  EXPECT_CU(HOOK(cuStreamEndCapture_ptsz)(CUstream{nullptr}, &graph));
  EXPECT_CU(DRIVER(cuGraphDestroy)(graph));
  EXPECT_FALSE(shim::thread_captures());
  EXPECT_EQ(ask(), Work::kNone);
}

// The software GPU frees a stream at its end: a query of it then is a use after free, and a handle
// that is refused.
TEST_F(Streams, StreamsEndWhileTheyAreAsked) {
  Prober prober;
  std::thread others[2];
  for (std::thread& other : others) {
    other = std::thread([] {
      use_context();
      for (int i = 0; i < 500; ++i) {
        const Stream stream;
        EXPECT_CU(spin(stream.handle, 1));
      }
    });
  }
  for (std::thread& other : others) other.join();
  EXPECT_TRUE(wait_until([&, from = prober.asked()] { return prober.asked() > from + 3; }));
}

TEST_F(Streams, ContextsEndWhileTheyAreAsked) {
  Prober prober;
  for (int i = 0; i < 60; ++i) {
    CUcontext second = nullptr;
    CUstream stream = nullptr;
    ASSERT_EQ(DRIVER(cuCtxCreate_v2)(&second, 0u, 0), CUDA_SUCCESS);
    shim::context_made(second, 0);
    EXPECT_CU(HOOK(cuStreamCreate)(&stream, 0u));
    shim::context_ends(second);
    EXPECT_CU(DRIVER(cuCtxDestroy_v2)(second));
    shim::context_gone(second);
  }
  EXPECT_TRUE(wait_until([&, from = prober.asked()] { return prober.asked() > from + 3; }));
}

// Only the prober's one question delays an end, not the prober itself.
TEST_F(Streams, AnEndWaitsForTheQuestionAndNotForEver) {
  const Stream stream;
  auto& asked = shim::streams::table.asked_stream;
  CUstream doomed = nullptr;
  EXPECT_CU(HOOK(cuStreamCreate)(&doomed, 0u));
  asked.store(shim::streams::number(doomed));
  std::atomic<bool> gone{false};
  const uint64_t begin = now_us();
  std::thread ends([&] {
    use_context();
    EXPECT_CU(HOOK(cuStreamDestroy_v2)(doomed));
    gone.store(true);
  });
  EXPECT_TRUE(wait_until(
      [&] { return shim::streams::find_stream(shim::streams::number(doomed)) == nullptr; }));
  ends.join();
  EXPECT_GE(now_us() - begin, 1'000'000u);  // nobody answered: it continued after its patience
  asked.store(0);
}

TEST_F(Streams, TooManyStreamsMakeItUnknown) {
  std::vector<CUstream> many(shim::streams::kStreams + 1);
  for (CUstream& stream : many) ASSERT_EQ(HOOK(cuStreamCreate)(&stream, 0u), CUDA_SUCCESS);
  EXPECT_EQ(ask(), Work::kUnknown);
  {
    Barrier barrier(many[7]);
    EXPECT_EQ(ask(), Work::kUnfinished);
  }
  for (const CUstream stream : many) EXPECT_CU(HOOK(cuStreamDestroy_v2)(stream));
  shim::streams::table.overflowed.store(0);
  EXPECT_EQ(ask(), Work::kNone);
}

}  // namespace
}  // namespace allot::shim_time
