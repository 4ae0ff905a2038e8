// Creation is by name: the file appears complete or not at all (shm::create_slice), but its GPUs
// are added after that. No process can be in the slice yet, because the program gets its path
// later.
#include "cli/launch/slice_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include "cli/failure.h"
#include "cli/launch/admission.h"
#include "cli/output.h"
#include "cli/region/file_words.h"
#include "cli/region/region_view.h"
#include "core/counters.h"
#include "shm/cgroup_claim.h"
#include "shm/living.h"
#include "sys/clock.h"

namespace allot::cli {
namespace {

[[noreturn]] void cannot_make(const std::string& name, const std::string& path,
                              const Error& error) {
  if (error.code == Errc::kExists) {
    refuse(
        "--name: a slice '{}' is in use ({}); choose another name, or end its program ('allot ps')",
        name, path);
  }
  if (error.code == Errc::kWrongVersion || error.code == Errc::kDamaged) {
    refuse(
        "--name: '{}' is taken by a file that is {}: {}; choose another name, or remove the file "
        "when "
        "no program uses it",
        name, describe(error), path);
  }
  if (error.code == Errc::kNotAFile) {
    refuse("--name: '{}' is taken: {} is {}, not a slice's file; choose another name, or remove it",
           name, path, kind_of_file(path));
  }
  const std::string folder = path.substr(0, path.rfind('/'));
  if (error.code == Errc::kNoPermission) {
    struct stat about = {};
    if (lstat(path.c_str(), &about) == 0 && about.st_uid != geteuid())
      refuse("--name: '{}' is {}'s; choose another name", name, owner_text(about.st_uid));
    const std::string fault = folder_fault(folder);
    if (!fault.empty()) refuse("cannot make {}: {}: {}", path, folder, fault);
  }
  refuse("cannot make {}: {}; {}", path, describe(error), advice_for(error, folder));
}

uint64_t need_claim() {
  const uint64_t claim = shm::claim_of_own_cgroup();
  if (claim != 0) return claim;
  refuse(
      "--cgroup: this process is in the root cgroup, which is everybody's; start it in a unit of "
      "its own (--unit)");
}

// Programs of another version may be using a file of that version; create_slice would replace it.
void refuse_foreign(const std::string& name, const std::string& path) {
  Result<shm::Slice> existing = shm::open_slice(path.c_str(), false);
  if (existing) shm::unmap(*existing);
  if (!existing && existing.error().code == Errc::kWrongVersion)
    cannot_make(name, path, existing.error());
}

}  // namespace

SliceFile::SliceFile(const std::string& name, const SliceSpec& spec, const Bounds& bounds,
                     const std::vector<ChosenGpu>& gpus, bool software) {
  const std::string folder = region_folder(true);
  clear_stale(folder);
  path_ = slice_path(folder, name);
  refuse_foreign(name, path_);
  const Admission admission(folder, path_);
  bounds.check_count(folder, path_);
  if (!spec.overcommit) {
    for (const ChosenGpu& entry : gpus) {
      admission.check(entry.gpu->uuid, std::to_string(entry.gpu->index), spec.share_permille);
    }
  }
  if (spec.free_memory) {
    for (const ChosenGpu& entry : gpus) admission.check_memory(*entry.gpu, entry.limit_bytes);
  }
  const uint32_t flags = (spec.fail_closed ? ALLOT_SLICE_FAIL_CLOSED : 0u) |
                         (software ? ALLOT_SLICE_SOFTWARE : 0u) |
                         (spec.gpus.empty() ? 0u : ALLOT_SLICE_OWN_GPUS) |
                         (spec.swap_fast ? ALLOT_SLICE_SWAP_FAST : 0u);
  const shm::NewSlice wanted = {name.c_str(), flags, getpid(), spec.priority, spec.level};
  const Result<shm::Slice> made = shm::create_slice(folder.c_str(), wanted);
  if (!made) cannot_make(name, path_, made.error());
  slice_ = *made;
  if (Result<sys::Fd> held = shm::hold_slice(slice_)) members_ = std::move(*held);
  try {
    __atomic_store_n(&slice_.file->header.latency_us, spec.latency_us, __ATOMIC_RELAXED);
    if (spec.claims_cgroup)
      __atomic_store_n(&slice_.file->header.cgroup_claim, need_claim(), __ATOMIC_RELEASE);
    write_limits(spec, gpus);
  } catch (...) {
    members_.close();
    shm::unmap(slice_);
    shm::remove_slice(path_.c_str(), static_cast<uint32_t>(getpid()));
    throw;
  }
}

SliceFile::~SliceFile() {
  members_.close();
  shm::unmap(slice_);
  shm::remove_slice(path_.c_str(), static_cast<uint32_t>(getpid()));
}

std::string SliceFile::totals(Fields* fields) const {
  const AllotSliceFile& file = *slice_.file;
  uint64_t used = 0, throttled = 0, refused = 0, peak = 0;
  for (const AllotGpu& gpu : file.gpus) {
    used += core::load(gpu.time_used_ns);
    throttled += core::load(gpu.time_throttled_ns);
    refused += core::load(gpu.refused);
    peak += core::load(gpu.peak_bytes);
  }
  const uint64_t frozen = core::clock_ns(core::load(file.header.frozen_clock), sys::monotonic_ns());
  const uint32_t evictions = core::load(file.header.evictions);
  const auto seconds = [](uint64_t ns) {
    return fmt::format("{:.3f}", static_cast<double>(ns) / 1e9);
  };
  *fields = {
      {"ALLOT_GPU_SECONDS", seconds(used)},       {"ALLOT_THROTTLED_SECONDS", seconds(throttled)},
      {"ALLOT_FROZEN_SECONDS", seconds(frozen)},  {"ALLOT_EVICTIONS", std::to_string(evictions)},
      {"ALLOT_REFUSED", std::to_string(refused)}, {"ALLOT_PEAK_BYTES", std::to_string(peak)}};
  return fmt::format("GPU time {:.1f} s, held back {:.1f} s, at most {}, {} refused",
                     static_cast<double>(used) / 1e9, static_cast<double>(throttled) / 1e9,
                     size_text(peak), refused);
}

void SliceFile::write_limits(const SliceSpec& spec, const std::vector<ChosenGpu>& gpus) {
  for (const ChosenGpu& entry : gpus) {
    const Result<uint32_t> index = shm::find_or_add_gpu(slice_, entry.gpu->uuid.data(),
                                                        entry.limit_bytes, entry.gpu->total_bytes);
    if (!index)
      refuse("GPU {}: {}; this is a fault of allot", entry.gpu->index, describe(index.error()));
    AllotGpu& gpu = slice_.file->gpus[*index];
    // A MIG instance has the index of its GPU, which says less than its UUID.
    if (!entry.gpu->uuid_text.starts_with("MIG-")) {
      __atomic_store_n(&gpu.index_plus_one, entry.gpu->index + 1, __ATOMIC_RELAXED);
    }
    __atomic_store_n(&gpu.share_permille, spec.share_permille, __ATOMIC_RELAXED);
    __atomic_store_n(&gpu.max_permille, spec.max_permille, __ATOMIC_RELAXED);
  }
}

}  // namespace allot::cli
