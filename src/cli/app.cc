// The command line: the subcommands, where the program's own words begin, and how an error ends.
//
// Every error is one line on standard error that begins with "allot:", whether CLI11 or we found
// it.
#include <cstdio>
#include <exception>
#include <string_view>

#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/output.h"
#ifdef ALLOT_HAVE_BENCH
#include "bench/commands.h"
#endif
#ifdef ALLOT_HAVE_CPUS
#include "cli/cpus/cmd_cpus.h"
#endif

#ifndef ALLOT_VERSION
#define ALLOT_VERSION "unknown"
#endif

namespace allot::cli {
namespace {

constexpr const char* kDescription =
    "allot shares one GPU server: it gives a program a slice of the GPUs and CPUs and holds it to "
    "it.";
constexpr const char* kFooter =
    "Examples:\n"
    "  allot run --gpu-mem 8G -- python train.py   a slice of 8 GiB on every GPU\n"
    "  allot ps                                    who has which slice, who uses how much\n"
    "  allot set alice --gpu-mem 4G                change a slice while its program runs\n"
    "  allot run --gpu-share 30% -- ./serve        a share of GPU time; freeze and thaw stop it\n"
    "  allot run --cpus 4 -- make                  four CPUs of the machine's own, whole cores\n"
    "  allot cpus show                             the machine's CPUs and who has which\n"
    "  allot doctor                                what works on this machine, and what does not\n"
    "  allot demo                                  two programs on one software GPU, no card "
    "needed\n"
    "\n"
    "Sizes are binary: 8G is 8 GiB. Exit status: 0 fine, 1 problems found, 2 wrong usage, 125 "
    "refused;\n"
    "'run' ends with its program's own status. All of it: docs/commands.md.";

void complain(const std::string& line) {
  fmt::print(stderr, "allot: {}\n", line);
}

bool has_command(const CLI::App& app, const std::string& name) {
  for (const CLI::App* sub : app.get_subcommands({})) {
    if (sub->get_name() == name) return true;
  }
  return false;
}

std::string names_of(const CLI::App& app) {
  std::string names;
  for (const CLI::App* sub : app.get_subcommands({})) {
    names += (names.empty() ? "" : ", ") + sub->get_name();
  }
  return names;
}

// CLI11's messages end with a full stop, a line break, or neither.
std::string tidy(std::string text) {
  const size_t end = text.find_last_not_of(" \n.");
  text.resize(end == std::string::npos ? 0 : end + 1);
  for (char& c : text) {
    if (c == '\n') c = ' ';
  }
  return text;
}

const CLI::App& deepest(const CLI::App& app) {
  const CLI::App* current = &app;
  while (!current->get_subcommands().empty()) current = current->get_subcommands().front();
  return *current;
}

std::string path_of(const CLI::App& app) {
  return app.get_parent() == nullptr ? app.get_name()
                                     : path_of(*app.get_parent()) + " " + app.get_name();
}

// CLI11 does not name the parent command, and does not know that `run` ends with a program.
std::string help_of(const CLI::App& app) {
  std::string text = app.help();
  if (app.get_parent() != nullptr) {
    const std::string usage_line = "Usage: " + app.get_name();
    const size_t at = text.find(usage_line);
    if (at != std::string::npos) text.replace(at, usage_line.size(), "Usage: " + path_of(app));
  }
  constexpr std::string_view kOptions = "[OPTIONS]";
  const size_t usage = text.find(kOptions);
  if (app.get_name() == "run" && usage != std::string::npos) {
    text.replace(usage, kOptions.size(), "[OPTIONS] -- PROGRAM [ARGUMENTS]");
  }
  return text;
}

void set_up(CLI::App& app, const std::vector<std::string>& program, int* exit_status) {
  app.name("allot");
  app.require_subcommand(1);
  app.set_version_flag("--version", "allot " ALLOT_VERSION);
  app.footer(kFooter);
  add_run(app, program, exit_status);
  add_ps(app, exit_status);
  add_gpus(app, exit_status);
  add_set(app, exit_status);
  add_freeze(app, exit_status);
  add_evict(app, exit_status);
  add_doctor(app, exit_status);
  add_demo(app, exit_status);
#ifdef ALLOT_HAVE_CPUS
  add_cpus_command(app, exit_status);
#endif
#ifdef ALLOT_HAVE_BENCH
  CLI::App* bench =
      app.add_subcommand("bench", "measure a GPU or a slice: alloc, hooks, load, latency, share");
  bench->require_subcommand(1);
  allot::bench::add_commands(*bench, exit_status);
#endif
}

int parse_and_run(int argc, const char* const* argv) {
  int exit_status = kExitOk;
  std::vector<std::string> program;
  CLI::App app(kDescription);
  set_up(app, program, &exit_status);

  std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty()) {
    fmt::print(stderr, "{}", app.help());
    return kExitUsage;
  }
  if (!words[0].starts_with("-") && !has_command(app, words[0])) {
    wrong_usage("'{}' is not a command of allot; the commands are {}", words[0], names_of(app));
  }
  if (words[0] == "run") {
    std::vector<std::string> flags;
    split_program(*app.get_subcommand("run"), {words.begin() + 1, words.end()}, &flags, &program);
    words.resize(1);
    words.insert(words.end(), flags.begin(), flags.end());
  }
  for (std::string& word : words) {
    if (word == "--sim") word = "--sim=default";
  }
  try {
    app.parse(
        std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 wants the last word first
  } catch (const CLI::CallForVersion& call) {
    print(std::string(call.what()) + "\n");
  } catch (const CLI::CallForHelp&) {
    print(help_of(deepest(app)));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return kExitOk;
    const CLI::App& where = deepest(app);
    wrong_usage("{}{}; see '{} --help'",
                where.get_parent() == nullptr ? "" : where.get_name() + ": ", tidy(error.what()),
                path_of(where));
  }
  return exit_status;
}

}  // namespace

void split_program(const CLI::App& run, const std::vector<std::string>& words,
                   std::vector<std::string>* flags, std::vector<std::string>* program) {
  size_t i = 0;
  for (; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--") {
      ++i;
      break;
    }
    if (!word.starts_with("-") || word == "-") break;
    flags->push_back(word);
    const CLI::Option* option = run.get_option_no_throw(word);
    const bool takes_value = option != nullptr && option->get_expected_max() > 0 &&
                             word != "--sim" && word.find('=') == std::string::npos;
    if (takes_value && i + 1 < words.size() && words[i + 1] != "--") flags->push_back(words[++i]);
  }
  program->assign(words.begin() + static_cast<ptrdiff_t>(i), words.end());
}

int run_command(int argc, const char* const* argv) {
  try {
    return parse_and_run(argc, argv);
  } catch (const Failure& failure) {
    complain(failure.line());
    return failure.exit_status();
  } catch (const std::exception& error) {
    complain(fmt::format("{}; this is a fault of allot, please report it", error.what()));
    return kExitRefused;
  }
}

}  // namespace allot::cli
