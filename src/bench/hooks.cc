// Paired batches through the shim and past it.
//
// Memory taken past the shim is not in anybody's account; it is freed the same way it was taken, in
// the same batch, and never handed across.
#include "bench/hooks.h"

#include <algorithm>

#include "bench/kernels.h"
#include "bench/statistics.h"

namespace allot::bench {
namespace {

constexpr uint64_t kLiveBytes = 512;
constexpr uint64_t kSmallBytes = 4096;
constexpr uint64_t kLargeBytes = uint64_t{2} << 20;
constexpr unsigned kPairs = 401;
// Fewer than the depth of a GPU's submission queue, so that no launch waits for room in it.
constexpr unsigned kLaunchCalls = 200;
constexpr unsigned kQueryCalls = 100;
constexpr unsigned kSymbolCalls = 1000;
constexpr unsigned kSmallCalls = 100;
constexpr unsigned kLargeCalls = 8;

double per_call_ns(double begin_s, double end_s, unsigned calls) {
  return (end_s - begin_s) * 1e9 / calls;
}

nlohmann::ordered_json json_of(const HookFigure& figure) {
  return {{"added_ns", figure.added_ns},
          {"hooked_ns", figure.hooked_ns},
          {"real_ns", figure.real_ns},
          {"pairs", figure.pairs}};
}

}  // namespace

HookBench::HookBench(int gpu_index) : gpu_(gpu_index), real_(find_real_driver(gpu_.library())) {
  if (real_.handle == nullptr) {
    throw Failure(125,
                  "nothing to compare: this process has one libcuda only; run it in a slice, as in "
                  "`allot run --gpu-mem 8G -- allot bench hooks`");
  }
  unhooked_ = entries_of(real_.handle);
}

HookBench::~HookBench() {
  for (const CUdeviceptr block : live_) hooked().free.quiet(block);
  for (const CUdeviceptr block : live_unhooked_) unhooked_.free.quiet(block);
}

void HookBench::resize(const DriverApi& api, std::vector<CUdeviceptr>& live, uint64_t count) const {
  while (live.size() > count) {
    gpu_.check(api.free(live.back()), "cuMemFree");
    live.pop_back();
  }
  live.reserve(count);
  while (live.size() < count) {
    CUdeviceptr block = 0;
    gpu_.check(api.alloc(&block, kLiveBytes), "cuMemAlloc");
    live.push_back(block);
  }
}

void HookBench::set_live_blocks(uint64_t count) {
  resize(hooked(), live_, count);
  resize(unhooked_, live_unhooked_, count);
}

double HookBench::churn_batch(const DriverApi& api, unsigned calls) {
  if (live_.empty()) set_live_blocks(1);
  std::vector<CUdeviceptr>& live = &api == &hooked() ? live_ : live_unhooked_;
  CUresult worst = CUDA_SUCCESS;
  const double begin = now_s();
  for (unsigned i = 0; i < calls; ++i) {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    CUdeviceptr& block = live[random_ % live.size()];
    const CUresult freed = api.free(block);
    const CUresult made = api.alloc(&block, kLiveBytes);
    if (freed != CUDA_SUCCESS || made != CUDA_SUCCESS) worst = freed != CUDA_SUCCESS ? freed : made;
  }
  const double end = now_s();
  gpu_.check(worst, "cuMemFree or cuMemAlloc");
  return per_call_ns(begin, end, calls);
}

double HookBench::launch_batch(const DriverApi& api, unsigned calls) {
  uint64_t steps = 0, sink = 0;
  if (live_.empty()) set_live_blocks(1);
  sink = live_.front();
  void* parameters[] = {&steps, &sink};
  CUresult worst = CUDA_SUCCESS;
  const double begin = now_s();
  for (unsigned i = 0; i < calls; ++i) {
    const CUresult result = api.launch(gpu_.spin(), 1, 1, 1, kBlockThreads, 1, 1, 0, gpu_.stream(),
                                       parameters, nullptr);
    if (result != CUDA_SUCCESS) worst = result;
  }
  const double end = now_s();
  gpu_.check(worst, "cuLaunchKernel");
  gpu_.synchronize();
  return per_call_ns(begin, end, calls);
}

double HookBench::query_batch(const DriverApi& api, unsigned calls) {
  size_t free_bytes = 0, total_bytes = 0;
  CUresult worst = CUDA_SUCCESS;
  const double begin = now_s();
  for (unsigned i = 0; i < calls; ++i) {
    const CUresult result = api.memory_info(&free_bytes, &total_bytes);
    if (result != CUDA_SUCCESS) worst = result;
  }
  const double end = now_s();
  gpu_.check(worst, "cuMemGetInfo");
  return per_call_ns(begin, end, calls);
}

double HookBench::symbol_batch(const DriverApi& api, unsigned calls) {
  constexpr const char* kNames[] = {"cuMemAlloc", "cuLaunchKernel", "cuStreamSynchronize",
                                    "cuCtxGetDevice"};
  void* address = nullptr;
  CUdriverProcAddressQueryResult status{};
  CUresult worst = CUDA_SUCCESS;
  const double begin = now_s();
  for (unsigned i = 0; i < calls; ++i) {
    const CUresult result = api.get_proc_address(kNames[i % 4], &address, 12000, 0, &status);
    if (result != CUDA_SUCCESS) worst = result;
  }
  const double end = now_s();
  gpu_.check(worst, "cuGetProcAddress");
  return per_call_ns(begin, end, calls);
}

HookBench::AllocFree HookBench::alloc_free_batch(const DriverApi& api, unsigned calls,
                                                 uint64_t bytes) {
  blocks_.assign(calls, 0);
  CUresult worst = CUDA_SUCCESS;
  const double begin = now_s();
  for (CUdeviceptr& block : blocks_) {
    const CUresult result = api.alloc(&block, bytes);
    if (result != CUDA_SUCCESS) worst = result;
  }
  const double between = now_s();
  for (const CUdeviceptr block : blocks_) {
    const CUresult result = api.free(block);
    if (result != CUDA_SUCCESS) worst = result;
  }
  const double end = now_s();
  gpu_.check(worst, "cuMemAlloc or cuMemFree");
  return {per_call_ns(begin, between, calls), per_call_ns(between, end, calls)};
}

HookFigure measure_pairs(const DriverApi& hooked, const DriverApi& unhooked, unsigned pairs,
                         double seconds, const std::function<double(const DriverApi&)>& batch) {
  for (int i = 0; i < 2; ++i) {
    batch(hooked);
    batch(unhooked);
  }
  std::vector<double> with, without;
  const double until = now_s() + seconds;
  while (with.size() < pairs && (with.size() < 5 || now_s() < until)) {
    if (with.size() % 2 == 0) {
      with.push_back(batch(hooked));
      without.push_back(batch(unhooked));
    } else {
      without.push_back(batch(unhooked));
      with.push_back(batch(hooked));
    }
  }
  HookFigure figure;
  figure.added_ns = median_difference(without, with);
  figure.pairs = with.size();
  figure.hooked_ns = percentile(std::move(with), 500);
  figure.real_ns = percentile(std::move(without), 500);
  return figure;
}

namespace {

// alloc, free and their sum for blocks of one size, out of the same batches.
void measure_alloc_free(HookBench& bench, double seconds, unsigned calls, uint64_t bytes,
                        const std::string& size, nlohmann::ordered_json& out) {
  std::vector<double> frees_with, frees_without, allocs_with, allocs_without;
  unsigned turn = 0;
  const HookFigure sum =
      measure_pairs(bench.hooked(), bench.unhooked(), kPairs, seconds, [&](const DriverApi& api) {
        const HookBench::AllocFree batch = bench.alloc_free_batch(api, calls, bytes);
        const bool hooked = &api == &bench.hooked();
        if (turn++ >= 4) {  // the first two pairs only warm up
          (hooked ? allocs_with : allocs_without).push_back(batch.alloc_ns);
          (hooked ? frees_with : frees_without).push_back(batch.free_ns);
        }
        return batch.alloc_ns + batch.free_ns;
      });
  const auto figure = [](const std::vector<double>& with, const std::vector<double>& without) {
    return json_of({percentile(with, 500), percentile(without, 500),
                    median_difference(without, with), with.size()});
  };
  out["alloc_" + size] = figure(allocs_with, allocs_without);
  out["free_" + size] = figure(frees_with, frees_without);
  out["alloc_free_" + size] = json_of(sum);
}

}  // namespace

nlohmann::ordered_json run_hooks(const HooksOptions& options) {
  HookBench bench(options.gpu);
  nlohmann::ordered_json result;
  result["bench"] = "hooks";
  result["gpu"] = bench.gpu().name();
  result["driver"] = bench.gpu().driver_version();
  result["real"] = bench.real_path();
  result["method"] =
      "median of paired differences of alternating batches through the shim and through the driver "
      "behind it, same process";
  const auto pairs = [&](auto&& batch) {
    return json_of(measure_pairs(bench.hooked(), bench.unhooked(), kPairs, options.seconds, batch));
  };
  result["launch"] =
      pairs([&](const DriverApi& api) { return bench.launch_batch(api, kLaunchCalls); });
  if (bench.hooked().get_proc_address && bench.unhooked().get_proc_address) {
    result["cuGetProcAddress"] =
        pairs([&](const DriverApi& api) { return bench.symbol_batch(api, kSymbolCalls); });
  }
  nlohmann::ordered_json live = nlohmann::ordered_json::array();
  for (const uint64_t count : options.live_blocks) {
    bench.set_live_blocks(count);
    nlohmann::ordered_json entry;
    entry["live_blocks"] = count;
    measure_alloc_free(bench, options.seconds, kSmallCalls, kSmallBytes, "4k", entry);
    measure_alloc_free(bench, options.seconds, kLargeCalls, kLargeBytes, "2m", entry);
    entry["churn"] =
        pairs([&](const DriverApi& api) { return bench.churn_batch(api, kSmallCalls); });
    entry["memory_query"] =
        pairs([&](const DriverApi& api) { return bench.query_batch(api, kQueryCalls); });
    live.push_back(entry);
  }
  result["live"] = live;
  return result;
}

}  // namespace allot::bench
