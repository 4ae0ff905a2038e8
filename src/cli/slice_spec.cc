// Turns texts of the command line into numbers, with a one-line error for a wrong one.
#include "cli/slice_spec.h"

#include <algorithm>
#include <charconv>

#include "base/units.h"
#include "cli/failure.h"
#include "cli/screen.h"
#include "cli/words.h"
#include "shm/slice_file.h"

namespace allot::cli {
namespace {

std::vector<std::string> split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (;;) {
    const size_t end = text.find(separator, begin);
    parts.emplace_back(text.substr(begin, end == std::string_view::npos ? end : end - begin));
    if (end == std::string_view::npos) return parts;
    begin = end + 1;
  }
}

}  // namespace

void check_sim_spec(std::string_view flag, std::string_view text) {
  if (text == "default") return;
  // As sim/machine.h has them.
  constexpr uint64_t kLeast = uint64_t{128} << 20;
  constexpr uint64_t kMost = uint64_t{256} << 30;
  constexpr uint64_t kGpus = 32;
  uint64_t gpus = 0;
  bool good = text.size() <= 1000;
  for (const std::string& part : split(text.substr(0, 1000), ',')) {
    uint64_t count = 1;
    std::string_view size = part;
    if (const size_t x = part.find('x'); x != std::string::npos) {
      const auto got = std::from_chars(part.data(), part.data() + x, count);
      good = good && x > 0 && got.ec == std::errc{} && got.ptr == part.data() + x;
      size.remove_prefix(x + 1);
    }
    const Result<uint64_t> bytes = parse_size(size);
    good = good && bytes && *bytes >= kLeast && *bytes <= kMost && count >= 1 && count <= kGpus;
    gpus += count;
    if (!good) break;
  }
  if (good && gpus <= kGpus) return;
  wrong_usage(
      "{}: '{}' does not say which software GPUs; write sizes of 128M to 256G for 1 to {} GPUs, "
      "such as "
      "80G, 2x80G or 80G,24G",
      flag, shown(text), kGpus);
}

bool looks_like_sim_spec(std::string_view text) {
  constexpr std::string_view kLetters = "0123456789xXkKmMgGtTiIbB.,";
  return text.size() > 1 && text[0] >= '0' && text[0] <= '9' &&
         text.find_first_not_of(kLetters) == std::string_view::npos;
}

uint64_t parse_limit(std::string_view flag, std::string_view text) {
  if (text == "none") return ALLOT_UNLIMITED;
  const Result<uint64_t> bytes = parse_size(text);
  if (!bytes) {
    wrong_usage("{}: '{}' is not a size; write a number with K, M, G or T, such as 8G", flag,
                shown(text));
  }
  if (*bytes == 0) {
    wrong_usage("{}: '{}' leaves no memory at all; write a size such as 8G, or 'none' for no limit",
                flag, shown(text));
  }
  // A bare number is bytes; nobody means so few.
  constexpr uint64_t kFewBytes = 1u << 20;
  if (*bytes < kFewBytes && text.find_first_not_of("0123456789. ") == std::string_view::npos) {
    const std::string number(text.substr(0, text.find(' ')));
    wrong_usage("{}: '{}' is {} byte{}; write {}G or {}M", flag, shown(text), *bytes,
                *bytes == 1 ? "" : "s", number, number);
  }
  return *bytes;
}

std::vector<MemoryLimit> parse_gpu_mem(std::string_view flag, std::string_view text) {
  std::vector<MemoryLimit> limits;
  for (const std::string& part : split(text, ',')) {
    const size_t colon = part.rfind(':');
    if (colon == std::string::npos) {
      limits.push_back({"", parse_limit(flag, part)});
      continue;
    }
    if (colon == 0) {
      wrong_usage("{}: '{}' names no GPU before the colon; write GPU:SIZE, such as 0:8G", flag,
                  shown(part));
    }
    limits.push_back({part.substr(0, colon), parse_limit(flag, part.substr(colon + 1))});
  }
  return limits;
}

std::vector<std::string> parse_gpu_list(std::string_view flag, std::string_view text) {
  std::vector<std::string> gpus = split(text, ',');
  for (size_t i = 0; i < gpus.size(); ++i) {
    if (gpus[i].empty()) {
      wrong_usage(
          "{}: '{}' has an empty entry; write GPU indexes or UUIDs joined by commas, such as 0,1",
          flag, shown(text));
    }
    if (std::find(gpus.begin(), gpus.begin() + static_cast<ptrdiff_t>(i), gpus[i]) !=
        gpus.begin() + static_cast<ptrdiff_t>(i)) {
      wrong_usage("{}: '{}' names GPU {} twice; name each GPU once", flag, shown(text),
                  shown(gpus[i]));
    }
  }
  return gpus;
}

