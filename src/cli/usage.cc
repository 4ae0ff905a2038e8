// See usage.h. The checks know nothing of single commands, but for `--sim`, which may stand alone.
#include "cli/usage.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "cli/failure.h"
#include "cli/screen.h"
#include "cli/slice_spec.h"
#include "cli/words.h"

namespace allot::cli {
namespace {

using Words = std::vector<std::string>;

// Words of other tools for what allot calls otherwise.
constexpr std::pair<const char*, const char*> kOtherWords[] = {
    {"ls", "ps"},        {"list", "ps"},      {"top", "ps"},        {"status", "ps"},
    {"exec", "run"},     {"start", "run"},    {"launch", "run"},    {"pause", "freeze"},
    {"resume", "thaw"},  {"unpause", "thaw"}, {"unfreeze", "thaw"}, {"kill", "stop"},
    {"rm", "stop"},      {"update", "set"},   {"limit", "set"},     {"info", "gpus"},
    {"devices", "gpus"}, {"check", "doctor"}, {"cpu", "cpus"},      {"gpu", "gpus"},
    {"swap", "evict"},   {"logs", "log"},     {"journal", "log"},   {"history", "log"}};

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  std::vector<const CLI::App*> out;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (!sub->get_group().empty()) out.push_back(sub);
  }
  return out;
}

// Null if no command has this name.
const CLI::App* command_in(const CLI::App& app, const std::string& name) {
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (sub->get_name() == name) return sub;
  }
  return nullptr;
}

Words names_of(const CLI::App& app) {
  Words names;
  for (const CLI::App* sub : commands_of(app)) names.push_back(sub->get_name());
  return names;
}

std::string joined(const Words& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : ", ") + word;
  return out;
}

std::vector<const CLI::Option*> flags_of(const CLI::App& app) {
  std::vector<const CLI::Option*> out;
  for (const CLI::Option* option : app.get_options()) {
    if (option->nonpositional()) out.push_back(option);
  }
  return out;
}

std::vector<const CLI::Option*> positionals_of(const CLI::App& app) {
  std::vector<const CLI::Option*> out;
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) out.push_back(option);
  }
  return out;
}

std::string name_of(const CLI::Option& option) {
  return option.get_positional() ? option.get_type_name() : option.get_name();
}

// Whose words these are, for the beginning of a complaint: "ps: ", nothing for allot itself.
std::string whose(const CLI::App& app) {
  return app.get_parent() == nullptr ? "" : path_of(app).substr(sizeof "allot") + ": ";
}

[[noreturn]] void unknown_command(const CLI::App& app, const std::string& word) {
  const Words names = names_of(app);
  std::string hint = did_you_mean(word, names);
  for (const auto& [other, ours] : kOtherWords) {
    if (word == other && std::find(names.begin(), names.end(), ours) != names.end())
      hint = fmt::format("; did you mean '{}'?", ours);
  }
  wrong_usage("'{}' is not a command of {}{}{} the commands are {}", shown(word), path_of(app),
              hint, hint.empty() ? ";" : "", joined(names));
}

bool is_number(const std::string& word) {
  return word.size() > 1 && word[0] == '-' &&
         ((word[1] >= '0' && word[1] <= '9') || word[1] == '.');
}

// A walk over the words, one command deep at a time.
class Walk {
 public:
  Walk(const CLI::App& app, const Words& words) : app_(&app), words_(words) {}

  void run() {
    for (; at_ < words_.size() && !help_; ++at_) {
      const std::string& word = words_[at_];
      if (only_positionals_) {
        positional(word);
      } else if (word == "--") {
        only_positionals_ = true;
      } else if (word.size() > 1 && word[0] == '-' && !(is_number(word) && takes_positional())) {
        flag(word);
      } else if (const std::vector<const CLI::App*> subs = commands_of(*app_); !subs.empty()) {
        descend(word);
      } else {
        positional(word);
      }
    }
    if (!help_) end();
  }

 private:
  bool takes_positional() const { return !positionals_of(*app_).empty(); }

  void descend(const std::string& word) {
    const CLI::App* sub = command_in(*app_, word);
    if (sub == nullptr) unknown_command(*app_, word);
    check_together();
    app_ = sub;
    positionals_ = 0;
  }

  void flag(const std::string& word) {
    const std::string name = word.substr(0, word.find('='));
    const bool has_value = name.size() < word.size();
    const CLI::Option* option = app_->get_option_no_throw(name);
    if (option == nullptr || !option->nonpositional()) unknown_flag(name);
    if (name == "--help" || name == "-h") help_ = true;
    if (name == "--version") help_ = true;
    ++seen_[option];
    const bool takes = option->get_expected_max() > 0;
    if (!takes && has_value) wrong_usage("{}{}: takes no value", whose(*app_), name);
    if (seen_[option] > 1 && option->get_multi_option_policy() == CLI::MultiOptionPolicy::Throw &&
        takes) {
      wrong_usage("{}{}: given twice; write it once", whose(*app_), name);
    }
    if (takes && word.size() == name.size() + 1) {
      wrong_usage("{}{}: its value is empty; write {} {}", whose(*app_), name, name,
                  option->get_type_name());
    }
    if (!takes || has_value || option->get_items_expected_min() == 0 || name == "--sim") return;
    const bool missing = at_ + 1 >= words_.size() || words_[at_ + 1].starts_with("--") ||
                         app_->get_option_no_throw(words_[at_ + 1]) != nullptr;
    if (missing) {
      wrong_usage("{}{}: its value is missing; write {} {}", whose(*app_), name, name,
                  option->get_type_name());
    }
    if (words_[++at_].empty()) {
      wrong_usage("{}{}: its value is empty; write {} {}", whose(*app_), name, name,
                  option->get_type_name());
    }
  }

