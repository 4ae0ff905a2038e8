// The text of --help in the sections of a manual page. The help's footer is taken apart:
// paragraphs become the description, "Exit status:" and "Examples:" sections of their own.
#include "cli/manual/man_page.h"

#include <algorithm>
#include <cctype>
#include <sstream>

namespace allot::cli::manual {
namespace {

using Lines = std::vector<std::string>;

// Text as roff: a line may not begin with a control character, a minus is to be copied.
std::string roff(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool at_start = out.empty() || out.back() == '\n';
    if (at_start && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if (c == '~') {
      out += "\\(ti";
    } else if (c == '^') {
      out += "\\(ha";
    } else if (c == '`') {
      out += "\\(ga";
    } else if (c == '\'') {
      out += "\\(aq";
    } else {
      out += c;
    }
  }
  return out;
}

// Commands and flags inside a sentence are bold: 'allot ps' and --gpu-mem. One sentence a line, as
// roff wants it, so that it sets the space behind a full stop.
std::string prose(const std::string& text) {
  std::string out;
  size_t i = 0;
  while (i < text.size()) {
    const bool at_word = i == 0 || text[i - 1] == ' ' || text[i - 1] == '(';
    if (at_word && text.compare(i, 7, "'allot ") == 0) {
      const size_t end = text.find('\'', i + 1);
      if (end != std::string::npos) {
        out += "\\fB" + roff(text.substr(i + 1, end - i - 1)) + "\\fR";
        i = end + 1;
        continue;
      }
    }
    if (at_word && text.compare(i, 2, "--") == 0) {
      size_t end = i + 2;
      while (end < text.size() && (std::isalnum(text[end]) != 0 || text[end] == '-')) ++end;
      out += "\\fB" + roff(text.substr(i, end - i)) + "\\fR";
      i = end;
      continue;
    }
    if (text.compare(i, 2, ". ") == 0 && i + 2 < text.size() && std::isupper(text[i + 2]) != 0) {
      out += ".\n";
      i += 2;
      continue;
    }
    const std::string piece = roff(text.substr(i, 1));
    const bool starts_line = out.empty() || out.back() == '\n';
    out += !starts_line && piece.starts_with("\\&") ? piece.substr(2) : piece;
    ++i;
  }
  return out;
}

std::string sentence(std::string text) {
  if (text.empty()) return text;
  const size_t word = text.find(' ');
  if (text.substr(0, word) != "allot")
    text[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(text[0])));
  if (text.back() != '.') text += '.';
  return text;
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return text;
}

// The footer of --help, taken apart.
struct Footer {
  Lines paragraphs, examples;
  std::string exit_status;
  std::vector<std::pair<std::string, Lines>> lists;  // "Loads:" and the lines below it
};

Footer take_apart(const std::string& text) {
  Footer footer;
  std::istringstream lines(text);
  std::string paragraph;
  Lines* list = nullptr;
  const auto flush = [&] {
    constexpr const char* kStatus = "Exit status: ";
    const size_t at = paragraph.find(kStatus);
    if (at != std::string::npos) {
      footer.exit_status = paragraph.substr(at + std::string(kStatus).size());
      paragraph.resize(at);
      while (paragraph.ends_with(' ')) paragraph.pop_back();
    }
    if (!paragraph.empty()) footer.paragraphs.push_back(paragraph);
    paragraph.clear();
  };
  for (std::string line; std::getline(lines, line);) {
    const bool title = line.ends_with(":") && line.find(' ') == std::string::npos;
    if (title) {
      flush();
      if (line == "Example:" || line == "Examples:") {
        list = &footer.examples;
      } else {
        list = &footer.lists.emplace_back(line.substr(0, line.size() - 1), Lines()).second;
      }
    } else if (line.empty()) {
      flush();
    } else if (line[0] == ' ') {
      flush();
      if (list == nullptr) list = &footer.lists.emplace_back("Notes", Lines()).second;
      list->push_back(line.substr(std::min<size_t>(2, line.find_first_not_of(' '))));
    } else {
      list = nullptr;
      paragraph += (paragraph.empty() ? "" : " ") + line;
    }
  }
  flush();
  return footer;
}

std::string section(const std::string& title) {
  return ".SH " + title + "\n";
}

// "8G, none" are typed as they are, "SIZE" stands for something.
std::string value_text(const std::string& value) {
  std::string out;
  std::istringstream words(value);
  for (std::string word; std::getline(words, word, '|');) {
    const bool placeholder =
        std::any_of(word.begin(), word.end(), [](unsigned char c) { return std::isupper(c) != 0; });
    out +=
        (out.empty() ? "" : "|") + std::string(placeholder ? "\\fI" : "\\fB") + roff(word) + "\\fR";
  }
  return out;
}

std::string flag_entry(const Flag& flag) {
  std::string head;
  for (const std::string& name : flag.names)
    head += (head.empty() ? "" : ", ") + ("\\fB" + roff(name) + "\\fR");
  if (flag.value_optional) {
    head += "[=" + value_text(flag.value) + "]";
  } else if (!flag.value.empty()) {
    head += " " + value_text(flag.value);
  }
  return ".TP\n" + head + "\n" + prose(sentence(flag.meaning)) + "\n";
}

std::string options(const Command& command) {
  std::vector<std::string> groups;
  for (const Flag& flag : command.flags) {
    if (std::find(groups.begin(), groups.end(), flag.group) == groups.end())
      groups.push_back(flag.group);
  }
  std::stable_partition(groups.begin(), groups.end(),
                        [](const std::string& group) { return group != "Options"; });
  std::string out = section("OPTIONS");
  for (const std::string& group : groups) {
    if (groups.size() > 1) out += ".SS " + roff(group == "Options" ? "Other flags" : group) + "\n";
    for (const Flag& flag : command.flags) {
      if (flag.group == group) out += flag_entry(flag);
    }
  }
  return out;
}

std::string synopsis(const Command& command) {
  std::string out = section("SYNOPSIS") + "\\fB" + roff(command.path) + "\\fR";
  if (!command.commands.empty()) out += " \\fICOMMAND\\fR";
  for (const Argument& argument : command.arguments) {
    const std::string name =
        "\\fI" + roff(argument.name) + "\\fR" + (argument.repeats ? " ..." : "");
    out += argument.required ? " " + name : " [" + name + "]";
  }
  out += " [\\fIFLAGS\\fR]";
  if (command.takes_program) out += " \\fB\\-\\-\\fR \\fIPROGRAM\\fR [\\fIARGUMENTS\\fR]";
  return out + "\n";
}

std::string verbatim(const Lines& lines) {
  std::string out = ".nf\n.RS 4\n";
  for (const std::string& line : lines) out += roff(line) + "\n";
  return out + ".RE\n.fi\n";
}

std::string reference(const std::string& page) {
  return "\\fB" + roff(page) + "\\fR(1)";
}

std::string commands(const Command& command) {
  std::string out = section("COMMANDS");
  for (const Command& sub : command.commands)
    out += ".TP\n" + reference(page_name(sub)) + "\n" + prose(sentence(sub.meaning)) + "\n";
  return out;
}

std::string see_also(const Command& command, const Command& top) {
  Lines pages;
  for (const Command* other : all_of(top)) {
    const bool parent = command.path.starts_with(other->path + " ");
    const bool near = other->path.substr(0, other->path.rfind(' ')) ==
                      command.path.substr(0, command.path.rfind(' '));
    const bool child = other->path == command.path + " " + other->name;
    if (other != &command && (parent || near || child)) pages.push_back(page_name(*other));
  }
  std::sort(pages.begin(), pages.end());
  std::string out = section("SEE ALSO");
  for (size_t i = 0; i < pages.size(); ++i)
    out += reference(pages[i]) + (i + 1 < pages.size() ? ",\n" : "\n");
  return out +
         ".PP\nPages that the text names as docs/ are usually in\n.IR /usr/share/doc/allot/docs/ "
         ".\n";
}

}  // namespace