uint32_t parse_share(std::string_view flag, std::string_view text) {
  const Result<uint32_t> permille = parse_percent(text);
  if (!permille) {
    wrong_usage(
        "{}: '{}' is not a share of GPU time; write 0.1 to 100 percent in steps of 0.1, such as 30 "
        "or 0.5%",
        flag, shown(text));
  }
  return *permille;
}

uint32_t parse_share_or_none(std::string_view flag, std::string_view text) {
  return text == "none" ? 0 : parse_share(flag, text);
}

uint32_t parse_latency(std::string_view flag, std::string_view text) {
  if (text == "default") return 0;
  std::string_view digits = text;
  if (digits.ends_with("ms")) digits.remove_suffix(2);
  double ms = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), ms);
  const bool whole = error == std::errc{} && end == digits.data() + digits.size();
  if (!whole || !(ms >= 5 && ms <= 200)) {
    wrong_usage("{}: '{}' is not a stop in milliseconds; write 5 to 200, such as 10, or default",
                flag, text);
  }
  return static_cast<uint32_t>(ms * 1000 + 0.5);
}

AllotPriority parse_priority(std::string_view flag, std::string_view text) {
  if (text == "high") return ALLOT_PRIORITY_HIGH;
  if (text == "normal") return ALLOT_PRIORITY_NORMAL;
  if (text == "low") return ALLOT_PRIORITY_LOW;
  wrong_usage("{}: '{}' is not a priority; write high, normal or low{}", flag, shown(text),
              did_you_mean(text, {"high", "normal", "low"}));
}

AllotLevel parse_level(std::string_view flag, std::string_view text) {
  if (text == "auto") return ALLOT_LEVEL_AUTO;
  if (text == "channel") return ALLOT_LEVEL_CHANNEL;
  if (text == "launch") return ALLOT_LEVEL_LAUNCH;
  if (text == "observe") return ALLOT_LEVEL_OBSERVE;
  wrong_usage("{}: '{}' is not a level; write auto, channel, launch or observe{}", flag,
              shown(text), did_you_mean(text, {"auto", "channel", "launch", "observe"}));
}

bool parse_swap(std::string_view flag, std::string_view text) {
  if (text == "fast") return true;
  if (text == "driver") return false;
  wrong_usage("{}: '{}' is neither driver nor fast", flag, shown(text));
}

bool parse_fail(std::string_view flag, std::string_view text) {
  if (text == "closed") return true;
  if (text == "open") return false;
  wrong_usage("{}: '{}' is neither open nor closed; closed refuses to run without enforcement",
              flag, shown(text));
}

void check_name(std::string_view flag, const std::string& name) {
  if (shm::valid_name(name.c_str())) return;
  wrong_usage(
      "{}: '{}' cannot name a slice; use 1 to {} of letters, digits, '.', '_' and '-', "
      "not '.' or '-' first",
      flag, shown(name), ALLOT_NAME_BYTES - 1);
}

std::string default_name(const std::string& program, int pid) {
  const size_t slash = program.rfind('/');
  std::string name = slash == std::string::npos ? program : program.substr(slash + 1);
  for (char& c : name) {
    const bool allowed = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                         (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
    if (!allowed) c = '_';
  }
  if (name.empty() || name[0] == '.' || name[0] == '-') name.insert(0, 1, '_');
  const std::string suffix = fmt::format("-{}", pid);
  return name.substr(0, ALLOT_NAME_BYTES - 1 - suffix.size()) + suffix;
}

const char* priority_text(uint32_t priority) {
  switch (priority) {
    case ALLOT_PRIORITY_HIGH:
      return "high";
    case ALLOT_PRIORITY_LOW:
      return "low";
    case ALLOT_PRIORITY_NORMAL:
      return "normal";
    default:
      return "?";
  }
}

const char* level_text(uint32_t level) {
  switch (level) {
    case ALLOT_LEVEL_AUTO:
      return "auto";
    case ALLOT_LEVEL_CHANNEL:
      return "channel";
    case ALLOT_LEVEL_LAUNCH:
      return "launch";
    case ALLOT_LEVEL_OBSERVE:
      return "observe";
    default:
      return "?";
  }
}

}  // namespace allot::cli
