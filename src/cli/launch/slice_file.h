// The region file of a slice, for as long as `allot run` lives.
#pragma once

#include <string>
#include <vector>

#include "cli/gpus/gpu_inventory.h"
#include "cli/launch/bounds.h"
#include "cli/log/deeds.h"
#include "cli/slice_spec.h"
#include "shm/slice_file.h"
#include "sys/file.h"

namespace allot::cli {

// Makes the file with all its limits. The destructor removes it, unless processes that outlive the
// program are still in it; then the next command that finds it empty removes it. So it is with `run
// --exec`, where the destructor never runs.
class SliceFile {
 public:
  // Throws a Failure (exit 125): name in use, folder not usable, no room, share not left, as many
  // slices as the administrator allows.
  SliceFile(const std::string& name, const SliceSpec& spec, const Bounds& bounds,
            const std::vector<ChosenGpu>& gpus, bool software);
  ~SliceFile();
  SliceFile(const SliceFile&) = delete;
  SliceFile& operator=(const SliceFile&) = delete;

  const std::string& path() const { return path_; }
  // What the program must inherit: as long as it or a child of it has it open, the slice is in use.
  // -1 where there is none.
  int members_fd() const { return members_.get(); }
  // What it has had so far, for the log: a few words, and the fields.
  std::string totals(Fields* fields) const;

 private:
  void write_limits(const SliceSpec& spec, const std::vector<ChosenGpu>& gpus);
  std::string path_;
  shm::Slice slice_;
  sys::Fd members_;
};

}  // namespace allot::cli
