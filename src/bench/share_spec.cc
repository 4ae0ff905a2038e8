// Reading "key=value,key=value". Every error names the field and the values it takes.
#include "bench/share_spec.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>

#include "base/units.h"
#include "bench/driver_api.h"

namespace allot::bench {
namespace {

struct Kind {
  const char* name;
  LoadKind kind;
  double kernel_us;
  unsigned inflight;
  unsigned kernels;
};

// The first name of a kind is the one that is printed.
constexpr std::array<Kind, 11> kKinds = {{
    {"full", LoadKind::kFull, 1000, 16, 1},
    {"eager", LoadKind::kFull, 1000, 16, 1},
    {"graph", LoadKind::kGraph, 200, 4, 20},
    {"long", LoadKind::kLong, 50000, 2, 1},
    {"step", LoadKind::kStep, 16.5, 1, 32},
    {"wait", LoadKind::kWait, 200, 1, 1},
    {"mixed", LoadKind::kMixed, 1000, 4, 1},
    {"launch-bound", LoadKind::kLaunchBound, 20, 50, 1},
    {"bursty", LoadKind::kBursty, 1000, 16, 1},
    {"request", LoadKind::kRequest, 200, 1, 1},
    {"idle", LoadKind::kIdle, 1, 1, 1},
}};

std::string kind_names() {
  std::string names;
  for (const Kind& kind : kKinds) {
    if (kind_name(kind.kind) == std::string_view(kind.name))
      names += (names.empty() ? "" : ", ") + std::string(kind.name);
  }
  return names;
}

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  for (size_t begin = 0;;) {
    const size_t end = text.find(separator, begin);
    std::string part =
        text.substr(begin, end == std::string::npos ? std::string::npos : end - begin);
    part.erase(0, part.find_first_not_of(' '));
    part.erase(part.find_last_not_of(' ') + 1);
    parts.push_back(part);
    if (end == std::string::npos) return parts;
    begin = end + 1;
  }
}

double number(const std::string& key, const std::string& value, bool zero_allowed) {
  char* end = nullptr;
  const double parsed = std::strtod(value.c_str(), &end);
  const bool whole = end != value.c_str() && *end == '\0';
  if (!whole || !(parsed >= 0) || !(parsed < 1e9) || (parsed == 0 && !zero_allowed)) {
    throw Failure(2, fmt::format("{}={}: not a number{}", key, value,
                                 zero_allowed ? " of at least 0" : " above 0"));
  }
  return parsed;
}

uint32_t permille(const std::string& key, const std::string& value) {
  if (value == "none" || value == "0") return 0;
  const Result<uint32_t> parsed = parse_percent(value);
  if (!parsed) {
    throw Failure(2, fmt::format("{}={}: not a percentage of 0.1 to 100, nor 'none'", key, value));
  }
  return *parsed;
}

bool set_grant(Grant* grant, const std::string& key, const std::string& value) {
  if (key == "share") {
    grant->share_permille = permille(key, value);
  } else if (key == "max") {
    grant->max_permille = permille(key, value);
  } else {
    return false;
  }
  return true;
}

bool set_load(LoadSpec* load, const std::string& key, const std::string& value) {
  if (key == "kernel-us") {
    load->kernel_us = number(key, value, false);
  } else if (key == "inflight") {
    load->inflight = static_cast<unsigned>(std::max(1.0, number(key, value, false)));
  } else if (key == "period-us") {
    load->period_us = number(key, value, false);
  } else if (key == "host-us") {
    load->host_us = number(key, value, true);
  } else if (key == "busy-ms") {
    load->busy_ms = number(key, value, false);
  } else if (key == "idle-ms") {
    load->idle_ms = number(key, value, false);
  } else if (key == "busy") {
    load->busy_percent = std::min(100.0, number(key, value, false));
  } else if (key == "from") {
    load->from_s = number(key, value, true);
  } else {
    return false;
  }
  return true;
}

LoadSpec load_named(const std::string& name) {
  for (const Kind& kind : kKinds) {
    if (name != kind.name) continue;
    LoadSpec load;
    load.kind = kind.kind;
    load.kernel_us = kind.kernel_us;
    load.inflight = kind.inflight;
    load.kernels = kind.kernels;
    return load;
  }
  throw Failure(2, fmt::format("load={}: not a load; write {}", name, kind_names()));
}

struct Field {
  std::string key, value;
};

// `loads`: the first field may be a load and its share.
std::vector<Field> fields_of(const std::string& text, bool loads) {
  std::vector<Field> fields;
  for (const std::string& part : split(text, ',')) {
    const size_t equals = part.find('=');
    if (part.empty()) continue;
    if (equals == std::string::npos && loads && fields.empty()) {  // LOAD or LOAD:SHARE
      const size_t colon = part.find(':');
      fields.push_back({"load", part.substr(0, colon)});
      if (colon != std::string::npos) fields.push_back({"share", part.substr(colon + 1)});
      continue;
    }
    if (equals == std::string::npos || equals == 0 || equals + 1 == part.size()) {
      throw Failure(2,
                    fmt::format("'{}': not KEY=VALUE, such as share=30{}", part,
                                loads ? "; a load and its share come first, as in step:30" : ""));
    }
    fields.push_back({part.substr(0, equals), part.substr(equals + 1)});
  }
  return fields;
}

}  // namespace

