// Which entries of the driver's table submit work, and which argument is their stream; all at
// compile time.
//
// The class `submit` of cuda_entries.txt is the list. kNotHooked lists those that are not hooked,
// with reasons, so an entry that comes with a new CUDA version is hooked by itself, or the build
// fails because its parameters are not known. Nothing of this is left in the library but the hooks.
// (constexpr and not consteval: clang 14 refuses a consteval function that calls another one.)
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include "driver/entries.h"
#include "driver/signature.h"

namespace allot::shim {

struct SubmitEntry {
  const char* symbol;
  const char* name;
  driver::Variant variant;
  driver::Class cls;
};

inline constexpr SubmitEntry kAllEntries[] = {
#define ALLOT_ENTRY(index, symbol, name, since, variant, cls) \
  {#symbol, #name, driver::Variant::variant, driver::Class::cls},
#include "driver/cuda_entries.inc"
#undef ALLOT_ENTRY
};

// By the name that cuGetProcAddress takes, which covers all versions and variants.
struct NotHooked {
  std::string_view name;
  std::string_view reason;
};

inline constexpr NotHooked kNotHooked[] = {
    {"cuCtxRecordEvent", "marks a place in streams"},
    {"cuCtxWaitEvent", "orders streams"},
    {"cuEGLStreamConsumerAcquireFrame", "hands a frame over; declaration not known"},
    {"cuEGLStreamConsumerReleaseFrame", "hands a frame over; declaration not known"},
    {"cuEGLStreamProducerPresentFrame", "hands a frame over; declaration not known"},
    {"cuEGLStreamProducerReturnFrame", "hands a frame over; declaration not known"},
    {"cuEventRecord", "marks a place in a stream"},
    {"cuEventRecordWithFlags", "marks a place in a stream"},
    {"cuGraphUpload", "readies a graph and runs nothing of it; memory/graph.cc hooks it"},
    {"cuGreenCtxRecordEvent", "marks a place in streams"},
    {"cuGreenCtxWaitEvent", "orders streams"},
    {"cuLaunchHostFunc", "runs on the host"},
    {"cuSignalExternalSemaphoresAsync", "orders streams; others may wait for it"},
    {"cuStreamAddCallback", "runs on the host"},
    {"cuStreamAttachMemAsync", "says who may touch managed memory"},
    {"cuStreamBatchMemOp", "orders streams; others may wait for it"},
    {"cuStreamWaitEvent", "orders streams; streams.cc hooks it"},
    {"cuStreamWaitValue32", "orders streams"},
    {"cuStreamWaitValue64", "orders streams"},
    {"cuStreamWriteValue32", "orders streams; others may wait for it"},
    {"cuStreamWriteValue64", "orders streams; others may wait for it"},
    {"cuWaitExternalSemaphoresAsync", "orders streams"},
};

constexpr bool submits(const SubmitEntry& entry) {
  if (entry.cls != driver::Class::kSubmit) return false;
  for (const NotHooked& not_hooked : kNotHooked) {
    if (not_hooked.name == entry.name) return false;
  }
  return true;
}

constexpr size_t submit_entry_count() {
  size_t count = 0;
  for (const SubmitEntry& entry : kAllEntries) count += submits(entry) ? 1 : 0;
  return count;
}

// Slots (entries.h) of the hooked entries, in the table's order.
constexpr std::array<unsigned, submit_entry_count()> submit_slots() {
  std::array<unsigned, submit_entry_count()> slots = {};
  size_t count = 0;
  for (unsigned i = 0; i < std::size(kAllEntries); ++i) {
    if (submits(kAllEntries[i])) slots[count++] = i;
  }
  return slots;
}
inline constexpr std::array kSubmitSlots = submit_slots();

// Never defined: a call of one in a constant expression is the compiler's error message.
void entry_of_class_submit_without_a_shape_give_its_declaration_or_a_reason();
void entry_of_class_submit_whose_stream_nobody_has_looked_up();

// The shape of an entry (signature.h). "?" or a symbol without one does not compile.
constexpr std::string_view shape_of(unsigned slot) {
  for (const driver::Shape& shape : driver::kCudaShapes) {
    if (shape.symbol == kAllEntries[slot].symbol && shape.shape != "?") return shape.shape;
  }
  entry_of_class_submit_without_a_shape_give_its_declaration_or_a_reason();
  return {};
}

// Where a call names its stream and its work.
enum class Place : unsigned char { kNone, kArgument, kLaunchConfig, kLaunchList };
struct Places {
  Place stream;
  unsigned stream_argument;  // for kArgument
  bool work_known;           // the argument below names a kernel or a graph
  unsigned work_argument;
};

constexpr Places places_of(unsigned slot) {
  const std::string_view name = kAllEntries[slot].name;
  const unsigned last = static_cast<unsigned>(shape_of(slot).size()) - 1;
  if (name == "cuLaunchKernel" || name == "cuLaunchCooperativeKernel") {
    return {Place::kArgument, 8, true, 0};
  }
  if (name == "cuLaunchKernelEx") return {Place::kLaunchConfig, 0, true, 1};
  if (name == "cuLaunchCooperativeKernelMultiDevice") return {Place::kLaunchList, 0, false, 0};
  if (name == "cuLaunchGridAsync" || name == "cuGraphLaunch") {
    return {Place::kArgument, last, true, 0};
  }
  if (name == "cuLaunch" || name == "cuLaunchGrid") return {Place::kNone, 0, true, 0};
  if (name.ends_with("Async")) return {Place::kArgument, last, false, 0};
  if (name.starts_with("cuMemcpy") || name.starts_with("cuMemset")) {
    return {Place::kNone, 0, false, 0};
  }
  entry_of_class_submit_whose_stream_nobody_has_looked_up();
  return {};
}

}  // namespace allot::shim
