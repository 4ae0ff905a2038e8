// See text.h. One table of endings, so that text and JSON cannot disagree about a unit.
#include "bench/text.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "base/units.h"
#include "bench/driver_api.h"

namespace allot::bench {
namespace {

using Json = nlohmann::ordered_json;

struct Ending {
  std::string_view key;
  std::string_view unit;
  double times = 1;
};

// Keys whose name says nothing of the unit come whole.
constexpr Ending kWhole[] = {
    {"p50", "ms"}, {"p90", "ms"},     {"p99", "ms"},          {"p999", "ms"},
    {"max", "ms"}, {"slowest", "ms"}, {"achieved", "%", 100}, {"per_second", "%", 100}};
constexpr Ending kEndings[] = {{"_us", "us"}, {"_ns", "ns"}, {"_ms", "ms"}, {"_s", "s"}};

std::string bytes_text(uint64_t bytes) {
  char text[32];
  return {text, format_size(bytes, text, sizeof text)};
}

std::string number_text(const Json& value, double times) {
  if (value.is_number_float() || times != 1)
    return fmt::format("{:.4g}", value.get<double>() * times);
  return value.dump();
}

std::string scalar_text(const Json& value, const Ending& unit) {
  if (value.is_null()) return "-";
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_string()) return plain_line(value.get<std::string>());
  if (!value.is_number()) return value.dump();
  return number_text(value, unit.times) + (unit.unit.empty() ? "" : " " + std::string(unit.unit));
}

bool is_of_bytes(const std::string& path) {
  return path.ends_with("_bytes") || path.starts_with("memory_before.") ||
         path.starts_with("memory_after.");
}

void append(const Json& result, const std::string& prefix, std::string* out) {
  for (const auto& [key, value] : result.items()) {
    std::string name = prefix.empty() ? key : fmt::format("{}.{}", prefix, key);
    if (value.is_structured() && !value.empty() &&
        (value.is_object() || value.front().is_structured())) {
      append(value, name, out);
      continue;
    }
    std::string text;
    Ending unit{};
    if (is_of_bytes(name) && value.is_number_unsigned()) {
      text = bytes_text(value.get<uint64_t>());
      if (name.ends_with("_bytes")) name.resize(name.size() - 6);
    } else if (key == "driver" && value.is_number_integer()) {
      text = fmt::format("CUDA {}.{}", value.get<int>() / 1000, value.get<int>() % 1000 / 10);
    } else {
      for (const Ending& one : kWhole) {
        if (key == one.key) unit = one;
      }
      for (const Ending& one : kEndings) {
        if (!name.ends_with(one.key) || !(value.is_number() || value.is_array())) continue;
        unit = one;
        name.resize(name.size() - one.key.size());
        break;
      }
      if (value.is_array()) {
        for (const Json& item : value)
          text += (text.empty() ? "" : " ") + scalar_text(item, {{}, {}, unit.times});
        if (text.empty())
          text = "-";
        else if (!unit.unit.empty())
          text += " " + std::string(unit.unit);
      } else {
        text = scalar_text(value, unit);
      }
    }
    *out += fmt::format("{:<28} {}\n", name, text);
  }
}

}  // namespace

std::string result_text(const Json& result) {
  std::string out;
  append(result, "", &out);
  return out;
}

void write_out(const std::string& text) {
  errno = 0;
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0)
    return;
  throw Failure(125, std::string("standard output: cannot write: ") + std::strerror(errno));
}

std::string plain_line(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte < 0x20 || byte >= 0x7f ? fmt::format("\\x{:02x}", byte) : std::string(1, c);
  }
  return out;
}

}  // namespace allot::bench
