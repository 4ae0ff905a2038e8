// See launcher.h.
#include "bench/launcher.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace allot::bench {
namespace {

constexpr size_t kMixedSizes = 64;

}  // namespace

Launcher::Launcher(const Gpu& gpu, const LoadSpec& load, double iters_per_us)
    : gpu_(gpu), iters_per_us_(iters_per_us), sizes_us_{load.kernel_us} {
  if (load.kind == LoadKind::kMixed) draw_sizes();
  if (load.kind == LoadKind::kLong) told_ = std::make_unique<ToldSpin>(gpu);
  if (load.kernels < 2) return;
  work_of_graph_ = load.kernel_us * load.kernels;
  CUgraph captured = nullptr;
  gpu.check(gpu.api().capture_begin(gpu.stream(), CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
            "cuStreamBeginCapture");
  for (unsigned i = 0; i < load.kernels; ++i) gpu.launch_spin(steps(load.kernel_us));
  gpu.check(gpu.api().capture_end(gpu.stream(), &captured), "cuStreamEndCapture");
  const CUresult made = gpu.api().graph_instantiate(&exec_, captured, 0);
  gpu.api().graph_destroy(captured);
  gpu.check(made, "cuGraphInstantiate");
}

Launcher::~Launcher() {
  if (exec_ != nullptr) gpu_.api().graph_exec_destroy.quiet(exec_);
}

double Launcher::submit() {
  ++launches_;
  if (exec_ != nullptr) {
    gpu_.check(gpu_.api().graph_launch(exec_, gpu_.stream()), "cuGraphLaunch");
    return work_of_graph_;
  }
  const double size_us = sizes_us_[next_++ % sizes_us_.size()];
  if (told_ != nullptr) {
    told_->launch(steps(size_us));
  } else {
    gpu_.launch_spin(steps(size_us));
  }
  return size_us;
}

uint64_t Launcher::steps(double us) const {
  return static_cast<uint64_t>(std::max(1.0, std::round(us * iters_per_us_)));
}

// From 20 us to 20 ms, each length as likely as its double; the same sizes in every process.
void Launcher::draw_sizes() {
  std::minstd_rand random(20'26);
  sizes_us_.clear();
  for (size_t i = 0; i < kMixedSizes; ++i) {
    const double part = static_cast<double>(random() - 1) / double(std::minstd_rand::max());
    sizes_us_.push_back(20 * std::pow(1000, part));
  }
}

}  // namespace allot::bench