std::string man_page(const Command& command, const Command& top, const std::string& version,
                     const std::string& date) {
  const Footer footer = take_apart(command.footer);
  const std::string name = page_name(command);
  const bool is_top = &command == &top;
  std::string out = ".\\\" Written from the table that prints --help; do not edit.\n.TH " +
                    roff(upper(name)) + " 1 \"" + date + "\" \"" + version +
                    "\" \"User Commands\"\n.ad l\n.nh\n";
  out += section("NAME") + roff(name) + " \\- " +
         roff(is_top ? "share one GPU server between programs" : command.meaning) + "\n";
  out += synopsis(command) + section("DESCRIPTION") + prose(sentence(command.meaning)) + "\n";
  for (const std::string& paragraph : footer.paragraphs) out += ".PP\n" + prose(paragraph) + "\n";
  if (!command.commands.empty()) out += commands(command);
  if (!command.arguments.empty()) {
    out += section("ARGUMENTS");
    for (const Argument& argument : command.arguments)
      out += ".TP\n" + value_text(argument.name) + "\n" + prose(sentence(argument.meaning)) + "\n";
  }
  out += options(command);
  for (const auto& [title, lines] : footer.lists)
    out += section(roff(upper(title))) + verbatim(lines);
  std::string status = footer.exit_status;
  if (status.empty()) {  // what all commands have in common; behind the semicolon it is about 'run'
    status = take_apart(top.footer).exit_status;
    status.resize(std::min(status.size(), status.find(';')));
  }
  if (!status.empty()) out += section("EXIT STATUS") + prose(sentence(status)) + "\n";
  if (!footer.examples.empty()) out += section("EXAMPLES") + verbatim(footer.examples);
  return out + see_also(command, top);
}

}  // namespace allot::cli::manual
