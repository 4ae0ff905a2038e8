// The parent of the slices. While they run it only sleeps, looks at clocks and makes the changes
// that are due; what they print waits in the pipes until the end.
#include "bench/share.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <csignal>
#include <memory>

#include "bench/child.h"
#include "bench/gpu_meter.h"
#include "bench/pace.h"
#include "bench/share_report.h"
#include "bench/share_setup.h"

namespace allot::bench {
namespace {

using nlohmann::ordered_json;

constexpr double kReadySeconds = 90;
constexpr double kStartDelay = 0.25;  // between the word and the start: all must have read it
constexpr double kSampleSeconds = 0.25;

class Session {
 public:
  Session(const ShareOptions& options, std::vector<SliceSpec> specs)
      : options_(options), setup_(options), specs_(std::move(specs)) {}

  // What the loads do alone; says into `about` what of.
  std::vector<Calibration> calibrate(ordered_json* about) const {
    return calibrate_all(setup_, options_, specs_, about);
  }
  // All phases. `gpu`: its UUID, where the slices are to be of it alone.
  ordered_json run(const std::vector<Calibration>& calibrations, const std::string& gpu);

 private:
  void start(const std::string& gpu);
  std::vector<Phase> plan() const;
  void conduct(std::vector<Phase>* phases);
  void sleep_until(double at_s);
  void change(const Phase& from, const Phase& to);
  std::vector<ordered_json> times();
  std::vector<SliceRun> collect();
  ordered_json tool(const Words& words, bool want_json);

