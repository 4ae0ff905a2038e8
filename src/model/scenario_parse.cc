// Reading scenario files; see scenario.h for the language.
#include <charconv>
#include <cmath>
#include <sstream>

#include "model/scenario.h"

namespace allot::model {
namespace {

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream stream(line.substr(0, line.find('#')));
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

bool number(std::string_view text, double* value) {
  auto [end, err] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return err == std::errc() && end == text.data() + text.size() && std::isfinite(*value);
}

// "250ms", "1.5s", "10": milliseconds. At most an hour, so that a run ends.
bool duration(std::string text, uint64_t* ticks) {
  double scale = 1;
  if (text.ends_with("ms")) {
    text.resize(text.size() - 2);
  } else if (text.ends_with('s')) {
    text.resize(text.size() - 1);
    scale = 1000;
  }
  double value = 0;
  if (!number(text, &value) || value < 0 || value * scale > 3.6e6) return false;
  *ticks = static_cast<uint64_t>(std::llround(value * scale));
  return true;
}

class Reader {
 public:
  std::string line(const std::vector<std::string>& words, int number) {
    const std::string& key = words[0];
    if (key == "kernel") return kernel(words);
    if (key == "hierarchy") return hierarchy(words);
    if (key == "machine") return machine(words);
    if (key == "balance") return balance(words);
    if (key == "group") return group(words, number);
    if (key == "task") return task(words);
    if (key == "at") return at(words, number);
    if (key == "run" && words.size() == 2) {
      if (!duration(words[1], &scenario.ticks) || scenario.ticks == 0)
        return "'" + words[1] + "' is not a duration";
      if (scenario.ticks > 100000) return "at most 100 s can be run";
      return "";
    }
    return "'" + key + "' is not known here";
  }

  Scenario scenario;

 private:
  std::string kernel(const std::vector<std::string>& words) {
    std::string name = words.size() == 2 ? words[1] : "";
    scenario.kernel = name;
    scenario.form = name.starts_with("2.") ? SchedForm::k2_6_23 : SchedForm::kToday;
    if (name == "2.6.23" || name == "2.6.25") {
      scenario.era = Era::k2_6_25;
    } else if (name == "6.1") {
      scenario.era = Era::k6_1;
    } else if (name == "6.12") {
      scenario.era = Era::k6_12;
    } else {
      return "kernel is one of 2.6.23, 2.6.25, 6.1, 6.12";
    }
    return "";
  }

  std::string hierarchy(const std::vector<std::string>& words) {
    if (words.size() != 2 || (words[1] != "v1" && words[1] != "v2")) return "hierarchy is v1 or v2";
    scenario.hierarchy = words[1] == "v1" ? Hierarchy::kV1 : Hierarchy::kV2;
    return "";
  }

  std::string machine(const std::vector<std::string>& words) {
    for (size_t i = 1; i < words.size(); ++i) {
      size_t equals = words[i].find('=');
      std::string key = words[i].substr(0, equals);
      std::string value = equals == std::string::npos ? "" : words[i].substr(equals + 1);
      double count = 0;
      bool whole =
          number(value, &count) && count >= 1 && count <= 256 && count == std::floor(count);
      if (key == "cpus" && whole) {
        scenario.cpus = static_cast<int>(count);
      } else if (key == "nodes" && whole) {
        scenario.nodes = static_cast<int>(count);
      } else if (key == "llc") {
        std::istringstream parts(value);
        for (std::string part; std::getline(parts, part, '/');) {
          Mask mask;
          if (parse_list(part, Mask::kBits, &mask) != 0)
            return "'" + part + "' is not a list of CPUs";
          scenario.llc.push_back(mask);
        }
      } else {
        return "'" + words[i] + "': cpus=N, nodes=N or llc=LIST/LIST, N from 1 to 256";
      }
    }
    return "";
  }

  std::string balance(const std::vector<std::string>& words) {
    if (words.size() == 2 && words[1] == "off") {
      scenario.balance_every = 0;
      return "";
    }
    if (words.size() == 2 && words[1].starts_with("every=") &&
        duration(words[1].substr(6), &scenario.balance_every))
      return "";
    return "balance is off or every=DURATION";
  }

