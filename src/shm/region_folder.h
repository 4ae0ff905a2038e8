// The region's folder and the names in it, for the other files of src/shm.
#pragma once

#include "shm/slice_file.h"
#include "sys/file.h"

namespace allot::shm {

// An open folder that passed the checks of region_folder.
struct Folder {
  sys::Fd fd;
  bool shared = false;  // many users' (root's, setgid and sticky): files are readable by the group
};

Result<Folder> open_folder(const char* path);

// A path cut into its folder and the name behind the last '/'. Errors: kBadValue.
struct SplitPath {
  char folder[kPathBytes];
  const char* name;
};
Result<void> split_path(const char* path, SplitPath* out);

}  // namespace allot::shm
