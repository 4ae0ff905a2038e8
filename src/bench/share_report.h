// The figures of `bench share`, out of what the slices wrote down. Pure: no clock, no process, no
// GPU.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/share_load.h"
#include "bench/share_spec.h"

namespace allot::bench {

// A slice's part of a run.
struct SliceRun {
  SliceSpec spec;
  Calibration calibration;
  LoadLog log;
};

// A stretch of the run in which the grants stayed the same. Milliseconds since the start.
struct Phase {
  double changed_ms = -1;  // when the change to these grants was begun; -1 = none
  double begin_ms = 0;     // what is measured
  double end_ms = 0;
  std::vector<Grant> grants;
};

// What a slice got in a phase, as fractions of 1.
struct PhaseShare {
  double achieved = 0;  // work done / work that the load gets done alone in the same time
  double gpu_time = 0;  // device time of that work / time
  double judged = 0;    // achieved, or gpu_time for loads that mean to leave the GPU idle
  double of_total = 0;  // judged / sum of all slices' judged
  std::vector<double> judged_per_second;
  std::vector<double> of_total_per_second;
};

std::vector<PhaseShare> phase_shares(const std::vector<SliceRun>& runs, const Phase& phase);

// The whole result of a phase. Fields: bench/README.md. `points`: how far promises may be missed.
nlohmann::ordered_json phase_json(const std::vector<SliceRun>& runs, const Phase& phase,
                                  double points = 1);

// Adds to each slice of `phase` what it got natively, from the same slices' phase without allot.
void add_native(const nlohmann::ordered_json& native, nlohmann::ordered_json* phase);

// Lines for people: one a slice and phase, then one for each promise that was not kept.
std::string phases_text(const nlohmann::ordered_json& result);

}  // namespace allot::bench
