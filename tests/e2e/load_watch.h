// Whether the machine was free enough for a measurement of milliseconds.
//
// The software GPU runs on the machine's CPUs: what others take of them, or a hypervisor takes of
// the whole machine, is missing in its figures. Such a run says nothing of allot.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>

namespace allot::e2e {

// Watches from its construction to why_busy().
class LoadWatch {
 public:
  LoadWatch();
  ~LoadWatch();
  LoadWatch(const LoadWatch&) = delete;
  LoadWatch& operator=(const LoadWatch&) = delete;

  // Empty, or what the machine did besides: others used its CPUs, it was stopped from outside, a
  // thread was woken late, or it computed slower at the end than at the start. Ends the watch.
  std::string why_busy();

 private:
  struct Cpus {
    double busy_s = 0, stolen_s = 0, ours_s = 0, at_s = 0;
  };
  static Cpus look();
  static double spin_s();
  void sleep_and_look();
  void stop();

  std::atomic<bool> end_{false};
  uint64_t sleeps_ = 0, late_ = 0;  // the sleeper's, read when it has ended
  double spin_s_;
  Cpus before_;
  std::thread sleeper_;
};

}  // namespace allot::e2e
