// The ceiling of one slice on one GPU (`--gpu-max`), over a sliding span of time.
//
// Pure: caller-owned storage, times are given. Not for several threads at once. Neither allocates
// nor blocks.
#pragma once

#include <cstdint>

namespace allot::core {

// A ceiling over a sliding span of time: in any span of kCeilingSpanNs at most max of it is used,
// hence in any second too. Owned by one agent; remembers the intervals in which its slice ran.
inline constexpr uint64_t kCeilingSpanNs = 100'000'000;

class Ceiling {
 public:
  // Another span than kCeilingSpanNs: a multiple of 1000 ns.
  constexpr explicit Ceiling(uint64_t span_ns = kCeilingSpanNs) : span_ns_(span_ns) {}
  // 0 or kWhole = no ceiling. A change counts from the next question on.
  void set_max(uint32_t permille) { max_permille_ = permille; }
  // The slice's work runs from now on / has stopped. Times never go back; a start while running and
  // a stop while stopped change nothing.
  void start(uint64_t now_ns);
  void stop(uint64_t now_ns);
  // What ran before `now_ns` counts no more: it was under another max.
  void forget(uint64_t now_ns);
  // Until when it may run without a stop, if it starts (or continues) now; `now_ns` = it may not.
  uint64_t may_run_until(uint64_t now_ns) const;
  // The first moment from which it may run for a useful while: min(5 ms, all that the ceiling
  // allows).
  uint64_t next_start(uint64_t now_ns) const;
  // Time used in the span that ends now; more than it was where many short runs had to be joined.
  uint64_t used_ns(uint64_t now_ns) const;

 private:
  static constexpr uint32_t kRuns = 256;  // a second of windows of 5 ms has 200
  struct Run {
    uint64_t begin_ns;
    uint64_t end_ns;
  };
  Run run(uint32_t i, uint64_t now_ns) const;  // oldest first; the one under way ends now
  uint32_t runs() const;
  void join_nearest();

  Run runs_[kRuns] = {};  // a ring, oldest at first_
  uint32_t first_ = 0;
  uint32_t count_ = 0;
  uint64_t running_since_ns_ = 0;
  bool running_ = false;
  uint32_t max_permille_ = 0;
  uint64_t span_ns_;
};

}  // namespace allot::core
