// The chart of a scenario; see scenario.h. Nothing is cut without saying so.
#include <algorithm>
#include <cmath>

#include "model/print.h"
#include "model/scenario.h"

namespace allot::model {
namespace {

constexpr double kLeft = 64, kWidth = 880, kStrip = 46, kTop = 62;
constexpr size_t kMostArrows = 80;
constexpr size_t kLineChars = 140;

std::string xml(const std::string& text) {
  std::string out;
  for (char c : text) out += c == '&' ? "&amp;" : c == '<' ? "&lt;" : std::string(1, c);
  return out;
}

constexpr const char* kStyle =
    "<style>text{font:11px sans-serif;fill:#222}.t{font-size:14px}.s{fill:#666}.bg{fill:#fff}"
    ".q0{fill:#eef0f2}.q1{fill:#86c5a4}.q2{fill:#f2cf66}.q3{fill:#ee9650}.q4{fill:#de6456}"
    ".n{fill:#1b1b1b}.g{stroke:#bbb}.e{stroke:#557;stroke-dasharray:2 "
    "3}.m{stroke:#2b4fa0;fill:none}"
    ".h{fill:#2b4fa0}.o{fill:url(#off)}.w{fill:#b22}.ol{stroke:#999}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.s{fill:#aaa}.bg{fill:#16181c}.q0{fill:#"
    "262a30}"
    ".g{stroke:#555}.e{stroke:#99b}.m{stroke:#9bb8ff}.h{fill:#9bb8ff}.w{fill:#ff8a80}.n{fill:#"
    "1b1b1b}"
    ".ol{stroke:#888}}</style>";

class Chart {
 public:
  explicit Chart(const ScenarioResult& result)
      : r_(result),
        scale_(kWidth / static_cast<double>(std::max<uint64_t>(1, result.ticks))),
        bottom_(kTop + kStrip * result.cpus) {
    for (const auto& row : r_.queues) {
      for (const auto& queue : row) longest_ = std::max(longest_, queue.size());
    }
  }

  std::string render() {
    std::string body;
    head(&body);
    for (int cpu = 0; cpu < r_.cpus; ++cpu) strip(&body, cpu);
    axis(&body);
    arrows(&body);
    double height = events(&body);
    std::string out;
    print_to(&out,
             "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" "
             "height=\"%.0f\">\n",
             kLeft + kWidth + 24, height, kLeft + kWidth + 24, height);
    out += kStyle;
    out +=
        "<defs><pattern id=\"off\" width=\"6\" height=\"6\" patternTransform=\"rotate(45)\" "
        "patternUnits=\"userSpaceOnUse\"><line class=\"ol\" x1=\"0\" y1=\"0\" x2=\"0\" y2=\"6\" "
        "stroke-width=\"2\"/></pattern><marker id=\"a\" markerWidth=\"7\" markerHeight=\"7\" "
        "refX=\"5\" "
        "refY=\"3\" orient=\"auto\"><path class=\"h\" d=\"M0,0 L6,3 L0,6 z\"/></marker></defs>\n"
        "<rect class=\"bg\" width=\"100%\" height=\"100%\"/>\n";
    return out + body + "</svg>\n";
  }

 private:
  double x(uint64_t tick) const { return kLeft + scale_ * static_cast<double>(tick); }
  double floor_of(int cpu) const { return kTop + kStrip * (cpu + 1) - 4; }

  void head(std::string* out) const {
    print_to(
        out,
        "<text class=\"t\" x=\"%.0f\" y=\"20\">Tasks on each CPU's run queue, Linux %s</text>\n",
        kLeft, xml(r_.kernel).c_str());
    constexpr const char* kNames[] = {"idle", "1 task", "2", "3", "4 and more"};
    double at = kLeft;
    for (int i = 0; i < 5; ++i) {
      print_to(
          out,
          "<rect class=\"q%d\" x=\"%.0f\" y=\"32\" width=\"14\" height=\"12\"/><text x=\"%.0f\" "
          "y=\"42\">%s</text>\n",
          i, at, at + 18, kNames[i]);
      at += i == 2 || i == 3 ? 44 : 76;
    }
    print_to(out,
             "<rect class=\"o\" x=\"%.0f\" y=\"32\" width=\"14\" height=\"12\"/><text x=\"%.0f\" "
             "y=\"42\">offline</text>\n",
             at + 24, at + 42);
    print_to(out,
             "<line class=\"m\" marker-end=\"url(#a)\" x1=\"%.0f\" y1=\"44\" x2=\"%.0f\" "
             "y2=\"33\"/><text x=\"%.0f\" y=\"42\">a task moves</text>\n",
             at + 104, at + 104, at + 112);
    print_to(out,
             "<line class=\"e\" x1=\"%.0f\" y1=\"32\" x2=\"%.0f\" y2=\"46\"/><text x=\"%.0f\" "
             "y=\"42\">an event, by its number</text>\n",
             at + 200, at + 200, at + 206);
  }

  bool offline(size_t tick, int cpu) const {
    return tick < r_.online.size() && !r_.online[tick].test(cpu);
  }

  void strip(std::string* out, int cpu) const {
    double base = floor_of(cpu);
    print_to(out, "<text x=\"8\" y=\"%.0f\">CPU %d</text>\n", base - 12, cpu);
    for (size_t tick = 0; tick < r_.queues.size();) {
      const auto& queue = r_.queues[tick][static_cast<size_t>(cpu)];
      bool off = offline(tick, cpu);
      size_t end = tick;
      while (end < r_.queues.size() && offline(end, cpu) == off &&
             r_.queues[end][static_cast<size_t>(cpu)].size() == queue.size())
        ++end;
      block(out, base, tick, end, queue, off);
      tick = end;
    }
    print_to(out, "<line class=\"g\" x1=\"%.0f\" y1=\"%.1f\" x2=\"%.0f\" y2=\"%.1f\"/>\n", kLeft,
             base, kLeft + kWidth, base);
  }

