// The map of CPUs as a picture: boxes in boxes, packages > nodes > caches > cores > threads. Boxes
// are drawn twice: the first pass measures. See cpu_map.h.
#include <fmt/format.h>

#include <algorithm>

#include "cli/cpus/cpu_map.h"
#include "cli/output.h"
#include "cli/screen.h"

namespace allot::cli {
namespace {

constexpr double kCellWide = 43, kCellHigh = 22, kCorePad = 3, kPad = 12, kHead = 24;
constexpr double kMostWide = 1000;
constexpr size_t kColours = 8;

// The colours after the media query are for dark backgrounds. Each text keeps a contrast of 4.5.
constexpr const char* kMapStyle =
    "<style>text{font:12px system-ui,sans-serif;fill:#22262c}.n{font-size:11px}.b{font-weight:600}"
    ".h{font-size:13px;font-weight:600}.bg{fill:#fff}.p{fill:#f4f5f7;stroke:#c3c9d1}"
    ".d{fill:#fff;stroke:#c3c9d1}.k{fill:#fafbfc;stroke:#d7dce2}.c{fill:#e9ecf0}"
    ".x,.w{fill:url(#no)}.i{fill:#e9ecf0;stroke:#8a94a3;stroke-dasharray:3 2}.m{fill:#b9c0ca}"
    ".g{fill:#2f6f4f}.gt{fill:#fff;font-weight:600}.ol{stroke:#a9b1bc}"
    ".s0{fill:#a5c8f0}.s1{fill:#f5c98a}.s2{fill:#a8dcb4}.s3{fill:#f0a9a4}.s4{fill:#cdb6ec}"
    ".s5{fill:#8fd9d6}.s6{fill:#ecd77c}.s7{fill:#f0b3d2}"
    "@media(prefers-color-scheme:dark){text{fill:#dde1e6}.bg{fill:#15171b}"
    ".p{fill:#1d2025;stroke:#464d57}.d{fill:#15171b;stroke:#464d57}.k{fill:#1a1d22;stroke:#333941}"
    ".c{fill:#2a2f37}.i{fill:#2a2f37;stroke:#8a94a3}.m{fill:#565e69}.ol{stroke:#5d6672}"
    ".g{fill:#38805d}.gt{fill:#fff}"
    ".s0{fill:#2b5f9e}.s1{fill:#875715}.s2{fill:#276c3d}.s3{fill:#a1413b}.s4{fill:#6a4aa0}"
    ".s5{fill:#1b6a67}.s6{fill:#6f6116}.s7{fill:#99457a}}</style>"
    "<defs><pattern id=\"no\" width=\"6\" height=\"6\" patternTransform=\"rotate(45)\" "
    "patternUnits=\"userSpaceOnUse\"><line class=\"ol\" x1=\"0\" y1=\"0\" x2=\"0\" y2=\"6\" "
    "stroke-width=\"2\"/></pattern></defs>\n<rect class=\"bg\" width=\"100%\" height=\"100%\"/>\n";

std::string escaped(const std::string& text) {
  std::string out;
  for (char c : harmless(text)) out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : std::string(1, c);
  return out;
}

struct Size {
  double wide = 0, high = 0;
};

std::string box(const char* kind, double x, double y, const Size& size, double round) {
  return fmt::format(
      "<rect class=\"{}\" x=\"{:.0f}\" y=\"{:.0f}\" width=\"{:.0f}\" height=\"{:.0f}\" "
      "rx=\"{:.0f}\"/>\n",
      kind, x, y, size.wide, size.high, round);
}

std::string words(const char* kind, double x, double y, const std::string& text) {
  return fmt::format("<text class=\"{}\" x=\"{:.0f}\" y=\"{:.0f}\">{}</text>\n", kind, x, y,
                     escaped(text));
}

std::string class_of(const CpuState& state) {
  if (state.slice >= 0) return fmt::format("s{}", static_cast<size_t>(state.slice) % kColours);
  switch (state.mark) {
    case 'x':
      return "x";
    case '=':
    case '-':
      return "w";
    case '*':
      return "m";
    case 'i':
      return "i";
    default:
      return "c";
  }
}

std::string cell(const CpuState& state, double x, double y, const std::string& number) {
  std::string out = box(class_of(state).c_str(), x, y, {kCellWide - 4, kCellHigh - 4}, 3);
  bool marked = state.mark != '.' && state.mark != 'x';
  if (marked) out += words("n b", x + 3, y + 13, std::string(1, state.mark));
  out += fmt::format("<text class=\"n\" text-anchor=\"end\" x=\"{:.0f}\" y=\"{:.0f}\">{}</text>\n",
                     x + kCellWide - 8, y + 13, number);
  return out;
}

// The cores of a domain, at most eight a row.
Size draw_domain(const CpuMap& map, const MapDomain& domain, double x, double y, std::string* out) {
  size_t threads = 1;
  for (const auto& core : domain.cores) threads = std::max(threads, core.size());
  const size_t per_row = std::min<size_t>(std::max<size_t>(domain.cores.size(), 1), 8);
  const size_t rows = (domain.cores.size() + per_row - 1) / per_row;
  const double core_high = static_cast<double>(threads) * kCellHigh + kCorePad;
  const Size size{static_cast<double>(per_row) * (kCellWide + kCorePad) + 2 * kPad - 6,
                  static_cast<double>(rows) * (core_high + kCorePad) + kHead + 8};
  if (out == nullptr) return size;
  *out += box("d", x, y, size, 6);
  *out +=
      words("", x + 10, y + 17,
            domain.cache_bytes == 0 ? "L3 not reported" : "L3 " + size_text(domain.cache_bytes));
  for (size_t i = 0; i < domain.cores.size(); ++i) {
    double cx = x + 9 + static_cast<double>(i % per_row) * (kCellWide + kCorePad);
    double cy = y + kHead + static_cast<double>(i / per_row) * (core_high + kCorePad);
    *out += box("k", cx, cy, {kCellWide, core_high}, 4);
    for (size_t t = 0; t < domain.cores[i].size(); ++t) {
      int cpu = domain.cores[i][t];
      *out += cell(map.state_of(cpu), cx + 2, cy + 3.5 + static_cast<double>(t) * kCellHigh,
                   std::to_string(cpu));
    }
  }
  return size;
}

// Boxes from left to right, and on the next line where the width is used up.
class Flow {
 public:
  Flow(double x, double y, double most) : x_(x), at_x_(x), y_(y), right_(x + most) {}
  // The corner of a box of this size.
  Size place(const Size& size) {
    if (at_x_ > x_ && at_x_ + size.wide > right_) {
      y_ += line_ + kPad;
      at_x_ = x_;
      line_ = 0;
    }
    Size corner{at_x_, y_};
    at_x_ += size.wide + kPad;
    line_ = std::max(line_, size.high);
    used_ = std::max(used_, at_x_ - kPad - x_);
    return corner;
  }
  double bottom() const { return y_ + line_; }
  double wide() const { return used_; }

