// Making and freeing blocks of each kind.
//
// Rounding here only makes the request well-formed; what the driver takes for it is measured by
// cuMemGetInfo and NVML, never computed.
#include "bench/blocks.h"

#include <algorithm>
#include <string>
#include <vector>

namespace allot::bench {
namespace {

constexpr uint64_t kProbeBytes = uint64_t{1} << 20;
constexpr uint64_t kArrayRowBytes = 65536;  // 4096 elements of 4 floats
constexpr uint64_t kArrayMaxRows = 65536;
constexpr uint64_t kPitchRowBytes = 4000;  // so that a row is padded, as real pitched memory is

uint64_t round_up(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

}  // namespace

std::optional<BlockKind> block_kind(std::string_view name) {
  constexpr std::pair<std::string_view, BlockKind> kNames[] = {
      {"linear", BlockKind::kLinear},   {"async", BlockKind::kAsync}, {"vmm", BlockKind::kVmm},
      {"managed", BlockKind::kManaged}, {"array", BlockKind::kArray}, {"pitch", BlockKind::kPitch},
      {"graph", BlockKind::kGraph}};
  for (const auto& [text, kind] : kNames) {
    if (text == name) return kind;
  }
  return std::nullopt;
}

BlockMaker::BlockMaker(const Gpu& gpu, BlockKind kind, uint64_t step_bytes)
    : gpu_(gpu), kind_(kind), block_bytes_(round_up(step_bytes, sizeof(uint32_t))) {
  if (step_bytes == 0) throw Failure(2, "a step of 0 bytes allocates nothing");
  if (kind == BlockKind::kVmm) {
    size_t granularity = 0;
    vmm_.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    vmm_.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    vmm_.location.id = gpu.device();
    gpu.check(gpu.api().vmm_granularity(&granularity, &vmm_, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
              "cuMemGetAllocationGranularity");
    block_bytes_ = round_up(step_bytes, std::max<uint64_t>(granularity, 1));
  }
  if (kind == BlockKind::kArray) {
    block_bytes_ = round_up(step_bytes, kArrayRowBytes);
    if (block_bytes_ > kArrayRowBytes * kArrayMaxRows) {
      throw Failure(2, "an array holds at most 4 GiB; give a smaller --step");
    }
  }
  if (kind == BlockKind::kPitch) block_bytes_ = round_up(step_bytes, 4096);
}

CUresult BlockMaker::make(Block* block) const {
  const DriverApi& api = gpu_.api();
  switch (kind_) {
    case BlockKind::kLinear:
      return api.alloc(&block->address, block_bytes_);
    case BlockKind::kManaged:
      return api.alloc_managed(&block->address, block_bytes_, CU_MEM_ATTACH_GLOBAL);
    case BlockKind::kAsync: {
      const CUresult result = api.alloc_async(&block->address, block_bytes_, gpu_.stream());
      return result == CUDA_SUCCESS ? api.stream_synchronize(gpu_.stream()) : result;
    }
    case BlockKind::kVmm:
      return make_vmm(block);
    case BlockKind::kArray:
      return make_array(block);
    case BlockKind::kPitch:
      return make_pitch(block);
    case BlockKind::kGraph:
      return make_graph(block);
  }
  return CUDA_ERROR_INVALID_VALUE;
}

CUresult BlockMaker::make_vmm(Block* block) const {
  const DriverApi& api = gpu_.api();
  CUresult result = api.vmm_create(&block->handle, block_bytes_, &vmm_, 0);
  if (result != CUDA_SUCCESS) return result;
  CUmemAccessDesc access{};
  access.location = vmm_.location;
  access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
  bool mapped = false;
  result = api.vmm_reserve(&block->address, block_bytes_, 0, 0, 0);
  if (result == CUDA_SUCCESS) {
    result = api.vmm_map(block->address, block_bytes_, 0, block->handle, 0);
    mapped = result == CUDA_SUCCESS;
  }
  if (mapped) result = api.vmm_access(block->address, block_bytes_, &access, 1);
  if (result == CUDA_SUCCESS) return result;
  if (mapped) api.vmm_unmap(block->address, block_bytes_);
  if (block->address != 0) api.vmm_unreserve(block->address, block_bytes_);
  api.vmm_release(block->handle);
  return result;
}

CUresult BlockMaker::make_array(Block* block) const {
  CUDA_ARRAY_DESCRIPTOR shape{};
  shape.Width = kArrayRowBytes / 16;
  shape.Height = block_bytes_ / kArrayRowBytes;
  shape.Format = CU_AD_FORMAT_FLOAT;
  shape.NumChannels = 4;
  return gpu_.api().array_create(&block->array, &shape);
}

CUresult BlockMaker::make_pitch(Block* block) const {
  return gpu_.api().alloc_pitch(&block->address, &block->pitch_bytes, kPitchRowBytes,
                                block_bytes_ / 4096, 4);
}

// A graph with one allocation node and no free node: its memory lives from the launch until it is
// freed like any other.
CUresult BlockMaker::make_graph(Block* block) const {
  const DriverApi& api = gpu_.api();
  CUDA_MEM_ALLOC_NODE_PARAMS node{};
  node.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
  node.poolProps.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
  node.poolProps.location.id = gpu_.device();
  node.bytesize = block_bytes_;
  CUgraph graph = nullptr;
  CUgraphNode made = nullptr;
  CUresult result = api.graph_create(&graph, 0);
  if (result != CUDA_SUCCESS) return result;
  result = api.graph_alloc_node(&made, graph, nullptr, 0, &node);
  if (result == CUDA_SUCCESS) result = api.graph_instantiate(&block->exec, graph, 0);
  if (result == CUDA_SUCCESS) result = api.graph_launch(block->exec, gpu_.stream());
  if (result == CUDA_SUCCESS) result = api.stream_synchronize(gpu_.stream());
  if (result == CUDA_SUCCESS) block->address = node.dptr;
  if (result != CUDA_SUCCESS && block->exec != nullptr) {
    api.graph_exec_destroy(block->exec);
    block->exec = nullptr;
  }
  api.graph_destroy(graph);
  return result;
}

void BlockMaker::free(const Block& block) const {
  const DriverApi& api = gpu_.api();
  switch (kind_) {
    case BlockKind::kAsync:
      api.free_async(block.address, gpu_.stream());
      break;
    case BlockKind::kVmm:
      api.vmm_unmap(block.address, block_bytes_);
      api.vmm_unreserve(block.address, block_bytes_);
      api.vmm_release(block.handle);
      break;
    case BlockKind::kArray:
      api.array_destroy(block.array);
      break;
    case BlockKind::kGraph:
      api.free(block.address);
      api.graph_exec_destroy(block.exec);
      break;
    default:
      api.free(block.address);
  }
}

void BlockMaker::copy_array_row(const Block& block, uint32_t* row, bool to_device) const {
  CUDA_MEMCPY2D copy{};
  copy.WidthInBytes = kArrayRowBytes;
  copy.Height = 1;
  if (to_device) {
    copy.srcMemoryType = CU_MEMORYTYPE_HOST;
    copy.srcHost = row;
    copy.srcPitch = kArrayRowBytes;
    copy.dstMemoryType = CU_MEMORYTYPE_ARRAY;
    copy.dstArray = block.array;
  } else {
    copy.srcMemoryType = CU_MEMORYTYPE_ARRAY;
    copy.srcArray = block.array;
    copy.dstMemoryType = CU_MEMORYTYPE_HOST;
    copy.dstHost = row;
    copy.dstPitch = kArrayRowBytes;
  }
  gpu_.check(gpu_.api().copy_2d(&copy), "cuMemcpy2D");
}

void BlockMaker::fill(const Block& block, uint32_t value) const {
  if (kind_ == BlockKind::kArray) {
    std::vector<uint32_t> row(kArrayRowBytes / sizeof(uint32_t), value);
    copy_array_row(block, row.data(), true);
    return;
  }
  const uint64_t bytes = std::min(block_bytes_, kProbeBytes);
  gpu_.fill(block.address, bytes / sizeof(uint32_t), value);
  gpu_.fill(block.address + block_bytes_ - bytes, bytes / sizeof(uint32_t), value);
}

uint64_t BlockMaker::mismatches(const Block& block, uint32_t value) const {
  if (kind_ == BlockKind::kArray) {
    std::vector<uint32_t> row(kArrayRowBytes / sizeof(uint32_t), ~value);
    copy_array_row(block, row.data(), false);
    return row.size() - static_cast<uint64_t>(std::count(row.begin(), row.end(), value));
  }
  const uint64_t bytes = std::min(block_bytes_, kProbeBytes);
  return gpu_.mismatches(block.address, bytes / sizeof(uint32_t), value) +
         gpu_.mismatches(block.address + block_bytes_ - bytes, bytes / sizeof(uint32_t), value);
}

}  // namespace allot::bench
