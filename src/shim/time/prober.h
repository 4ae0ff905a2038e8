// Whether this process has work on its GPUs, and how much GPU time it uses: a thread that asks the
// driver.
//
// The prober looks every 2 ms while windows have to be kept (every 0.5 ms while work drains behind
// a closed gate), every 10 ms beside others without windows, some five times a second while the
// process is alone, and not at all while it is idle: then the next submission rings (submit.h). One
// look is a cuStreamQuery per stream until one has unfinished work. So an unlimited program pays
// nothing per launch, and programs that wait, poll, queue up or run graphs are all seen alike.
//
// Used time: at each look, the time since the last one counts as used if work was unfinished and
// let run, times the part of the GPU that the slice has where several run side by side. Late looks
// count for at most 20 ms
// (300 ms when alone). The looks are a sample: within a point over 10 s where windows are kept.
//
// Whether the slice leaves gaps is judged mostly from looks at which no other slice could run
// (core::GapWatch).
//
// The agent never waits for the prober, and the prober may be stuck inside the driver (a launch
// that holds the context's lock while its channels are closed): that reads as unfinished work,
// which it is.
#pragma once

#include <atomic>
#include <cstdint>

#include "abi/region.h"

namespace allot::shim {

// One GPU as both threads see it.
struct Activity {
  // Written by the prober.
  std::atomic<bool> active{false};      // has work, or had a moment ago; set by a submission, too
  std::atomic<bool> unfinished{false};  // had work at the last look
  std::atomic<uint64_t> unfinished_ns{0};  // the last look that found any
  std::atomic<uint64_t> finished_ns{0};    // the first look after that, which found none
  std::atomic<bool> saturates{true};
  std::atomic<uint32_t> busy_permille{0};
  std::atomic<bool> busy_known{false};  // busy_permille says something: undisturbed for long enough
  std::atomic<uint32_t> busy_at_random_permille{0};  // of the looks that no submission asked for
  // Of its open time, in which the GPU ran kernels while nobody else could: NVML's word. 0 = not
  // known.
  std::atomic<uint32_t> use_permille{0};
  // Written by the agent. While it is lost, `open` by the prober; `watched` and `client` by whoever
  // takes a place (gpu_clients.h).
  std::atomic<bool> watched{false};           // the process has a place there
  std::atomic<bool> open{true};               // its work may run
  std::atomic<bool> drains{false};            // behind a closed gate: its end is wanted exactly
  std::atomic<uint64_t> open_sum_ns{0};       // time it was let run, up to the last change
  std::atomic<uint64_t> open_since_ns{0};     // of the last change
  std::atomic<bool> undisturbed{true};        // no other slice runs beside it
  std::atomic<uint32_t> part_permille{1000};  // of the GPU, where several run side by side
  std::atomic<bool> use_wanted{false};    // it is alone on the GPU: what it uses is NVML's figure
  std::atomic<uint64_t> burst_gpu_ns{0};  // GPU time of one of its bursts; 0 = use the part
  std::atomic<AllotGpuClient*> client{nullptr};
};

// By CUDA ordinal.
Activity& activity_of(uint32_t ordinal);

// For the agent: its work may run / does not from that moment of the monotonic clock on.
void note_open(Activity& activity, bool open, uint64_t at_ns);

// How often to look while active, from rarely to often.
enum class Pace : uint32_t { kAlone, kBeside, kWindows };
void set_pace(Pace pace);

// Starts the prober. False when no thread can be had. Once per process image.
bool start_prober();

// Makes the prober look now.
void wake_prober();

// Before exit handlers of the driver run: no look begins after this; waits (at most 20 ms) for one
// under way.
void stop_prober();

void forget_activity();  // in a forked child

}  // namespace allot::shim
