// Help as text: what a command is for, its flags in groups, examples; in lines that fit the screen.
#include <algorithm>
#include <sstream>

#include "cli/screen.h"
#include "cli/usage.h"

namespace allot::cli {
namespace {

constexpr size_t kWidest = 100;  // longer lines are hard to read
constexpr size_t kWidestName = 26;

using Options = std::vector<const CLI::Option*>;

std::string heading(const std::string& text) {
  return coloured(Colour::kBold, text);
}

// "  --gpu LIST      only these GPUs ...", the meaning in a column of its own.
std::string entry(const std::string& name, const std::string& meaning, size_t column,
                  size_t width) {
  std::string line = "  " + name;
  if (columns_of(line) + 2 > column) {
    line += "\n" + std::string(column, ' ');
  } else {
    line.append(column - columns_of(line), ' ');
  }
  const size_t room = width > column + 20 ? width - column : 20;
  std::istringstream words(wrapped(meaning, room, 0));
  std::string part;
  bool first = true;
  while (std::getline(words, part)) {
    line += (first ? "" : "\n" + std::string(column, ' ')) + part;
    first = false;
  }
  return line + "\n";
}

std::string name_of_flag(const CLI::Option& option) {
  if (option.check_name("--help")) return "-h, --help";
  std::string name = option.get_name();
  const std::string value = option.get_expected_max() > 0 ? option.get_type_name() : "";
  if (value.empty()) return name;
  return name + (value.starts_with("[=") ? "" : " ") + value;
}

std::string usage_line(const CLI::App& app) {
  std::string line = path_of(app);
  if (!app.get_subcommands([](const CLI::App* sub) { return !sub->get_group().empty(); }).empty())
    line += " COMMAND";
  for (const CLI::Option* option : app.get_options()) {
    if (!option->get_positional()) continue;
    const std::string name =
        option->get_type_name() + (option->get_items_expected_max() > 1 ? "..." : "");
    line += option->get_required() ? " " + name : " [" + name + "]";
  }
  const bool flags =
      app.get_options([](const CLI::Option* o) { return o->nonpositional(); }).size() > 1;
  if (flags) line += " [FLAGS]";
  if (app.get_name() == "run") line += " -- PROGRAM [ARGUMENTS]";
  return line;
}

std::string section(const std::string& title,
                    const std::vector<std::pair<std::string, std::string>>& list, size_t width) {
  size_t column = 0;
  for (const auto& [name, meaning] : list) {
    const size_t columns = columns_of(name);
    if (columns <= kWidestName) column = std::max(column, columns);
  }
  std::string text = "\n" + heading(title) + "\n";
  for (const auto& [name, meaning] : list) text += entry(name, meaning, column + 4, width);
  return text;
}

// Lines that begin with blanks stay as they are; the others are paragraphs, and are broken anew.
std::string paragraphs(const std::string& text, size_t width) {
  std::istringstream lines(text);
  std::string line;
  std::string paragraph;
  std::string out;
  const auto flush = [&] {
    if (!paragraph.empty()) out += wrapped(paragraph, width, 0) + "\n";
    paragraph.clear();
  };
  while (std::getline(lines, line)) {
    const bool title = line.ends_with(":") && line.find(' ') == std::string::npos;
    if (line.empty() || line[0] == ' ' || title) {
      flush();
      out += (title                      ? heading(line)
              : columns_of(line) > width ? wrapped(line, width, 6)
                                         : line) +
             "\n";
    } else {
      paragraph += (paragraph.empty() ? "" : " ") + line;
    }
  }
  flush();
  return out;
}

}  // namespace

std::string help_of(const CLI::App& app) {
  const size_t width = std::min(screen_width(), kWidest);
  std::string text = wrapped(app.get_description(), width, 0) + "\n\n" + heading("Usage:") + " " +
                     usage_line(app) + "\n";
  std::vector<std::pair<std::string, std::string>> entries;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (!sub->get_group().empty()) entries.emplace_back(sub->get_name(), sub->get_description());
  }
  if (!entries.empty()) text += section("Commands:", entries, width);
  entries.clear();
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional())
      entries.emplace_back(option->get_type_name(), option->get_description());
  }
  if (!entries.empty()) text += section("Arguments:", entries, width);
  std::vector<std::string> groups;
  for (const CLI::Option* option : app.get_options()) {
    if (!option->nonpositional() || option->get_group().empty()) continue;
    if (std::find(groups.begin(), groups.end(), option->get_group()) == groups.end())
      groups.push_back(option->get_group());
  }
  // The usual group, with --help, comes last.
  std::stable_partition(groups.begin(), groups.end(),
                        [](const std::string& group) { return group != "Options"; });
  for (const std::string& group : groups) {
    entries.clear();
    for (const CLI::Option* option : app.get_options()) {
      if (option->nonpositional() && option->get_group() == group)
        entries.emplace_back(name_of_flag(*option), option->get_description());
    }
    text +=
        section((group == "Options" ? groups.size() > 1 ? "Other flags" : "Flags" : group) + ":",
                entries, width);
  }
  if (!app.get_footer().empty()) text += "\n" + paragraphs(app.get_footer(), width);
  return text;
}

}  // namespace allot::cli
