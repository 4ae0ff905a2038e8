// One function for each command; _arguments does the rest.
#include "cli/manual/completion.h"

#include <algorithm>

namespace allot::cli::manual {
namespace {

// Inside single quotes, and where ':' and brackets mean something to _arguments.
std::string in_quotes(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else {
      if (c == ':' || c == '[' || c == ']' || c == '\\') out += '\\';
      out += c;
    }
  }
  return out;
}

std::string function_name(const Command& command) {
  std::string name = "_" + page_name(command);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

std::string values_of(const Flag& flag) {
  if (names_files(flag.value)) return "_files";
  if (flag.choices.empty()) return " ";
  std::string words;
  for (const std::string& word : flag.choices) words += (words.empty() ? "" : " ") + word;
  return "(" + words + ")";
}

std::string flag_lines(const Flag& flag) {
  std::string out;
  std::string all;
  for (const std::string& name : flag.names) all += (all.empty() ? "" : " ") + name;
  for (const std::string& name : flag.names) {
    out += "    '" + (flag.repeats ? "*" : "(" + all + ")") + name;
    if (!flag.value.empty()) out += name.starts_with("--") ? flag.value_optional ? "=-" : "=" : "+";
    out += "[" + in_quotes(flag.meaning) + "]";
    if (!flag.value.empty())
      out += std::string(flag.value_optional ? "::" : ":") + in_quotes(flag.value) + ":" +
             values_of(flag);
    out += "' \\\n";
  }
  return out;
}

std::string argument_lines(const Command& command) {
  std::string out;
  int place = 0;
  for (const Argument& argument : command.arguments) {
    ++place;
    out += "    '" + (argument.repeats ? "*" : std::to_string(place)) + ":" +
           in_quotes(argument.name) + ":" +
           (names_slices(argument.name)  ? "_allot_slices"
            : names_files(argument.name) ? "_files"
                                         : " ") +
           "' \\\n";
  }
  if (command.takes_program) out += "    '*::program:_normal' \\\n";
  return out;
}

std::string group_of_commands(const Command& command) {
  std::string out =
      "  local context state state_descr line\n  typeset -A opt_args\n  _arguments -C \\\n";
  for (const Flag& flag : command.flags) out += flag_lines(flag);
  out +=
      "    '1:command:->command' \\\n    '*::argument:->argument'\n  case $state in\n    command)\n"
      "      local -a commands=(\n";
  for (const Command& sub : command.commands)
    out += "        '" + in_quotes(sub.name) + ":" + in_quotes(sub.meaning) + "'\n";
  out += "      )\n      _describe command commands ;;\n    argument)\n      case $words[1] in\n";
  for (const Command& sub : command.commands)
    out += "        " + sub.name + ") " + function_name(sub) + " ;;\n";
  return out + "      esac ;;\n  esac\n";
}

}  // namespace

std::string zsh_completion(const Command& top) {
  std::string out =
      "#compdef allot\n# zsh completion of allot; written from the table that prints --help.\n";
  out += "_allot_slices() {\n  local -a slices\n  slices=(${(f)\"$(" + std::string(kListSlices) +
         ")\"})\n  compadd -a slices\n}\n";
  for (const Command* command : all_of(top)) {
    out += function_name(*command) + "() {\n";
    if (!command->commands.empty()) {
      out += group_of_commands(*command);
    } else {
      out += std::string("  _arguments -S \\\n");
      for (const Flag& flag : command->flags) out += flag_lines(flag);
      out += argument_lines(*command);
      out.resize(out.size() - 3);
      out += "\n";
    }
    out += "}\n";
  }
  return out + "_allot \"$@\"\n";
}

}  // namespace allot::cli::manual