 private:
  double x_, at_x_, y_, right_, line_ = 0, used_ = 0;
};

}  // namespace

std::string CpuMap::svg() const {
  const auto node_box = [this](const MapNode& node, double x, double y, std::string* out) {
    const double head = node.gpus.empty() ? kHead : kHead + 28;
    Flow flow(x + kPad, y + head + 6, kMostWide - 4 * kPad);
    const std::string title = heading_of(node);
    for (const MapDomain& domain : node.domains) {
      Size corner = flow.place(draw_domain(*this, domain, 0, 0, nullptr));
      if (out != nullptr) draw_domain(*this, domain, corner.wide, corner.high, out);
    }
    double chips = 0;
    for (int i : node.gpus) {
      const double wide = 22 + 7.2 * static_cast<double>(gpu_name(i).size());
      if (out != nullptr) {
        *out += box("g", x + kPad + chips, y + kHead + 2, {wide, 22}, 11);
        *out += words("gt", x + kPad + chips + 11, y + kHead + 17, gpu_name(i));
      }
      chips += wide + 8;
    }
    if (out != nullptr) *out += words("b", x + kPad, y + 18, title);
    const double text = 7 * static_cast<double>(title.size());
    return Size{std::max({flow.wide(), chips, text}) + 2 * kPad,
                (node.domains.empty() ? y + head : flow.bottom()) + kPad - y};
  };
  std::string body;
  double y = kPad, wide = 420;
  for (const MapPackage& package : packages_) {
    const double head = package.package < 0 ? 4 : kHead;
    Flow flow(2 * kPad, y + head, kMostWide);
    std::string inside;
    for (const MapNode& node : package.nodes) {
      const Size size = node_box(node, 0, 0, nullptr);
      const Size corner = flow.place(size);
      inside += box("k", corner.wide, corner.high, size, 8);
      node_box(node, corner.wide, corner.high, &inside);
    }
    const Size size{flow.wide() + 2 * kPad, flow.bottom() + kPad - y};
    // What has no package, as memory without CPUs, stands alone.
    if (package.package >= 0) {
      body += box("p", kPad, y, size, 10);
      body += words("h", 2 * kPad, y + 17, fmt::format("package {}", package.package));
    }
    body += inside;
    wide = std::max(wide, size.wide + 2 * kPad);
    y += size.high + kPad;
  }
  for (int i : lost_gpus_) {
    body += words("", kPad, y + 12, gpu_name(i) + ": its place is unknown");
    y += 20;
  }
  if (!topology_.offline().empty()) {
    body += words("", kPad, y + 12, "offline: CPUs " + to_list(topology_.offline()));
    y += 20;
  }
  const auto entry = [&](const CpuState& state, const std::string& text) {
    body += cell(state, kPad, y, "");
    body += words("", kPad + kCellWide + 4, y + 14, text);
    y += kCellHigh + 2;
  };
  for (size_t i = 0; i < leases_.size(); ++i) {
    entry({letter(i), static_cast<int>(i)},
          fmt::format("{}: CPUs {}{}", leases_[i].name, to_list(leases_[i].cpus),
                      leases_[i].exclusive ? ", exclusive" : ""));
  }
  for (const auto& [mark, meaning] : legend()) entry({mark, -1}, meaning);
  return fmt::format(
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0f} {1:.0f}\" "
             "width=\"{0:.0f}\" height=\"{1:.0f}\">\n",
             wide, y + kPad) +
         kMapStyle + body + "</svg>\n";
}

}  // namespace allot::cli
