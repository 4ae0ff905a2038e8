// One table of variables, each with what it may say. Index suffixes (_0, _1) are read for the
// limits that have them.
#include "shim/process/limits_read.h"

#include <string_view>

#include "abi/env.h"
#include "base/text.h"
#include "base/units.h"
#include "shim/process/start_environment.h"

namespace allot::shim {
namespace {

// Less than the driver's own granule cannot be meant: 8 is eight bytes, not 8G.
constexpr uint64_t kLeastBytes = 1024 * 1024;

bool is_size(std::string_view text) {
  if (text == "none") return true;
  const Result<uint64_t> bytes = parse_size(text);
  return bytes && *bytes >= kLeastBytes;
}
// HAMi's 0 is no limit.
bool is_hami_size(std::string_view text) {
  return text == "0" || is_size(text);
}
bool is_percent(std::string_view text) {
  return parse_percent(text).has_value();
}
bool is_hami_percent(std::string_view text) {
  return text == "0" || is_percent(text);
}
bool is_priority(std::string_view text) {
  return text == "high" || text == "normal" || text == "low";
}
bool is_number(std::string_view text) {
  for (char c : text) {
    if (c < '0' || c > '9') return false;
  }
  return !text.empty() && text.size() < 10;
}
bool is_switch(std::string_view text) {
  return text == "0" || text == "1";
}
bool is_level(std::string_view text) {
  return text == "auto" || text == "channel" || text == "launch" || text == "observe";
}
bool is_swap(std::string_view text) {
  return text == "driver" || text == "fast";
}
bool is_fail(std::string_view text) {
  return text == "open" || text == "closed";
}

struct Variable {
  std::string_view name;
  bool indexed;
  bool (*valid)(std::string_view text);
  const char* write;
};
constexpr Variable kVariables[] = {
    {ALLOT_ENV_GPU_MEM, true, is_size, "a size such as 8G or 512M, or none"},
    {ALLOT_ALIAS_GPU_MEM, true, is_hami_size, "a size such as 8g or 512m"},
    {ALLOT_ENV_GPU_SHARE, true, is_percent, "a percentage such as 30"},
    {ALLOT_ENV_GPU_MAX, true, is_percent, "a percentage such as 50"},
    {ALLOT_ALIAS_GPU_SHARE, true, is_hami_percent, "a percentage such as 30"},
    {ALLOT_ENV_OVERCOMMIT, false, is_switch, "1 or 0"},
    {ALLOT_ENV_PRIORITY, false, is_priority, "high, normal or low"},
    {ALLOT_ALIAS_PRIORITY, false, is_number, "0 or 1"},
    {ALLOT_ENV_LEVEL, false, is_level, "auto, channel, launch or observe"},
    {ALLOT_ENV_SWAP, false, is_swap, "driver or fast"},
    {ALLOT_ENV_FAIL, false, is_fail, "open or closed"},
};

// substr() throws, which needs libstdc++.
std::string_view head(std::string_view text, size_t most) {
  return {text.data(), text.size() < most ? text.size() : most};
}
std::string_view behind(std::string_view text, size_t bytes) {
  if (bytes > text.size()) bytes = text.size();
  return {text.data() + bytes, text.size() - bytes};
}

// Whether `name` is the variable's, with an index or without.
bool names(const Variable& variable, std::string_view name) {
  if (name == variable.name) return true;
  return variable.indexed && name.starts_with(variable.name) &&
         name.size() > variable.name.size() && name[variable.name.size()] == '_';
}

}  // namespace

bool limits_can_be_read(char* why, uint32_t size) {
  const StartEnvironment& start = start_environment();
  if (start.cut) {
    TextBuf(why, size).text("the environment cannot be read: there is no memory to copy it");
    return false;
  }
  for (uint32_t i = 0; i < start.count; ++i) {
    const std::string_view entry = start.variables[i];
    const size_t equals = entry.find('=');
    if (equals == std::string_view::npos) continue;
    const std::string_view name = head(entry, equals);
    const std::string_view value = behind(entry, equals + 1);
    for (const Variable& variable : kVariables) {
      if (!names(variable, name)) continue;
      const std::string_view index =
          name.size() > variable.name.size() ? behind(name, variable.name.size() + 1) : "0";
      if (is_number(index) && variable.valid(value)) continue;
      TextBuf(why, size)
          .text(head(name, 64))
          .text("=")
          .text(head(value, 32))
          .text(is_number(index) ? ": cannot be read; write " : ": no GPU has that number; write ")
          .text(is_number(index) ? variable.write : "an index such as _0");
      return false;
    }
  }
  return true;
}

}  // namespace allot::shim
