// Deeds go to the machine's log: who ran, changed, paused, moved or ended a slice, what was
// refused, and what a slice had when it ended.
//
// To journald by its own protocol, with fields (docs/commands.md lists them), where its socket is
// there; else to syslog(3). Only commands write; programs in slices only count (abi/region.h). What
// must not happen here: a command waits for the log, or fails because of it.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "cli/failure.h"

namespace allot::cli {

using Fields = std::vector<std::pair<std::string, std::string>>;

enum class DeedResult { kDone, kRefused, kFailed };

struct Deed {
  std::string what;   // "freeze"
  std::string slice;  // its name
  DeedResult result = DeedResult::kDone;
  std::string message;  // one line: what was done, or why not
  Fields more;          // further fields, named ALLOT_...
};

// Writes one entry, or drops it. Any thread; does not block; no exceptions.
void log_deed(const Deed& deed) noexcept;

// Does `work`, which returns what it did in a line for people; logs that, or the Failure, and
// throws it on. Wrong usage is no deed, nor is a name that is none.
template <class Work>
std::string logged(const std::string& what, const std::string& slice, Work work) {
  try {
    std::string line = work();
    log_deed({what, slice, DeedResult::kDone, line, {}});
    return line;
  } catch (const NoSuchSlice&) {
    throw;
  } catch (const Failure& failure) {
    if (failure.exit_status() != kExitUsage)
      log_deed({what, slice, DeedResult::kRefused, failure.line(), {}});
    throw;
  }
}

// The bytes of an entry in journald's protocol: NAME=VALUE, or with the length where a value has a
// line break.
std::string journal_entry(const Fields& fields);

}  // namespace allot::cli
