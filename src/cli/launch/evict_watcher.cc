// See evict_watcher.h. It reads the file ten times a second: a process that wants to resume has
// waited for its memory to be moved out and back, which takes longer than that.
#include "cli/launch/evict_watcher.h"

#include <chrono>
#include <csignal>
#include <cstdio>

#include "cli/evict/evict.h"
#include "cli/failure.h"
#include "cli/output.h"

namespace allot::cli {
namespace {

constexpr auto kLook = std::chrono::milliseconds(100);

bool wanted(const AllotSliceFile& file) {
  constexpr uint32_t kBoth = ALLOT_SLICE_EVICTED | ALLOT_SLICE_RETURNS;
  if ((__atomic_load_n(&file.header.flags, __ATOMIC_ACQUIRE) & kBoth) != kBoth) return false;
  const uint32_t high = __atomic_load_n(&file.header.slots_high, __ATOMIC_RELAXED);
  for (uint32_t i = 0; i < high && i < ALLOT_MAX_SLOTS; ++i) {
    const uint64_t word = __atomic_load_n(&file.slot_words[i], __ATOMIC_ACQUIRE);
    if (ALLOT_SLOT_STATE(word) != ALLOT_SLOT_LIVE) continue;
    if (__atomic_load_n(&file.slots[i].wants, __ATOMIC_ACQUIRE) != 0) return true;
  }
  return false;
}

}  // namespace

LifeWatch::LifeWatch(std::string name, bool signals) : name_(std::move(name)), signals_(signals) {
  thread_ = std::thread([this] { run(); });
}

LifeWatch::~LifeWatch() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    quit_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

bool LifeWatch::take_signal(int number) {
  if (!signals_ || (number != SIGUSR1 && number != SIGUSR2)) return false;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    order_ = number == SIGUSR2 ? Order::kEvict : Order::kRestore;
  }
  changed_.notify_one();
  return true;
}

void LifeWatch::obey(OpenSlice& slice, Order order) {
  try {
    if (order == Order::kEvict) {
      evict(slice, name_, {});
    } else {
      restore(slice, name_, {});
    }
  } catch (const std::exception& failure) {
    note(failure.what());
  }
}

void LifeWatch::restore_if_wanted(OpenSlice& slice) {
  if (!wanted(*slice->file)) return;
  try {
    MoveOptions move;
    move.timeout_seconds = 5;
    restore(slice, name_, move);
    said_ = false;
  } catch (const std::exception& failure) {
    if (!said_) note(std::string(failure.what()) + "; tried again until there is room");
    said_ = true;
  }
}

void LifeWatch::look_until_the_end(OpenSlice& slice) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!quit_) {
    changed_.wait_for(lock, kLook, [this] { return quit_ || order_ != Order::kNone; });
    if (quit_) break;
    const Order order = order_;
    order_ = Order::kNone;
    lock.unlock();
    if (order == Order::kNone) {
      restore_if_wanted(slice);
    } else {
      obey(slice, order);
    }
    lock.lock();
  }
}

void LifeWatch::run() {
  try {
    OpenSlice slice("run", name_);
    look_until_the_end(slice);
  } catch (const std::exception& failure) {
    note(failure.what());  // the program runs on, without us
  }
}

}  // namespace allot::cli