  std::string group(const std::vector<std::string>& words, int line_number) {
    if (words.size() < 2 || !words[1].starts_with('/'))
      return "a group is named by a path that begins with /";
    ScenarioGroup group;
    group.path = words[1];
    group.line = line_number;
    for (size_t i = 2; i < words.size(); ++i) {
      if (words[i].starts_with("cpus=")) {
        group.cpus = words[i].substr(5);
      } else if (words[i].starts_with("mems=")) {
        group.mems = words[i].substr(5);
      } else if (words[i] == "exclusive") {
        group.exclusive = true;
      } else {
        return "'" + words[i] + "': cpus=LIST, mems=LIST or exclusive";
      }
    }
    scenario.groups.push_back(group);
    return "";
  }

  std::string task(const std::vector<std::string>& words) {
    if (words.size() < 2) return "a task needs a name";
    ScenarioTask task;
    double count = 0;
    for (size_t i = 2; i < words.size(); ++i) {
      const std::string& word = words[i];
      std::string value = word.substr(std::min(word.size(), word.find('=') + 1));
      double share = 0;
      if (word.starts_with("in=")) {
        task.group = value;
      } else if (word.starts_with("pin=")) {
        Mask mask;
        if (parse_list(value, Mask::kBits, &mask) != 0)
          return "'" + value + "' is not a list of CPUs";
        task.pin = mask;
      } else if ((word.starts_with("count=") && number(value, &count) && count >= 1 &&
                  count <= 10000) ||
                 (word.starts_with("weight=") && number(value, &task.weight) && task.weight > 0)) {
        continue;  // number() has put it where it belongs
      } else if (word.starts_with("load=") && value.ends_with('%') &&
                 number(value.substr(0, value.size() - 1), &share) && share > 0 && share <= 100) {
        task.load = share / 100;
      } else if (word == "sleeping") {
        task.sleeping = true;
      } else {
        return "'" + word + "': in=PATH, pin=LIST, count=N, weight=W, load=P% or sleeping";
      }
    }
    for (int i = 1; i <= std::max(1, static_cast<int>(count)); ++i) {
      task.name = words[1] + (count > 0 ? std::to_string(i) : "");
      for (const ScenarioTask& other : scenario.tasks) {
        if (other.name == task.name) return "there is a task " + task.name + " already";
      }
      scenario.tasks.push_back(task);
    }
    return scenario.tasks.size() > 10000 ? "too many tasks" : "";
  }

  std::string at(const std::vector<std::string>& words, int line_number) {
    ScenarioEvent event;
    event.line = line_number;
    if (words.size() < 3 || !duration(words[1], &event.tick)) return "at DURATION ACTION ...";
    event.words.assign(words.begin() + 2, words.end());
    constexpr struct {
      std::string_view name;
      size_t words;
    } kActions[] = {{"pin", 3},  {"write", 4}, {"move", 3},    {"sleep", 2},  {"wake", 2},
                    {"exit", 2}, {"fork", 3},  {"offline", 2}, {"online", 2}, {"balance", 2},
                    {"scan", 2}, {"mkdir", 2}, {"rmdir", 2},   {"show", 2},   {"fork-begin", 3}};
    for (const auto& action : kActions) {
      if (event.words[0] != action.name) continue;
      // A list that ends here is the empty one; more words are one text with spaces.
      if (action.name == "write" && event.words.size() == 3) event.words.push_back("");
      while (action.name == "write" && event.words.size() > 4) {
        event.words[3] += " " + event.words[4];
        event.words.erase(event.words.begin() + 4);
      }
      if (event.words.size() != action.words)
        return event.words[0] + " takes " + std::to_string(action.words - 1) + " arguments";
      if (!scenario.events.empty() && scenario.events.back().tick > event.tick)
        return "events must be in order of time";
      scenario.events.push_back(event);
      return "";
    }
    return "'" + event.words[0] + "' is not an action";
  }
};

}  // namespace

std::optional<Scenario> parse_scenario(std::string_view text, std::string* error) {
  Reader reader;
  std::istringstream stream{std::string(text)};
  int number = 0;
  for (std::string line; std::getline(stream, line);) {
    ++number;
    std::vector<std::string> words = words_of(line);
    if (words.empty()) continue;
    std::string wrong = reader.line(words, number);
    if (wrong.empty()) continue;
    *error = "line " + std::to_string(number) + ": " + wrong;
    return std::nullopt;
  }
  if (reader.scenario.tasks.empty()) {
    *error = "no task: a line such as 'task worker count=4' is needed";
    return std::nullopt;
  }
  return reader.scenario;
}

}  // namespace allot::model