  const ShareOptions& options_;
  ShareSetup setup_;
  std::vector<SliceSpec> specs_;
  std::vector<Calibration> calibrations_;
  std::vector<std::unique_ptr<Child>> children_;
  std::unique_ptr<GpuMeter> meter_;
  std::vector<ordered_json> phase_clocks_;
  std::vector<std::vector<ordered_json>> phase_times_;
  double start_s_ = 0, end_s_ = 0;
};

// A command of ours to its end. Failure 1 with its name when it fails.
ordered_json Session::tool(const Words& words, bool want_json) {
  Child child(words, {});
  const std::string out = child.rest(20);
  const int status = child.wait(5);
  if (status != 0) throw Failure(1, fmt::format("share: allot {} ended with {}", words[1], status));
  return want_json ? ordered_json::parse(out, nullptr, false) : ordered_json();
}

void Session::start(const std::string& gpu) {
  for (size_t i = 0; i < specs_.size(); ++i) {
    children_.push_back(
        std::make_unique<Child>(setup_.slice(i, specs_[i], calibrations_[i].iters_per_us, gpu),
                                setup_.slice_environment()));
  }
  for (size_t i = 0; i < children_.size(); ++i) {
    const auto line = children_[i]->line(kReadySeconds);
    const auto said = nlohmann::json::parse(line.value_or(""), nullptr, false);
    if (said.is_discarded() || !said.contains("ready")) {
      const int status = children_[i]->wait(1);
      throw Failure(status == 125 || status == 2 ? status : 1,
                    fmt::format("share: slice {} ({}) did not start: exit status {}", i,
                                specs_[i].text, status));
    }
    if (meter_ == nullptr)
      meter_ = std::make_unique<GpuMeter>(options_.sim.empty() ? said.value("pci", "") : "");
  }
}

std::vector<Phase> Session::plan() const {
  std::vector<Phase> phases(1);
  for (const SliceSpec& spec : specs_) phases[0].grants.push_back(spec.grant);
  phases[0].begin_ms = options_.warm_s * 1e3;
  phases[0].end_ms = phases[0].begin_ms + options_.seconds * 1e3;
  for (const std::string& text : options_.phases) {
    Phase next;
    next.changed_ms = phases.back().end_ms;
    next.begin_ms = next.changed_ms + options_.settle_s * 1e3;
    next.end_ms = next.begin_ms + options_.seconds * 1e3;
    next.grants = parse_phase(text, phases.back().grants);
    phases.push_back(next);
  }
  return phases;
}

void Session::sleep_until(double at_s) {
  while (now_s() + kSampleSeconds < at_s) {
    pace_until(now_s() + kSampleSeconds);
    meter_->sample();
    for (size_t i = 0; i < children_.size(); ++i) {
      const int status = children_[i]->ended();
      if (status >= 0) {
        throw Failure(1, fmt::format("share: slice {} ({}) ended too early, with {}", i,
                                     specs_[i].text, status));
      }
    }
  }
  pace_until(at_s);
}

// Shares that fall go first, so that the sum never exceeds the whole.
void Session::change(const Phase& from, const Phase& to) {
  std::vector<size_t> order;
  for (size_t i = 0; i < specs_.size(); ++i) order.push_back(i);
  const auto rise = [&](size_t i) {
    return static_cast<int64_t>(to.grants[i].share_permille) - from.grants[i].share_permille;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return rise(a) < rise(b); });
  for (const size_t i : order) {
    const Words words = setup_.set(i, from.grants[i], to.grants[i]);
    if (words.size() > 3) tool(words, false);
  }
}

// What `allot ps` says of each slice now, with the moment.
std::vector<ordered_json> Session::times() {
  std::vector<ordered_json> out(specs_.size());
  if (!options_.allot) return out;
  const double before = now_s();
  const ordered_json all = tool(setup_.ps(), true);
  const double at = (before + now_s()) / 2 - start_s_;
  if (!all.is_object()) return out;
  for (const ordered_json& slice : all.value("slices", ordered_json::array())) {
    for (size_t i = 0; i < specs_.size(); ++i) {
      if (slice.value("name", "") != setup_.slice_name(i)) continue;
      out[i] = slice;
      out[i]["at_s"] = at;
    }
  }
  return out;
}

void Session::conduct(std::vector<Phase>* phases) {
  for (size_t k = 0; k < phases->size(); ++k) {
    Phase& phase = (*phases)[k];
    if (k > 0) {
      phase.changed_ms = (now_s() - start_s_) * 1e3;
      change((*phases)[k - 1], phase);
    }
    sleep_until(start_s_ + phase.begin_ms / 1e3);
    meter_->take();
    phase_times_.push_back(times());
    sleep_until(start_s_ + phase.end_ms / 1e3);
    phase_clocks_.push_back(meter_->take());
    phase_times_.push_back(times());
  }
}

std::vector<SliceRun> Session::collect() {
  std::vector<SliceRun> runs;
  for (size_t i = 0; i < children_.size(); ++i) {
    const auto line = children_[i]->line(30 + (end_s_ - start_s_));
    const auto said = nlohmann::json::parse(line.value_or(""), nullptr, false);
    const int status = children_[i]->wait(10);
    if (said.is_discarded() || status != 0) {
      throw Failure(1, fmt::format("share: slice {} ({}) ended with {}{}", i, specs_[i].text,
                                   status, line ? "" : " and no output"));
    }
    const std::vector<int64_t> tenths = said.at("tenths_of_us");
    LoadLog log{Progress(static_cast<double>(tenths.size())), said.at("launches"), {}, {}};
    for (size_t ms = 0; ms < tenths.size(); ++ms)
      log.progress.add(double(ms), double(ms), static_cast<double>(tenths[ms]) / 10);
    for (const auto& operation : said.at("operations_us"))
      log.operations.push_back(
          {operation.at(0).get<double>() / 1e3, operation.at(1).get<double>() / 1e3});
    log.resumed_ms = said.at("resumed_ms").get<std::vector<double>>();
    runs.push_back({specs_[i], calibrations_[i], std::move(log)});
  }
  return runs;
}

// GPU time as allot measured it, against the wall; null where it says nothing.
ordered_json measured(const ordered_json& before, const ordered_json& after) {
  const auto used = [](const ordered_json& slice) -> double {
    if (!slice.is_object() || slice.value("gpus", ordered_json::array()).empty()) return -1;
    const ordered_json& gpu = slice["gpus"][0];
    return gpu.contains("time_used_ns") ? gpu["time_used_ns"].get<double>() : -1;
  };
  if (used(before) < 0 || used(after) < 0) return nullptr;
  return (used(after) - used(before)) / 1e9 /
         (after["at_s"].get<double>() - before["at_s"].get<double>());
}

ordered_json time_state(const ordered_json& slice) {
  ordered_json out = nullptr;
  if (!slice.is_object()) return out;
  for (const ordered_json& process : slice.value("processes", ordered_json::array())) {
    ordered_json one = process;
    one.erase("command");
    for (ordered_json& gpu : one["gpus"]) gpu.erase("by_kind");
    out.push_back(std::move(one));
  }
  return out;
}

ordered_json coarse_bins(const SliceRun& run) {
  ordered_json out = ordered_json::array();
  const std::vector<double>& bins = run.log.progress.bins();
  for (double at = 0; at + 10 <= static_cast<double>(bins.size()); at += 10)
    out.push_back(std::round(work_between(bins, at, at + 10)) / 1e4);
  return out;
}

ordered_json Session::run(const std::vector<Calibration>& calibrations, const std::string& gpu) {
  ordered_json result;
  calibrations_ = calibrations;
  start(gpu);
  std::vector<Phase> phases = plan();
  start_s_ = now_s() + kStartDelay;
  end_s_ = start_s_ + phases.back().end_ms / 1e3;
  const std::string go = fmt::format("go {:.0f} {:.0f}\n", start_s_ * 1e9, end_s_ * 1e9);
  for (const auto& child : children_) child->send(go);
  conduct(&phases);
  const std::vector<SliceRun> runs = collect();

  result["allot"] = options_.allot;
  result["level"] = options_.level.empty() ? ordered_json(nullptr) : ordered_json(options_.level);
  result["software_gpu"] = !options_.sim.empty();
  result["warm_s"] = options_.warm_s;
  for (const SliceRun& run : runs) result["slices"].push_back(run.spec.text);
  for (size_t k = 0; k < phases.size(); ++k) {
    ordered_json phase = phase_json(runs, phases[k], options_.points);
    phase["clocks"] = phase_clocks_[k];
    for (size_t i = 0; i < runs.size(); ++i) {
      phase["slices"][i]["time_by_allot"] =
          measured(phase_times_[2 * k][i], phase_times_[2 * k + 1][i]);
      if (k > 0) continue;
      // On a slow machine the slice may have ended before `ps` could look at the end of the phase.
      const bool seen_last = phase_times_[1][i].is_object();
      phase["slices"][i]["ps"] = time_state(phase_times_[seen_last ? 1 : 0][i]);
    }
    result["phases"].push_back(std::move(phase));
  }
  if (options_.bins) {
    for (const SliceRun& run : runs) result["work_per_10ms"].push_back(coarse_bins(run));
  }
  return result;
}

// The same loads without allot.
ordered_json run_natively(ShareOptions options, std::vector<SliceSpec> specs,
                          const std::vector<Calibration>& calibrations) {
  options.allot = false;
  options.phases.clear();
  for (SliceSpec& spec : specs) spec.grant = {};
  return Session(options, std::move(specs)).run(calibrations, "");
}

}  // namespace

