// The region's folder and the names in it. A folder is opened first and the open folder is judged,
// so that nobody can replace it between the check and the use.
#include "shm/region_folder.h"

#include <sys/stat.h>

#include <string_view>

#include "base/text.h"
#include "sys/process.h"

namespace allot::shm {
namespace {

constexpr const char* kSystemFolder = ALLOT_SYSTEM_FOLDER;
constexpr std::string_view kSuffix = ALLOT_REGION_SUFFIX;

Result<void> copy_path(std::string_view path, char* out) {
  TextBuf text(out, kPathBytes);
  text.text(path);
  if (text.cut()) return fail(Errc::kBadValue);
  return {};
}

bool ends_with_suffix(std::string_view name) {
  return name.size() > kSuffix.size() &&
         std::string_view(name.data() + name.size() - kSuffix.size(), kSuffix.size()) == kSuffix;
}

}  // namespace

Result<Folder> open_folder(const char* path) {
  auto fd = sys::open_file(sys::Root{}, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  if (!fd) {
    // For a link, O_DIRECTORY reports "not a folder": look again to see what it is.
    auto info = sys::info_at(AT_FDCWD, path);
    if (info && !S_ISDIR(info->mode)) return fail(Errc::kNoPermission, fd.error().os_errno);
    return tl::unexpected<Error>(fd.error());
  }
  auto info = sys::info_of(fd->get());
  if (!info) return tl::unexpected<Error>(info.error());
  const bool sticky = (info->mode & S_ISVTX) != 0;
  const bool for_all = (info->mode & S_IWOTH) != 0;
  const bool for_group = (info->mode & S_IWGRP) != 0;
  const bool setgid = (info->mode & S_ISGID) != 0;
  // A folder whose owner has no number in our user namespace is taken for root's where it is
  // sticky: then its owner could remove our files and do nothing else to us.
  const bool from_root = info->uid == 0 || (sticky && sys::means_root(info->uid));
  if (info->uid != sys::user_id() && !from_root) return fail(Errc::kNoPermission);
  if ((for_group || for_all) && !sticky) return fail(Errc::kNoPermission);
  Folder folder;
  folder.fd = std::move(*fd);
  folder.members = setgid;
  folder.open = from_root && sticky && for_all;
  folder.shared = folder.open || (from_root && sticky && setgid);
  return folder;
}

Result<void> region_folder(const char* dir, bool create, char* out) {
  const bool given = dir != nullptr && dir[0] != '\0';
  if (given) {
    if (dir[0] != '/') return fail(Errc::kBadValue);
    if (auto copied = copy_path(dir, out); !copied) return copied;
  } else {
    // A machine that has the folder of all users has no other: who may not use it would be counted
    // by nobody.
    auto system = open_folder(kSystemFolder);
    if (system || system.error().code != Errc::kNotFound) {
      if (auto copied = copy_path(kSystemFolder, out); !copied) return copied;
      if (!system) return tl::unexpected<Error>(system.error());
      return system->shared ? Result<void>{} : fail(Errc::kNoPermission);
    }
    TextBuf(out, kPathBytes).text("/dev/shm/allot-").u64(sys::user_id());
  }
  const auto first = open_folder(out);
  if (first) return {};
  if (first.error().code != Errc::kNotFound || !create) return tl::unexpected<Error>(first.error());
  auto made = sys::make_folder(out, 0700);
  if (!made && made.error().code != Errc::kExists) return made;
  const auto second = open_folder(out);
  if (!second) return tl::unexpected<Error>(second.error());
  return {};
}

bool is_shared(const char* folder) {
  const auto open = open_folder(folder);
  return open && open->shared;
}

bool valid_name(const char* name) {
  if (name == nullptr || name[0] == '.' || name[0] == '-') return false;
  uint32_t length = 0;
  for (; name[length] != '\0'; ++length) {
    const char c = name[length];
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!letter && !(c >= '0' && c <= '9') && c != '.' && c != '_' && c != '-') return false;
    if (length + 1 >= ALLOT_NAME_BYTES) return false;
  }
  return length > 0;
}

Result<void> slice_path(const char* folder, const char* name, char* out) {
  if (!valid_name(name)) return fail(Errc::kBadValue);
  TextBuf text(out, kPathBytes);
  text.text(folder).put('/').text(name).text(kSuffix);
  if (text.cut()) return fail(Errc::kBadValue);
  return {};
}

Result<void> split_path(const char* path, SplitPath* out) {
  uint32_t length = 0;
  uint32_t slash = 0;
  bool any = false;
  for (; path[length] != '\0'; ++length) {
    if (path[length] == '/') {
      slash = length;
      any = true;
    }
  }
  if (!any || path[slash + 1] == '\0') return fail(Errc::kBadValue);
  out->whole = path;
  out->name = path + slash + 1;
  return copy_path({path, slash == 0 ? 1 : slash}, out->folder);
}

uint32_t list_slices(const char* folder, void (*visit)(void* context, const char* path),
                     void* context) {
  auto open = open_folder(folder);
  if (!open) return 0;
  struct State {
    const char* folder;
    void (*visit)(void*, const char*);
    void* context;
    uint32_t count;
  } state{folder, visit, context, 0};
  auto each = [](void* state_pointer, const char* name) {
    State& s = *static_cast<State*>(state_pointer);
    if (name[0] == '.' || !ends_with_suffix(name)) return true;
    char path[kPathBytes];
    TextBuf text(path, sizeof(path));
    text.text(s.folder).put('/').text(name);
    if (text.cut()) return true;
    ++s.count;
    s.visit(s.context, path);
    return true;
  };
  (void)sys::list_folder(open->fd.get(), each, &state);
  return state.count;
}

bool list_slices_from(const char* folder, uint64_t* position,
                      bool (*visit)(void* context, int folder_fd, const char* file_name),
                      void* context) {
  auto open = open_folder(folder);
  if (!open) return true;
  struct State {
    int fd;
    bool (*visit)(void*, int, const char*);
    void* context;
  } state{open->fd.get(), visit, context};
  auto each = [](void* state_pointer, const char* name) {
    const State& s = *static_cast<State*>(state_pointer);
    if (name[0] == '.' || !ends_with_suffix(name)) return true;
    return s.visit(s.context, s.fd, name);
  };
  const auto listed = sys::list_folder_from(state.fd, position, each, &state);
  if (listed) return *listed;
  *position = 0;
  return true;
}

}  // namespace allot::shm
