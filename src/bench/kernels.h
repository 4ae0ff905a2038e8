// The device code of the workloads, as PTX text.
//
// Text, because the same program must run on a real card, whose driver compiles it, and on the
// software GPU, which recognises the entries by name (sim/README.md). So the entry names and the
// order, number and width of their parameters are a contract with the software GPU; kernels_test.cc
// pins them. PTX 7.0 for sm_70 is what every driver from CUDA 11.8 on compiles for its card.
//
//   allot_spin (u64 iters, u64 sink)                      every thread does `iters` dependent steps
//   allot_spin_told(u64 iters, u64 sink, u64 told, u64 base)
//                                                         the same; while it runs the first thread
//                                                         writes base + steps done to *told
//   allot_fill (u64 dst, u64 words, u32 value)            dst[0..words) = value
//   allot_check(u64 src, u64 words, u32 value, u64 mismatches)
//                                                         *mismatches += words that differ,
//                                                         atomically
//   allot_fma  (u64 data, u64 words, u32 rounds)          x = fma(x, 1.0001f, 0.5f), rounds times
//   each
//
// `words` counts 32-bit words. Fill, check and fma stride over the grid: any launch shape works.
#pragma once

namespace allot::bench {

inline constexpr char kSpinKernel[] = "allot_spin";
inline constexpr char kSpinToldKernel[] = "allot_spin_told";
inline constexpr char kFillKernel[] = "allot_fill";
inline constexpr char kCheckKernel[] = "allot_check";
inline constexpr char kFmaKernel[] = "allot_fma";

// Threads of a block in every launch here. 256 threads a multiprocessor occupy all of them while a
// spin's speed stays bound by the latency of its steps and not by the card's power, so that its
// time hardly depends on what else runs.
inline constexpr unsigned kBlockThreads = 256;

// The PTX module with the five entries, closed by NUL; lives as long as the program.
// Any thread; neither allocates nor blocks.
const char* kernel_ptx();

}  // namespace allot::bench
