// Result<T>: the value of a call, or why there is none.
//
// Guest code has no exceptions, so every call that can fail returns one of these. The error is a
// code and the errno that came with it; src/cli makes the text that people read.
#pragma once

#include <cstdint>
#include <tl/expected.hpp>

namespace allot {

enum class Errc : uint8_t {
  kBadValue = 1,  // text or number out of its range
  kNotFound,      // no such file, slice, GPU or symbol
  kExists,        // name in use
  kNoPermission,  // EACCES, EPERM, or owned by someone else
  kWrongVersion,  // a region file of another major version
  kDamaged,       // a region file whose bytes contradict each other
  kFull,          // no slot, GPU entry or space left
  kOverLimit,     // the request does not fit into the slice
  kUnsupported,   // this machine or driver cannot do it
  kSystem,        // a system call failed; os_errno says how
  kNotAFile,      // a link, a folder, a pipe or a device where a file or folder must be
};

struct Error {
  Errc code;
  int os_errno = 0;
};

// Never call .value(): test first, then use * or ->.
template <class T>
using Result = tl::expected<T, Error>;

inline tl::unexpected<Error> fail(Errc code, int os_errno = 0) {
  return tl::unexpected<Error>(Error{code, os_errno});
}

}  // namespace allot
