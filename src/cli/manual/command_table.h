// The commands and their flags as --help knows them, in a shape that manual pages and completions
// are written from. What is hidden from --help is not in it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace allot::cli::manual {

struct Flag {
  std::vector<std::string> names;  // "-h", "--help"
  std::string value;               // "SIZE"; empty: it takes none
  std::string meaning, group;
  std::vector<std::string> choices;  // the words among its values, such as "high" and "none"
  bool value_optional = false;       // "--sim[=SPEC]"
  bool repeats = false;
};

struct Argument {
  std::string name, meaning;
  bool required = false, repeats = false;
};

struct Command {
  std::string path;  // "allot cpus plan"
  std::string name;  // "plan"
  std::string meaning, footer;
  std::vector<Flag> flags;
  std::vector<Argument> arguments;
  std::vector<Command> commands;
  bool takes_program = false;  // a command line of somebody else follows
};

Command read_table(const CLI::App& app);

// The command itself, then all below it, parents first.
std::vector<const Command*> all_of(const Command& top);

// "allot-cpus-plan": the name of a page.
std::string page_name(const Command& command);

// Whether its values are names of files or folders, and whether they are names of slices.
bool names_files(const std::string& value);
bool names_slices(const std::string& value);

}  // namespace allot::cli::manual
