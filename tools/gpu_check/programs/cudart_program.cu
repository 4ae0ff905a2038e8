// A CUDA runtime program as users write them: what it has, a kernel, and memory until it is refused,
// by cudaMalloc and by cudaMallocAsync. Prints one JSON line.
#include <cstdio>
#include <vector>

__global__ void square(int* values, int count) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) values[i] = i * i;
}

int main() {
  constexpr int kCount = 1 << 16;
  size_t free_bytes = 0, total_bytes = 0;
  if (cudaMemGetInfo(&free_bytes, &total_bytes) != cudaSuccess) return 1;
  int* values = nullptr;
  if (cudaMalloc(&values, kCount * sizeof(int)) != cudaSuccess) return 1;
  square<<<kCount / 256, 256>>>(values, kCount);
  std::vector<int> host(kCount);
  if (cudaMemcpy(host.data(), values, kCount * sizeof(int), cudaMemcpyDeviceToHost) != cudaSuccess) {
    return 1;
  }
  bool right = true;
  for (int i = 0; i < kCount; ++i) right = right && host[i] == static_cast<int>(1u * i * i);

  void* held = nullptr;
  if (cudaMallocAsync(&held, 64 << 20, nullptr) != cudaSuccess) return 1;
  if (cudaFreeAsync(held, nullptr) != cudaSuccess || cudaDeviceSynchronize() != cudaSuccess) return 1;

  size_t granted = 0;
  cudaError_t refused = cudaSuccess;
  for (int i = 0; i < 1024; ++i) {
    void* block = nullptr;
    refused = cudaMalloc(&block, 64 << 20);
    if (refused != cudaSuccess) break;
    granted += 64 << 20;
  }
  std::printf("{\"free\": %zu, \"total\": %zu, \"granted\": %zu, \"refused_with\": \"%s\", \"right\": %s}\n",
              free_bytes, total_bytes, granted, cudaGetErrorName(refused), right ? "true" : "false");
  return 0;
}
