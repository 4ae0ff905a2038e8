// The command line: the subcommands, where the program's own words begin, and how an error ends.
//
// Every error is one line on standard error that begins with "allot:", whether CLI11 or we found
// it.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string_view>

#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/manual/cmd_generate.h"
#include "cli/output.h"
#include "cli/region/region_view.h"
#include "cli/screen.h"
#include "cli/slice_spec.h"
#include "cli/usage.h"
#ifdef ALLOT_HAVE_BENCH
#include "bench/commands.h"
#endif
#ifdef ALLOT_HAVE_CPUS
#include "cli/cpus/cmd_cpus.h"
#endif

namespace allot::cli {
namespace {

constexpr const char* kDescription =
    "allot shares one GPU server: it gives each program a slice of the GPUs and CPUs and enforces "
    "its limits.";
constexpr const char* kFooter =
    "Examples:\n"
    "  allot run --gpu-mem 8G -- python train.py  a slice of 8 GiB on every GPU\n"
    "  allot ps                                   list the slices and what each uses\n"
    "  allot set alice --gpu-mem 4G               change a slice while it runs\n"
    "  allot run --gpu-share 30% -- ./serve       a share of GPU time\n"
    "  allot run --cpus 4 -- make                 four CPUs, whole cores\n"
    "  allot doctor                               what works on this machine\n"
    "  allot demo                                 two programs on one software GPU\n"
    "\n"
    "More about one command: 'allot COMMAND --help'. All flags: docs/commands.md. Sizes are "
    "binary: "
    "8G is 8 GiB. Exit status: 0 success, 1 problems found, 2 wrong usage, 125 refused; 'run' "
    "exits "
    "with its program's own status.";

// One line, whatever was typed.
void complain(const std::string& line) {
  const bool colour = shows_colour(STDERR_FILENO);
  fmt::print(stderr, "{}allot:{} {}\n", colour ? "\x1b[1;31m" : "", colour ? "\x1b[0m" : "",
             harmless(line));
}

// CLI11's messages end with a full stop, a line break, or neither.
std::string tidy(std::string text) {
  const size_t end = text.find_last_not_of(" \n.");
  text.resize(end == std::string::npos ? 0 : end + 1);
  return text;
}

const CLI::App& deepest(const CLI::App& app) {
  const CLI::App* current = &app;
  while (!current->get_subcommands().empty()) current = current->get_subcommands().front();
  return *current;
}

void set_up(CLI::App& app, const std::vector<std::string>& program, int* exit_status) {
  app.name("allot");
  app.require_subcommand(1);
  app.set_help_flag("-h,--help", "show this help");
  app.set_version_flag("--version", version_text())->description("print the version");
  add_run(app, program, exit_status);
  add_ps(app, exit_status);
  add_gpus(app, exit_status);
  add_set(app, exit_status);
  add_freeze(app, exit_status);
  add_stop(app, exit_status);
  add_evict(app, exit_status);
  add_log(app, exit_status);
  add_doctor(app, exit_status);
  add_demo(app, exit_status);
  add_version(app, exit_status);
#ifdef ALLOT_HAVE_CPUS
  add_cpus_command(app, exit_status);
#endif
#ifdef ALLOT_HAVE_BENCH
  CLI::App* bench =
      app.add_subcommand("bench", "measure a GPU or a slice: alloc, hooks, load, latency, share");
  bench->require_subcommand(1);
  allot::bench::add_commands(*bench, exit_status);
  bench->footer(
      "Examples:\n"
      "  allot bench load --sim --seconds 2\n"
      "  allot run --gpu-mem 4G -- allot bench alloc\n"
      "  allot bench share --sim --slice full:30 --slice full:70");
#endif
  add_generate(app, exit_status);
  app.footer(kFooter);  // last: a command that is added gets its parent's
}

// A closed standard descriptor would be given to the next file that is opened, and output would go
// there. What takes its place refuses to be written, as a closed one does; programs that are
// started do not get it.
void occupy_closed_outputs() {
  for (;;) {
    const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null > STDERR_FILENO) close(null);
    if (null < 0 || null > STDERR_FILENO) return;
  }
}

int parse_and_run(int argc, const char* const* argv) {
  int exit_status = kExitOk;
  std::vector<std::string> program;
  CLI::App app(kDescription);
  set_up(app, program, &exit_status);

  std::vector<std::string> words(argv + 1, argv + argc);
  if (words.empty()) {
    fmt::print(stderr, "{}", help_of(app));
    return kExitUsage;
  }
  if (words[0] == "help") {
    words.erase(words.begin());
    std::erase_if(words, [](const std::string& word) { return word.starts_with("-"); });
    print(help_of(command_named(app, words)));
    return kExitOk;
  }
  if (words[0] == "run") {
    std::vector<std::string> flags;
    split_program(*app.get_subcommand("run"), {words.begin() + 1, words.end()}, &flags, &program);
    words.resize(1);
    words.insert(words.end(), flags.begin(), flags.end());
  }
  check_words(app, words);
  // CPU slices ask for their folder elsewhere, and do not look at the variable.
  if (words[0] == "cpus" && std::find(words.begin(), words.end(), "--help") == words.end())
    region_folder(false);
  for (std::string& word : words) {
    if (word == "--sim") word = "--sim=default";
    if (word.starts_with("--sim=")) check_sim_spec("--sim", word.substr(6));
  }
  try {
    app.parse(
        std::vector<std::string>(words.rbegin(), words.rend()));  // CLI11 wants the last word first
  } catch (const CLI::CallForVersion& call) {
    print(std::string(call.what()) + "\n");
  } catch (const CLI::CallForHelp&) {
    print(help_of(deepest(app)));
  } catch (const CLI::ConversionError& error) {
    // "Could not convert: --for = x"
    const std::string text = tidy(error.what());
    const size_t colon = text.find(": ");
    const size_t equals = text.find(" = ");
    const CLI::App& where = deepest(app);
    if (colon == std::string::npos || equals == std::string::npos) wrong_usage("{}", text);
    wrong_usage("{}: {}: '{}' is not a number; see '{} --help'", path_of(where).substr(6),
                text.substr(colon + 2, equals - colon - 2), shown(text.substr(equals + 3)),
                path_of(where));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return kExitOk;
    const CLI::App& where = deepest(app);
    const std::string name = where.get_parent() == nullptr ? "" : path_of(where).substr(6) + ": ";
    wrong_usage("{}{}; see '{} --help'", name, tidy(error.what()), path_of(where));
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
    if (!word.starts_with("-") || word == "-") {
      // "--sim 2x80G": a specification takes an equals sign, and is hardly the name of a program.
      if (i > 0 && words[i - 1] == "--sim" && looks_like_sim_spec(word)) {
        wrong_usage("--sim: write '{}' after an equals sign: --sim={}", word, word);
      }
      break;
    }
    flags->push_back(word);
    const CLI::Option* option = run.get_option_no_throw(word);
    const bool takes_value = option != nullptr && option->get_expected_max() > 0 &&
                             word != "--sim" && word.find('=') == std::string::npos;
    if (takes_value && i + 1 < words.size() && words[i + 1] != "--") flags->push_back(words[++i]);
  }
  program->assign(words.begin() + static_cast<ptrdiff_t>(i), words.end());
}

int run_command(int argc, const char* const* argv) {
  occupy_closed_outputs();
  try {
    return parse_and_run(argc, argv);
  } catch (const BrokenPipe&) {
    return kExitSignalBase + SIGPIPE;  // the reader has seen enough: no complaint
  } catch (const Failure& failure) {
    complain(failure.line());
    return failure.exit_status();
  } catch (const std::exception& error) {
    complain(fmt::format("{}; this is a bug in allot, please report it", error.what()));
    return kExitRefused;
  }
}

}  // namespace allot::cli