  [[noreturn]] void unknown_flag(const std::string& name) {
    Words names;
    for (const CLI::Option* option : flags_of(*app_)) names.push_back(option->get_name());
    // Another command's, written before it: "allot --json ps".
    for (size_t i = at_ + 1; i < words_.size() && app_->get_parent() == nullptr; ++i) {
      const CLI::App* sub = command_in(*app_, words_[i]);
      if (sub == nullptr || sub->get_option_no_throw(name) == nullptr) continue;
      wrong_usage("{}: not a flag of allot itself; write it after the command: allot {} {}",
                  shown(name), words_[i], shown(name));
    }
    const std::string hint =
        name == "-v" || name == "-V" ? "; did you mean '--version'?" : did_you_mean(name, names);
    wrong_usage("{}no flag '{}'{}{} see '{} --help'", whose(*app_), shown(name), hint,
                hint.empty() ? ";" : "", path_of(*app_));
  }

  void positional(const std::string& word) {
    const std::vector<const CLI::Option*> takes = positionals_of(*app_);
    if (at_ > 0 && words_[at_ - 1] == "--sim" && looks_like_sim_spec(word)) {
      wrong_usage("--sim: write '{}' after an equals sign: --sim={}", shown(word), shown(word));
    }
    size_t most = 0;
    for (const CLI::Option* option : takes) {
      most += static_cast<size_t>(std::max(option->get_items_expected_max(), 1));
    }
    if (++positionals_ > most) {
      wrong_usage("{}unexpected '{}'; usage: {}", whose(*app_), shown(word), usage_of(*app_));
    }
  }

  void end() {
    if (!commands_of(*app_).empty() && app_->get_require_subcommand_min() > 0) {
      wrong_usage("{}a command is missing; the commands are {}; see '{} --help'", whose(*app_),
                  joined(names_of(*app_)), path_of(*app_));
    }
    size_t needed = 0;
    for (const CLI::Option* option : positionals_of(*app_)) {
      if (!option->get_required() || ++needed <= positionals_) continue;
      wrong_usage("{}{} is missing; usage: {}", whose(*app_), option->get_type_name(),
                  usage_of(*app_));
    }
    check_together();
  }

  // Flags that go only with others, or not with others, and flags that must be there.
  void check_together() {
    for (const CLI::Option* option : flags_of(*app_)) {
      if (seen_.count(option) == 0) {
        if (!option->get_required()) continue;
        wrong_usage("{}{} is missing; write {} {}", whose(*app_), option->get_name(),
                    option->get_name(), option->get_type_name());
      }
      for (const CLI::Option* other : option->get_needs()) {
        if (seen_.count(other) == 0) {
          wrong_usage("{}{} has no effect without {}; add that, or leave {} out", whose(*app_),
                      option->get_name(), other->get_name(), option->get_name());
        }
      }
      for (const CLI::Option* other : option->get_excludes()) {
        if (seen_.count(other) > 0) {
          wrong_usage("{}{} and {} cannot be used together; write one of them", whose(*app_),
                      option->get_name(), other->get_name());
        }
      }
    }
  }

  static std::string usage_of(const CLI::App& app) {
    std::string text = path_of(app);
    for (const CLI::Option* option : positionals_of(app)) {
      text += option->get_required() ? " " + name_of(*option) : " [" + name_of(*option) + "]";
    }
    return text + (flags_of(app).size() > 1 ? " [FLAGS]" : "");
  }

  const CLI::App* app_;
  const Words& words_;
  size_t at_ = 0;
  size_t positionals_ = 0;
  bool only_positionals_ = false;
  bool help_ = false;
  std::map<const CLI::Option*, int> seen_;
};

}  // namespace

void check_words(const CLI::App& app, const Words& words) {
  Walk(app, words).run();
}

std::string path_of(const CLI::App& app) {
  return app.get_parent() == nullptr ? app.get_name()
                                     : path_of(*app.get_parent()) + " " + app.get_name();
}

const CLI::App& command_named(const CLI::App& app, const Words& words) {
  const CLI::App* current = &app;
  for (const std::string& word : words) {
    const CLI::App* sub = command_in(*current, word);
    if (sub == nullptr) unknown_command(*current, word);
    current = sub;
  }
  return *current;
}

CLI::Validator number_from(double least, double most, const char* what, const char* example) {
  return CLI::Validator(
      [=](std::string& text) {
        double value = 0;
        const char* end = text.data() + text.size();
        const auto got = std::from_chars(text.data(), end, value);
        const bool good = got.ec == std::errc{} && got.ptr == end && std::isfinite(value) &&
                          value >= least && value <= most;
        if (good) return std::string();
        return fmt::format("'{}' is not {} from {:g} to {:.0f}, such as {}", shown(text), what,
                           least, most, example);
      },
      "");
}

CLI::Validator seconds_up_to(double most) {
  return number_from(0, most, "a number of seconds", "30");
}

}  // namespace allot::cli
