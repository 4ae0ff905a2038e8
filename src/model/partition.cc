// cpuset.cpus.partition of v2. Its rules differ from version to version; what is not modelled yet is
// refused as unknown, never guessed.
#include <cerrno>

#include "model/cpuset_state.h"

namespace allot::model {

Outcome State::write_partition(int group, std::string_view text) {
  if (text != "member" && text != "root" && text != "isolated") return failure(EINVAL, Why::kParse);
  if (text == "member" && css(group).partition == kMember) return {};
  return failure(ENOSYS, Why::kUnknown, at(group).path);
}

std::string State::partition_text(int) const {
  return "member\n";
}

}  // namespace allot::model
