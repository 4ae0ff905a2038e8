#include "runtime.h"
namespace allot::sim {
std::recursive_mutex& graph_lock() {
  static auto& m = *new std::recursive_mutex;
  return m;
}
CUresult capture_body(Stream*, Body&&) {
  return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult refuse_in_capture(Stream*) {
  return CUDA_SUCCESS;
}
CUresult capture_record(Stream*, Event*) {
  return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult capture_wait(Stream*, Event*, bool*) {
  return CUDA_SUCCESS;
}
CUresult capture_allocation(Stream*, CUdevice, size_t, CUdeviceptr*) {
  return CUDA_ERROR_NOT_SUPPORTED;
}
CUresult capture_free(Stream*, CUdeviceptr) {
  return CUDA_ERROR_NOT_SUPPORTED;
}
}  // namespace allot::sim
