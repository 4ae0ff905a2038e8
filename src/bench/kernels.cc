// The PTX of the workloads. kernels.h says what the entries do.
//
// The spin keeps its loop because every thread stores its last word, and it stays short of a closed
// form because the trip count is only known at launch. Nothing here may use an instruction that the
// oldest target (sm_70) lacks.
#include "bench/kernels.h"

namespace allot::bench {
namespace {

constexpr char kPtx[] = R"(.version 7.0
.target sm_70
.address_size 64

.visible .entry allot_spin(
  .param .u64 iters,
  .param .u64 sink
)
{
  .reg .pred %p<3>;
  .reg .b32 %r<3>;
  .reg .b64 %rd<4>;

  ld.param.u64 %rd1, [iters];
  ld.param.u64 %rd2, [sink];
  cvta.to.global.u64 %rd3, %rd2;
  mov.u32 %r1, %tid.x;
  setp.eq.s64 %p1, %rd1, 0;
  @%p1 bra SPIN_DONE;
SPIN_LOOP:
  mad.lo.u32 %r1, %r1, 1664525, 1013904223;
  add.s64 %rd1, %rd1, -1;
  setp.ne.s64 %p2, %rd1, 0;
  @%p2 bra SPIN_LOOP;
SPIN_DONE:
  st.global.u32 [%rd3], %r1;
  ret;
}

.visible .entry allot_spin_told(
  .param .u64 iters,
  .param .u64 sink,
  .param .u64 told,
  .param .u64 base
)
{
  .reg .pred %p<4>;
  .reg .b32 %r<4>;
  .reg .b64 %rd<8>;

  ld.param.u64 %rd1, [iters];
  ld.param.u64 %rd2, [sink];
  ld.param.u64 %rd4, [told];
  ld.param.u64 %rd5, [base];
  cvta.to.global.u64 %rd3, %rd2;
  cvta.to.global.u64 %rd6, %rd4;
  mov.u32 %r1, %tid.x;
  mov.u32 %r2, %ctaid.x;
  or.b32 %r3, %r1, %r2;
  setp.eq.u32 %p3, %r3, 0;
TOLD_ROUND:
  @%p3 st.volatile.global.u64 [%rd6], %rd5;
  setp.eq.u64 %p1, %rd1, 0;
  @%p1 bra TOLD_DONE;
  min.u64 %rd7, %rd1, 65536;
  sub.s64 %rd1, %rd1, %rd7;
  add.s64 %rd5, %rd5, %rd7;
TOLD_LOOP:
  mad.lo.u32 %r1, %r1, 1664525, 1013904223;
  add.s64 %rd7, %rd7, -1;
  setp.ne.s64 %p2, %rd7, 0;
  @%p2 bra TOLD_LOOP;
  bra TOLD_ROUND;
TOLD_DONE:
  st.global.u32 [%rd3], %r1;
  ret;
}

.visible .entry allot_fill(
  .param .u64 dst,
  .param .u64 words,
  .param .u32 value
)
{
  .reg .pred %p<3>;
  .reg .b32 %r<8>;
  .reg .b64 %rd<8>;

  ld.param.u64 %rd1, [dst];
  ld.param.u64 %rd2, [words];
  ld.param.u32 %r1, [value];
  cvta.to.global.u64 %rd3, %rd1;
  mov.u32 %r2, %ntid.x;
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %tid.x;
  mov.u32 %r5, %nctaid.x;
  mul.wide.u32 %rd4, %r2, %r3;
  cvt.u64.u32 %rd5, %r4;
  add.s64 %rd4, %rd4, %rd5;
  mul.wide.u32 %rd6, %r2, %r5;
FILL_LOOP:
  setp.ge.u64 %p1, %rd4, %rd2;
  @%p1 bra FILL_DONE;
  shl.b64 %rd5, %rd4, 2;
  add.s64 %rd5, %rd3, %rd5;
  st.global.u32 [%rd5], %r1;
  add.s64 %rd4, %rd4, %rd6;
  bra FILL_LOOP;
FILL_DONE:
  ret;
}

.visible .entry allot_check(
  .param .u64 src,
  .param .u64 words,
  .param .u32 value,
  .param .u64 mismatches
)
{
  .reg .pred %p<4>;
  .reg .b32 %r<8>;
  .reg .b64 %rd<10>;

  ld.param.u64 %rd1, [src];
  ld.param.u64 %rd2, [words];
  ld.param.u32 %r1, [value];
  ld.param.u64 %rd8, [mismatches];
  cvta.to.global.u64 %rd3, %rd1;
  cvta.to.global.u64 %rd8, %rd8;
  mov.u32 %r2, %ntid.x;
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %tid.x;
  mov.u32 %r5, %nctaid.x;
  mul.wide.u32 %rd4, %r2, %r3;
  cvt.u64.u32 %rd5, %r4;
  add.s64 %rd4, %rd4, %rd5;
  mul.wide.u32 %rd6, %r2, %r5;
  mov.u64 %rd7, 0;
CHECK_LOOP:
  setp.ge.u64 %p1, %rd4, %rd2;
  @%p1 bra CHECK_DONE;
  shl.b64 %rd5, %rd4, 2;
  add.s64 %rd5, %rd3, %rd5;
  ld.global.u32 %r6, [%rd5];
  setp.eq.u32 %p2, %r6, %r1;
  @%p2 bra CHECK_NEXT;
  add.s64 %rd7, %rd7, 1;
CHECK_NEXT:
  add.s64 %rd4, %rd4, %rd6;
  bra CHECK_LOOP;
CHECK_DONE:
  setp.eq.s64 %p3, %rd7, 0;
  @%p3 bra CHECK_END;
  atom.global.add.u64 %rd9, [%rd8], %rd7;
CHECK_END:
  ret;
}

.visible .entry allot_fma(
  .param .u64 data,
  .param .u64 words,
  .param .u32 rounds
)
{
  .reg .pred %p<4>;
  .reg .b32 %r<8>;
  .reg .f32 %f<2>;
  .reg .b64 %rd<8>;

  ld.param.u64 %rd1, [data];
  ld.param.u64 %rd2, [words];
  ld.param.u32 %r1, [rounds];
  cvta.to.global.u64 %rd3, %rd1;
  mov.u32 %r2, %ntid.x;
  mov.u32 %r3, %ctaid.x;
  mov.u32 %r4, %tid.x;
  mov.u32 %r5, %nctaid.x;
  mul.wide.u32 %rd4, %r2, %r3;
  cvt.u64.u32 %rd5, %r4;
  add.s64 %rd4, %rd4, %rd5;
  mul.wide.u32 %rd6, %r2, %r5;
FMA_LOOP:
  setp.ge.u64 %p1, %rd4, %rd2;
  @%p1 bra FMA_DONE;
  shl.b64 %rd5, %rd4, 2;
  add.s64 %rd5, %rd3, %rd5;
  ld.global.f32 %f1, [%rd5];
  mov.u32 %r6, %r1;
FMA_ROUND:
  setp.eq.u32 %p2, %r6, 0;
  @%p2 bra FMA_STORE;
  fma.rn.f32 %f1, %f1, 0f3F800347, 0f3F000000;
  sub.u32 %r6, %r6, 1;
  bra FMA_ROUND;
FMA_STORE:
  st.global.f32 [%rd5], %f1;
  add.s64 %rd4, %rd4, %rd6;
  bra FMA_LOOP;
FMA_DONE:
  ret;
}
)";

}  // namespace

const char* kernel_ptx() {
  return kPtx;
}

}  // namespace allot::bench