  void block(std::string* out, double base, size_t from, size_t to,
             const std::vector<std::string>& queue, bool off) const {
    double part = static_cast<double>(queue.size()) / static_cast<double>(longest_);
    double height = off || queue.empty() ? kStrip - 8 : std::max(4.0, (kStrip - 8) * part);
    double width = scale_ * static_cast<double>(to - from);
    std::string names;
    std::vector<std::string> sorted(queue);
    std::sort(sorted.begin(), sorted.end());
    for (const std::string& name : sorted) names += (names.empty() ? "" : " ") + name;
    print_to(out,
             "<rect class=\"%s%s\" x=\"%.2f\" y=\"%.2f\" width=\"%.2f\" height=\"%.2f\"><title>",
             off ? "o" : "q", off ? "" : std::to_string(std::min<size_t>(queue.size(), 4)).c_str(),
             x(from), base - height, width, height);
    print_to(out, "%zu-%zu ms: %s", from, to, off ? "offline" : queue.empty() ? "idle" : "");
    *out += xml(names) + "</title></rect>\n";
    const bool fits = 6.2 * static_cast<double>(names.size()) < width - 6 && !names.empty();
    const std::string count = std::to_string(queue.size()) + " tasks";
    if (!fits && !names.empty() && width > 46) names = count;
    if (!fits && names != count) return;
    // On a low bar there is no room: above it then.
    const bool inside = height >= 11;
    print_to(out, "<text%s x=\"%.1f\" y=\"%.1f\">%s</text>\n", inside ? " class=\"n\"" : "",
             x(from) + 3, inside ? base - 3 : base - height - 3, xml(names).c_str());
  }

  void axis(std::string* out) const {
    double step = 1;
    for (double rough = static_cast<double>(r_.ticks) / 10; step < rough;)
      step *= step * 2 >= rough                                          ? 2
              : std::fmod(std::log10(step), 1) == 0 && step * 5 >= rough ? 5
                                                                         : 10;
    for (double at = 0; at <= static_cast<double>(r_.ticks); at += step) {
      double px = kLeft + scale_ * at;
      print_to(
          out,
          "<line class=\"g\" x1=\"%.1f\" y1=\"%.0f\" x2=\"%.1f\" y2=\"%.0f\"/><text class=\"s\" "
          "text-anchor=\"middle\" x=\"%.1f\" y=\"%.0f\">%.0f</text>\n",
          px, bottom_, px, bottom_ + 5, px, bottom_ + 17, at);
    }
    print_to(out, "<text class=\"s\" x=\"8\" y=\"%.0f\">ms</text>\n", bottom_ + 17);
  }

  void arrows(std::string* out) const {
    for (size_t i = 0; i < std::min(r_.migrations.size(), kMostArrows); ++i) {
      const Migration& move = r_.migrations[i];
      double to = floor_of(move.to) - (move.to > move.from ? kStrip - 10 : 2);
      double from = floor_of(move.from) - (move.to > move.from ? 2 : kStrip - 10);
      print_to(out,
               "<line class=\"m\" marker-end=\"url(#a)\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
               "y2=\"%.1f\"><title>",
               x(move.tick), from, x(move.tick), to);
      *out += xml(r_.names.at(move.tid)) + ": CPU " + std::to_string(move.from) + " to " +
              std::to_string(move.to) + " (" + move_cause_name(move.cause) + ")</title></line>\n";
    }
  }

  // The list of events below; the height of the whole picture.
  double events(std::string* out) const {
    double y = bottom_ + 38;
    for (size_t i = 0; i < r_.log.size(); ++i) {
      const ScenarioLog& entry = r_.log[i];
      bool first = i == 0 || r_.log[i - 1].tick != entry.tick;
      if (first && entry.tick > 0) {
        print_to(
            out,
            "<line class=\"e\" x1=\"%.1f\" y1=\"%.0f\" x2=\"%.1f\" y2=\"%.0f\"/><text class=\"s\" "
            "x=\"%.1f\" y=\"%.0f\">%zu</text>\n",
            x(entry.tick), kTop - 4, x(entry.tick), bottom_, x(entry.tick) + 2, kTop - 6, i + 1);
      }
      print_to(out,
               "<text class=\"s\" text-anchor=\"end\" x=\"28\" y=\"%.0f\">%zu</text><text "
               "class=\"s\" text-anchor=\"end\" x=\"84\" y=\"%.0f\">%llu ms</text>\n",
               y, i + 1, y, static_cast<unsigned long long>(entry.tick));
      for (size_t at = 0; at == 0 || at < entry.text.size(); at += kLineChars, y += 14) {
        print_to(out, "<text%s x=\"%d\" y=\"%.0f\">", entry.err == 0 ? "" : " class=\"w\"",
                 at == 0 ? 92 : 108, y);
        *out += xml(entry.text.substr(at, kLineChars)) + "</text>\n";
      }
    }
    std::string more;
    if (r_.migrations.size() > kMostArrows)
      more = " (the first " + std::to_string(kMostArrows) + " are drawn)";
    print_to(
        out,
        "<text x=\"8\" y=\"%.0f\">%zu moves%s; queues differ by %.2f tasks on average</text>\n",
        y + 6, r_.migrations.size(), more.c_str(), r_.mean_imbalance);
    return y + 20;
  }

  const ScenarioResult& r_;
  double scale_;
  double bottom_;
  size_t longest_ = 1;
};

}  // namespace

std::string scenario_svg(const ScenarioResult& result) {
  return Chart(result).render();
}

}  // namespace allot::model
