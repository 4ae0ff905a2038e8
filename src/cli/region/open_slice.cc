// See open_slice.h.
#include "cli/region/open_slice.h"

#include <sys/stat.h>
#include <unistd.h>

#include "cli/failure.h"
#include "cli/region/file_words.h"
#include "cli/region/region_view.h"
#include "cli/words.h"
#include "shm/time_view.h"

namespace allot::cli {
namespace {

[[noreturn]] void cannot_open(const std::string& command, const std::string& name,
                              const std::string& folder, const std::string& path,
                              const Error& error) {
  if (error.code == Errc::kNotFound) {
    const std::string hint = did_you_mean(name, slice_names());
    throw NoSuchSlice(fmt::format("{}: no slice '{}'{} 'allot ps' lists the slices", command, name,
                                  hint.empty() ? ";" : hint));
  }
  if (error.code == Errc::kNotAFile) {
    refuse("{}: '{}' is no slice: {} is {}, not a slice's file; remove it", command, name, path,
           kind_of_file(path));
  }
  struct stat about = {};
  if (error.code == Errc::kNoPermission && lstat(path.c_str(), &about) == 0 &&
      about.st_uid != geteuid()) {
    refuse("{}: '{}' is another user's slice, {}'s ({}); only its owner may change it", command,
           name, owner_text(about.st_uid), path);
  }
  if (error.code == Errc::kWrongVersion || error.code == Errc::kDamaged)
    refuse("{}: {}: {}; end its programs and remove the file", command, path, describe(error));
  refuse("{}: {}: {}; {}", command, path, describe(error), advice_for(error, folder));
}

}  // namespace

OpenSlice::OpenSlice(const std::string& command, const std::string& name)
    : folder_(region_folder(false)), path_(folder_.empty() ? "" : slice_path(folder_, name)) {
  const Result<shm::Slice> opened = folder_.empty() ? Result<shm::Slice>(fail(Errc::kNotFound))
                                                    : shm::open_slice(path_.c_str(), true);
  if (!opened) cannot_open(command, name, folder_, path_, opened.error());
  slice_ = *opened;
}

OpenSlice::~OpenSlice() {
  shm::unmap(slice_);
}

void OpenSlice::tell_agents() {
  __atomic_fetch_add(&slice_.file->header.config_sequence, 1, __ATOMIC_SEQ_CST);
  shm::notify(slice_);
}

}  // namespace allot::cli