SliceSpec parse_slice(const std::string& text) {
  SliceSpec slice;
  slice.text = text;
  const std::vector<Field> fields = fields_of(text, true);
  // The load first: it brings the defaults that the other fields change.
  for (const Field& field : fields) {
    if (field.key == "load") slice.load = load_named(field.value);
  }
  for (const auto& [key, value] : fields) {
    if (key == "load" || set_grant(&slice.grant, key, value) || set_load(&slice.load, key, value)) {
      continue;
    }
    if (key == "priority") {
      slice.priority = value;
    } else if (key == "level") {
      slice.level = value;
    } else if (key == "latency-ms") {
      slice.latency_ms = number(key, value, false);
    } else {
      throw Failure(
          2, fmt::format(
                 "{}: not a field of a slice; write load, share, max, priority, "
                 "level, latency-ms, kernel-us, inflight, period-us, host-us, busy-ms, idle-ms, "
                 "busy, from",
                 key));
    }
  }
  return slice;
}

std::vector<Grant> parse_phase(const std::string& text, const std::vector<Grant>& before) {
  const std::vector<std::string> groups = split(text, '/');
  if (groups.size() != before.size()) {
    throw Failure(2, fmt::format("--phase '{}': {} groups for {} slices; separate them by '/'",
                                 text, groups.size(), before.size()));
  }
  std::vector<Grant> grants = before;
  for (size_t i = 0; i < groups.size(); ++i) {
    for (const auto& [key, value] : fields_of(groups[i], false)) {
      if (set_grant(&grants[i], key, value)) continue;
      throw Failure(2, fmt::format("--phase: {}: only share and max change", key));
    }
  }
  return grants;
}

const char* kind_name(LoadKind kind) {
  for (const Kind& known : kKinds) {
    if (known.kind == kind) return known.name;
  }
  return "?";
}

nlohmann::ordered_json load_json(const LoadSpec& load) {
  return {{"load", kind_name(load.kind)},      {"kernel_us", load.kernel_us},
          {"inflight", load.inflight},         {"kernels", load.kernels},
          {"period_us", load.period_us},       {"host_us", load.host_us},
          {"busy_ms", load.busy_ms},           {"idle_ms", load.idle_ms},
          {"busy_percent", load.busy_percent}, {"from_s", load.from_s}};
}

LoadSpec load_from_json(const nlohmann::json& json) {
  LoadSpec load = load_named(json.at("load"));
  load.kernel_us = json.at("kernel_us");
  load.inflight = json.at("inflight");
  load.kernels = json.at("kernels");
  load.period_us = json.at("period_us");
  load.host_us = json.at("host_us");
  load.busy_ms = json.at("busy_ms");
  load.idle_ms = json.at("idle_ms");
  load.busy_percent = json.at("busy_percent");
  load.from_s = json.at("from_s");
  return load;
}

std::string LoadSpec::calibration_key() const {
  LoadSpec same = *this;
  same.from_s = 0;
  return load_json(same).dump();
}

}  // namespace allot::bench
