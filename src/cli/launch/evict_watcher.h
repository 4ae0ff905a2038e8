// What `allot run` does for its slice while the program runs: restores it when it was evicted while
// idle and has work again; with ALLOT_SIGNALS=1, evicts it at SIGUSR2 and restores it at SIGUSR1;
// gives its file its name back when somebody has renamed it, and says when somebody removed it.
//
// It is a thread of the launcher, never anything in the program. What must not happen here: it
// undoes an eviction by hand because the program has work (only ALLOT_SLICE_RETURNS allows that).
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "cli/region/open_slice.h"

namespace allot::cli {

class LifeWatch {
 public:
  // Starts the thread, which inherits the caller's signal mask. `file`: a descriptor of the slice's
  // file, or -1. `signals`: take_signal() takes SIGUSR1 and SIGUSR2.
  LifeWatch(std::string name, int file, bool signals);
  ~LifeWatch();  // waits for a move that is under way
  LifeWatch(const LifeWatch&) = delete;
  LifeWatch& operator=(const LifeWatch&) = delete;

  // True: the signal was an order to the launcher, and does not go to the program.
  bool take_signal(int number);

 private:
  enum class Order { kNone, kEvict, kRestore };
  void run();
  void obey(OpenSlice& slice, Order order);
  void restore_if_wanted(OpenSlice& slice);
  void log_refusals(const AllotSliceFile& file, bool last);
  void look_until_the_end(OpenSlice& slice);
  void look_for_file(const OpenSlice& slice);

  std::string name_;
  int file_;
  bool signals_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Order order_ = Order::kNone;
  bool quit_ = false;
  bool said_ = false;
  uint64_t refused_logged_ = 0;
  std::chrono::steady_clock::time_point refused_at_;  // has said why the slice cannot come back yet
  bool said_gone_ = false;                            // has said that the file is gone
  std::thread thread_;
};

}  // namespace allot::cli
