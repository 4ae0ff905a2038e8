// Whom the rules of rules.h are for, where no name service can be asked: inside users' processes.
#include <string_view>

#include "base/text.h"
#include "shm/rules.h"
#include "sys/process.h"

namespace allot::shm {
namespace {

constexpr uint64_t kMostBytes = 4 << 20;
constexpr uint32_t kMostGroups = 1024;

// Calls `visit` with name and number of each line NAME:x:NUMBER:... until it returns false.
template <class Visit>
Result<void> each_entry(const char* path, Visit visit) {
  auto fd = sys::open_file(sys::Root{}, path, O_RDONLY);
  if (!fd) return tl::unexpected<Error>(fd.error());
  auto memory = sys::map_memory(kMostBytes);
  if (!memory) return tl::unexpected<Error>(memory.error());
  auto have = sys::read_at(fd->get(), *memory, kMostBytes, 0);
  std::string_view text(static_cast<const char*>(*memory), have ? *have : 0);
  bool more = true;
  while (more && !text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line(text.data(), end == std::string_view::npos ? text.size() : end);
    text.remove_prefix(line.size() < text.size() ? line.size() + 1 : line.size());
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string_view::npos || second == std::string_view::npos) continue;
    const char* at = line.data() + second + 1;
    uint64_t number = 0;
    if (!read_u64(&at, line.data() + line.size(), &number)) continue;
    more = visit(std::string_view(line.data(), first), static_cast<uint32_t>(number));
  }
  sys::unmap(*memory, kMostBytes);
  return have ? Result<void>{} : tl::unexpected<Error>(have.error());
}

// A name that is not in the file may be a name service's; it is nobody of ours if all our numbers
// have names in the file.
Result<uint32_t> find_in_files(const RulesFor& who, bool group, const char* name) {
  Result<uint32_t> found = fail(Errc::kNotFound);
  uint32_t named = 0;  // of our numbers
  const char* path = group ? "/etc/group" : "/etc/passwd";
  const uint32_t* own = group ? who.gids : &who.uid;
  const uint32_t count = group ? who.gid_count : 1;
  bool seen[kMostGroups] = {};
  auto read = each_entry(path, [&](std::string_view entry, uint32_t number) {
    if (entry == name) {
      found = number;
      return false;
    }
    for (uint32_t i = 0; i < count && i < kMostGroups; ++i) {
      if (own[i] != number || seen[i]) continue;
      seen[i] = true;
      ++named;
    }
    return true;
  });
  if (found) return found;
  if (!read || named < count) return fail(Errc::kUnsupported);
  return found;
}

}  // namespace

Result<void> read_rules(Rules* out) {
  uint32_t gids[kMostGroups];
  const uint32_t count = sys::group_ids(gids, kMostGroups);
  bool in_namespace = false;
  const uint32_t uid = sys::machine_user_id(&in_namespace);
  const RulesFor who{uid, gids, count, uid == 0 && !in_namespace, find_in_files};
  return read_rules_for(who, out);
}

}  // namespace allot::shm
