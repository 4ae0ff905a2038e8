// Runs a few logical threads in every possible order of their steps. For tests; not part of the
// product.
//
// A logical thread is a function on a stack of its own that yields at every ALLOT_LEDGER_STEP().
// The explorer runs a scenario again and again from its start, each time with another sequence of
// choices (which thread continues; which process is killed here), depth first until it has tried
// all. The number of times that it interrupts a thread which could continue is bounded: errors of
// this kind need few interruptions, and without a bound three threads have too many orders.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define ALLOT_TEST_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ALLOT_TEST_ASAN 1
#endif
#endif
// Where this is set, tests of this kind are skipped: it knows no stacks but its own.
#if defined(__SANITIZE_THREAD__)
#define ALLOT_TEST_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ALLOT_TEST_TSAN 1
#endif
#endif
#ifdef ALLOT_TEST_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace allot::core {

class Interleaver {
 public:
  struct Thread {
    uint32_t pid;  // threads of one process die together
    std::function<void()> body;
  };
  struct Budget {
    int interruptions;
    int kills;
  };

  // One run of the scenario: its threads, whether a process may be killed, and what must hold.
  struct Scenario {
    std::vector<Thread> threads;
    std::vector<uint32_t> may_be_killed;
    std::function<void(uint32_t pid)> on_kill;
    std::function<bool()> holds;      // after every step; false ends the exploration
    std::function<bool()> holds_end;  // when all have ended
  };

  explicit Interleaver(Budget budget) : budget_(budget) { current_ = this; }
  ~Interleaver() { current_ = nullptr; }

  // Runs what `make` sets up in all orders. Returns how many runs; failed() tells of a violation
  // and order() how it came about.
  uint64_t explore(const std::function<Scenario()>& make) {
    uint64_t runs = 0;
    do {
      ++runs;
      depth_ = 0;
      run(make());
    } while (!failed_ && next());
    return runs;
  }

  bool failed() const { return failed_; }
  const std::string& order() const { return order_; }

  // Called by the code under test.
  static void step() {
    if (current_ == nullptr || current_->running_ < 0) return;
    Interleaver& self = *current_;
    swapcontext(&self.fibers_[static_cast<size_t>(self.running_)]->context, &self.main_);
  }

 private:
  static constexpr size_t kStackBytes = 128 * 1024;
  struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[kStackBytes]};
    bool ended;
  };
  struct Choice {
    int chosen;
    int options;
  };

  int choose(int options) {
    if (depth_ == path_.size()) path_.push_back({0, options});
    return path_[depth_++].chosen;
  }

  bool next() {
    while (!path_.empty()) {
      if (++path_.back().chosen < path_.back().options) return true;
      path_.pop_back();
    }
    return false;
  }

  static void entry() {
    Interleaver& self = *current_;
    const size_t me = static_cast<size_t>(self.running_);
    self.scenario_.threads[me].body();
    self.fibers_[me]->ended = true;
    swapcontext(&self.fibers_[me]->context, &self.main_);
  }

  void start_fibers() {
    while (fibers_.size() < scenario_.threads.size()) fibers_.push_back(std::make_unique<Fiber>());
    for (size_t i = 0; i < scenario_.threads.size(); ++i) {
      Fiber& fiber = *fibers_[i];
#ifdef ALLOT_TEST_ASAN
      __asan_unpoison_memory_region(fiber.stack.get(), kStackBytes);
#endif
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStackBytes;
      fiber.context.uc_link = nullptr;
      makecontext(&fiber.context, &Interleaver::entry, 0);
      fiber.ended = false;
    }
  }

  bool runnable(size_t i) const {
    return !fibers_[i]->ended;
  }

  void kill(uint32_t pid) {
    for (size_t i = 0; i < scenario_.threads.size(); ++i) {
      if (scenario_.threads[i].pid == pid) fibers_[i]->ended = true;  // never resumed
    }
    scenario_.on_kill(pid);
    order_ += " kill:";
    order_ += std::to_string(pid);
  }

  bool can_be_killed(uint32_t pid) const {
    for (size_t i = 0; i < scenario_.threads.size(); ++i) {
      if (scenario_.threads[i].pid == pid && runnable(i)) return true;
    }
    return false;
  }

  void run(Scenario scenario) {
    scenario_ = std::move(scenario);
    start_fibers();
    order_.clear();
    int last = -1, interruptions = budget_.interruptions, kills = budget_.kills;
    for (;;) {
      // Options: continue the last thread, switch to another, kill a process.
      std::vector<int> threads;
      std::vector<uint32_t> victims;
      const bool last_can = last >= 0 && runnable(static_cast<size_t>(last));
      if (last_can) threads.push_back(last);
      for (size_t i = 0; i < scenario_.threads.size(); ++i) {
        if (static_cast<int>(i) == last || !runnable(i)) continue;
        if (!last_can || interruptions > 0) threads.push_back(static_cast<int>(i));
      }
      if (threads.empty()) break;
      if (kills > 0) {
        for (uint32_t pid : scenario_.may_be_killed) {
          if (can_be_killed(pid)) victims.push_back(pid);
        }
      }
      const size_t pick =
          static_cast<size_t>(choose(static_cast<int>(threads.size() + victims.size())));
      if (pick >= threads.size()) {
        kill(victims[pick - threads.size()]);
        --kills;
      } else {
        if (last_can && threads[pick] != last) --interruptions;
        last = threads[pick];
        order_ += ' ';
        order_ += std::to_string(last);
        running_ = last;
        swapcontext(&main_, &fibers_[static_cast<size_t>(last)]->context);
        running_ = -1;
      }
      if (!scenario_.holds()) {
        failed_ = true;
        return;
      }
    }
    if (!scenario_.holds_end()) failed_ = true;
  }

  inline static Interleaver* current_ = nullptr;
  Budget budget_;
  Scenario scenario_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  ucontext_t main_ = {};
  int running_ = -1;
  std::vector<Choice> path_;
  size_t depth_ = 0;
  bool failed_ = false;
  std::string order_;
};

}  // namespace allot::core
