// What is wrong with a region's folder, with the command that mends it: an administrator reads the
// line of a user who cannot do it alone.
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/failure.h"
#include "cli/output.h"
#include "cli/region/region_view.h"
#include "shm/slice_file.h"
#include "sys/file.h"

namespace allot::cli {
namespace {

std::string group_text(gid_t gid) {
  const struct group* entry = getgrgid(gid);
  return entry != nullptr ? entry->gr_name : std::to_string(gid);
}

std::string who_am_i() {
  return owner_text(geteuid());
}

// Of the folder of several users, which root has made.
std::string shared_fault(const std::string& folder, const struct stat& about) {
  const mode_t mode = about.st_mode & 07777;
  const std::string mend = fmt::format("chown root:root {0} && chmod 1777 {0}", folder);
  if (!sys::means_root(about.st_uid)) {
    return fmt::format("it is {}'s and must be root's; as root: {}", owner_text(about.st_uid),
                       mend);
  }
  const bool for_all = mode == 01777 || mode == 03777;
  if (!for_all && mode != 03770) {
    return fmt::format(
        "its mode is {:04o} and must be 1777 (all users) or 3770 (the members of its group); as "
        "root: chmod 1777 {}",
        mode, folder);
  }
  if (access(folder.c_str(), R_OK | X_OK) != 0) {
    return fmt::format(
        "only members of the group '{0}' may use it; as root: adduser {1} {0}; then {1} logs in "
        "again",
        group_text(about.st_gid), who_am_i());
  }
  return "";
}

}  // namespace

std::string folder_fault(const std::string& folder) {
  struct stat about = {};
  if (lstat(folder.c_str(), &about) != 0) return "";
  if (S_ISLNK(about.st_mode)) return "it is a link; a folder must stand there itself";
  if (!S_ISDIR(about.st_mode)) return "it is not a folder; remove it";
  if (folder == ALLOT_SYSTEM_FOLDER) return shared_fault(folder, about);
  const mode_t mode = about.st_mode & 07777;
  const bool writable_by_others = (mode & (S_IWGRP | S_IWOTH)) != 0;
  const bool sticky = (mode & S_ISVTX) != 0;
  if (about.st_uid == geteuid() || sys::means_root(about.st_uid)) {
    if (writable_by_others && !sticky) {
      return fmt::format("others may remove files in it (mode {:04o}); chmod {} {}", mode,
                         about.st_uid == 0 && geteuid() != 0 ? "1777" : "0700", folder);
    }
    return access(folder.c_str(), R_OK | X_OK) == 0 ? "" : shared_fault(folder, about);
  }
  return fmt::format("it is {}'s; it must be {}'s, or root's with mode 1777 or 3770",
                     owner_text(about.st_uid), who_am_i());
}

}  // namespace allot::cli
