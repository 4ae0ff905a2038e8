// fish wants one line for each flag, with the condition under which it is offered.
#include "cli/manual/completion.h"

namespace allot::cli::manual {
namespace {

std::string in_quotes(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

std::string flag_line(const Command& command, const Flag& flag) {
  std::string out = "complete -c allot -n '__allot_at " + command.path + "'";
  for (const std::string& name : flag.names)
    out += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
  if (!flag.value.empty() && !flag.value_optional) {
    std::string words;
    for (const std::string& word : flag.choices) words += (words.empty() ? "" : " ") + word;
    out += names_files(flag.value) ? " -r -F" : " -x";
    if (!words.empty()) out += " -a " + in_quotes(words);
  }
  return out + " -d " + in_quotes(flag.meaning) + "\n";
}

}  // namespace

std::string fish_completion(const Command& top) {
  std::string out =
      "# fish completion of allot; written from the table that prints --help.\n"
      "function __allot_path\n"
      "    set -l path allot\n"
      "    for word in (commandline -opc)[2..-1]\n"
      "        switch \"$path $word\"\n";
  for (const Command* command : all_of(top)) {
    if (command != &top)
      out += "            case '" + command->path + "'\n                set path '" +
             command->path + "'\n";
  }
  out +=
      "            case 'allot run --'\n                set path 'allot run --'\n"
      "        end\n    end\n    echo $path\nend\n"
      "function __allot_at\n    test (__allot_path) = \"$argv\"\nend\n"
      "function __allot_slices\n    " +
      std::string(kListSlices) +
      "\nend\n"
      "complete -c allot -f\n"
      "complete -c allot -n '__allot_at allot run --' -x -a '(__fish_complete_subcommand "
      "--fcs-skip=3)'\n";
  for (const Command* command : all_of(top)) {
    for (const Command& sub : command->commands)
      out += "complete -c allot -n '__allot_at " + command->path + "' -a " + sub.name + " -d " +
             in_quotes(sub.meaning) + "\n";
    for (const Argument& argument : command->arguments) {
      if (names_slices(argument.name))
        out += "complete -c allot -n '__allot_at " + command->path + "' -a '(__allot_slices)' -d " +
               in_quotes("slice") + "\n";
    }
    for (const Flag& flag : command->flags) out += flag_line(*command, flag);
  }
  return out;
}

}  // namespace allot::cli::manual
