// Work over time: how much of it was done in each millisecond, and what that says about shares.
//
// A program knows when a launch (or a batch of them) ended and when the one before it did; between
// the two its work counts as evenly spread. Figures over less than such an interval mean nothing,
// so loads that are to be looked at closely use short kernels, or kernels that tell on their way
// (told_spin.h). Pure: nothing here reads a clock.
#pragma once

#include <cstddef>
#include <vector>

namespace allot::bench {

// Work of each millisecond since a run began.
class Progress {
 public:
  // Room for the whole run at once, so that a busy loop never waits for memory.
  explicit Progress(double run_ms) : bins_(static_cast<size_t>(run_ms > 0 ? run_ms : 0) + 2, 0.0) {}

  // `work` was done evenly between two moments of the run, in milliseconds. What lies outside the
  // run is left out; an empty interval counts at its end.
  void add(double from_ms, double to_ms, double work);

  const std::vector<double>& bins() const { return bins_; }

 private:
  std::vector<double> bins_;
};

// Work between two moments; parts of a millisecond count in proportion.
double work_between(const std::vector<double>& bins, double from_ms, double to_ms);

// When a share is reached: the least t >= 0, in steps of 1 ms, so that in each of `spans` spans of
// `span_ms` that follow each other from t after `at_ms` on, mine is within `tolerance` (a fraction
// of the whole) of `target` of the whole. The whole is the sum of `all`, or, where `all` is empty,
// one unit of work a millisecond (bins must be in GPU milliseconds then). -1 if that does not
// happen within `limit_ms`, or no span has work.
//
// A span must hold several turns of the slices, or a lucky cut through one looks like the share. It
// may hold as much of the old state as the tolerance lets pass: from 50 % to 20 % with 5 points, a
// sixth of the span.
struct Reached {
  double at_ms = 0;
  double span_ms = 100;
  int spans = 1;
  double target = 0;
  double tolerance = 0.05;
  double limit_ms = 1000;
  bool at_least = false;  // more than the target is right too
};
double reached_ms(const std::vector<double>& mine, const std::vector<std::vector<double>>& all,
                  const Reached& what);

}  // namespace allot::bench
