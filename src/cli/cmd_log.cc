// allot log: what was done to the slices of this machine, as its journal has it (log/deeds.h).
//
// journalctl finds and follows the entries, and knows who may read what; here they get their form.
// Who did it is journald's word (_UID), not the entry's.
#include <fcntl.h>
#include <pwd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "abi/env.h"
#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/output.h"
#include "cli/region/region_view.h"
#include "cli/slice_spec.h"
#include "cli/usage.h"

namespace allot::cli {
namespace {

using nlohmann::json;

struct LogOptions {
  std::string name, since, until, user;
  std::string lines = "100";
  bool follow = false, as_json = false, wide = false;
};

std::string field(const json& entry, const char* name) {
  const auto found = entry.find(name);
  return found != entry.end() && found->is_string() ? found->get<std::string>() : "";
}

std::string user_of(const json& entry) {
  const std::string uid = field(entry, "_UID");
  if (uid.empty()) return "?";
  const unsigned long number = std::strtoul(uid.c_str(), nullptr, 10);
  return owner_text(static_cast<uint32_t>(number));
}

uint64_t microseconds_of(const json& entry) {
  return std::strtoull(field(entry, "__REALTIME_TIMESTAMP").c_str(), nullptr, 10);
}

std::string time_text(uint64_t us) {
  const auto seconds = static_cast<time_t>(us / 1000000);
  struct tm local = {};
  char text[32] = "";
  if (localtime_r(&seconds, &local) != nullptr)
    std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local);
  return text;
}

json entry_json(const json& entry) {
  json out = {{"time_unix_us", microseconds_of(entry)},
              {"slice", field(entry, "ALLOT_SLICE")},
              {"deed", field(entry, "ALLOT_DEED")},
              {"result", field(entry, "ALLOT_RESULT")},
              {"text", field(entry, "ALLOT_TEXT")},
              {"user", user_of(entry)},
              {"pid", std::strtoul(field(entry, "_PID").c_str(), nullptr, 10)},
              {"fields", json::object()}};
  for (const auto& [name, value] : entry.items()) {
    if (name.starts_with("ALLOT_")) out["fields"][name] = value;
  }
  return out;
}

void show(const json& entry, const LogOptions& options, size_t width) {
  if (options.as_json) {
    print(entry_json(entry).dump(-1, ' ', false, json::error_handler_t::replace) + "\n");
  } else {
    const std::string result = field(entry, "ALLOT_RESULT");
    const std::string line = fmt::format(
        "{}  {}  {}  {}{}  {}", time_text(microseconds_of(entry)), harmless(user_of(entry)),
        harmless(field(entry, "ALLOT_SLICE")), harmless(field(entry, "ALLOT_DEED")),
        result == "done" ? "" : " " + harmless(result), harmless(field(entry, "ALLOT_TEXT")));
    print(wrapped(line, width, 21) + "\n");
  }
  std::fflush(stdout);
}

std::vector<std::string> journalctl_words(const LogOptions& options) {
  std::vector<std::string> words = {"journalctl", "--quiet", "--no-pager", "--output=json",
                                    "--identifier=allot"};
  if (options.follow) words.push_back("--follow");
  if (options.lines != "all") words.push_back("--lines=" + options.lines);
  if (!options.since.empty()) words.push_back("--since=" + options.since);
  if (!options.until.empty()) words.push_back("--until=" + options.until);
  if (!options.name.empty()) words.push_back("ALLOT_SLICE=" + options.name);
  if (!options.user.empty()) words.push_back("_UID=" + options.user);
  return words;
}

bool in_path(const char* program) {
  const char* path = std::getenv("PATH");
  std::string rest = path != nullptr ? path : "/usr/bin:/bin";
  for (size_t begin = 0; begin <= rest.size();) {
    const size_t end = std::min(rest.find(':', begin), rest.size());
    const std::string file = rest.substr(begin, end - begin) + "/" + program;
    if (access(file.c_str(), X_OK) == 0) return true;
    begin = end + 1;
  }
  return false;
}

bool journald_runs() {
  const char* chosen = std::getenv(ALLOT_ENV_JOURNAL);
  return access("/run/systemd/journal/socket", F_OK) == 0 || (chosen != nullptr && *chosen == '/');
}

[[noreturn]] void no_journal() {
  refuse(
      "log: this machine has no journal (systemd-journald); allot writes to syslog there: look for "
      "'allot' in its files, such as: grep allot /var/log/syslog /var/log/messages");
}

uint32_t uid_named(const std::string& user) {
  if (const struct passwd* entry = getpwnam(user.c_str()); entry != nullptr) return entry->pw_uid;
  char* end = nullptr;
  const unsigned long uid = std::strtoul(user.c_str(), &end, 10);
  if (user.empty() || *end != '\0')
    wrong_usage("--user: there is no user '{}'; write a name or a number", shown(user));
  return static_cast<uint32_t>(uid);
}

// A pipe from journalctl, read line by line while it runs.
void show_all(const LogOptions& options) {
  std::vector<std::string> words = journalctl_words(options);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0)
    refuse("pipe: {}; allow this shell more open files (ulimit -n)", describe_errno(errno));
  const pid_t child = fork();
  if (child < 0) refuse("fork: {}; try again", describe_errno(errno));
  if (child == 0) {
    dup2(ends[1], STDOUT_FILENO);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  close(ends[1]);
  const std::unique_ptr<FILE, int (*)(FILE*)> in(fdopen(ends[0], "r"), fclose);
  const size_t width = options.wide || options.follow ? Table::kNoLimit : screen_width();
  size_t shown_entries = 0;
  char* line = nullptr;
  size_t room = 0;
  while (in != nullptr && getline(&line, &room, in.get()) > 0) {
    const json entry = json::parse(line, nullptr, false);
    if (!entry.is_object() || field(entry, "ALLOT_DEED").empty()) continue;
    show(entry, options, width);
    ++shown_entries;
  }
  std::free(line);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    refuse("log: journalctl ended with status {}; try it yourself: journalctl -t allot",
           WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
  if (shown_entries == 0 && !journald_runs()) no_journal();
  if (shown_entries == 0 && !options.as_json)
    note(options.name.empty()
             ? "log: the journal has no entries of allot that you may read"
             : fmt::format("log: no entries of '{}' that you may read", options.name));
}

void log(LogOptions options) {
  if (!options.name.empty()) check_name("log", options.name);
  if (!options.user.empty()) options.user = std::to_string(uid_named(options.user));
  const bool number = !options.lines.empty() && options.lines.size() < 10 &&
                      options.lines.find_first_not_of("0123456789") == std::string::npos;
  if (!number && options.lines != "all")
    wrong_usage("--lines: '{}' is not a number of entries; write such as 20, or all",
                shown(options.lines));
  if (!in_path("journalctl")) no_journal();
  show_all(options);
}

}  // namespace

void add_log(CLI::App& app, int* exit_status) {
  CLI::App* sub = app.add_subcommand("log", "show who did what to the slices, from the journal");
  const auto options = std::make_shared<LogOptions>();
  sub->add_option("name", options->name, "only this slice; also one that has ended")
      ->type_name("NAME");
  sub->add_option("--lines", options->lines, "the last so many entries, or all (default: 100)")
      ->type_name("N|all");
  sub->add_option("--since", options->since, "from this time on, as journalctl takes it")
      ->type_name("TIME");
  sub->add_option("--until", options->until, "up to this time")->type_name("TIME");
  sub->add_option("--user", options->user, "only what this user did")->type_name("USER");
  sub->add_flag("--follow", options->follow, "wait for new entries and show them too");
  sub->add_flag("--wide", options->wide, "do not break lines to fit the terminal");
  sub->add_flag("--json", options->as_json, "one JSON object per line; fields in docs/commands.md");
  sub->footer(
      "Entries are written by 'allot run' (start, end, refused memory), set, freeze, thaw, evict,\n"
      "restore and stop, also when they refuse. Others' entries show to root and to members of\n"
      "the groups adm and systemd-journal. Without journald they go to syslog.\n"
      "\n"
      "Examples:\n"
      "  allot log\n"
      "  allot log alice --since yesterday\n"
      "  allot log --follow\n"
      "  journalctl -t allot ALLOT_DEED=freeze");
  sub->callback([options, exit_status] {
    log(*options);
    *exit_status = kExitOk;
  });
}

}  // namespace allot::cli
