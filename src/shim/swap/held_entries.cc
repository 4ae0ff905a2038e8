// Entries that only have to wait while memory is out. They submit no work, or none yet, but the
// driver looks at the addresses that they get (copies in graphs, textures), or the GPU reads and
// writes there (values that streams wait for and write).
#include "shim/process/driver_call.h"
#include "shim/process/hook_guard.h"
#include "shim/process/hook_lists.h"

namespace allot::shim {
namespace {

using L = uint64_t;  // a pointer, handle or 64-bit number
using I = uint32_t;

#define ALLOT_HELD_ENTRIES(X)                    \
  X(cuStreamWaitValue32, L, L, I, I)             \
  X(cuStreamWaitValue32_ptsz, L, L, I, I)        \
  X(cuStreamWaitValue32_v2, L, L, I, I)          \
  X(cuStreamWaitValue32_v2_ptsz, L, L, I, I)     \
  X(cuStreamWaitValue64, L, L, L, I)             \
  X(cuStreamWaitValue64_ptsz, L, L, L, I)        \
  X(cuStreamWaitValue64_v2, L, L, L, I)          \
  X(cuStreamWaitValue64_v2_ptsz, L, L, L, I)     \
  X(cuStreamWriteValue32, L, L, I, I)            \
  X(cuStreamWriteValue32_ptsz, L, L, I, I)       \
  X(cuStreamWriteValue32_v2, L, L, I, I)         \
  X(cuStreamWriteValue32_v2_ptsz, L, L, I, I)    \
  X(cuStreamWriteValue64, L, L, L, I)            \
  X(cuStreamWriteValue64_ptsz, L, L, L, I)       \
  X(cuStreamWriteValue64_v2, L, L, L, I)         \
  X(cuStreamWriteValue64_v2_ptsz, L, L, L, I)    \
  X(cuStreamBatchMemOp, L, I, L, I)              \
  X(cuStreamBatchMemOp_ptsz, L, I, L, I)         \
  X(cuStreamBatchMemOp_v2, L, I, L, I)           \
  X(cuStreamBatchMemOp_v2_ptsz, L, I, L, I)      \
  X(cuGraphAddMemcpyNode, L, L, L, L, L, L)      \
  X(cuGraphAddMemsetNode, L, L, L, L, L, L)      \
  X(cuGraphAddBatchMemOpNode, L, L, L, L, L)     \
  X(cuGraphAddNode, L, L, L, L, L)               \
  X(cuGraphAddNode_v2, L, L, L, L, L, L)         \
  X(cuGraphMemcpyNodeSetParams, L, L)            \
  X(cuGraphMemsetNodeSetParams, L, L)            \
  X(cuGraphBatchMemOpNodeSetParams, L, L)        \
  X(cuGraphNodeSetParams, L, L)                  \
  X(cuGraphExecMemcpyNodeSetParams, L, L, L, L)  \
  X(cuGraphExecMemsetNodeSetParams, L, L, L, L)  \
  X(cuGraphExecBatchMemOpNodeSetParams, L, L, L) \
  X(cuGraphExecNodeSetParams, L, L, L)           \
  X(cuGraphExecUpdate, L, L, L, L)               \
  X(cuGraphExecUpdate_v2, L, L, L)               \
  X(cuTexObjectCreate, L, L, L, L)

#define ALLOT_HELD_CALL(name, ...) constinit DriverCall<__VA_ARGS__> name{#name};
ALLOT_HELD_ENTRIES(ALLOT_HELD_CALL)
#undef ALLOT_HELD_CALL

template <auto& Entry, class... A>
CUresult held(const Moving&, A... arguments) {
  return Entry(arguments...);
}

}  // namespace

std::span<const Hook> swap_held_hooks() {
#define ALLOT_HELD_HOOK(name, ...) hook<held<name, __VA_ARGS__>>(#name),
  static constexpr Hook hooks[] = {ALLOT_HELD_ENTRIES(ALLOT_HELD_HOOK)};
#undef ALLOT_HELD_HOOK
  return hooks;
}

}  // namespace allot::shim
