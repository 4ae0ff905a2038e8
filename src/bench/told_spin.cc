// See told_spin.h.
#include "bench/told_spin.h"

#include <atomic>
#include <thread>

namespace allot::bench {
namespace {

std::atomic_ref<uint64_t> as_atomic(void* word) {
  return std::atomic_ref<uint64_t>(*static_cast<uint64_t*>(word));
}

}  // namespace

ToldSpin::ToldSpin(const Gpu& gpu) : gpu_(gpu) {
  gpu.check(gpu.api().host_alloc(&word_, sizeof(uint64_t), CU_MEMHOSTALLOC_DEVICEMAP),
            "cuMemHostAlloc");
  as_atomic(word_).store(0);
  const CUresult reached = gpu.api().host_address(&address_, word_, 0);
  if (reached == CUDA_SUCCESS) return;
  gpu.api().host_free.quiet(word_);
  gpu.check(reached, "cuMemHostGetDevicePointer");
}

ToldSpin::~ToldSpin() {
  gpu_.api().host_free.quiet(word_);
}

void ToldSpin::launch(uint64_t steps) {
  gpu_.launch_spin_told(steps, address_, launched_);
  launched_ += steps;
}

void ToldSpin::landed() {
  as_atomic(word_).store(launched_, std::memory_order_relaxed);
}

void ToldSpin::listen(const std::stop_token& end,
                      const std::function<void(double, double, uint64_t)>& note) const {
  constexpr auto kEach = std::chrono::milliseconds(1);
  uint64_t last = done();
  for (double last_s = now_s();;) {
    const bool over = end.stop_requested();
    const uint64_t steps = done();
    if (steps > last) {
      const double now = now_s();
      note(last_s, now, steps - last);
      last_s = now;
      last = steps;
    }
    if (over) return;
    std::this_thread::sleep_for(kEach);
  }
}

uint64_t ToldSpin::done() const {
  return as_atomic(word_).load(std::memory_order_relaxed);
}

}  // namespace allot::bench
