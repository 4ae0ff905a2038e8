// See file_words.h.
#include "cli/region/file_words.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

#include "abi/region.h"
#include "cli/failure.h"
#include "cli/screen.h"

namespace allot::cli {

std::string kind_of_file(const std::string& path) {
  struct stat about = {};
  if (lstat(path.c_str(), &about) != 0) return "";
  char target[PATH_MAX];
  const ssize_t n = S_ISLNK(about.st_mode) ? readlink(path.c_str(), target, sizeof target) : -1;
  if (n >= 0) return "a link to " + shown(std::string_view(target, static_cast<size_t>(n)));
  return S_ISREG(about.st_mode)    ? ""
         : S_ISDIR(about.st_mode)  ? "a folder"
         : S_ISFIFO(about.st_mode) ? "a pipe"
         : S_ISSOCK(about.st_mode) ? "a socket"
         : S_ISLNK(about.st_mode)  ? "a link"
                                   : "a device";
}

std::string advice_for(const Error& error, const std::string& folder) {
  const std::string where = folder.empty() ? "/" : folder;
  switch (error.os_errno) {
    case EMFILE:
      return "allow this shell more open files (ulimit -n)";
    case ENFILE:
      return "the machine's files are all open; end some programs, or raise fs.file-max";
    case ENOMEM:
      return "free some memory";
    case EROFS:
      return fmt::format("{} is mounted read-only; set ALLOT_DIR to a folder that can be written",
                         where);
    case ENOSPC:
    case EDQUOT:
      return fmt::format("free some room in {}, or set ALLOT_DIR to another folder", where);
    case EFBIG:
      return fmt::format(
          "it is larger than this shell may write; raise the limit (ulimit -f) to "
          "{} KiB",
          (sizeof(AllotSliceFile) + 1023) / 1024);
    case EACCES:
    case EPERM:
      return fmt::format("this user may not write {}; set ALLOT_DIR to a folder of your own",
                         where);
    case ENAMETOOLONG:
      return "choose a shorter name or folder";
    case EIO:
      return fmt::format("the file system of {} is at fault; set ALLOT_DIR to another", where);
    default:
      return "set ALLOT_DIR to another folder";
  }
}

}  // namespace allot::cli