ordered_json run_share(const ShareOptions& options) {
  if (options.slices.empty()) throw Failure(2, "share: no slices; write --slice full:30 for each");
  if (!options.allot && !options.phases.empty())
    throw Failure(2, "share: --phase changes grants, and with --no-allot there are none");
  if (!options.allot && options.native)
    throw Failure(2, "share: --no-allot measures natively already; leave --native out");
  std::vector<SliceSpec> specs;
  for (const std::string& text : options.slices) specs.push_back(parse_slice(text));
  if (!options.allot) {
    for (SliceSpec& spec : specs) spec.grant = {};
  }
  std::vector<Grant> grants;
  grants.reserve(specs.size());
  for (const SliceSpec& spec : specs) grants.push_back(spec.grant);
  for (const std::string& text : options.phases) grants = parse_phase(text, grants);
  // A slice that has died must not end its parent by a closed pipe.
  std::signal(SIGPIPE, SIG_IGN);
  Session session(options, specs);
  ordered_json result = {{"bench", "share"}};
  const std::vector<Calibration> calibrations = session.calibrate(&result);
  ordered_json native;
  if (options.native) native = run_natively(options, specs, calibrations);
  result.update(session.run(calibrations, result["gpu_uuid"].get<std::string>()));
  if (options.native) {
    for (ordered_json& phase : result["phases"]) add_native(native["phases"][0], &phase);
    result["native"] = std::move(native["phases"][0]);
  }
  return result;
}

std::string share_text(const ordered_json& result) {
  std::string text = phases_text(result);
  for (const ordered_json& phase : result["phases"]) {
    if (phase["clocks"].is_object() && phase["clocks"].contains("sm_mhz"))
      text += fmt::format("SM clock {:.0f} MHz\n", phase["clocks"]["sm_mhz"].get<double>());
  }
  return text;
}

}  // namespace allot::bench
