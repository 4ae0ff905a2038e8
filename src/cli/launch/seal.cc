// See seal.h.
#include "cli/launch/seal.h"

#include "cli/failure.h"
#include "cli/launch/admission.h"
#include "cli/output.h"
#include "cli/slice_spec.h"
#include "core/shared.h"
#include "shm/rules.h"
#include "sys/file.h"

namespace allot::cli {

using core::load;

std::string seal_slice(shm::Slice& slice, bool on) {
  AllotSliceFile& file = *slice.file;
  if (on) {
    for (AllotGpu& gpu : file.gpus) {
      core::store(gpu.sealed_bytes, load(gpu.limit_bytes));
      core::store(gpu.sealed_share_permille, load(gpu.share_permille));
      core::store(gpu.sealed_max_permille, load(gpu.max_permille));
    }
    core::store(file.header.sealed_priority, load(file.header.priority));
    __atomic_fetch_or(&file.header.flags, ALLOT_SLICE_SEALED, __ATOMIC_RELEASE);
    return "sealed: its owner may lower these limits, and raise them to no more than this\n";
  }
  __atomic_fetch_and(&file.header.flags, ~ALLOT_SLICE_SEALED, __ATOMIC_RELEASE);
  return "no longer sealed\n";
}

Seal::Seal(const shm::Slice& slice) {
  const bool sealed = (load(slice.file->header.flags) & ALLOT_SLICE_SEALED) != 0;
  if (sealed && !is_machine_root()) file_ = slice.file;
}

bool is_machine_root() {
  bool in_namespace = false;
  return sys::machine_user_id(&in_namespace) == 0;
}

void Seal::check_memory(const std::string& label, uint32_t position, uint64_t bytes) const {
  if (file_ == nullptr) return;
  const uint64_t most = load(file_->gpus[position].sealed_bytes);
  if (bytes <= most) return;
  refuse("--gpu-mem: root has sealed GPU {} at {}; {} is more; only root may raise it", label,
         size_text(most), size_text(bytes));
}

void Seal::check_time(const std::string& label, uint32_t position, uint32_t share,
                      uint32_t max) const {
  if (file_ == nullptr) return;
  const uint32_t most_share = load(file_->gpus[position].sealed_share_permille);
  if (share > most_share) {
    refuse("--gpu-share: root has sealed GPU {} at {}; {} is more; only root may raise it", label,
           percent_text(most_share), percent_text(share));
  }
  const uint32_t most = load(file_->gpus[position].sealed_max_permille);
  if (most != 0 && (max == 0 || max > most)) {
    refuse("--gpu-max: root has sealed GPU {} at {}; {} is more; only root may raise it", label,
           percent_text(most), percent_text(max));
  }
}

void Seal::check_priority(uint32_t priority) const {
  if (file_ == nullptr) return;
  const uint32_t most = load(file_->header.sealed_priority);
  if (shm::priority_rank(priority) <= shm::priority_rank(most)) return;
  refuse("--priority: root has sealed it at {}; {} is more; only root may raise it",
         priority_text(most), priority_text(priority));
}

void Seal::check_level() const {
  if (file_ != nullptr)
    refuse("--level: root has sealed the slice; only root may change its level");
}

}  // namespace allot::cli
