// Reads a slice's file as docs/region.md tells others to.
#include "bench/slice_limit.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "abi/env.h"
#include "abi/region.h"
#include "base/units.h"
#include "bench/real_driver.h"

namespace allot::bench {
namespace {

struct Front {  // what a reader of limits needs of the file
  AllotHeader header;
  AllotGpu gpus[ALLOT_MAX_GPUS];
};
static_assert(offsetof(AllotSliceFile, gpus) == offsetof(Front, gpus));

bool read_front(const std::string& path, Front* out) {
  const int fd = open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return false;
  const ssize_t have = pread(fd, out, sizeof *out, 0);
  close(fd);
  const AllotHeader& header = out->header;
  return have == static_cast<ssize_t>(sizeof *out) && header.magic == ALLOT_REGION_MAGIC &&
         header.major == ALLOT_REGION_MAJOR && header.gpu_bytes == sizeof(AllotGpu);
}

uint32_t permille_of(const char* name, const char* alias) {
  const char* text = std::getenv(name);
  if (text == nullptr) text = std::getenv(alias);
  if (text == nullptr) return 0;
  const Result<uint32_t> parsed = parse_percent(text);
  return parsed && *parsed < 1000 ? *parsed : 0;
}

SliceLimit limit_in_environment(const Gpu& gpu) {
  SliceLimit limit;
  if (find_real_driver(gpu.library()).handle == nullptr) return limit;
  limit.max_permille = permille_of(ALLOT_ENV_GPU_MAX, ALLOT_ALIAS_GPU_SHARE);
  limit.share_permille = permille_of(ALLOT_ENV_GPU_SHARE, ALLOT_ALIAS_GPU_SHARE);
  const char* name = std::getenv(ALLOT_ENV_NAME);
  limit.slice = name != nullptr ? name : "default";
  return limit;
}

nlohmann::ordered_json percent_json(uint32_t permille) {
  return permille == 0 ? nlohmann::ordered_json(nullptr) : nlohmann::ordered_json(permille / 10.0);
}

}  // namespace

nlohmann::ordered_json SliceLimit::json() const {
  if (!limited()) return nullptr;
  return {{"slice", slice},
          {"max_percent", percent_json(max_permille)},
          {"share_percent", percent_json(share_permille)}};
}

SliceLimit limit_in_file(const std::string& path, const unsigned char* uuid) {
  SliceLimit limit;
  Front front;
  if (!read_front(path, &front)) return limit;
  limit.slice.assign(front.header.name, strnlen(front.header.name, ALLOT_NAME_BYTES));
  const uint32_t count = std::min(front.header.gpu_count, ALLOT_MAX_GPUS);
  for (uint32_t i = 0; i < count; ++i) {
    const AllotGpu& gpu = front.gpus[i];
    if (std::memcmp(gpu.uuid, uuid, sizeof gpu.uuid) != 0) continue;
    limit.max_permille = gpu.max_permille;
    limit.share_permille = gpu.share_permille;
  }
  return limit;
}

SliceLimit limit_of_this_process(const Gpu& gpu) {
  CUuuid uuid{};
  const char* path = std::getenv(ALLOT_ENV_SLICE);
  if (path == nullptr) return limit_in_environment(gpu);
  if (gpu.api().device_uuid.quiet(&uuid, gpu.device()) != CUDA_SUCCESS) return {};
  return limit_in_file(path, reinterpret_cast<const unsigned char*>(uuid.bytes));
}

}  // namespace allot::bench
