// What must not happen here: a second list of flags. Everything is asked of CLI11.
#include "cli/manual/command_table.h"

#include <algorithm>
#include <sstream>

#include "cli/usage.h"

namespace allot::cli::manual {
namespace {

bool is_choice(const std::string& word) {
  return !word.empty() && std::all_of(word.begin(), word.end(),
                                      [](char c) { return (c >= 'a' && c <= 'z') || c == '-'; });
}

// "PERCENT|none": what is written small is typed as it is.
std::vector<std::string> choices_of(const std::string& value) {
  std::vector<std::string> out;
  std::istringstream words(value);
  for (std::string word; std::getline(words, word, '|');) {
    if (is_choice(word)) out.push_back(word);
  }
  return out;
}

Flag flag_of(const CLI::Option& option) {
  Flag flag;
  for (const std::string& name : option.get_snames()) flag.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) flag.names.push_back("--" + name);
  flag.meaning = option.get_description();
  flag.group = option.get_group();
  flag.repeats = option.get_items_expected_max() > 1;
  if (option.get_expected_max() == 0) return flag;
  flag.value = option.get_type_name();
  if (flag.value.starts_with("[=")) {
    flag.value_optional = true;
    flag.value = flag.value.substr(2, flag.value.size() - 3);
  }
  flag.choices = choices_of(flag.value);
  return flag;
}

}  // namespace

Command read_table(const CLI::App& app) {
  Command command;
  command.path = path_of(app);
  command.name = app.get_name();
  command.meaning = app.get_description();
  command.footer = app.get_footer();
  command.takes_program = command.path == "allot run";
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) {
      command.arguments.push_back({option->get_type_name(), option->get_description(),
                                   option->get_required(), option->get_items_expected_max() > 1});
    } else if (!option->get_group().empty()) {
      command.flags.push_back(flag_of(*option));
    }
  }
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (!sub->get_group().empty()) command.commands.push_back(read_table(*sub));
  }
  return command;
}

std::vector<const Command*> all_of(const Command& top) {
  std::vector<const Command*> out = {&top};
  for (const Command& sub : top.commands) {
    for (const Command* command : all_of(sub)) out.push_back(command);
  }
  return out;
}

std::string page_name(const Command& command) {
  std::string name = command.path;
  std::replace(name.begin(), name.end(), ' ', '-');
  return name;
}

bool names_files(const std::string& value) {
  return value == "FILE" || value == "DIR" || value == "PATH" || value == "FOLDER";
}

bool names_slices(const std::string& value) {
  return value == "NAME" || value == "SLICE" || value == "NAME|PID";
}

}  // namespace allot::cli::manual
