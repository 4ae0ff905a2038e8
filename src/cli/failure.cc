// The words for errors, in one place, so that every command says the same error in the same words.
#include "cli/failure.h"

#include <cctype>
#include <system_error>

namespace allot::cli {

std::string describe_errno(int error_number) {
  if (error_number == 0) return "unknown cause";
  std::string text = std::generic_category().message(error_number);
  // "Permission denied" becomes part of a sentence; "I/O error" and the like keep their capitals.
  if (text.size() > 1 && std::islower(static_cast<unsigned char>(text[1])) != 0) {
    text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  }
  return text;
}

std::string describe(const Error& error) {
  std::string text;
  switch (error.code) {
    case Errc::kBadValue:
      text = "value out of range";
      break;
    case Errc::kNotFound:
      text = "not found";
      break;
    case Errc::kExists:
      text = "in use";
      break;
    case Errc::kNoPermission:
      text = "no permission";
      break;
    case Errc::kWrongVersion:
      text = "made by another version of allot";
      break;
    case Errc::kDamaged:
      text = "damaged: its bytes contradict each other";
      break;
    case Errc::kFull:
      text = "no room left";
      break;
    case Errc::kOverLimit:
      text = "over the limit";
      break;
    case Errc::kUnsupported:
      text = "not supported on this machine";
      break;
    case Errc::kNotAFile:
      return "not a regular file";
    case Errc::kSystem:
      return describe_errno(error.os_errno);
    default:
      text = "unknown error";
      break;
  }
  if (error.os_errno != 0) text += " (" + describe_errno(error.os_errno) + ")";
  return text;
}

}  // namespace allot::cli
