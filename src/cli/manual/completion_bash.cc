// One function that walks over the words before the cursor and then knows three things: in which
// command it is, what the word before it wants, and whether the words are a program's own.
#include "cli/manual/completion.h"

namespace allot::cli::manual {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

std::string all_flags(const Command& command) {
  std::vector<std::string> names;
  for (const Flag& flag : command.flags)
    names.insert(names.end(), flag.names.begin(), flag.names.end());
  return joined(names);
}

// The patterns of a case: "allot run:--gpu" for each name of a flag.
std::string patterns(const Command& command, const Flag& flag) {
  std::string out;
  for (const std::string& name : flag.names)
    out += (out.empty() ? "\"" : " | \"") + command.path + ":" + name + "\"";
  return out;
}

std::string values_of(const Flag& flag) {
  if (!flag.choices.empty())
    return "mapfile -t COMPREPLY < <(compgen -W '" + joined(flag.choices) + "' -- \"$cur\")";
  if (names_files(flag.value))
    return "compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")";
  return "";
}

constexpr const char* kWalk = R"(    local i word path=allot program=0 wants=
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        # "--name=value" comes as three words.
        if [[ $word == "=" || ${COMP_WORDS[i + 1]} == "=" ]]; then continue; fi
        if [[ ${COMP_WORDS[i - 1]} == "=" ]]; then continue; fi
        wants=
        if [[ $word == -- ]]; then program=$((i + 1)); break; fi
        case "$path:$word" in
)";

constexpr const char* kAfterWalk = R"(        esac
        if [[ -n $wants ]]; then ((i++)); continue; fi
        case "$path $word" in
)";

constexpr const char* kReply = R"(        esac
        if [[ $path == "allot run" && $word != -* && $word != run ]]; then program=$i; break; fi
    done
    local cur=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    if ((program > 0)); then
        if [[ $path == "allot run" ]] && declare -F _command_offset >/dev/null; then
            _command_offset "$program"
        elif [[ $path == "allot run" ]]; then
            mapfile -t COMPREPLY < <(compgen -c -- "$cur")
        fi
        return
    fi
    if [[ $cur == "=" ]]; then cur=; elif [[ $flag == "=" ]]; then flag=${COMP_WORDS[COMP_CWORD - 2]}; fi
    case "$path:$flag" in
)";

}  // namespace

std::string bash_completion(const Command& top) {
  const std::vector<const Command*> list = all_of(top);
  std::string out =
      "# bash completion of allot; written from the table that prints --help.\n_allot() {\n";
  out += kWalk;
  for (const Command* command : list) {
    for (const Flag& flag : command->flags) {
      if (!flag.value.empty() && !flag.value_optional)
        out += "            " + patterns(*command, flag) + ") wants=1 ;;\n";
    }
  }
  out += kAfterWalk;
  for (const Command* command : list) {
    if (command != &top)
      out += "            \"" + command->path + "\") path=\"" + command->path + "\" ;;\n";
  }
  out += kReply;
  for (const Command* command : list) {
    for (const Flag& flag : command->flags) {
      if (flag.value.empty() || flag.value_optional) continue;
      const std::string values = values_of(flag);
      out += "        " + patterns(*command, flag) + ") " + values + (values.empty() ? "" : "; ") +
             "return ;;\n";
    }
  }
  out += "    esac\n    local words=\n    case \"$path\" in\n";
  for (const Command* command : list) {
    std::string words;
    for (const Command& sub : command->commands) words += sub.name + " ";
    bool slices = false;
    for (const Argument& argument : command->arguments)
      slices = slices || names_slices(argument.name);
    out += "        \"" + command->path + "\")\n            if [[ $cur == -* ]]; then words='" +
           all_flags(*command) + "'\n            else words=" +
           (slices ? "$(" + std::string(kListSlices) + ")" : "'" + words + "'") + "; fi ;;\n";
  }
  out += "    esac\n    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n";
  return out +
         "    # Nothing of ours fits: names of files, as for any other word.\n"
         "    if ((${#COMPREPLY[@]} == 0)) && [[ $cur != -* ]]; then compopt -o default "
         "2>/dev/null; fi\n"
         "}\ncomplete -F _allot allot\n";
}

}  // namespace allot::cli::manual
