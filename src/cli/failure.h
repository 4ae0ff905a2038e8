// How a command ends early: a Failure (base/failure.h), the exit statuses, and the words for
// errors.
//
// A command throws it where it finds the error; main prints "allot: <line>" to standard error and
// exits with the status. Every line says what was wrong, what was found and what to do. Code that
// has made something before it throws (a region file, a folder) must hold it in an object that
// removes it.
#pragma once

#include <fmt/format.h>

#include <string>

#include "base/failure.h"
#include "base/result.h"

namespace allot::cli {

using allot::Failure;

// Exit statuses, the same as env(1) and timeout(1) where those have one. Documented in
// docs/commands.md; scripts depend on them.
inline constexpr int kExitOk = 0;
inline constexpr int kExitProblems = 1;    // doctor and demo: something is not as it should be
inline constexpr int kExitUsage = 2;       // the command line makes no sense
inline constexpr int kExitRefused = 125;   // allot could not do it on this machine, now
inline constexpr int kExitTimedOut = 124;  // as timeout(1)
inline constexpr int kExitNotExecutable = 126;
inline constexpr int kExitNotFound = 127;
inline constexpr int kExitSignalBase = 128;  // plus the signal that killed the program

// A Failure that may go away by itself: the machine has what the user wants, but another slice uses
// it (`run --wait`).
class NotNow : public Failure {
 public:
  explicit NotNow(std::string line) : Failure(kExitRefused, std::move(line)) {}
};

// There is no slice of the name that was typed.
class NoSuchSlice : public Failure {
 public:
  explicit NoSuchSlice(std::string line) : Failure(kExitRefused, std::move(line)) {}
};

// Standard output is a pipe that nobody reads any more. Ends the command without a word.
class BrokenPipe : public std::exception {};

// Throws a Failure about the command line (exit 2): the user can type something else.
template <class... Args>
[[noreturn]] void wrong_usage(fmt::format_string<Args...> text, Args&&... args) {
  throw Failure(kExitUsage, fmt::format(text, std::forward<Args>(args)...));
}

// Throws a Failure about the machine or what runs on it (exit 125).
template <class... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> text, Args&&... args) {
  throw Failure(kExitRefused, fmt::format(text, std::forward<Args>(args)...));
}

// A few words for an error of the lower folders: "no permission", "made by another version of
// allot". Any thread; allocates.
std::string describe(const Error& error);

// strerror in lower case without "Success": "no such file or directory". Any thread; allocates.
std::string describe_errno(int error_number);

}  // namespace allot::cli
