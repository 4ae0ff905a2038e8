// allot generate FOLDER: the manual pages and completions of this very command.
#include "cli/manual/cmd_generate.h"

#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>

#include "cli/failure.h"
#include "cli/manual/completion.h"
#include "cli/manual/conf_page.h"
#include "cli/manual/man_page.h"

namespace allot::cli {
namespace {

void write_file(const std::filesystem::path& path, const std::string& text) {
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) refuse("{} cannot be written; choose a folder of yours", path.string());
}

// The day of SOURCE_DATE_EPOCH, so that a build can be repeated; else the day of the sources.
std::string day_of_pages() {
  const char* given = std::getenv("SOURCE_DATE_EPOCH");
  if (given == nullptr || *given == '\0') return ALLOT_MANUAL_DATE;
  const time_t seconds = std::strtoll(given, nullptr, 10);
  tm day = {};
  char text[16];
  if (gmtime_r(&seconds, &day) == nullptr || strftime(text, sizeof text, "%Y-%m-%d", &day) == 0)
    refuse("SOURCE_DATE_EPOCH: '{}' is no time; give seconds since 1970", given);
  return text;
}

}  // namespace

void add_generate(CLI::App& app, int* exit_status) {
  CLI::App* sub =
      app.add_subcommand("generate", "write the manual pages and completions into a folder")
          ->group("");
  const auto folder = std::make_shared<std::string>();
  sub->add_option("folder", *folder, "the folder: man1/, man5/ and completions/ are made in it")
      ->type_name("DIR")
      ->required();
  sub->callback([&app, folder, exit_status] {
    const manual::Command top = manual::read_table(app);
    const std::filesystem::path out = *folder;
    const std::string day = day_of_pages();
    for (const manual::Command* command : manual::all_of(top))
      write_file(out / "man1" / (manual::page_name(*command) + ".1"),
                 manual::man_page(*command, top, "allot " ALLOT_VERSION, day));
    write_file(out / "man5" / "allot.conf.5", manual::conf_page("allot " ALLOT_VERSION, day));
    write_file(out / "completions" / "allot.bash", manual::bash_completion(top));
    write_file(out / "completions" / "_allot", manual::zsh_completion(top));
    write_file(out / "completions" / "allot.fish", manual::fish_completion(top));
    *exit_status = kExitOk;
  });
}

}  // namespace allot::cli
