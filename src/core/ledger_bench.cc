// What the ledger adds to an allocation: reserve and release, alone and with others at the same
// word.
//
//   ledger_bench --benchmark_filter=ReserveRelease --benchmark_repetitions=5
//
// Target: reserve + release well below 150 ns when nobody else is at it (an allocation and its free
// may cost 500 ns more in all).
#include <benchmark/benchmark.h>

#include <vector>

#include "core/ledger.h"

#include <sys/mman.h>

namespace {

using allot::core::Ledger;
using allot::core::SlotId;

AllotSliceFile* new_file() {
  void* at = mmap(nullptr, sizeof(AllotSliceFile), PROT_READ | PROT_WRITE,
                  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  AllotSliceFile* file = static_cast<AllotSliceFile*>(at);
  file->header.gpu_count = 1;
  file->gpus[0].limit_bytes = uint64_t{8} << 30;
  return file;
}

AllotSliceFile* const file = new_file();

SlotId slot_of(uint32_t pid) {
  return *Ledger(file).take_slot({pid, pid, 0, "bench", 0});
}

// Each thread with a slot of its own: as processes of one slice.
void ReserveRelease(benchmark::State& state) {
  Ledger ledger(file);
  const SlotId slot = slot_of(static_cast<uint32_t>(state.thread_index()) + 1);
  for (auto _ : state) {
    benchmark::DoNotOptimize(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, 2 << 20));
    ledger.release(slot, 0, ALLOT_KIND_LINEAR, 2 << 20);
  }
}
BENCHMARK(ReserveRelease)->Threads(1)->Threads(2)->UseRealTime();

void Refuse(benchmark::State& state) {
  Ledger ledger(file);
  const SlotId slot = slot_of(1);
  for (auto _ : state) {
    benchmark::DoNotOptimize(ledger.reserve(slot, 0, ALLOT_KIND_LINEAR, uint64_t{9} << 30));
  }
}
BENCHMARK(Refuse);

void View(benchmark::State& state) {
  Ledger ledger(file);
  for (auto _ : state)
    benchmark::DoNotOptimize(ledger.view(0, uint64_t{80} << 30, uint64_t{40} << 30));
}
BENCHMARK(View);

// The price of a process's end: a recount over so many slots in use.
void Recount(benchmark::State& state) {
  Ledger ledger(file);
  for (int64_t i = 0; i < state.range(0); ++i) slot_of(static_cast<uint32_t>(1000 + i));
  for (auto _ : state) benchmark::DoNotOptimize(ledger.recount(0));
}
BENCHMARK(Recount)->Arg(1)->Arg(64)->Arg(1000)->Arg(4000);

}  // namespace

BENCHMARK_MAIN();
