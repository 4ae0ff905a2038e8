// What `allot run` does for its slice while the program runs: brings it back when it was evicted idle and has
// work again, and, with ALLOT_SIGNALS=1, evicts it at SIGUSR2 and restores it at SIGUSR1.
//
// A thread of the launcher, never anything in the program. What must not happen here: an eviction by hand
// undone because the program wants to go on (only ALLOT_SLICE_RETURNS says so).
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "cli/region/open_slice.h"

namespace allot::cli {

class LifeWatch {
 public:
  // Starts the thread, which inherits the caller's signal mask. `signals`: take_signal() takes something.
  LifeWatch(std::string name, bool signals);
  ~LifeWatch();  // waits for a move that is under way
  LifeWatch(const LifeWatch&) = delete;
  LifeWatch& operator=(const LifeWatch&) = delete;

  // True: the signal was an order to us, and is not the program's.
  bool take_signal(int number);

 private:
  enum class Order { kNone, kEvict, kRestore };
  void run();
  void obey(OpenSlice& slice, Order order);
  void restore_if_wanted(OpenSlice& slice);
  void look_until_the_end(OpenSlice& slice);

  std::string name_;
  bool signals_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Order order_ = Order::kNone;
  bool quit_ = false;
  bool said_ = false;  // why it cannot come back yet
  std::thread thread_;
};

}  // namespace allot::cli
