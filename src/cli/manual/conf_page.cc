// See conf_page.h. The names of the keys are those that the parser knows (shm/rules.h).
#include "cli/manual/conf_page.h"

#include <fmt/format.h>

#include "shm/rules.h"

namespace allot::cli::manual {
namespace {

constexpr const char* kMeaning[shm::kRuleKeys] = {
    "Memory limit of a slice on each GPU, where none is asked for. A size such as 8G, or none.",
    "Share of GPU time, where none is asked for. A percentage, or none.",
    "Ceiling of GPU time, where none is asked for. A percentage, or none.",
    "Priority, where none is asked for: high, normal or low.",
    "The most memory that a slice may have on each GPU. Without a limit of its own it gets this "
    "one.",
    "The largest share of a slice.",
    "The highest ceiling of a slice. Without a ceiling of its own it gets this one.",
    "The highest priority of a slice.",
    "How many slices the user may have at once, on all GPUs together. A number, or none."};

std::string minus(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '-' ? "\\-" : std::string(1, c);
  return out;
}

}  // namespace

std::string conf_page(const std::string& version, const std::string& day) {
  std::string page = fmt::format(".TH ALLOT.CONF 5 \"{}\" \"{}\" \"allot\"\n", day, version);
  page +=
      ".SH NAME\nallot.conf \\- defaults and bounds of slices, by user and group\n"
      ".SH SYNOPSIS\n/etc/allot/allot.conf\n.br\n/etc/allot/limits.d/*.conf\n"
      ".SH DESCRIPTION\n"
      "The administrator's rules for slices.\n"
      "allot.conf is read first, then the files of limits.d in the order of their names.\n"
      "They must be root's, and nobody else may write them.\n"
      "A file that cannot be read or understood is an error: no slice is made until it is "
      "corrected.\n"
      ".PP\n"
      "\\fBallot run\\fR and \\fBallot set\\fR refuse what is above a bound, and name the file and "
      "the line.\n"
      "Limits from the environment are cut down to the bound.\n"
      "A program that starts with allot's libraries and asks for nothing gets a slice where a rule "
      "limits it.\n"
      "Slices that run keep what they have.\n"
      "\\fBallot doctor\\fR shows which rules apply to you, and to root all of them.\n"
      ".SH SECTIONS\n"
      ".TP\n\\fB[all]\\fR\nEvery user but root.\n"
      ".TP\n\\fB[group\\fR \\fINAME\\fR\\fB]\\fR\nThe members of a group, by name or number.\n"
      ".TP\n\\fB[user\\fR \\fINAME\\fR\\fB]\\fR\nOne user, by name or number; also root.\n"
      ".PP\n"
      "Each key is looked up by itself: [user] counts before [group], and that before [all].\n"
      "Among equals the last one read counts.\n"
      "Inside a program names are looked up in /etc/passwd and /etc/group alone.\n"
      "Write numbers for users and groups of a directory service.\n"
      ".SH KEYS\n";
  for (uint32_t key = 0; key < shm::kRuleKeys; ++key)
    page += fmt::format(".TP\n\\fB{}\\fR\n{}\n", minus(shm::rule_name(key)), kMeaning[key]);
  page +=
      ".PP\nA # begins a comment.\n"
      ".SH EXAMPLES\n.nf\n"
      "[all]\nmost\\-gpu\\-mem = 40G\nmost\\-priority = normal\n\n"
      "[group students]\ngpu\\-mem = 8G\nmost\\-gpu\\-share = 20\nmost\\-slices = 2\n\n"
      "[user ann]\nmost\\-gpu\\-mem = none\n.fi\n"
      ".SH FILES\n"
      "/run/allot holds the slices of all users.\n"
      ".SH \"SEE ALSO\"\n\\fBallot\\fR(1), \\fBallot\\-run\\fR(1), \\fBallot\\-set\\fR(1), "
      "\\fBallot\\-doctor\\fR(1)\n";
  return page;
}

}  // namespace allot::cli::manual
