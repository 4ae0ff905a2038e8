// Why something could not be done, with the sentence that a user gets to read.
//
// The rest of the project returns a code and an errno and makes the text where it is shown. Here
// the text is most of the product: "Invalid argument" is what the kernel already says, and the
// culprit (a sibling group, an offline CPU) is known only where the failure happens. So the
// text travels along.
#pragma once

#include <cstring>
#include <string>
#include <utility>

#include "base/result.h"

namespace allot::cpus {

struct Failure {
  Errc code;
  int os_errno = 0;
  std::string text;  // one line, no full stop, names the offender
};

// Test it, then use * or ->; never .value().
template <class T>
using Expected = tl::expected<T, Failure>;

inline tl::unexpected<Failure> failure(Errc code, std::string text, int os_errno = 0) {
  return tl::unexpected<Failure>(Failure{code, os_errno, std::move(text)});
}

}  // namespace allot::cpus
