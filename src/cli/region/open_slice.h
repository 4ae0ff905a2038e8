// Opens a slice of the region's folder by name, to change it.
#pragma once

#include <string>

#include "shm/slice_file.h"

namespace allot::cli {

// Holds the mapping for as long as the command needs it.
class OpenSlice {
 public:
  // `command` ("set", "freeze") begins the error lines. Throws a Failure (exit 125): no such slice,
  // another user's, another version's.
  OpenSlice(const std::string& command, const std::string& name);
  ~OpenSlice();
  OpenSlice(const OpenSlice&) = delete;
  OpenSlice& operator=(const OpenSlice&) = delete;

  shm::Slice& operator*() { return slice_; }
  shm::Slice* operator->() { return &slice_; }
  const std::string& folder() const { return folder_; }
  const std::string& path() const { return path_; }

  // Records that a number of the slice has changed and wakes its agents, so that it takes effect
  // now.
  void tell_agents();

 private:
  std::string folder_;
  std::string path_;
  shm::Slice slice_;
};

}  // namespace allot::cli
