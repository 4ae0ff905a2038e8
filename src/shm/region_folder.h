// The region's folder and the names in it, for the other files of src/shm.
#pragma once

#include "shm/slice_file.h"
#include "sys/file.h"

namespace allot::shm {

// An open folder that passed the checks of region_folder.
struct Folder {
  sys::Fd fd;
  bool shared = false;   // root's and sticky, for many users
  bool members = false;  // setgid: its group may read what the files hold
  bool open = false;     // for all users, not only for the group: files have a body (slice_body.h)
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
