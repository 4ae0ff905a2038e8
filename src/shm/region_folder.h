// The region's folder and the names in it, for the other files of src/shm.
#pragma once

#include "shm/slice_file.h"
#include "sys/file.h"

namespace allot::shm {

// An open folder that passed the checks of region_folder.
struct Folder {
  sys::Fd fd;
  bool shared = false;  // root's, setgid and sticky, for many users: the group may read files
};

Result<Folder> open_folder(const char* path);

// A path split into its folder and the name after the last '/'.
// Errors: kBadValue.
struct SplitPath {
  const char* whole;
  char folder[kPathBytes];
  const char* name;
};
Result<void> split_path(const char* path, SplitPath* out);

}  // namespace allot::shm
