// Entries that launch kernels.
#include "launch.h"
#include "runtime.h"

namespace allot::sim {

CUresult make_kernel(const void* handle, const Shape& shape, void** arguments, void** extra,
                     KernelBody* out) {
  const Function* f = to_function(handle);
  if (f == nullptr) return CUDA_ERROR_INVALID_HANDLE;
  uint64_t threads = 1;
  for (int i = 0; i < 3; i++) {
    if (shape.grid[i] == 0 || shape.block[i] == 0) return CUDA_ERROR_INVALID_VALUE;
    threads *= shape.block[i];
  }
  if (shape.grid[1] > 65535 || shape.grid[2] > 65535 || shape.block[2] > 64)
    return CUDA_ERROR_INVALID_VALUE;
  if (threads > f->max_threads || shape.shared_bytes > static_cast<unsigned>(f->dynamic_shared)) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  if (f->kind == KernelKind::kUnknown) return CUDA_ERROR_NOT_SUPPORTED;
  out->function = f;
  for (int i = 0; i < 3; i++) {
    out->grid[i] = shape.grid[i];
    out->block[i] = shape.block[i];
  }
  out->shared_bytes = shape.shared_bytes;
  return gather_params(*f, arguments, extra, &out->params);
}

}  // namespace allot::sim

using namespace allot::sim;

static CUresult launch(CUfunction f, const Shape& shape, CUstream stream, void** arguments,
                       void** extra, bool ptds) {
  Stream* s = nullptr;
  if (const CUresult r = find_stream(stream, ptds, &s); r != CUDA_SUCCESS) return r;
  if (const CUresult r = take_device_heap(s->context); r != CUDA_SUCCESS) return r;
  Body body{std::in_place_type<KernelBody>};
  if (const CUresult r = make_kernel(f, shape, arguments, extra, &std::get<KernelBody>(body));
      r != CUDA_SUCCESS) {
    return r;
  }
  return submit(s, std::move(body));
}

static CUresult launch_ex(const CUlaunchConfig* config, CUfunction f, void** arguments,
                          void** extra, bool ptds) {
  if (config == nullptr) return CUDA_ERROR_INVALID_VALUE;
  const Shape shape{{config->gridDimX, config->gridDimY, config->gridDimZ},
                    {config->blockDimX, config->blockDimY, config->blockDimZ},
                    config->sharedMemBytes};
  return launch(f, shape, config->hStream, arguments, extra, ptds);
}

#define LAUNCH_ARGS                                                                           \
  CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, \
      unsigned shared_bytes, CUstream s, void **arguments
#define LAUNCH_SHAPE                         \
  Shape {                                    \
    {gx, gy, gz}, {bx, by, bz}, shared_bytes \
  }

SIM_API cuLaunchKernel(LAUNCH_ARGS, void** extra) {
  SIM_ENTER();
  return launch(f, LAUNCH_SHAPE, s, arguments, extra, false);
}
SIM_API cuLaunchKernel_ptsz(LAUNCH_ARGS, void** extra) {
  SIM_ENTER();
  return launch(f, LAUNCH_SHAPE, s, arguments, extra, true);
}
SIM_API cuLaunchCooperativeKernel(LAUNCH_ARGS) {
  SIM_ENTER();
  return launch(f, LAUNCH_SHAPE, s, arguments, nullptr, false);
}
SIM_API cuLaunchCooperativeKernel_ptsz(LAUNCH_ARGS) {
  SIM_ENTER();
  return launch(f, LAUNCH_SHAPE, s, arguments, nullptr, true);
}
SIM_API cuLaunchKernelEx(const CUlaunchConfig* config, CUfunction f, void** arguments,
                         void** extra) {
  SIM_ENTER();
  return launch_ex(config, f, arguments, extra, false);
}
SIM_API cuLaunchKernelEx_ptsz(const CUlaunchConfig* config, CUfunction f, void** arguments,
                              void** extra) {
  SIM_ENTER();
  return launch_ex(config, f, arguments, extra, true);
}
